//! `quorate ring`: who is a member, how much each holds, and where a key lives.

use super::connect::ConnectArgs;
use super::error::plain;
use super::output;
use super::survey::{Survey, survey};
use super::{CliError, Exit, Terminal};
use quorate_client::Key;
use serde::Serialize;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// How long to wait for nodes that may be down.
const PATIENCE: Duration = Duration::from_secs(1);

/// What `quorate ring` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct RingArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Show where this key lives
    #[arg(long, value_name = "BUCKET/KEY")]
    key: Option<OsString>,
}

/// Prints the ring, or the preference list of a key.
pub(crate) async fn run(args: RingArgs, terminal: &Terminal) -> Result<(), CliError> {
    let key = args.key.as_ref().map(|key| parse(key.as_bytes())).transpose()?;
    let client = args.connect.connect(None).await?;
    let survey = survey(&client, PATIENCE).await;
    let document = document(&survey, key.as_ref());
    if terminal.is_json() {
        terminal.print_json(&document)
    } else {
        terminal.print(text(&document).as_bytes())
    }
}

/// `bucket/key`; the key may hold further slashes.
fn parse(text: &[u8]) -> Result<Key, CliError> {
    let slash = text.iter().position(|byte| *byte == b'/');
    let slash = slash.ok_or_else(|| CliError::new(Exit::Usage, "--key is written BUCKET/KEY"))?;
    Key::new(&text[..slash], &text[slash + 1..], None).map_err(plain)
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Document {
    version: u64,
    digest: String,
    partitions: u32,
    n: u8,
    members: Vec<MemberFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
}

#[derive(Serialize)]
struct MemberFields {
    name: String,
    id: String,
    zone: String,
    weight: u32,
    quic: String,
    http: String,
    vnodes: u32,
    state: &'static str,
}

#[derive(Serialize)]
struct Placement {
    key: String,
    token: String,
    partition: u32,
    preference_list: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    node: String,
    role: &'static str,
    state: &'static str,
}

fn document(survey: &Survey, key: Option<&Key>) -> Document {
    let (ring, n) = (&survey.ring, survey.n());
    let silent = survey.silent();
    let state = |name: &str| if silent.contains(&name) { "down" } else { "up" };
    let members = ring
        .members()
        .iter()
        .zip(ring.ownership(n))
        .map(|(member, vnodes)| MemberFields {
            name: member.name.clone(),
            id: member.id.to_string(),
            zone: member.zone.clone(),
            weight: member.weight,
            quic: member.quic.clone(),
            http: member.http.clone(),
            vnodes,
            state: state(&member.name),
        });
    let placement = key.map(|key| {
        let partition = ring.partition_of(key.token());
        let places = ring.preference_list(partition).iter().enumerate().map(|(at, node)| {
            let name = &ring.member(*node).name;
            let role = if at < usize::from(n) { "primary" } else { "fallback" };
            Place {
                node: name.clone(),
                role,
                state: state(name),
            }
        });
        Placement {
            key: key.to_string(),
            token: key.token().to_string(),
            partition: partition.0,
            preference_list: places.collect(),
        }
    });
    let mut members: Vec<MemberFields> = members.collect();
    members.sort_by_key(|member| survey.views.iter().position(|view| view.member.name == member.name));
    Document {
        version: ring.version().0,
        digest: format!("{:016x}", ring.digest()),
        partitions: ring.partitions(),
        n: survey.n_wanted(),
        members,
        placement,
    }
}

fn text(document: &Document) -> String {
    let nodes = document.members.len();
    let few = match nodes < usize::from(document.n) {
        true => format!(", but no more copies than nodes: {nodes}"),
        false => String::new(),
    };
    let head = format!(
        "ring version {}, digest {}: {} partitions, {nodes} nodes, n = {}{few}\n\n",
        document.version, document.digest, document.partitions, document.n
    );
    let Some(placement) = &document.placement else {
        let rows: Vec<Vec<String>> = document.members.iter().map(member_row).collect();
        return head + &output::table(&["NODE", "ZONE", "WEIGHT", "VNODES", "STATE", "QUIC", "ID"], &rows);
    };
    let place = format!(
        "{}: token {}, partition {}\n\n",
        placement.key, placement.token, placement.partition
    );
    let rows = placement
        .preference_list
        .iter()
        .map(|place| vec![place.node.clone(), place.role.into(), place.state.into()]);
    head + &place + &output::table(&["NODE", "ROLE", "STATE"], &rows.collect::<Vec<_>>())
}

fn member_row(member: &MemberFields) -> Vec<String> {
    vec![
        output::harmless(&member.name),
        output::harmless(&member.zone),
        member.weight.to_string(),
        member.vnodes.to_string(),
        member.state.to_owned(),
        member.quic.clone(),
        member.id.clone(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::survey::tests::three;
    use super::*;

    #[test]
    fn a_key_is_a_bucket_and_the_rest() {
        let key = parse(b"demo/a/b").unwrap();
        assert_eq!((key.bucket(), key.partition_key()), (&b"demo"[..], &b"a/b"[..]));
        assert_eq!(parse(b"demo").unwrap_err().exit, Exit::Usage);
        assert_eq!(parse(b"/k").unwrap_err().exit, Exit::Error);
    }

    #[test]
    fn the_json_keeps_its_fields() {
        let survey = three(&["n2"], &[]);
        let json = serde_json::to_value(document(&survey, Some(&parse(b"demo/k").unwrap()))).unwrap();
        assert_eq!(
            (&json["version"], &json["partitions"], &json["n"]),
            (&1.into(), &8.into(), &3.into())
        );
        let member = &json["members"][1];
        assert_eq!(
            (&member["name"], &member["state"], &member["weight"]),
            (&"n2".into(), &"down".into(), &1.into())
        );
        assert_eq!(member["vnodes"], 8);
        let placement = &json["placement"];
        assert_eq!(placement["key"], "demo/k");
        assert!(placement["token"].is_string() && placement["partition"].is_number());
        assert_eq!(placement["preference_list"].as_array().unwrap().len(), 3);
        assert_eq!(placement["preference_list"][0]["role"], "primary");
        let bare = serde_json::to_value(document(&survey, None)).unwrap();
        assert!(bare.get("placement").is_none());
    }

    #[test]
    fn the_text_names_version_and_members() {
        let survey = three(&[], &[]);
        let text = text(&document(&survey, None));
        assert!(text.starts_with("ring version 1, digest "));
        assert!(text.contains("n3    z1    1       8       up"), "{text}");
        assert!(text.contains("3 nodes, n = 3\n"), "{text}");
    }

    #[test]
    fn an_n_beyond_the_members_is_shown_as_it_is() {
        let mut survey = three(&[], &[]);
        for report in survey.views.iter_mut().filter_map(|view| view.answer.as_mut().ok()) {
            report.default_n = Some(5);
        }
        let document = document(&survey, None);
        assert_eq!(document.n, 5);
        assert!(text(&document).contains("n = 5, but no more copies than nodes: 3"));
    }
}
