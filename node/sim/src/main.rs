//! `quorate-sim`: runs seeds, replays one, hunts planted bugs, compares runs.
//!
//! The last line is for machines: `N passed, N failed`. The exit code is 0 only if nothing failed.

use clap::{Parser, Subcommand};
use quorate_sim::plan::Plan;
use quorate_sim::report::{diagnose, diagnose_planted};
use quorate_sim::runner::{Job, Summary, run_caught, run_seeds};
use quorate_sim::{Watch, planted};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// The simulator of Quorate: one seed, one run, every checker.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds and checks every promise.
    Run {
        /// How many.
        #[arg(long, default_value_t = 2000)]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Fail if a probe was never reached.
        #[arg(long)]
        require_probes: bool,
        /// Do not make failing plans smaller: only say what they broke.
        #[arg(long)]
        no_shrink: bool,
        /// Stop at this many failures.
        #[arg(long, default_value_t = 5)]
        failures: usize,
        /// Where plans of failing seeds are kept.
        #[arg(long, default_value = "target/sim")]
        keep: PathBuf,
    },
    /// Replays one seed, or a kept plan, and prints every event.
    Replay {
        /// The seed.
        seed: Option<u64>,
        /// A kept plan instead.
        #[arg(long, conflicts_with = "seed")]
        plan: Option<PathBuf>,
        /// Print the shrunk plan instead of all events.
        #[arg(long)]
        shrink: bool,
        /// With this planted bug.
        #[arg(long, default_value_t = 0)]
        bug: u8,
    },
    /// Hunts every planted bug (needs a build with `--features planted`).
    Planted {
        /// Only this one.
        #[arg(long)]
        bug: Option<u8>,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// Spend the whole budget, and count which promises were broken.
        #[arg(long)]
        census: bool,
    },
    /// Runs seeds twice and compares the traces.
    Twice {
        /// How many.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
}

fn main() -> ExitCode {
    let failed = match Arguments::parse().command {
        Command::Run {
            seeds,
            start,
            threads,
            require_probes,
            no_shrink,
            failures,
            keep,
        } => {
            let keep = (!no_shrink).then_some(&keep);
            let summary = run_many(start, seeds, (threads, failures), false, keep);
            print!("{}", summary.probes);
            let missing = summary.probes.missing();
            missing
                .iter()
                .for_each(|probe| println!("never reached: {}", probe.text()));
            let unreached = if require_probes { missing.len() as u64 } else { 0 };
            close(summary.passed, summary.failed.len() as u64 + unreached)
        }
        Command::Twice { seeds, start, threads } => {
            let summary = run_many(start, seeds, (threads, 5), true, None);
            close(summary.passed, summary.failed.len() as u64)
        }
        Command::Replay {
            seed,
            plan,
            shrink,
            bug,
        } => replay(seed, plan, shrink, bug),
        Command::Planted { bug, start, census } => hunt(bug, start, census),
    };
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn close(passed: u64, failed: u64) -> u64 {
    println!("{passed} passed, {failed} failed");
    failed
}

fn run_many(
    start: u64,
    seeds: u64,
    (threads, failures_max): (usize, usize),
    twice: bool,
    keep: Option<&PathBuf>,
) -> Summary {
    println!("SEED={start} and the {seeds} from there, on {threads} threads");
    let began = Instant::now();
    let job = Job {
        twice,
        failures_max,
        ..Job::default()
    };
    let summary = run_seeds(start..start + seeds, threads, job);
    for (seed, violations) in &summary.failed {
        let Some(keep) = keep else {
            println!("SEED={seed}");
            violations.iter().take(6).for_each(|v| println!("BROKEN {v}"));
            continue;
        };
        let diagnosis = diagnose(&Plan::draw(*seed), violations, Watch::default());
        println!("{}", diagnosis.text);
        let file = keep.join(format!("{seed}.json"));
        let json = serde_json::to_string_pretty(&diagnosis.plan).expect("plans have string keys only");
        match std::fs::create_dir_all(keep).and_then(|()| std::fs::write(&file, json)) {
            Ok(()) => println!("the shrunk plan is kept in {}", file.display()),
            Err(error) => println!("the shrunk plan could not be kept in {}: {error}", file.display()),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let ran = summary.passed + summary.failed.len() as u64;
    println!(
        "{ran} seeds, {} events in {seconds:.1} s: {:.0} seeds a minute",
        summary.events,
        ran as f64 * 60.0 / seconds.max(0.001)
    );
    summary
}

fn replay(seed: Option<u64>, file: Option<PathBuf>, shrink: bool, bug: u8) -> u64 {
    let plan = match (seed, file) {
        (Some(seed), _) => Plan::draw(seed),
        (None, Some(file)) => match std::fs::read(&file).map(|json| serde_json::from_slice(&json)) {
            Ok(Ok(plan)) => plan,
            Ok(Err(error)) => return complain(&format!("{} is no plan: {error}", file.display())),
            Err(error) => return complain(&format!("{} cannot be read: {error}", file.display())),
        },
        (None, None) => return complain("name a seed, or a kept plan with --plan"),
    };
    println!("SEED={}", plan.seed);
    planted::choose(bug);
    let watch = Watch {
        log: !shrink,
        timeouts_fail: bug == 19,
    };
    let report = run_caught(&Arc::new(plan.clone()), watch);
    report.log.iter().for_each(|line| println!("{line}"));
    if shrink && !report.violations.is_empty() {
        println!("{}", diagnose_planted(&plan, &report.violations, watch, bug).text);
    }
    if !shrink {
        report.violations.iter().for_each(|v| println!("BROKEN {v}"));
    }
    println!("trace {:016x}", report.trace);
    let failed = u64::from(!report.violations.is_empty());
    close(1 - failed, failed)
}

fn complain(text: &str) -> u64 {
    eprintln!("{text}");
    close(0, 1)
}

fn hunt(only: Option<u8>, start: u64, census: bool) -> u64 {
    if !cfg!(feature = "planted") {
        return complain("this build has no planted bugs: add --features planted");
    }
    std::panic::set_hook(Box::new(|_| {}));
    let (mut passed, mut failed) = (0, 0);
    for bug in planted::BUGS
        .iter()
        .filter(|bug| only.is_none_or(|number| number == bug.number))
    {
        if census {
            let counts = planted::census(bug, start, 2);
            let counts: Vec<String> = counts
                .into_iter()
                .map(|(promise, count)| format!("{promise} {count}"))
                .collect();
            println!(
                "bug {:>2}: of {} seeds broken: {}",
                bug.number,
                bug.seeds,
                counts.join(", ")
            );
            continue;
        }
        let hunt = planted::hunt(bug, start);
        match hunt.found {
            Some((seed, how)) => {
                passed += 1;
                println!(
                    "bug {:>2} ({}): found by seed {seed}, {} of {} seeds, {:.1} s: {how}",
                    bug.number,
                    bug.text,
                    seed - start + 1,
                    bug.seeds,
                    hunt.seconds
                );
            }
            None => {
                failed += 1;
                println!(
                    "bug {:>2} ({}): NOT FOUND in {} seeds; other promises broken: {:?}",
                    bug.number, bug.text, bug.seeds, hunt.others
                );
            }
        }
    }
    close(passed, failed)
}
