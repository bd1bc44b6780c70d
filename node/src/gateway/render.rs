//! Records as responses: one value raw, several as a list, none as 404.
//!
//! Nothing is merged or chosen here. Two or more values are 300 and the client gets all of them; one value with a delete beside it
//! is 200, marked by a header, since a value wins over a concurrent delete. The list has two forms: JSON, values in
//! base64, and multipart/mixed with raw bodies.

use super::headers::{
    Form, OCTET_STREAM, QUORATE_ACKS, QUORATE_ANSWERS, QUORATE_CONTEXT, QUORATE_DELETED, SIBLINGS_JSON, context_value,
};
use super::precondition::{Shape, etag};
use super::problem::Problem;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY};
use hyper::{Response, StatusCode};
use quorate_core::request::{ReplicaReport, ReplicaState, Role, Value, View};
use quorate_ring::Ring;
use serde::Serialize;
use std::fmt::Write;

/// A response of the gateway: its body is always at hand.
pub(super) type Answer = Response<Full<Bytes>>;

/// Caches must ask again each time: what a key holds can change at any moment.
pub(super) const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// A response with a body.
pub(super) fn answer(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = empty(status);
    // hyper says it of every other length, but leaves it out for an empty answer to HEAD.
    answer
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *answer.body_mut() = Full::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// A response without one.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// What a read found.
pub(super) fn found(view: &View, form: Form) -> Result<Answer, Problem> {
    if view.values().next().is_some() {
        return Ok(representation(view, form));
    }
    let detail = if view.context.is_some() {
        "the value was deleted, or has expired"
    } else {
        "nothing is known under this key: it was never written, or what was is deleted and settled"
    };
    let mut problem = Problem::not_found(detail);
    label(&mut problem.headers, view);
    Err(problem)
}

/// A record that is there: 200 with the one value, or 300 with all of them. A record of deletes alone (after a delete that
/// asked for it) is 200 with the list.
pub(super) fn representation(view: &View, form: Form) -> Answer {
    let mut values = view.values();
    let mut answer = match (values.next(), values.next(), form) {
        (Some(value), None, Form::Json | Form::Multipart) => {
            answer(StatusCode::OK, content_type(value), value.body.clone())
        }
        (_, more, form) => {
            let status = if more.is_some() {
                StatusCode::MULTIPLE_CHOICES
            } else {
                StatusCode::OK
            };
            list(status, view, form)
        }
    };
    let headers = answer.headers_mut();
    label(headers, view);
    headers.insert(ETAG, tag(view, form));
    headers.insert(VARY, HeaderValue::from(ACCEPT));
    headers.insert(CACHE_CONTROL, NO_CACHE);
    answer
}

/// The tag of what [`representation`] sends.
pub(super) fn tag(view: &View, form: Form) -> HeaderValue {
    let shape = match (form, view.values().count()) {
        (Form::Json | Form::Multipart, 1) => Shape::Raw,
        (Form::Multipart, _) => Shape::Multipart,
        (Form::Json | Form::SiblingsJson, _) => Shape::List,
    };
    etag(view.live_hash, shape)
}

/// Headers that every reply about a record has.
pub(super) fn label(headers: &mut HeaderMap, view: &View) {
    if let Some(context) = &view.context {
        headers.insert(QUORATE_CONTEXT, context_value(context));
    }
    if view.has_tombstone() && view.values().next().is_some() {
        headers.insert(QUORATE_DELETED, HeaderValue::from_static("concurrent"));
    }
}

/// The stored type, or the most general one if what another client stored cannot be put in a header.
fn content_type(value: &Value) -> HeaderValue {
    HeaderValue::from_str(&value.content_type)
        .ok()
        .filter(|text| !text.is_empty())
        .unwrap_or(HeaderValue::from_static(OCTET_STREAM))
}

/// All siblings.
fn list(status: StatusCode, view: &View, form: Form) -> Answer {
    match form {
        Form::Multipart => {
            let boundary = format!("quorate-{:032x}", rand::random::<u128>());
            let kind = HeaderValue::try_from(format!("multipart/mixed; boundary={boundary}"));
            answer(
                status,
                kind.expect("the boundary is hexadecimal"),
                multipart(view, &boundary),
            )
        }
        Form::Json => answer(status, HeaderValue::from_static("application/json"), json(view)),
        Form::SiblingsJson => answer(status, HeaderValue::from_static(SIBLINGS_JSON), json(view)),
    }
}

/// `{"context", "siblings": [{"value", "content_type", "deleted"}]}`
#[derive(Serialize)]
struct List<'a> {
    context: Option<String>,
    siblings: Vec<Sibling<'a>>,
}

#[derive(Serialize)]
struct Sibling<'a> {
    value: Option<String>,
    content_type: Option<&'a str>,
    deleted: bool,
}

fn json(view: &View) -> Bytes {
    let siblings = view.siblings.iter().map(|sibling| Sibling {
        value: sibling.as_ref().map(|value| STANDARD.encode(&value.body)),
        content_type: sibling.as_ref().map(|value| value.content_type.as_str()),
        deleted: sibling.is_none(),
    });
    let context = view.context.as_ref().map(|context| URL_SAFE_NO_PAD.encode(context));
    let list = List {
        context,
        siblings: siblings.collect(),
    };
    serde_json::to_vec(&list).expect("strings always serialize").into()
}

