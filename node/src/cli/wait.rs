//! `quorate wait`: for scripts that want to go on when the cluster is all right, or has nothing left to heal.

use super::connect::ConnectArgs;
use super::health::{Health, State};
use super::survey::{Survey, survey};
use super::{CliError, Exit, Terminal};
use quorate_client::Client;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long to wait for a node that may be down.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Goal {
    /// All nodes answer, are connected, and have their memory
    Healthy,
    /// Besides: no hints, all owners in sync, nothing to settle
    Settled,
}

/// What `quorate wait` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// What to wait for
    #[arg(long = "for", value_enum, value_name = "STATE")]
    goal: Goal,
    /// How long to wait at most
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
}

/// Looks again and again until it is so, or fails when the time is up, with what was left.
pub(crate) async fn run(args: WaitArgs, terminal: &Terminal) -> Result<(), CliError> {
    let started = Instant::now();
    let deadline = started + Duration::from_secs(args.timeout);
    let client = connect(&args.connect, deadline).await?;
    loop {
        let survey = survey(&client, PATIENCE).await;
        let left = left(&survey, args.goal);
        if left.is_empty() {
            return match unknowable(&survey, args.goal) {
                None => print(args.goal, started.elapsed(), terminal),
                Some(why) => Err(CliError::new(Exit::Error, why)),
            };
        }
        if Instant::now() >= deadline {
            let left: Vec<&str> = left.iter().map(|sentence| sentence.trim_end_matches('.')).collect();
            let message = format!("not so after {} s: {}", args.timeout, left.join("; "));
            return Err(CliError::new(Exit::Error, message).hint("quorate status says more"));
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// A cluster that is just being started may not answer yet.
async fn connect(args: &ConnectArgs, deadline: Instant) -> Result<Client, CliError> {
    loop {
        match args.connect(Some(PATIENCE)).await {
            Err(error) if error.told.is_some() && Instant::now() < deadline => tokio::time::sleep(EVERY).await,
            ended => return ended,
        }
    }
}

/// What stands between the cluster and the goal.
fn left(survey: &Survey, goal: Goal) -> Vec<String> {
    let health = Health::of(survey);
    let mut left = match health.state {
        State::Healthy => Vec::new(),
        State::Degraded | State::Unavailable => health.sentences,
    };
    if goal == Goal::Settled {
        for (node, report) in survey.reports() {
            let (healing, exchange) = (&report.healing, &report.healing.exchange);
            let behind = exchange.trees.saturating_sub(exchange.trees_in_sync);
            for (count, what) in [
                (healing.hints_waiting(), "hints to deliver"),
                (exchange.dirty, "partitions to compare that are known to be behind"),
                (
                    if exchange.enabled { behind } else { 0 },
                    "trees not known to be in sync",
                ),
                (healing.settling.waiting, "records to settle"),
            ] {
                if count > 0 {
                    left.push(format!("{node} has {count} {what}"));
                }
            }
        }
    }
    left
}

/// Why nobody can know whether it is so, though nobody knows of anything left. Waiting does not change that.
fn unknowable(survey: &Survey, goal: Goal) -> Option<String> {
    let nodes = survey.do_not_compare();
    (goal == Goal::Settled && survey.views.len() > 1 && !nodes.is_empty()).then(|| {
        format!(
            "nobody can know whether the cluster is settled: exchange = false (or trees = false) in the configuration of {}, so owners do \
             not compare what they hold; as far as hints and notes tell, nothing is left",
            nodes.join(", ")
        )
    })
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Document {
    state: Goal,
    waited_seconds: f64,
}

fn print(goal: Goal, waited: Duration, terminal: &Terminal) -> Result<(), CliError> {
    let waited_seconds = waited.as_secs_f64();
    if terminal.is_json() {
        return terminal.print_json(&Document {
            state: goal,
            waited_seconds,
        });
    }
    let state = match goal {
        Goal::Healthy => "healthy",
        Goal::Settled => "settled",
    };
    terminal.print(format!("{state} after {waited_seconds:.1} s\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::three;
    use super::*;

    #[test]
    fn what_is_left_is_named_with_the_node_that_says_so() {
        assert_eq!(left(&three(&[], &[]), Goal::Settled), [""; 0]);
        assert!(left(&three(&["n2"], &[]), Goal::Healthy)[0].starts_with("2 of 3 nodes answer"));
        let mut survey = three(&[], &[]);
        if let Ok(report) = &mut survey.views[1].answer {
            report.healing.settling.waiting = 4;
            report.healing.exchange.trees = 2;
        }
        assert_eq!(left(&survey, Goal::Healthy), [""; 0]);
        assert_eq!(
            left(&survey, Goal::Settled),
            ["n2 has 2 trees not known to be in sync", "n2 has 4 records to settle"]
        );
    }

    #[test]
    fn where_owners_do_not_compare_nobody_knows_whether_it_is_settled() {
        let mut survey = three(&[], &[]);
        assert_eq!(unknowable(&survey, Goal::Settled), None);
        if let Ok(report) = &mut survey.views[1].answer {
            report.healing.exchange.enabled = false;
        }
        assert_eq!(unknowable(&survey, Goal::Healthy), None);
        assert!(
            unknowable(&survey, Goal::Settled)
                .is_some_and(|why| why.contains("exchange = false (or trees = false) in the configuration of n2"))
        );
    }
}
