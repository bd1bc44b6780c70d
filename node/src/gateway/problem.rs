//! Errors as RFC 9457 problem documents, and which status each code has.
//!
//! A client must be able to act on an error without reading prose: `code` is stable, `outcome` says whether the write was
//! applied, `retryable` whether the same request can help. People get `detail`: what happened, what it means, what to do.
//! The rule of [`Outcome`] holds here too: whatever the gateway refuses by itself was never sent, so it is `not_applied`.

use super::render::{Answer, NO_CACHE, answer};
use bytes::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode};
use quorate_core::request::{Code, Failure, Outcome, ReplicaReport, ReplicaState, Role};
use quorate_ring::Ring;
use serde::Serialize;

/// What every problem document is.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A problem document in the making.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: String,
    pub(super) outcome: Outcome,
    pub(super) retryable: bool,
    pub(super) replicas: Vec<Replica>,
    /// Headers that go with it. Boxed: the type travels in every `Result` of the gateway.
    pub(super) headers: Box<HeaderMap>,
}

/// One replica's part, with its name instead of its position.
#[derive(Debug, Serialize)]
pub(super) struct Replica {
    node: String,
    role: Role,
    state: ReplicaState,
    elapsed_ms: f64,
}

/// The document as it is sent. Member order is that of RFC 9457, then ours.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    outcome: Outcome,
    retryable: bool,
    replicas: &'a [Replica],
}

impl Problem {
    /// A problem found before anything was sent.
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Problem {
        Problem {
            status,
            code,
            title,
            detail: detail.into(),
            outcome: Outcome::NotApplied,
            retryable: false,
            replicas: Vec::new(),
            headers: Box::default(),
        }
    }

    /// 400: the request makes no sense.
    pub(super) fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::coded(Code::BadRequest, detail)
    }

    /// 400: the request makes sense, but this version does not serve it.
    pub(super) fn unsupported(detail: impl Into<String>) -> Problem {
        Problem::coded(Code::Unsupported, detail)
    }

    /// 404: nothing is there.
    pub(super) fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not_found", "Not found", detail)
    }

    /// 405: the path has no such method.
    pub(super) fn method_not_allowed(method: &Method, allowed: &'static str) -> Problem {
        let detail = match allowed {
            "" => "nothing is served under this path yet".to_string(),
            _ => format!("{method:.32?} is not served here; allowed are {allowed}"),
        };
        let mut problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "Method not allowed",
            detail,
        );
        problem.headers.insert(ALLOW, HeaderValue::from_static(allowed));
        problem
    }

    /// A problem with one of the codes of the protocol, found by the gateway.
    pub(super) fn coded(code: Code, detail: impl Into<String>) -> Problem {
        let (status, name, title) = describe(code);
        Problem {
            retryable: code.retryable(),
            ..Problem::new(status, name, title, detail)
        }
    }

    /// What the data loop answered. `write`: whether the question of the outcome arises at all.
    pub(super) fn failure(failure: Failure, write: bool, ring: &Ring) -> Problem {
        let mut problem = Problem::coded(failure.code, failure.detail);
        problem.outcome = failure.outcome;
        problem.replicas = failure
            .replicas
            .iter()
            .map(|report| Replica::new(report, ring))
            .collect();
        if write {
            problem.detail.push_str(outcome_in_words(failure.outcome));
        }
        problem
    }

    /// The response.
    pub(super) fn answer(self) -> Answer {
        let document = Document {
            r#type: format!("urn:quorate:problem:{}", self.code),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            outcome: self.outcome,
            retryable: self.retryable,
            replicas: &self.replicas,
        };
        let body = serde_json::to_vec(&document).expect("strings and numbers always serialize");
        let mut answer = answer(self.status, PROBLEM_JSON, Bytes::from(body));
        let headers = answer.headers_mut();
        headers.extend(*self.headers);
        headers.insert(CACHE_CONTROL, NO_CACHE);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        debug_assert_eq!(
            headers.get(CONTENT_TYPE),
            Some(&PROBLEM_JSON),
            "no extra header replaces the type"
        );
        answer
    }
}

impl Replica {
    fn new(report: &ReplicaReport, ring: &Ring) -> Replica {
        let member = ring.members().get(report.node.get());
        Replica {
            node: member.map_or_else(|| format!("#{}", report.node), |member| member.name.clone()),
            role: report.role,
            state: report.state,
            elapsed_ms: f64::from(report.elapsed_us) / 1000.0,
        }
    }
}

