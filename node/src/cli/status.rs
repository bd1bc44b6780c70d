//! `quorate status`: is the cluster all right, and if not, what does that mean for reads and writes?

use super::connect::ConnectArgs;
use super::health::{Health, State};
use super::output::{self, Ink};
use super::survey::{PeerReport, StorageReport, Survey, View, survey};
use super::{CliError, Exit, Terminal};
use crate::healing::HealingStatus;
use serde::Serialize;
use std::time::Duration;

/// What `quorate status` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// How long to wait for a node
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    timeout_ms: u64,
}

/// Asks all nodes, prints how things stand, and fails if some partition has no quorum.
pub(crate) async fn run(args: StatusArgs, terminal: &Terminal) -> Result<(), CliError> {
    let client = args.connect.connect(None).await?;
    let survey = survey(&client, Duration::from_millis(args.timeout_ms)).await;
    let health = Health::of(&survey);
    if terminal.is_json() {
        terminal.print_json(&document(&survey, &health))?;
    } else {
        terminal.print(text(&survey, &health, terminal).as_bytes())?;
    }
    match health.state {
        State::Unavailable => Err(CliError::new(Exit::Quorum, "some keys have no quorum")),
        State::Healthy | State::Degraded => Ok(()),
    }
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Document<'a> {
    health: State,
    summary: String,
    ring: RingFields,
    nodes: Vec<NodeFields<'a>>,
}

#[derive(Serialize)]
struct RingFields {
    version: u64,
    digest: String,
    partitions: u32,
    agreed: bool,
}

#[derive(Serialize)]
struct NodeFields<'a> {
    name: &'a str,
    id: String,
    zone: &'a str,
    quic: &'a str,
    http: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ring_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ring_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<&'a [PeerReport]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<&'a StorageReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healing: Option<&'a HealingStatus>,
}

fn document<'a>(survey: &'a Survey, health: &Health) -> Document<'a> {
    let ring = RingFields {
        version: survey.ring.version().0,
        digest: format!("{:016x}", survey.ring.digest()),
        partitions: survey.ring.partitions(),
        agreed: survey.agrees(),
    };
    let nodes = survey.views.iter().map(node_fields).collect();
    Document {
        health: health.state,
        summary: health.sentences.join(" "),
        ring,
        nodes,
    }
}

fn node_fields(view: &View) -> NodeFields<'_> {
    let report = view.answer.as_ref().ok();
    NodeFields {
        name: &view.member.name,
        id: view.member.id.to_string(),
        zone: &view.member.zone,
        quic: &view.member.quic,
        http: &view.member.http,
        state: if report.is_some() { "up" } else { "down" },
        error: view.answer.as_ref().err().map(String::as_str),
        version: report.map(|report| report.version.as_str()),
        uptime_seconds: report.map(|report| report.uptime_seconds),
        ring_version: report.map(|report| report.ring_version),
        ring_digest: report.map(|report| report.ring_digest.as_str()),
        peers: report.map(|report| report.peers.as_slice()),
        storage: report.map(|report| &report.storage),
        healing: report.map(|report| &report.healing),
    }
}

/// The sentences and the table.
pub(crate) fn text(survey: &Survey, health: &Health, terminal: &Terminal) -> String {
    let ink = if health.state == State::Healthy {
        Ink::Good
    } else {
        Ink::Bad
    };
    let sentences: Vec<String> = health
        .sentences
        .iter()
        .map(|sentence| terminal.paint(ink, sentence))
        .collect();
    let rows: Vec<Vec<String>> = survey.views.iter().map(|view| row(view, terminal)).collect();
    let header = [
        "NODE", "ZONE", "STATE", "VERSION", "UPTIME", "RING", "PEERS", "ROWS", "DISK", "HTTP",
    ];
    format!("{}\n\n{}", sentences.join("\n"), output::table(&header, &rows))
}

fn row(view: &View, terminal: &Terminal) -> Vec<String> {
    let member = &view.member;
    let (name, zone) = (output::harmless(&member.name), output::harmless(&member.zone));
    let Ok(report) = &view.answer else {
        let dashes = std::iter::repeat_n("-".to_owned(), 6);
        let start = [name, zone, terminal.paint(Ink::Bad, "down")];
        return start.into_iter().chain(dashes).chain([member.http.clone()]).collect();
    };
    let connected = report.peers.iter().filter(|peer| peer.connected).count();
    vec![
        name,
        zone,
        match (report.rebuilds(), report.storage.refusing) {
            (true, _) => terminal.paint(Ink::Bad, "rebuilding"),
            (false, true) => terminal.paint(Ink::Bad, "read only"),
            (false, false) => terminal.paint(Ink::Good, "up"),
        },
        report.version.clone(),
        output::duration(report.uptime_seconds),
        format!(
            "{} {}",
            report.ring_version,
            report.ring_digest.get(..8).unwrap_or(&report.ring_digest)
        ),
        format!("{connected}/{}", report.peers.len()),
        report.storage.keys.to_string(),
        output::bytes(report.storage.table_bytes),
        member.http.clone(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Output;
    use super::super::survey::tests::three;
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_node() {
        let survey = three(&["n2"], &[]);
        let text = text(&survey, &Health::of(&survey), &Terminal::piped(Output::Table));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("NODE  ZONE  STATE  VERSION"));
        assert!(
            lines[3].starts_with("n1    z1    up     0.1.0    1m01s"),
            "{}",
            lines[3]
        );
        assert!(lines[4].starts_with("n2    z1    down   -"), "{}", lines[4]);
        let mut survey = three(&[], &[]);
        if let Ok(report) = &mut survey.views[0].answer {
            report.storage.refusing = true;
        }
        assert!(row(&survey.views[0], &Terminal::piped(Output::Table)).contains(&"read only".to_owned()));
    }

    #[test]
    fn the_json_keeps_its_fields() {
        let survey = three(&["n2"], &[]);
        let json = serde_json::to_value(document(&survey, &Health::of(&survey))).unwrap();
        assert_eq!(json["health"], "degraded");
        assert!(json["summary"].as_str().unwrap().starts_with("2 of 3 nodes answer"));
        assert_eq!(
            (&json["ring"]["version"], &json["ring"]["partitions"]),
            (&1.into(), &8.into())
        );
        assert_eq!(json["ring"]["agreed"], true);
        let up = &json["nodes"][0];
        for field in ["name", "id", "zone", "quic", "http", "version", "ring_digest"] {
            assert!(up[field].is_string(), "{field}");
        }
        assert_eq!((&up["state"], &up["uptime_seconds"]), (&"up".into(), &61.into()));
        assert_eq!(up["peers"][0]["name"], "n2");
        assert_eq!(
            (&up["storage"]["keys"], &up["storage"]["refusing"]),
            (&0.into(), &false.into())
        );
        assert_eq!(up["healing"]["exchange"]["trees"], 0);
        assert_eq!(
            (&json["nodes"][1]["state"], &json["nodes"][1]["error"]),
            (&"down".into(), &"no answer".into())
        );
    }
}
