//! What a failing seed prints: enough to see what happened, and the line that replays it.

use crate::plan::Plan;
use crate::shrink::shrink;
use crate::violation::Violation;
use crate::world::{BROKEN, HEALED, Watch};
use crate::{planted, runner};
use std::fmt::Write;
use std::sync::Arc;

/// Runs that shrinking may take.
const TRIES: usize = 300;
/// Events printed of the shrunk run.
const LAST_EVENTS: usize = 80;

/// A failing plan, made smaller and described.
#[derive(Debug)]
pub struct Diagnosis {
    /// The smaller plan.
    pub plan: Plan,
    /// The report, for people.
    pub text: String,
}

/// Shrinks a failing plan and describes it.
pub fn diagnose(plan: &Plan, violations: &[Violation], watch: Watch) -> Diagnosis {
    let mut text = String::new();
    let seed = plan.seed;
    writes(&mut text, format_args!("SEED={seed}"));
    violations
        .iter()
        .take(12)
        .for_each(|v| writes(&mut text, format_args!("BROKEN {v}")));
    let shrunk = violations
        .first()
        .map_or_else(|| plan.clone(), |first| shrink(plan, first.promise, watch, TRIES));
    let report = runner::run_caught(&Arc::new(shrunk.clone()), Watch { log: true, ..watch });
    writes(&mut text, format_args!("options: {}", line(&shrunk.options)));
    writes(
        &mut text,
        format_args!(
            "shrunk plan: {} faults, {} operations",
            shrunk.faults.len(),
            shrunk.steps.len()
        ),
    );
    shrunk
        .faults
        .iter()
        .for_each(|fault| writes(&mut text, format_args!("  fault {}", line(fault))));
    shrunk
        .steps
        .iter()
        .take(60)
        .for_each(|step| writes(&mut text, format_args!("  step  {}", line(step))));
    writes(&mut text, format_args!("the shrunk run breaks:"));
    report
        .violations
        .iter()
        .take(12)
        .for_each(|v| writes(&mut text, format_args!("  {v}")));
    writes(&mut text, format_args!("its last events:"));
    let log = &report.log[..last_of_interest(&report.log)];
    log[log.len().saturating_sub(LAST_EVENTS)..]
        .iter()
        .for_each(|event| writes(&mut text, format_args!("  {event}")));
    writes(
        &mut text,
        format_args!("replay with: cargo run --release -p quorate-sim -- replay {seed}"),
    );
    Diagnosis { plan: shrunk, text }
}

/// Where to stop reading: a little behind the first broken promise; or where healing began, if it was only found afterwards.
fn last_of_interest(log: &[String]) -> usize {
    let is_broken = |line: &String| line.split_whitespace().nth(1) == Some(BROKEN);
    let broken = log.iter().position(is_broken).map(|at| at + 5);
    let healed = log.iter().position(|line| line.ends_with(HEALED));
    broken.or(healed).unwrap_or(log.len()).min(log.len())
}

/// As [`diagnose`], with a planted bug turned on.
pub fn diagnose_planted(plan: &Plan, violations: &[Violation], watch: Watch, bug: u8) -> Diagnosis {
    planted::choose(bug);
    let diagnosis = diagnose(plan, violations, watch);
    planted::choose(0);
    diagnosis
}

fn writes(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes everything");
}

fn line(what: &impl serde::Serialize) -> String {
    serde_json::to_string(what).expect("plans have string keys only")
}
