//! What can go wrong, and what is certain about it.
//!
//! Each error says whether the write may have happened. [`Outcome::NotApplied`] is said only if it is certain for
//! *every* attempt: each one either never left this process or was answered with a certain "no". One attempt that was
//! sent and not answered makes the whole operation [`Outcome::Unknown`]: the write may be there now, later, or never.
//! The client has then resent it under the same request id until the deadline; the application should read before it
//! goes on.
//!
//! Rejected: treating a timeout as a failure. It is the commonest way to lose or double a write.

use quorate_core::key::KeyError;
use quorate_core::request::{Code, Failure, Outcome, ReplicaState, Role};
use quorate_ring::NodeId;
use std::fmt;
use std::time::Duration;

use crate::tls::TlsError;

/// Why no connection to the cluster could be made. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration names no endpoint.
    #[error("the configuration names no endpoint")]
    NoEndpoints,
    /// The certificates or the key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No local UDP socket could be opened.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    /// None of the endpoints let us in. Try again later, or mend what the reasons say.
    #[error("no endpoint answered: {}", .reasons.join("; "))]
    NoneAnswered {
        /// One line for each endpoint: its address and what happened.
        reasons: Vec<String>,
    },
}

/// Why one connection could not be made. Nothing was sent on it.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host name does not resolve.
    #[error("cannot resolve {address}: {reason}")]
    Resolve {
        /// The address as configured.
        address: String,
        /// What the resolver said.
        reason: String,
    },
    /// The handshake failed: nobody there, or the certificates do not fit.
    #[error("{reason}")]
    Handshake {
        /// What QUIC or TLS said.
        reason: String,
    },
    /// No handshake, or no welcome, within the time for it.
    #[error("no answer within {} ms", .after.as_millis())]
    TimedOut {
        /// How long it was waited for.
        after: Duration,
    },
    /// The node sent something else than a welcome.
    #[error("the node did not answer the hello properly: {reason}")]
    Protocol {
        /// What it did.
        reason: String,
    },
    /// The node does not want us.
    #[error("refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// Another cluster or another node answers at this address.
    #[error("{expected} was expected there, but {got} answers")]
    Stranger {
        /// Who should be there.
        expected: String,
        /// Who is.
        got: String,
    },
}

/// How one replica took part, with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedReplica {
    /// The node's name.
    pub node: String,
    /// In which role.
    pub role: Role,
    /// How it went.
    pub state: ReplicaState,
    /// From the request's start to its answer.
    pub elapsed: Duration,
}

/// `n2 timed out after 500 ms`, `n3 is down`, `n4 (fallback) is overloaded`.
impl fmt::Display for NamedReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Primary => "",
            Role::Fallback => " (fallback)",
        };
        write!(f, "{}{role} {}", self.node, self.state)?;
        match self.state {
            ReplicaState::TimedOut | ReplicaState::Waiting => write!(f, " after {} ms", self.elapsed.as_millis()),
            _ => Ok(()),
        }
    }
}

/// An attempt that did not bring the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Name of the node that was asked.
    pub node: String,
    /// One phrase: `timed out after 500 ms`, `connection lost: …`, or what the node said.
    pub reason: String,
}

/// How many tries an operation took, and how the unsuccessful ones ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Requests that were sent, hedges included.
    pub sent: u32,
    /// Whether a read was sent to a second owner because the first was slow.
    pub hedged: bool,
    /// Who answered in the end.
    pub answered_by: Option<NodeId>,
    /// The others, in order; the newest [`FAILED_ATTEMPTS_MAX`] are kept.
    pub failed: Vec<FailedAttempt>,
}

/// How many failed attempts are remembered for the error message.
pub const FAILED_ATTEMPTS_MAX: usize = 16;

impl Attempts {
    pub(crate) fn failed(&mut self, node: &str, reason: String) {
        if self.failed.len() == FAILED_ATTEMPTS_MAX {
            self.failed.remove(0);
        }
        self.failed.push(FailedAttempt {
            node: node.to_owned(),
            reason,
        });
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failed[..] {
            [] => f.write_str("no node could be reached"),
            failed => {
                for (at, attempt) in failed.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{}: {}", attempt.node, attempt.reason)?;
                }
                Ok(())
            }
        }
    }
}