/// One part per sibling (RFC 2046, section 5.1). The boundary is random, so no stored value can contain it on purpose.
fn multipart(view: &View, boundary: &str) -> Bytes {
    let bodies: usize = view.values().map(|value| value.body.len()).sum();
    let mut out = Vec::with_capacity(bodies + view.siblings.len() * 256);
    for sibling in &view.siblings {
        out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        match sibling {
            Some(value) => {
                out.extend_from_slice(b"Content-Type: ");
                out.extend_from_slice(content_type(value).as_bytes());
                out.extend_from_slice(format!("\r\nContent-Length: {}\r\n\r\n", value.body.len()).as_bytes());
                out.extend_from_slice(&value.body);
            }
            None => out.extend_from_slice(b"Quorate-Deleted: true\r\nContent-Length: 0\r\n\r\n"),
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    out.into()
}

/// `Quorate-Acks: n1=primary;durable, n3=fallback;durable`: who acknowledged, in which role, and whether the write is on its disk
/// (`accepted`: not yet, in a bucket of relaxed durability).
pub(super) fn acks(headers: &mut HeaderMap, replicas: &[ReplicaReport], ring: &Ring) {
    let acked = replicas
        .iter()
        .filter(|report| matches!(report.state, ReplicaState::Acked | ReplicaState::Accepted));
    let what = |report: &ReplicaReport| match report.state {
        ReplicaState::Accepted => "accepted",
        _ => "durable",
    };
    headers.insert(QUORATE_ACKS, reports(acked, ring, what));
}

/// `Quorate-Answers: n1=primary;record, n2=primary;digest`: who sent a record, and who confirmed it by a hash.
pub(super) fn answers(headers: &mut HeaderMap, replicas: &[ReplicaReport], ring: &Ring) {
    let answered = replicas
        .iter()
        .filter(|report| matches!(report.state, ReplicaState::Acked | ReplicaState::SameDigest));
    let what = |report: &ReplicaReport| {
        if report.state == ReplicaState::Acked {
            "record"
        } else {
            "digest"
        }
    };
    headers.insert(QUORATE_ANSWERS, reports(answered, ring, what));
}

/// `name=role;what`, separated by commas.
fn reports<'a>(
    reports: impl Iterator<Item = &'a ReplicaReport>,
    ring: &Ring,
    what: impl Fn(&ReplicaReport) -> &'static str,
) -> HeaderValue {
    let mut out = String::with_capacity(80);
    for report in reports {
        if !out.is_empty() {
            out.push_str(", ");
        }
        if let Some(member) = ring.members().get(report.node.get()) {
            push_name(&mut out, &member.name);
        }
        let role = match report.role {
            Role::Primary => "primary",
            Role::Fallback => "fallback",
        };
        out.extend(["=", role, ";", what(report)]);
    }
    HeaderValue::try_from(out).expect("names are escaped, and the rest is ASCII")
}

/// A member's name, with whatever could be taken for syntax percent-encoded.
fn push_name(out: &mut String, name: &str) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes all that is written to it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ring, value};
    use super::*;
    use quorate_ring::NodeIndex;

    #[test]
    fn a_multipart_list_has_each_value_raw_and_each_delete_marked() {
        let view = View {
            context: None,
            siblings: vec![Some(value("a\r\nb")), None],
            live_hash: 1,
        };
        let want = "--X\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\na\r\nb\r\n\
                    --X\r\nQuorate-Deleted: true\r\nContent-Length: 0\r\n\r\n\r\n--X--\r\n";
        assert_eq!(multipart(&view, "X"), want);
    }

    #[test]
    fn a_stored_type_that_is_no_header_is_replaced() {
        let mut odd = value("x");
        for text in ["", "a\r\nSet-Cookie: x", "\u{e9}\0"] {
            odd.content_type = text.to_string();
            assert_eq!(content_type(&odd), OCTET_STREAM, "{text:?}");
        }
    }

    #[test]
    fn acks_name_only_those_who_acknowledged() {
        let report = |node, role, state| ReplicaReport {
            node: NodeIndex(node),
            role,
            state,
            elapsed_us: 1,
        };
        let mut replicas = [
            report(0, Role::Primary, ReplicaState::Acked),
            report(1, Role::Primary, ReplicaState::Waiting),
            report(2, Role::Fallback, ReplicaState::Acked),
        ];
        let mut headers = HeaderMap::new();
        acks(&mut headers, &replicas, &ring());
        assert_eq!(headers[QUORATE_ACKS], "n1=primary;durable, n3=fallback;durable");
        replicas[0].state = ReplicaState::Accepted;
        acks(&mut headers, &replicas, &ring());
        assert_eq!(headers[QUORATE_ACKS], "n1=primary;accepted, n3=fallback;durable");
        let mut name = String::new();
        push_name(&mut name, "a, b=\u{e9}");
        assert_eq!(name, "a%2C%20b%3D%C3%A9");
    }
}
