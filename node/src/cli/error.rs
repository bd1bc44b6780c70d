//! How a command fails: an exit code, a sentence, what the cluster said, and a hint.

use quorate_client::{Code, ConfigError, ConnectError, Error, NamedReplica, Outcome, ReplicaState};
use serde::Serialize;

/// Exit codes. They are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Exit {
    /// Something went wrong.
    Error = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Too few replicas answered, or nobody knows whether the write was applied.
    Quorum = 3,
    /// There is nothing under that key.
    NotFound = 4,
    /// Refused for what is there: siblings, or a context that is missing or does not fit.
    Precondition = 5,
}

/// A command that failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CliError {
    /// What the process exits with.
    pub(crate) exit: Exit,
    /// What happened.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// What the cluster answered, if it did.
    pub(crate) told: Option<Told>,
}

/// A failure as the cluster told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Told {
    /// Stable name of the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<Code>,
    /// Whether anything changed.
    pub(crate) outcome: Outcome,
    /// How each replica stood.
    pub(crate) replicas: Vec<Replica>,
}

/// One replica's part, as JSON shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Replica {
    /// The node's name.
    pub(crate) node: String,
    /// `primary` or `fallback`.
    pub(crate) role: quorate_client::Role,
    /// How it went.
    pub(crate) state: ReplicaState,
    /// Microseconds from the request's start to its answer, or to the reply.
    pub(crate) elapsed_us: u64,
}

impl From<&NamedReplica> for Replica {
    fn from(named: &NamedReplica) -> Replica {
        Replica {
            node: named.node.clone(),
            role: named.role,
            state: named.state,
            elapsed_us: u64::try_from(named.elapsed.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// What `-o json` prints to stderr.
#[derive(Serialize)]
struct Document<'a> {
    error: Fields<'a>,
}

#[derive(Serialize)]
struct Fields<'a> {
    message: &'a str,
    exit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(flatten)]
    told: Option<&'a Told>,
}

impl CliError {
    /// A failure with a sentence and nothing else.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> CliError {
        CliError {
            exit,
            message: message.into(),
            hint: None,
            told: None,
        }
    }

    /// Adds what to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> CliError {
        CliError {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The form for scripts.
    pub(crate) fn json(&self) -> String {
        let told = self.told.as_ref();
        let fields = Fields {
            message: &self.message,
            exit: self.exit as u8,
            hint: self.hint.as_deref(),
            told,
        };
        serde_json::to_string(&Document { error: fields }).expect("text and numbers serialize")
    }
}

/// Any error of ours that needs no more than its own sentence.
pub(crate) fn plain(error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Error, error.to_string())
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        plain(error)
    }
}

impl From<ConnectError> for CliError {
    fn from(error: ConnectError) -> CliError {
        // Nothing was sent to anybody.
        let told = Some(Told {
            code: None,
            outcome: Outcome::NotApplied,
            replicas: Vec::new(),
        });
        let hint = match &error {
            ConnectError::NoneAnswered { reasons } => unanswered(reasons).map(str::to_owned),
            _ => None,
        };
        CliError {
            hint,
            told,
            ..plain(error)
        }
    }
}

/// What to do when nobody let us in. The reasons are text from TLS, QUIC or a node; the first that is known decides.
fn unanswered(reasons: &[String]) -> Option<&'static str> {
    let says = |part: &str| reasons.iter().any(|reason| reason.contains(part));
    if says("UnknownIssuer") || says("BadSignature") {
        Some(
            "the certificate is of another cluster: ca, certificate and key must be of the one that answers at these endpoints",
        )
    } else if says("certificate") {
        Some("quorate cert show FILE says whose a certificate is, and how long it holds")
    } else if says("this is cluster") || says("was expected there") {
        Some("another cluster answers there: mend cluster or endpoints in the client's configuration")
    } else if says("refused: ") {
        None
    } else {
        Some("is the cluster running? For one on this machine: quorate dev")
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> CliError {
        let (code, outcome) = (error.code(), error.outcome());
        let mut message = error.to_string();
        let blamed: Vec<String> = error
            .replicas()
            .iter()
            .filter(|r| is_to_blame(r))
            .map(ToString::to_string)
            .collect();
        if !blamed.is_empty() && !blamed.iter().any(|blamed| message.contains(blamed)) {
            message = format!("{message}: {}", blamed.join(", "));
        }
        let replicas = error.replicas().iter().map(Replica::from).collect();
        CliError {
            exit: exit(code, outcome, matches!(error, Error::Deadline { .. })),
            message,
            hint: hint(code, outcome).map(str::to_owned),
            told: Some(Told {
                code,
                outcome,
                replicas,
            }),
        }
    }
}

fn is_to_blame(replica: &NamedReplica) -> bool {
    !matches!(
        replica.state,
        ReplicaState::Acked | ReplicaState::SameDigest | ReplicaState::Accepted
    )
}

fn exit(code: Option<Code>, outcome: Outcome, deadline: bool) -> Exit {
    match code {
        _ if outcome == Outcome::Unknown => Exit::Quorum,
        Some(Code::Unavailable | Code::QuorumNotMet | Code::DeadlineExceeded | Code::MinimumUnmet) => Exit::Quorum,
        Some(Code::ContextRequired | Code::ForgedContext | Code::TooManySiblings | Code::IdempotencyReuse) => {
            Exit::Precondition
        }
        None if deadline => Exit::Quorum,
        _ => Exit::Error,
    }
}