/// Why an operation failed. [`Error::outcome`] says whether it may have been applied.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The cluster answered, and trying again cannot help: the request has to change. `outcome` says what is left
    /// behind.
    #[error("{detail}{}", Unknown(*.outcome))]
    Failed {
        /// Why, for programs.
        code: Code,
        /// Whether anything changed.
        outcome: Outcome,
        /// Why, for people.
        detail: String,
        /// How each replica stood.
        replicas: Vec<NamedReplica>,
    },
    /// The deadline ended after one or more attempts that brought no answer, or only failures that may pass. Try again
    /// later; if the outcome is unknown, read first.
    #[error("not done within {} ms: {}{}", .timeout.as_millis(), Why(.last, .attempts), Unknown(*.outcome))]
    Deadline {
        /// Whether anything may have changed.
        outcome: Outcome,
        /// The deadline.
        timeout: Duration,
        /// What was tried.
        attempts: Attempts,
        /// The newest failure that a node reported, if any did.
        last: Option<Box<Reported>>,
    },
    /// So many requests wait for this node already that the client took no more. Nothing was sent. Slow down.
    #[error("{node} has {pending} requests waiting already; slow down")]
    Overloaded {
        /// Name of the least busy node that would have done.
        node: String,
        /// How many requests wait for it.
        pending: usize,
    },
    /// The key is not one. Nothing was sent.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A question to a node that is not a member or has no connection. Nothing was sent.
    #[error("no connection to node {node}")]
    Unreachable {
        /// Which one.
        node: String,
    },
    /// The answer is not one to what was asked. The node speaks another dialect; the outcome of a write is unknown.
    #[error("{node} gave an answer of the wrong kind")]
    WrongAnswer {
        /// Which node.
        node: String,
    },
}

/// A failure as a node reported it, with names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The failure.
    pub failure: Failure,
    /// How each replica stood.
    pub replicas: Vec<NamedReplica>,
}

impl Error {
    /// Whether the operation may have changed anything. A read never does.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Failed { outcome, .. } | Error::Deadline { outcome, .. } => *outcome,
            Error::WrongAnswer { .. } => Outcome::Unknown,
            Error::Overloaded { .. } | Error::Key(_) | Error::Unreachable { .. } => Outcome::NotApplied,
        }
    }

    /// The code of the newest failure that a node reported, if any did.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Failed { code, .. } => Some(*code),
            Error::Deadline { last: Some(last), .. } => Some(last.failure.code),
            _ => None,
        }
    }

    /// How each replica stood, as far as a node reported it.
    pub fn replicas(&self) -> &[NamedReplica] {
        match self {
            Error::Failed { replicas, .. } => replicas,
            Error::Deadline { last: Some(last), .. } => &last.replicas,
            _ => &[],
        }
    }
}

/// Warns at the end of a message, if there is something to warn of.
struct Unknown(Outcome);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Outcome::NotApplied => Ok(()),
            Outcome::Unknown => f.write_str(" (the write may or may not have been applied)"),
        }
    }
}

/// What a node said is worth more than that we waited.
struct Why<'a>(&'a Option<Box<Reported>>, &'a Attempts);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(reported) => f.write_str(&reported.failure.detail),
            None => self.1.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_names_the_nodes_and_warns_of_an_unknown_outcome() {
        let mut attempts = Attempts::default();
        attempts.failed("n2", "timed out after 500 ms".to_owned());
        attempts.failed("n3", "connection lost: closed".to_owned());
        let timeout = Duration::from_secs(5);
        let error = Error::Deadline {
            outcome: Outcome::Unknown,
            timeout,
            attempts,
            last: None,
        };
        assert_eq!(
            error.to_string(),
            "not done within 5000 ms: n2: timed out after 500 ms, n3: connection lost: closed \
             (the write may or may not have been applied)"
        );
        assert_eq!(error.outcome(), Outcome::Unknown);
    }

    #[test]
    fn what_a_node_reported_comes_before_what_was_waited() {
        let failure = Failure::not_applied(Code::Unavailable, "2 acks needed, 1 owner is up");
        let last = Some(Box::new(Reported {
            failure,
            replicas: vec![],
        }));
        let error = Error::Deadline {
            outcome: Outcome::NotApplied,
            timeout: Duration::from_secs(1),
            attempts: Attempts::default(),
            last,
        };
        assert_eq!(
            error.to_string(),
            "not done within 1000 ms: 2 acks needed, 1 owner is up"
        );
        assert_eq!(error.code(), Some(Code::Unavailable));
    }

    #[test]
    fn only_the_newest_attempts_are_kept() {
        let mut attempts = Attempts::default();
        for at in 0..100 {
            attempts.failed("n1", at.to_string());
        }
        assert_eq!(attempts.failed.len(), FAILED_ATTEMPTS_MAX);
        assert_eq!(attempts.failed[FAILED_ATTEMPTS_MAX - 1].reason, "99");
    }
}
