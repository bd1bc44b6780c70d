//! What tests ask of a cluster, and how they read the answers.

use crate::key::Key;
use crate::message::PeerMessage;
use crate::record::{Content, Record};
use crate::request::{
    Failure, Operation, ReadOptions, ReplicaReport, ReplicaState, Reply, RequestId, Response, Value, View, WriteOptions,
};
use bytes::Bytes;

/// The key that most tests use.
pub(super) fn key() -> Key {
    Key::new(b"bucket", b"key", None).unwrap()
}

/// The test's request id number `n`.
pub(super) fn request(n: u64) -> RequestId {
    RequestId::new(1_000 + 2 * n, n)
}

pub(super) fn get() -> Operation {
    Operation::Get {
        key: key(),
        minimum: None,
        options: ReadOptions::default(),
    }
}

pub(super) fn get_at_least(minimum: &Bytes) -> Operation {
    Operation::Get {
        key: key(),
        minimum: Some(minimum.clone()),
        options: ReadOptions::default(),
    }
}

pub(super) fn get_with(options: ReadOptions) -> Operation {
    Operation::Get {
        key: key(),
        minimum: None,
        options,
    }
}

/// A put under request id `n`.
pub(super) fn put(n: u64, value: &str, context: Option<&Bytes>) -> Operation {
    put_under(key(), n, value, context)
}

pub(super) fn put_under(key: Key, n: u64, value: &str, context: Option<&Bytes>) -> Operation {
    Operation::Put {
        key,
        context: context.cloned(),
        value: Value {
            content_type: "text/plain".into(),
            body: Bytes::copy_from_slice(value.as_bytes()),
        },
        request: request(n),
        retry: false,
        options: WriteOptions::default(),
    }
}

/// A delete under request id `n`.
pub(super) fn delete(n: u64, context: Option<&Bytes>) -> Operation {
    Operation::Delete {
        key: key(),
        context: context.cloned(),
        request: request(n),
        retry: false,
        options: WriteOptions::default(),
    }
}

/// The same write, sent again.
pub(super) fn again(mut operation: Operation) -> Operation {
    match &mut operation {
        Operation::Put { retry, .. } | Operation::Delete { retry, .. } => *retry = true,
        Operation::Get { .. } => {}
    }
    operation
}

/// The same write with other options.
pub(super) fn with_options(mut operation: Operation, change: impl FnOnce(&mut WriteOptions)) -> Operation {
    match &mut operation {
        Operation::Put { options, .. } | Operation::Delete { options, .. } => change(options),
        Operation::Get { .. } => {}
    }
    operation
}

/// The context and reports of a write that succeeded.
#[track_caller]
pub(super) fn written(response: Response) -> (Bytes, Vec<ReplicaReport>) {
    match response {
        Ok(Reply::Written { context, replicas, .. }) => (context, replicas),
        other => panic!("not written: {other:?}"),
    }
}

/// What a read found.
#[track_caller]
pub(super) fn found(response: Response) -> View {
    match response {
        Ok(Reply::Found { view, .. }) => view,
        other => panic!("not found: {other:?}"),
    }
}

/// What a read found, as sorted text, `-` for a delete; and its context.
#[track_caller]
pub(super) fn read(response: Response) -> (Vec<String>, Option<Bytes>) {
    let view = found(response);
    let text = |value: &Option<Value>| match value {
        Some(value) => String::from_utf8(value.body.to_vec()).unwrap(),
        None => "-".into(),
    };
    let mut texts: Vec<String> = view.siblings.iter().map(text).collect();
    texts.sort();
    (texts, view.context)
}

/// Why a request failed.
#[track_caller]
pub(super) fn failed(response: Response) -> Failure {
    response.expect_err("the request fails")
}

pub(super) fn is_fetch(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Fetch(_))
}

pub(super) fn is_forward(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Forward(_))
}

pub(super) fn is_store_hint(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::StoreHint(_))
}

pub(super) fn is_handoff(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Handoff(_))
}

/// How each replica stood, by node.
pub(super) fn states(replicas: &[ReplicaReport]) -> Vec<ReplicaState> {
    let mut sorted = replicas.to_vec();
    sorted.sort_by_key(|report| report.node);
    sorted.iter().map(|report| report.state).collect()
}

/// The values of a record, as sorted text.
pub(super) fn texts(record: &Record) -> Vec<String> {
    let text = |content: &Content| match content {
        Content::Value(value) => String::from_utf8(value.body.to_vec()).unwrap(),
        Content::Tombstone => "-".into(),
    };
    let mut texts: Vec<String> = record.siblings().iter().map(|s| text(&s.content)).collect();
    texts.sort();
    texts
}