/// What an outcome means for whoever sent the write.
fn outcome_in_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::NotApplied => ". This request was not applied and never will be.",
        Outcome::Unknown => {
            ". Whether the write was applied is unknown: it may be stored now, or turn up later. Read the key to find out, \
             or send the same request again with the same Idempotency-Key."
        }
    }
}

/// Status, name and title of a code. The names are those of the wire.
fn describe(code: Code) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as S;
    match code {
        Code::BadRequest => (S::BAD_REQUEST, "bad_request", "Bad request"),
        Code::ForgedContext => (S::BAD_REQUEST, "forged_context", "Context not issued here"),
        Code::Unsupported => (S::BAD_REQUEST, "unsupported", "Not served by this version"),
        Code::ContextRequired => (S::PRECONDITION_REQUIRED, "context_required", "Context required"),
        Code::TooManySiblings => (S::CONFLICT, "too_many_siblings", "Too many siblings"),
        Code::IdempotencyReuse => (
            S::CONFLICT,
            "idempotency_reuse",
            "Idempotency key used for another payload",
        ),
        Code::TooLarge => (S::PAYLOAD_TOO_LARGE, "too_large", "Too large"),
        Code::Unavailable => (S::SERVICE_UNAVAILABLE, "unavailable", "Too few replicas are up"),
        Code::QuorumNotMet => (S::SERVICE_UNAVAILABLE, "quorum_not_met", "Quorum not met"),
        Code::MinimumUnmet => (
            S::SERVICE_UNAVAILABLE,
            "minimum_unmet",
            "What was read is older than the given context",
        ),
        Code::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "Overloaded"),
        Code::NotOwner => (
            S::SERVICE_UNAVAILABLE,
            "not_owner",
            "The node that was asked does not own the key",
        ),
        Code::DeadlineExceeded => (S::GATEWAY_TIMEOUT, "deadline_exceeded", "Deadline exceeded"),
        Code::Stopping => (S::SERVICE_UNAVAILABLE, "stopping", "The node is stopping"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::ring;
    use super::*;
    use quorate_ring::NodeIndex;

    const CODES: [(Code, u16); 14] = [
        (Code::BadRequest, 400),
        (Code::ForgedContext, 400),
        (Code::Unsupported, 400),
        (Code::ContextRequired, 428),
        (Code::TooManySiblings, 409),
        (Code::IdempotencyReuse, 409),
        (Code::TooLarge, 413),
        (Code::Unavailable, 503),
        (Code::QuorumNotMet, 503),
        (Code::MinimumUnmet, 503),
        (Code::Overloaded, 503),
        (Code::NotOwner, 503),
        (Code::DeadlineExceeded, 504),
        (Code::Stopping, 503),
    ];

    #[test]
    fn each_code_has_its_status_and_its_name_on_the_wire() {
        for (code, status) in CODES {
            let problem = Problem::coded(code, "x");
            assert_eq!(problem.status.as_u16(), status, "{code:?}");
            assert_eq!(serde_json::to_value(code).unwrap(), problem.code);
            let answer = problem.answer();
            assert_eq!(answer.headers().contains_key(RETRY_AFTER), status == 503, "{code:?}");
        }
    }

    #[test]
    fn a_failure_names_its_replicas_and_says_what_became_of_the_write() {
        let report = |node, state, elapsed_us| ReplicaReport {
            node: NodeIndex(node),
            role: Role::Primary,
            state,
            elapsed_us,
        };
        let failure = Failure {
            code: Code::QuorumNotMet,
            outcome: Outcome::Unknown,
            detail: "2 acks needed, 1 came".to_string(),
            replicas: vec![
                report(0, ReplicaState::Acked, 1500),
                report(9, ReplicaState::TimedOut, 500_000),
            ],
        };
        let problem = Problem::failure(failure.clone(), true, &ring());
        assert!(
            problem
                .detail
                .starts_with("2 acks needed, 1 came. Whether the write was applied is unknown")
        );
        let replicas = serde_json::to_value(&problem.replicas).unwrap();
        let want = serde_json::json!([
            { "node": "n1", "role": "primary", "state": "acked", "elapsed_ms": 1.5 },
            { "node": "#9", "role": "primary", "state": "timed_out", "elapsed_ms": 500.0 },
        ]);
        assert_eq!(replicas, want);
        assert_eq!(
            Problem::failure(failure, false, &ring()).detail,
            "2 acks needed, 1 came"
        );
    }
}
