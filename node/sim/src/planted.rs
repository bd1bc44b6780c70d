//! Planted bugs: the proof that the checkers are awake.
//!
//! Each is a fault that real stores have had, compiled into the core (or, once, into the checker) and chosen by number. Each has to be
//! found within its budget of seeds, by one of the promises that it breaks. One that survives fails CI: then a checker sleeps, or
//! the plans never make what it takes.

use crate::runner::{Job, Summary, run_seeds};
use crate::violation::Promise;
use crate::world::Watch;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// Its number.
    pub number: u8,
    /// What is wrong.
    pub text: &'static str,
    /// Promises of which one must be seen broken.
    pub breaks: &'static [Promise],
    /// Seeds within which it must be found.
    pub seeds: u64,
}

const fn bug(number: u8, text: &'static str, breaks: &'static [Promise], seeds: u64) -> Bug {
    Bug {
        number,
        text,
        breaks,
        seeds,
    }
}

/// All of them.
pub const BUGS: &[Bug] = {
    use Promise::{P0, P1, P2, P4, P5, P7, P8, P10, P11, P12};
    &[
        bug(
            1,
            "an actor goes on counting after its record was forgotten",
            &[P0, P1],
            200,
        ),
        bug(2, "a life is kept across an unclean restart", &[P0], 500),
        bug(3, "a local read error is taken as not found", &[P1], 500),
        bug(4, "a write returns the record's context", &[P1, P2], 200),
        bug(5, "merge ignores the context test", &[P2], 50),
        bug(6, "the context test is off by one", &[P1, P2], 50),
        bug(7, "a write is acknowledged when it was sent to W owners", &[P1], 50),
        bug(
            8,
            "a fallback's ack is counted as an owner's in strict mode",
            &[P7],
            200,
        ),
        bug(10, "a hint is deleted when it is sent", &[P10, P1], 100),
        bug(11, "a hint that comes home overwrites the record", &[P1], 100),
        bug(
            12,
            "a tombstone is reaped while something stands against it",
            &[P4],
            500,
        ),
        bug(13, "a strict read repairs in the background", &[P8], 300),
        bug(16, "a Merkle leaf hashes the values without the context", &[P5], 200),
        bug(17, "a write is acknowledged before the sync", &[P1], 100),
        bug(
            18,
            "a duplicated request is applied again under a new dot",
            &[P11, P2, P1],
            100,
        ),
        bug(19, "the checker takes a timeout for a failure", &[P12], 100),
        bug(20, "merge drops siblings beyond a cap", &[P1], 500),
        bug(
            21,
            "a context with counters that were never issued is accepted",
            &[P1, P2],
            50,
        ),
        bug(
            23,
            "a hint is counted as gone before its removal is synced",
            &[P4],
            2000,
        ),
        bug(
            24,
            "a reference that is asked for again is noted when its row is loaded",
            &[P10],
            3000,
        ),
        bug(
            25,
            "ids of writes that were sent again are forgotten like others",
            &[P11, P4],
            500,
        ),
    ]
};

/// Turns on a bug for this thread; 0 turns all off.
#[cfg(feature = "planted")]
pub fn choose(number: u8) {
    quorate_core::planted::choose(number);
}

/// Turns on a bug for this thread: there are none in this build.
#[cfg(not(feature = "planted"))]
pub fn choose(_number: u8) {}

/// How the hunt for one bug ended.
#[derive(Debug)]
pub struct Hunt {
    /// The seed that found it, and how it showed.
    pub found: Option<(u64, String)>,
    /// Seeds that broke some other promise before.
    pub others: Vec<(u64, Promise)>,
    /// How long it took.
    pub seconds: f64,
}

/// How many of a bug's seeds broke each promise: which checkers see it, and how often.
pub fn census(bug: &Bug, start: u64, threads: usize) -> Vec<(Promise, u64)> {
    let job = Job {
        watch: bug.watch(),
        bug: bug.number,
        failures_max: usize::MAX,
        ..Job::default()
    };
    let failed = run_seeds(start..start + bug.seeds, threads, job).failed;
    let mut counts: BTreeMap<Promise, u64> = BTreeMap::new();
    for (_, violations) in failed {
        let promises: BTreeSet<Promise> = violations.iter().map(|v| v.promise).collect();
        promises
            .into_iter()
            .for_each(|promise| *counts.entry(promise).or_default() += 1);
    }
    counts.into_iter().collect()
}

impl Bug {
    fn watch(&self) -> Watch {
        Watch {
            log: false,
            timeouts_fail: self.number == 19,
        }
    }
}

/// Runs seeds from `start` until the bug is found, or its budget is spent.
pub fn hunt(bug: &Bug, start: u64) -> Hunt {
    let began = Instant::now();
    let mut others = Vec::new();
    for seed in start..start + bug.seeds {
        let job = Job {
            watch: bug.watch(),
            bug: bug.number,
            failures_max: 1,
            ..Job::default()
        };
        let Summary { failed, .. } = run_seeds(seed..seed + 1, 1, job);
        let Some((seed, violations)) = failed.into_iter().next() else {
            continue;
        };
        if let Some(v) = violations.iter().find(|v| bug.breaks.contains(&v.promise)) {
            return Hunt {
                found: Some((seed, v.to_string())),
                others,
                seconds: began.elapsed().as_secs_f64(),
            };
        }
        others.extend(violations.first().map(|v| (seed, v.promise)));
    }
    Hunt {
        found: None,
        others,
        seconds: began.elapsed().as_secs_f64(),
    }
}
