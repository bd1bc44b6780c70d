//! Seeds and plans that failed once, kept and run for ever; and the simulator's promises about itself.

use quorate_sim::plan::Plan;
use quorate_sim::runner::{Job, run_seeds};
use quorate_sim::shrink::shrink;
use quorate_sim::violation::Promise;
use quorate_sim::{Watch, run};
use std::sync::Arc;

/// A seed or the name of a kept plan a line, then what it had found.
const REGRESSIONS: &str = include_str!("../regressions.txt");

fn plan_of(name: &str) -> Plan {
    if let Ok(seed) = name.parse() {
        return Plan::draw(seed);
    }
    let file = format!("{}/regressions/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn what_failed_once_passes() {
    let lines = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 3, "the list is read: {names:?}");
    for name in names {
        let report = run(&Arc::new(plan_of(name)), Watch::default());
        assert!(report.violations.is_empty(), "{name}: {:?}", report.violations);
    }
}

#[test]
fn a_hundred_seeds_hold_every_promise_and_run_the_same_twice() {
    let summary = run_seeds(
        0..100,
        2,
        Job {
            twice: true,
            failures_max: 1,
            ..Job::default()
        },
    );
    assert!(summary.failed.is_empty(), "{:?}", summary.failed);
}

#[test]
fn a_plan_survives_being_kept_in_a_file() {
    for seed in 0..50 {
        let plan = Plan::draw(seed);
        let json = serde_json::to_string(&plan).expect("plans have string keys only");
        assert_eq!(serde_json::from_str::<Plan>(&json).ok(), Some(plan), "seed {seed}");
    }
}

/// Planted bug 19: the checker itself takes timeouts for failures, and must be seen to cry wolf.
#[test]
fn a_history_that_takes_timeouts_for_failures_is_found_out_and_shrinks() {
    let watch = Watch {
        timeouts_fail: true,
        log: false,
    };
    let job = Job {
        watch,
        failures_max: 1,
        ..Job::default()
    };
    let (seed, violations) = run_seeds(0..100, 1, job)
        .failed
        .into_iter()
        .next()
        .expect("a hundred seeds are enough");
    assert!(violations.iter().any(|v| v.promise == Promise::P12), "{violations:?}");
    let plan = Plan::draw(seed);
    let shrunk = shrink(&plan, Promise::P12, watch, 300);
    assert!(
        shrunk.steps.len() + shrunk.faults.len() < 20,
        "{} steps, {} faults",
        shrunk.steps.len(),
        shrunk.faults.len()
    );
}
