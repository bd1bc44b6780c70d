//! `quorate hints`: what nodes keep for others that were away, and how soon it will be home.

use super::connect::ConnectArgs;
use super::output;
use super::survey::{Survey, survey};
use super::{CliError, Terminal};
use crate::healing::HintsStatus;
use serde::Serialize;
use std::time::Duration;

/// What `quorate hints` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct HintsArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// How long to wait for a node
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    timeout_ms: u64,
}

/// Asks all nodes and prints a line for each pair of a node that keeps hints and an owner that they are for.
pub(crate) async fn run(args: HintsArgs, terminal: &Terminal) -> Result<(), CliError> {
    let client = args.connect.connect(None).await?;
    let survey = survey(&client, Duration::from_millis(args.timeout_ms)).await;
    match terminal.is_json() {
        true => terminal.print_json(&document(&survey)),
        false => terminal.print(text(&survey).as_bytes()),
    }
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Document<'a> {
    hints: u64,
    nodes: Vec<NodeFields<'a>>,
}

#[derive(Serialize)]
struct NodeFields<'a> {
    name: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hints: Option<&'a [HintsStatus]>,
}

fn document(survey: &Survey) -> Document<'_> {
    let nodes = survey.views.iter().map(|view| {
        let healing = view.answer.as_ref().ok().map(|report| &report.healing);
        NodeFields {
            name: &view.member.name,
            state: if healing.is_some() { "up" } else { "down" },
            error: view.answer.as_ref().err().map(String::as_str),
            bytes_max: healing.map(|healing| healing.hint_bytes_max),
            hints: healing.map(|healing| healing.hints.as_slice()),
        }
    });
    Document {
        hints: waiting(survey),
        nodes: nodes.collect(),
    }
}

fn waiting(survey: &Survey) -> u64 {
    survey.reports().map(|(_, report)| report.healing.hints_waiting()).sum()
}

fn text(survey: &Survey) -> String {
    let silent = survey.silent();
    let mut text = match waiting(survey) {
        0 => "No hints: no node keeps a write for another.\n".to_owned(),
        count => format!("{count} hints wait to be delivered.\n"),
    };
    if !silent.is_empty() {
        text.push_str(&format!(
            "Not known: what {} may keep, for lack of an answer.\n",
            silent.join(", ")
        ));
    }
    let rows: Vec<Vec<String>> = survey
        .reports()
        .flat_map(|(node, report)| report.healing.hints.iter().map(move |hints| row(node, hints)))
        .collect();
    if !rows.is_empty() {
        let header = ["NODE", "FOR", "HINTS", "BYTES", "OLDEST", "RATE", "HOME IN"];
        text.push('\n');
        text.push_str(&output::table(&header, &rows));
    }
    text
}

fn row(node: &str, hints: &HintsStatus) -> Vec<String> {
    vec![
        output::harmless(node),
        output::harmless(&hints.node),
        hints.count.to_string(),
        output::bytes(hints.bytes),
        output::duration(hints.oldest_seconds),
        format!("{:.0}/s", hints.per_second),
        hints.eta_seconds.map_or_else(|| "-".to_owned(), output::duration),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::survey::tests::three;
    use super::*;

    fn with_hints() -> Survey {
        let mut survey = three(&["n2"], &[]);
        if let Ok(report) = &mut survey.views[0].answer {
            report.healing.hint_bytes_max = 1 << 30;
            report.healing.hints.push(HintsStatus {
                node: "n2".into(),
                count: 1200,
                bytes: 2 << 20,
                oldest_seconds: 61,
                per_second: 400.2,
                eta_seconds: Some(3),
            });
        }
        survey
    }

    #[test]
    fn there_is_a_line_for_each_node_and_owner() {
        let text = text(&with_hints());
        assert!(
            text.starts_with("1200 hints wait to be delivered.\nNot known: what n2 may keep"),
            "{text}"
        );
        assert!(
            text.ends_with("n1    n2   1200   2.0 MiB  1m01s   400/s  3s\n"),
            "{text}"
        );
        assert!(super::text(&three(&[], &[])).starts_with("No hints"));
    }

    #[test]
    fn the_json_keeps_its_fields() {
        let json = serde_json::to_value(document(&with_hints())).unwrap();
        assert_eq!(json["hints"], 1200);
        let hints = &json["nodes"][0]["hints"][0];
        for field in ["node", "count", "bytes", "oldest_seconds", "per_second", "eta_seconds"] {
            assert!(!hints[field].is_null(), "{field}");
        }
        assert_eq!(json["nodes"][1]["state"], "down");
    }
}
