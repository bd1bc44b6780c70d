//! Running many seeds, on several threads.

use crate::plan::Plan;
use crate::probes::Probes;
use crate::violation::{Promise, Violation};
use crate::world::{RunReport, Watch, run};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs a plan; a panic is a broken promise too.
pub fn run_caught(plan: &Arc<Plan>, watch: Watch) -> RunReport {
    catch_unwind(AssertUnwindSafe(|| run(plan, watch))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or(panic.downcast_ref::<&str>().copied());
        let violation = Violation {
            promise: Promise::Panic,
            detail: text.unwrap_or("a panic without text").to_string(),
        };
        RunReport {
            violations: vec![violation],
            ..RunReport::default()
        }
    })
}

/// How a run of many seeds ended.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds that kept all promises.
    pub passed: u64,
    /// Seeds that did not, with what they broke, by seed.
    pub failed: Vec<(u64, Vec<Violation>)>,
    /// Which situations they were in.
    pub probes: Probes,
    /// Events of all of them.
    pub events: u64,
}

/// What to do with each seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Job {
    /// How to observe it.
    pub watch: Watch,
    /// Which planted bug is in the core (only in builds that have them).
    pub bug: u8,
    /// Run it twice and compare the traces.
    pub twice: bool,
    /// Stop at this many failures.
    pub failures_max: usize,
}

/// Runs seeds on `threads` threads.
pub fn run_seeds(seeds: Range<u64>, threads: usize, job: Job) -> Summary {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                crate::planted::choose(job.bug);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let report = run_seed(seed, job);
                    let mut summary = summary.lock().expect("no thread panics while it holds the summary");
                    summary.probes.add(&report.probes);
                    summary.events += report.events;
                    if report.violations.is_empty() {
                        summary.passed += 1;
                    } else {
                        summary.failed.push((seed, report.violations));
                        stop.fetch_or(summary.failed.len() >= job.failures_max.max(1), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut summary = summary
        .into_inner()
        .expect("no thread panics while it holds the summary");
    summary.failed.sort_by_key(|&(seed, _)| seed);
    summary
}

fn run_seed(seed: u64, job: Job) -> RunReport {
    let plan = Arc::new(Plan::draw(seed));
    let mut report = run_caught(&plan, job.watch);
    if job.twice {
        let again = run_caught(&plan, job.watch);
        if again.trace != report.trace {
            let detail = format!("two runs differ: traces {:016x} and {:016x}", report.trace, again.trace);
            report.violations.push(Violation {
                promise: Promise::Determinism,
                detail,
            });
        }
    }
    report
}
