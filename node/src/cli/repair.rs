//! `quorate repair`: has all nodes compare what they hold now, and watches until they agree.
//!
//! Owners compare by themselves every few minutes; this is for those who do not want to wait. Progress goes to stderr, the last
//! state to stdout.

use super::connect::ConnectArgs;
use super::output::{self, Ink};
use super::survey::{Survey, start_repair, survey};
use super::{CliError, Exit, Terminal};
use crate::healing::{ExchangeStatus, HealingStatus};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long to wait for a node that may be down.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// What `quorate repair` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Wait until all owners agree, and tell how far they are
    #[arg(long)]
    watch: bool,
    /// Stop watching after this time
    #[arg(long, requires = "watch", value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// Starts exchanges on all nodes that answer. Fails if one does not, or if the time is up.
pub(crate) async fn run(args: RepairArgs, terminal: &Terminal) -> Result<(), CliError> {
    let client = args.connect.connect(None).await?;
    let started = Instant::now();
    refuse(&survey(&client, PATIENCE).await)?;
    let first = start_repair(&client, PATIENCE).await;
    if !args.watch {
        print(&first, false, terminal)?;
        return complete(&first);
    }
    let round = Round::begin(&first);
    loop {
        tokio::time::sleep(EVERY).await;
        let survey = survey(&client, PATIENCE).await;
        let is_done = round.is_done(&survey);
        let is_late = args
            .timeout
            .is_some_and(|seconds| started.elapsed() >= Duration::from_secs(seconds));
        if is_done || is_late {
            print(&survey, is_done, terminal)?;
            return match is_done {
                true => Ok(()),
                false => Err(CliError::new(
                    Exit::Error,
                    format!("not in sync yet: {}", progress(&survey)),
                )),
            };
        }
        if !terminal.is_json() {
            eprintln!("{:>4}s  {}", started.elapsed().as_secs(), progress(&survey));
        }
    }
}

/// Fails if some node is configured to compare nothing: then nobody is asked to.
fn refuse(survey: &Survey) -> Result<(), CliError> {
    match survey.do_not_compare()[..] {
        [] => Ok(()),
        ref nodes => {
            let message = format!(
                "nothing was compared: exchange = false (or trees = false) in the configuration of {}",
                nodes.join(", ")
            );
            Err(CliError::new(Exit::Error, message).hint("set it to true under [healing] and start these nodes again"))
        }
    }
}

/// One round of comparing, from when it was asked for.
struct Round {
    /// For each node, how many exchanges it had ended before.
    ended: BTreeMap<String, u64>,
}

impl Round {
    fn begin(first: &Survey) -> Round {
        let ended = |(node, report): (&str, &super::survey::Report)| (node.to_owned(), report.healing.exchange.ended);
        Round {
            ended: first.reports().map(ended).collect(),
        }
    }

    /// Whether every node has compared as often as it has trees to compare, and all of them are in sync.
    fn is_done(&self, survey: &Survey) -> bool {
        survey.silent().is_empty()
            && survey.reports().all(|(node, report)| {
                let exchange = &report.healing.exchange;
                let before = self.ended.get(node).copied().unwrap_or(0);
                is_in_sync(&report.healing) && (exchange.ended < before || exchange.ended - before >= exchange.trees)
            })
    }
}

fn is_in_sync(healing: &HealingStatus) -> bool {
    let exchange = &healing.exchange;
    healing.rebuilding.partitions == 0
        && exchange.running.is_empty()
        && exchange.dirty == 0
        && exchange.trees_in_sync >= exchange.trees
}

fn complete(survey: &Survey) -> Result<(), CliError> {
    match survey.silent()[..] {
        [] => Ok(()),
        ref silent => {
            let message = format!(
                "no answer from {}: what it holds is compared when it is back",
                silent.join(", ")
            );
            Err(CliError::new(Exit::Error, message))
        }
    }
}

/// `187/192 trees in sync, 2 exchanges under way, 1,024 keys to go, 3 dirty`.
fn progress(survey: &Survey) -> String {
    let all = Sum::of(survey);
    let mut text = format!("{}/{} trees in sync", all.in_sync, all.trees);
    for (count, what) in [
        (all.running, "exchanges under way"),
        (all.keys_left, "keys to go"),
        (all.dirty, "partitions known to be behind"),
        (all.rebuilding, "partitions to rebuild"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    let silent = survey.silent();
    if !silent.is_empty() {
        text.push_str(&format!("; no answer from {}", silent.join(", ")));
    }
    text
}

/// What all nodes say together.
#[derive(Default)]
struct Sum {
    in_sync: u64,
    trees: u64,
    running: u64,
    keys_left: u64,
    dirty: u64,
    rebuilding: u64,
}

impl Sum {
    fn of(survey: &Survey) -> Sum {
        let mut sum = Sum::default();
        for (_, report) in survey.reports() {
            let exchange = &report.healing.exchange;
            sum.in_sync += exchange.trees_in_sync;
            sum.trees += exchange.trees;
            sum.running += exchange.running.len() as u64;
            sum.keys_left += keys_left(exchange);
            sum.dirty += exchange.dirty;
            sum.rebuilding += report.healing.rebuilding.partitions;
        }
        sum
    }
}

fn keys_left(exchange: &ExchangeStatus) -> u64 {
    exchange.running.iter().map(|running| running.keys_left).sum()
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Document<'a> {
    in_sync: bool,
    nodes: Vec<NodeFields<'a>>,
}

#[derive(Serialize)]
struct NodeFields<'a> {
    name: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange: Option<&'a ExchangeStatus>,
}

fn document(survey: &Survey, in_sync: bool) -> Document<'_> {
    let nodes = survey.views.iter().map(|view| {
        let report = view.answer.as_ref().ok();
        NodeFields {
            name: &view.member.name,
            state: if report.is_some() { "up" } else { "down" },
            error: view.answer.as_ref().err().map(String::as_str),
            exchange: report.map(|report| &report.healing.exchange),
        }
    });
    Document {
        in_sync,
        nodes: nodes.collect(),
    }
}

