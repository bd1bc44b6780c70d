//! What is printed for a value, for siblings and for a story. The way to the cluster is tested with real clusters.
#![allow(clippy::unwrap_used)]

use super::explain::Explain;
use super::*;
use crate::cli::Output;
use bytes::Bytes;
use quorate_client::{ReplicaState, Role};

fn key() -> Key {
    Key::new(b"demo", b"greeting", Some(b"s")).unwrap()
}

fn value(text: &'static str) -> Value {
    Value {
        content_type: "text/plain".into(),
        body: Bytes::from_static(text.as_bytes()),
    }
}

fn view(siblings: Vec<Option<Value>>) -> View {
    View {
        context: Some(Bytes::from_static(&[1, 2, 3])),
        siblings,
        live_hash: 7,
    }
}

fn replica(node: &str, state: ReplicaState, elapsed_us: u64) -> Replica {
    Replica {
        node: node.into(),
        role: Role::Primary,
        state,
        elapsed_us,
    }
}

fn on_a_terminal() -> Terminal {
    let mut terminal = Terminal::piped(Output::Table);
    terminal.is_terminal = true;
    terminal
}

#[test]
fn a_value_is_raw_in_a_pipe_and_harmless_on_a_terminal() {
    let piped = Terminal::piped(Output::Table);
    assert_eq!(show::value(&value("a\x1b[2J"), &piped), b"a\x1b[2J");
    assert_eq!(show::value(&value("a\x1b[2J"), &on_a_terminal()), b"a\\u{1b}[2J\n");
    let binary = Value {
        content_type: "image/png".into(),
        body: Bytes::from_static(&[0xff, 0]),
    };
    assert_eq!(show::value(&binary, &piped), [0xff, 0]);
    let told = String::from_utf8(show::value(&binary, &on_a_terminal())).unwrap();
    assert!(told.starts_with("(2 B of image/png, not text"), "{told}");
}

#[test]
fn siblings_are_numbered_and_deletes_are_not() {
    let found = Found::new(&key(), &view(vec![Some(value("one")), None, Some(value("two\nlines"))]));
    let text = show::siblings(&found, &on_a_terminal());
    assert_eq!(
        text,
        "#  TYPE        VALUE\n1  text/plain  one\n-              (deleted)\n2  text/plain  two\\nlines\n"
    );
}

#[test]
fn long_values_are_cut_in_the_table() {
    let long = Value {
        content_type: "text/plain".into(),
        body: Bytes::from("x".repeat(2048)),
    };
    let text = show::siblings(&Found::new(&key(), &view(vec![Some(long)])), &on_a_terminal());
    assert!(text.contains(&format!("{}… (2.0 KiB)", "x".repeat(60))), "{text}");
}

#[test]
fn the_json_of_a_read_keeps_its_fields() {
    let mut found = Found::new(&key(), &view(vec![Some(value("one")), None]));
    let json = serde_json::to_value(&found).unwrap();
    let expected = serde_json::json!({
        "bucket": "demo", "key": "greeting", "sort": "s", "found": true, "context": "AQID",
        "siblings": [
            { "value": "b25l", "content_type": "text/plain", "deleted": false },
            { "value": null, "content_type": null, "deleted": true },
        ],
    });
    assert_eq!(json, expected);
    found.explain = Some(story());
    let explain = &serde_json::to_value(&found).unwrap()["explain"];
    assert_eq!(
        (&explain["coordinator"], &explain["requests"]),
        (&"n2".into(), &2.into())
    );
    assert_eq!(explain["preference_list"], serde_json::json!(["n2", "n1", "n3"]));
    assert_eq!(explain["replicas"][1]["state"], "same_digest");
    let nothing = View {
        context: None,
        siblings: vec![],
        live_hash: 0,
    };
    let json = serde_json::to_value(Found::new(&Key::new(b"b", b"k", None).unwrap(), &nothing)).unwrap();
    let expected = serde_json::json!({ "bucket": "b", "key": "k", "found": false, "context": null, "siblings": [] });
    assert_eq!(json, expected);
}

#[test]
fn the_json_of_a_write_keeps_its_fields() {
    let written = Written {
        bucket: "demo".into(),
        key: "k".into(),
        sort: None,
        context: "AQID".into(),
        coordinator: Some("n1".into()),
        replicas: vec![replica("n1", ReplicaState::Acked, 410)],
    };
    let expected = serde_json::json!({
        "bucket": "demo", "key": "k", "context": "AQID", "coordinator": "n1",
        "replicas": [{ "node": "n1", "role": "primary", "state": "acked", "elapsed_us": 410 }],
    });
    assert_eq!(serde_json::to_value(written).unwrap(), expected);
}

fn story() -> Explain {
    Explain {
        key: "demo/greeting".into(),
        token: "00ff".into(),
        partition: 3,
        partitions: 64,
        ring_version: 1,
        preference_list: vec!["n2".into(), "n1".into(), "n3".into()],
        coordinator: Some("n2".into()),
        requests: 2,
        hedged: true,
        failed_attempts: vec!["n1: timed out after 50 ms".into()],
        replicas: vec![
            replica("n2", ReplicaState::Acked, 400),
            replica("n1", ReplicaState::SameDigest, 1950),
            replica("n3", ReplicaState::Waiting, 2000),
        ],
    }
}

#[test]
fn a_story_names_everybody_who_took_part() {
    let text = explain::text(&story());
    for part in [
        "demo/greeting: token 00ff, partition 3 of 64, ring version 1",
        "preference list: n2 n1 n3",
        "coordinator: n2; requests sent: 2, a second owner was asked",
        "without an answer: n1: timed out after 50 ms",
        "n2    primary  full record    0.4 ms",
        "n1    primary  same digest    1.9 ms",
        "n3    primary  no answer yet  2.0 ms",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn acknowledgements_are_told_in_one_line() {
    let replicas = [
        replica("n1", ReplicaState::Acked, 410),
        replica("n2", ReplicaState::Waiting, 2000),
    ];
    assert_eq!(
        explain::acks(&replicas),
        "acknowledged by n1 (0.4 ms); n2 no answer yet"
    );
}

#[test]
fn a_deadline_is_told_as_it_was_given() {
    let error = Error::Deadline {
        outcome: quorate_client::Outcome::Unknown,
        timeout: Duration::from_millis(287),
        attempts: Attempts::default(),
        last: None,
    };
    let told = of_whole(error, Duration::from_millis(300)).to_string();
    assert!(told.starts_with("not done within 300 ms"), "{told}");
}

#[test]
fn what_is_missing_was_deleted_or_never_there() {
    assert!(not_found(&key(), &view(vec![None])).message.ends_with("was deleted"));
    let error = not_found(&key(), &view(vec![]));
    assert!(error.message.ends_with("does not exist"));
    assert_eq!(error.exit, Exit::NotFound);
}
