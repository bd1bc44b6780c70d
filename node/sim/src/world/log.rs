//! A run in words: one line for each input and effect, for replays.

use quorate_core::context::Context;
use quorate_core::engine::{Effect, Input};
use quorate_core::message::{Held, PeerMessage};
use quorate_core::record::{Content, Record};
use quorate_core::request::{Operation, Reply, Response};
use quorate_core::seen::Seen;

pub(super) fn input(input: &Input) -> String {
    match input {
        Input::Request {
            handle,
            operation: what,
            ..
        } => format!("request {}: {}", handle.0, operation(what)),
        Input::Message { from, message: m } => format!("from {from}: {}", message(m)),
        Input::Applied(upto) => format!("applied up to {}", upto.0),
        Input::Loaded { load, result } => match result {
            Ok(Some(payload)) => format!("load {}: {}", load.0, stored(payload)),
            Ok(None) => format!("load {}: nothing", load.0),
            Err(_) => format!("load {}: failed", load.0),
        },
        other => format!("{other:?}"),
    }
}

pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Send { to, message: m } => format!("to {to}: {}", message(m)),
        Effect::Reply { handle, response: r } => format!("reply {}: {}", handle.0, response(r)),
        Effect::Load { load, place } => format!("load {} of {place:?}", load.0),
        Effect::Scan { scan, what } => format!("scan {} of {what:?}", scan.0),
        Effect::SetAside { place } => format!("set aside {place:?}"),
        Effect::Rebuild { reason } => format!("rebuild: {reason}"),
        Effect::Store {
            ticket,
            place,
            payload: note,
        } if place.key().is_none() => {
            format!("store {} of {place:?}: {note:?}", ticket.0)
        }
        Effect::Store { ticket, place, payload } => {
            let what = payload.as_ref().map_or("nothing".into(), |payload| stored(payload));
            format!("store {} of {place:?}: {what}", ticket.0)
        }
    }
}

pub(super) fn operation(operation: &Operation) -> String {
    match operation {
        Operation::Get { key, minimum, options } => {
            format!(
                "get {key} r={:?}{}",
                options.r,
                if minimum.is_some() { " with a minimum" } else { "" }
            )
        }
        Operation::Put {
            key,
            context,
            value,
            request,
            retry,
            options,
        } => format!(
            "put {key} value {} id {:x} w={:?} dw={:?}{}{}",
            number(&value.body),
            request.unique,
            options.w,
            options.dw,
            context
                .as_ref()
                .map_or(String::new(), |c| format!(" with {}", sealed(c))),
            if *retry { ", a retry" } else { "" },
        ),
        Operation::Delete {
            key,
            context,
            request,
            retry,
            options,
        } => format!(
            "delete {key} id {:x} w={:?}{}{}",
            request.unique,
            options.w,
            context
                .as_ref()
                .map_or(String::new(), |c| format!(" with {}", sealed(c))),
            if *retry { ", a retry" } else { "" },
        ),
    }
}

fn message(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Replicate(m) => format!("replicate {:x} {} {}", m.id, m.key, record(&m.record)),
        PeerMessage::ReplicateReply(m) => format!("replicated {:x}: {:?}", m.id, m.result),
        PeerMessage::Fetch(m) => format!("fetch {:x} {}", m.id, m.key),
        PeerMessage::FetchReply(m) => match &m.result {
            Ok(Held::Record(bytes)) => format!("fetched {:x}: {}", m.id, record(bytes)),
            other => format!("fetched {:x}: {other:?}", m.id),
        },
        PeerMessage::Forward(m) => format!("forward {:x}: {}", m.id, operation(&m.operation)),
        PeerMessage::ForwardReply(m) => format!("forwarded {:x}: {}", m.id, response(&m.response)),
        other => format!("{other:?}"),
    }
}

fn response(response: &Response) -> String {
    let report = |replicas: &[quorate_core::request::ReplicaReport]| {
        replicas
            .iter()
            .map(|r| format!(" {}:{}", r.node, r.state))
            .collect::<String>()
    };
    match response {
        Ok(Reply::Written { context, replicas, .. }) => format!("written {}{}", sealed(context), report(replicas)),
        Ok(Reply::Found { view, replicas }) => {
            let values: Vec<String> = view
                .siblings
                .iter()
                .map(|s| s.as_ref().map_or("deleted".into(), |v| number(&v.body).to_string()))
                .collect();
            let context = view.context.as_ref().map_or("nothing".into(), |c| sealed(c));
            format!("found {values:?} {context}{}", report(replicas))
        }
        Err(failure) => format!("{:?}, {:?}{}", failure.code, failure.outcome, report(&failure.replicas)),
    }
}

fn stored(payload: &[u8]) -> String {
    let marked = payload.first().is_some_and(|&length| length > 0);
    match super::truth::record_in(payload) {
        Some(r) => format!("{}{}", if marked { "mine, " } else { "" }, describe(&r)),
        None => "no record".into(),
    }
}

fn record(bytes: &[u8]) -> String {
    Record::decode(bytes).map_or("no record".into(), |record| describe(&record))
}

/// A record in one line.
pub(crate) fn describe(record: &Record) -> String {
    let siblings: Vec<String> = record
        .siblings()
        .iter()
        .map(|s| match &s.content {
            Content::Value(value) => format!("{:?}={}", s.dot, number(&value.body)),
            Content::Tombstone => format!("{:?}=deleted", s.dot),
        })
        .collect();
    let gone: Vec<String> = record
        .overwritten()
        .iter()
        .map(|o| format!("{:x}", o.request.unique))
        .collect();
    format!(
        "[{}] under {} gone {gone:?}",
        siblings.join(", "),
        context(record.context())
    )
}

fn context(context: &Context) -> String {
    let vector: Vec<String> = context
        .vector()
        .iter()
        .map(|(actor, upto)| format!("{actor:?}<={upto}"))
        .collect();
    let lone: Vec<String> = context.lone().iter().map(|dot| format!("{dot:?}")).collect();
    format!("{{{}}}", [vector, lone].concat().join(" "))
}

/// What is inside a sealed context.
fn sealed(bytes: &[u8]) -> String {
    let Some(seen) = unseal(bytes) else {
        return "no context".into();
    };
    let names: Vec<String> = seen
        .writes
        .as_slice()
        .iter()
        .map(|w| format!("{:x}", w.request.unique))
        .collect();
    format!("{} names {names:?}", context(&seen.context))
}

/// Reads a sealed context without its key: behind two bytes of head, before sixteen of seal.
pub(crate) fn unseal(bytes: &[u8]) -> Option<Seen> {
    postcard::from_bytes(bytes.get(2..bytes.len().checked_sub(16)?)?).ok()
}

/// The number of a value: what its body begins with.
pub(super) fn number(body: &[u8]) -> u64 {
    body.first_chunk::<8>().map_or(0, |id| u64::from_le_bytes(*id))
}