fn print(survey: &Survey, in_sync: bool, terminal: &Terminal) -> Result<(), CliError> {
    if terminal.is_json() {
        return terminal.print_json(&document(survey, in_sync));
    }
    let sentence = match in_sync {
        true => terminal.paint(Ink::Good, "All owners agree."),
        false => format!("Comparing: {}.", progress(survey)),
    };
    terminal.print(format!("{sentence}\n\n{}", table(survey, terminal)).as_bytes())
}

fn table(survey: &Survey, terminal: &Terminal) -> String {
    let rows: Vec<Vec<String>> = survey
        .views
        .iter()
        .map(|view| {
            let name = output::harmless(&view.member.name);
            let Ok(report) = &view.answer else {
                return vec![name, terminal.paint(Ink::Bad, "down")];
            };
            let exchange = &report.healing.exchange;
            vec![
                name,
                terminal.paint(Ink::Good, "up"),
                format!("{}/{}", exchange.trees_in_sync, exchange.trees),
                exchange.running.len().to_string(),
                keys_left(exchange).to_string(),
                exchange.dirty.to_string(),
                exchange.sent.to_string(),
                exchange.received.to_string(),
                output::bytes(exchange.bytes_sent),
            ]
        })
        .collect();
    let header = [
        "NODE",
        "STATE",
        "IN SYNC",
        "RUNNING",
        "KEYS LEFT",
        "DIRTY",
        "SENT",
        "RECEIVED",
        "BYTES SENT",
    ];
    output::table(&header, &rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::survey::tests::three;
    use super::*;
    use crate::healing::RunningExchange;

    /// Three nodes, each with these figures.
    fn with(change: impl Fn(&mut ExchangeStatus)) -> Survey {
        let mut survey = three(&[], &[]);
        for report in survey.views.iter_mut().filter_map(|view| view.answer.as_mut().ok()) {
            (report.healing.exchange.trees, report.healing.exchange.trees_in_sync) = (16, 16);
            change(&mut report.healing.exchange);
        }
        survey
    }

    #[test]
    fn a_round_is_done_when_every_tree_was_compared_since_and_all_are_in_sync() {
        let round = Round::begin(&with(|exchange| exchange.ended = 100));
        assert!(!round.is_done(&with(|exchange| exchange.ended = 115)), "one is missing");
        assert!(round.is_done(&with(|exchange| exchange.ended = 116)));
        assert!(
            round.is_done(&with(|exchange| exchange.ended = 20)),
            "started again meanwhile"
        );
        assert!(!round.is_done(&with(|exchange| (exchange.ended, exchange.dirty) = (116, 1))));
        assert!(!round.is_done(&with(|exchange| (exchange.ended, exchange.trees_in_sync) = (116, 15))));
        assert!(!round.is_done(&three(&["n1"], &[])));
    }

    #[test]
    fn where_a_node_does_not_compare_nothing_is_asked_for() {
        assert!(refuse(&with(|_| ())).is_ok());
        let error = refuse(&with(|exchange| exchange.enabled = false)).unwrap_err();
        assert!(
            error.to_string().contains("nothing was compared: exchange = false"),
            "{error}"
        );
        assert!(error.to_string().contains("n1, n2, n3"), "{error}");
    }

    #[test]
    fn progress_and_table_add_up_and_the_json_keeps_its_fields() {
        let survey = with(|exchange| {
            (exchange.trees_in_sync, exchange.dirty, exchange.sent) = (12, 1, 7);
            exchange.running.push(RunningExchange {
                peer: "n2".into(),
                phase: "records".into(),
                keys_left: 5,
                ..RunningExchange::default()
            });
        });
        assert_eq!(
            progress(&survey),
            "36/48 trees in sync, 3 exchanges under way, 15 keys to go, 3 partitions known to be behind"
        );
        let table = table(&survey, &Terminal::piped(super::super::Output::Table));
        assert!(
            table.contains("n1    up     12/16    1        5          1      7     0         0 B"),
            "{table}"
        );
        let json = serde_json::to_value(document(&survey, false)).unwrap();
        assert_eq!(json["in_sync"], false);
        let exchange = &json["nodes"][0]["exchange"];
        for field in [
            "trees",
            "trees_in_sync",
            "dirty",
            "sent",
            "received",
            "bytes_sent",
            "ended",
            "last",
        ] {
            assert!(!exchange[field].is_null(), "{field}");
        }
        assert_eq!(exchange["running"][0]["phase"], "records");
    }
}