fn hint(code: Option<Code>, outcome: Outcome) -> Option<&'static str> {
    Some(match code {
        _ if outcome == Outcome::Unknown => {
            "read the key to see whether the write is there; writing again may leave two siblings with the same value"
        }
        Some(Code::Unavailable | Code::QuorumNotMet | Code::DeadlineExceeded) | None => {
            "quorate status shows which nodes are up; --timeout-ms gives slow ones more time"
        }
        Some(Code::ContextRequired) => "leave --blind out, so that the context is read first",
        Some(Code::ForgedContext) => "read the key again and give back the context that comes with it, unchanged",
        Some(Code::TooManySiblings) => {
            "read them with get, then write one value that follows from them with put --resolve"
        }
        Some(Code::Overloaded | Code::Stopping) => "try again in a moment",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use quorate_client::Role;
    use std::time::Duration;

    fn failed(code: Code, outcome: Outcome) -> CliError {
        let replica = |node: &str, state, ms| NamedReplica {
            node: node.into(),
            role: Role::Primary,
            state,
            elapsed: Duration::from_millis(ms),
        };
        let replicas = vec![
            replica("n1", ReplicaState::Acked, 1),
            replica("n2", ReplicaState::TimedOut, 500),
            replica("n3", ReplicaState::Overloaded, 2),
        ];
        Error::Failed {
            code,
            outcome,
            detail: "2 acks needed, 1 came".into(),
            replicas,
        }
        .into()
    }

    #[test]
    fn an_error_says_what_happened_and_which_replicas_are_to_blame() {
        let error = failed(Code::QuorumNotMet, Outcome::NotApplied);
        assert_eq!(
            error.message,
            "2 acks needed, 1 came: n2 timed out after 500 ms, n3 is overloaded"
        );
        assert_eq!(error.exit, Exit::Quorum);
    }

    #[test]
    fn exit_codes_tell_the_cases_apart() {
        let cases = [
            (Code::QuorumNotMet, Outcome::NotApplied, Exit::Quorum),
            (Code::Unavailable, Outcome::NotApplied, Exit::Quorum),
            (Code::Overloaded, Outcome::Unknown, Exit::Quorum),
            (Code::Overloaded, Outcome::NotApplied, Exit::Error),
            (Code::ContextRequired, Outcome::NotApplied, Exit::Precondition),
            (Code::ForgedContext, Outcome::NotApplied, Exit::Precondition),
            (Code::TooManySiblings, Outcome::NotApplied, Exit::Precondition),
            (Code::TooLarge, Outcome::NotApplied, Exit::Error),
        ];
        for (code, outcome, exit) in cases {
            assert_eq!(failed(code, outcome).exit, exit, "{code:?} {outcome:?}");
        }
    }

    #[test]
    fn the_hint_of_a_failed_connect_fits_the_reason() {
        let tls = "127.0.0.1:1: the cryptographic handshake failed: error 48: invalid peer certificate: ";
        let cases = [
            (
                format!("{tls}UnknownIssuer"),
                Some("the certificate is of another cluster"),
            ),
            (format!("{tls}Expired"), Some("quorate cert show FILE")),
            (
                "127.0.0.1:1: refused: this is cluster \"a\", not \"b\"".into(),
                Some("another cluster answers there"),
            ),
            ("127.0.0.1:1: refused: 1024 clients are connected".into(), None),
            (
                "127.0.0.1:1: no answer within 3000 ms".into(),
                Some("is the cluster running?"),
            ),
        ];
        for (reason, hint) in cases {
            let down = "127.0.0.1:2: no answer within 3000 ms".to_owned();
            let error = CliError::from(ConnectError::NoneAnswered {
                reasons: vec![down, reason.clone()],
            });
            let found = error.hint.as_deref();
            assert!(
                found.unwrap_or_default().starts_with(hint.unwrap_or_default()),
                "{reason}: {found:?}"
            );
            assert_eq!(found.is_some(), hint.is_some(), "{reason}");
            let json: serde_json::Value = serde_json::from_str(&error.json()).unwrap();
            assert_eq!(json["error"]["outcome"], "not_applied");
        }
    }

    #[test]
    fn errors_as_json_keep_their_fields() {
        let json: serde_json::Value =
            serde_json::from_str(&failed(Code::QuorumNotMet, Outcome::Unknown).json()).unwrap();
        let error = &json["error"];
        assert_eq!(error["exit"], 3);
        assert_eq!(error["code"], "quorum_not_met");
        assert_eq!(error["outcome"], "unknown");
        assert_eq!(error["replicas"][1]["node"], "n2");
        assert_eq!(error["replicas"][1]["role"], "primary");
        assert_eq!(error["replicas"][1]["state"], "timed_out");
        assert_eq!(error["replicas"][1]["elapsed_us"], 500_000);
        assert!(error["message"].is_string() && error["hint"].is_string());
        let plain: serde_json::Value = serde_json::from_str(&plain("x").json()).unwrap();
        assert_eq!(plain, serde_json::json!({ "error": { "message": "x", "exit": 1 } }));
    }
}
