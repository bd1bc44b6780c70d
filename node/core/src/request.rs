//! What clients ask, and what they are told.
//!
//! These types are shared by the engine, the wire, the HTTP gateway and the client library, so an answer means the same at each.
//! The rule behind [`Failure`]: `NotApplied` is said only when it is certain that no replica holds the write or ever
//! will; anything else after sending is `Unknown`. A caller that sees `Unknown` may send the same request again under the same
//! [`RequestId`], and only under that.

use crate::key::Key;
use bytes::Bytes;
use quorate_ring::NodeIndex;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A client's name for one write, the same on each retry. Two ids are the [same](RequestId::same) if `unique` is; the stamp only
/// says how long a record remembers the id once the write is overwritten: the oldest are forgotten first, and those of writes that were
/// [sent again](RequestId::is_again) much later than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Wall clock of whoever made the id, in milliseconds since 1970. Decides nothing but the order of forgetting. The lowest bit is no time: it
    /// says that the write was, or may be, sent more than once.
    pub stamp_ms: u64,
    /// 64 random bits (or a hash of the caller's own idempotency key).
    #[serde(with = "postcard::fixint::le")]
    pub unique: u64,
}

/// The bit of a stamp that says so.
const AGAIN: u64 = 1;

impl RequestId {
    /// The id of a write that is sent once, as far as is known. Its stamp is even.
    pub fn new(stamp_ms: u64, unique: u64) -> RequestId {
        let stamp_ms = stamp_ms & !AGAIN;
        RequestId { stamp_ms, unique }
    }

    /// The same id, saying that the write was, or may be, sent more than once. Two coordinators may then have a copy each, and the one that the other
    /// has not met may come late: the id is worth remembering for longer.
    #[must_use]
    pub fn again(self) -> RequestId {
        RequestId {
            stamp_ms: self.stamp_ms | AGAIN,
            ..self
        }
    }

    /// Whether it says so.
    pub fn is_again(&self) -> bool {
        self.stamp_ms & AGAIN == AGAIN
    }

    /// Whether both name the same request.
    pub fn same(&self, other: &RequestId) -> bool {
        self.unique == other.unique
    }
}

/// A client's value: bytes and what kind of bytes they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// MIME type, kept as it was given.
    pub content_type: String,
    /// The bytes.
    pub body: Bytes,
}

/// Which quorum a request or bucket wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuorumKind {
    /// Only the key's owners count.
    Strict,
    /// Fallbacks count too, while owners are away.
    Sloppy,
}

/// Options of a read. `None` takes the bucket's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOptions {
    /// Answers from distinct owners before the reply.
    pub r: Option<u8>,
    /// Of these, from owners.
    pub pr: Option<u8>,
    /// Strict or sloppy.
    pub quorum: Option<QuorumKind>,
}

/// Options of a write. `None` takes the bucket's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteOptions {
    /// Acks from distinct owners before the reply.
    pub w: Option<u8>,
    /// Of these, durable ones; more than `w` raises `w`.
    pub dw: Option<u8>,
    /// Of these, from owners.
    pub pw: Option<u8>,
    /// Strict or sloppy.
    pub quorum: Option<QuorumKind>,
    /// Whether the reply carries the whole record after the write.
    pub return_representation: bool,
}

/// One request for one key. Contexts are [sealed](crate::seal): opaque to everyone but the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Read the record.
    Get {
        /// Of this key.
        key: Key,
        /// The least that must be seen: the reply's context covers it, or the read fails with [`Code::MinimumUnmet`].
        minimum: Option<Bytes>,
        /// Quorum.
        options: ReadOptions,
    },
    /// Write a value.
    Put {
        /// Under this key.
        key: Key,
        /// What the writer has seen, and so replaces.
        context: Option<Bytes>,
        /// The value.
        value: Value,
        /// The same on each retry, as all else is.
        request: RequestId,
        /// Whether this request was sent before. A retry never covers what it was not shown.
        retry: bool,
        /// Quorum.
        options: WriteOptions,
    },
    /// Write a tombstone.
    Delete {
        /// Under this key.
        key: Key,
        /// What is deleted. Needed: without it the request is refused with [`Code::ContextRequired`].
        context: Option<Bytes>,
        /// The same on each retry.
        request: RequestId,
        /// Whether this request was sent before.
        retry: bool,
        /// Quorum.
        options: WriteOptions,
    },
}

impl Operation {
    /// The key that it is about.
    pub fn key(&self) -> &Key {
        match self {
            Operation::Get { key, .. } | Operation::Put { key, .. } | Operation::Delete { key, .. } => key,
        }
    }

    /// Strict or sloppy, if it says so.
    pub fn quorum(&self) -> Option<QuorumKind> {
        match self {
            Operation::Get { options, .. } => options.quorum,
            Operation::Put { options, .. } | Operation::Delete { options, .. } => options.quorum,
        }
    }

    /// Whether it may change anything.
    pub fn is_write(&self) -> bool {
        !matches!(self, Operation::Get { .. })
    }
}

/// In which role a node answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Among the first N of the preference list.
    Primary,
    /// Further down.
    Fallback,
}

/// How one replica took part in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Answered with a durable ack, or with its durable record.
    Acked,
    /// Answered a read: its record was the same as the coordinator's, so only a hash travelled.
    SameDigest,
    /// Was not asked: others were enough.
    NotAsked,
    /// No answer yet.
    Waiting,
    /// No answer before the deadline.
    TimedOut,
    /// No connection when the request came.
    Down,
    /// The connection was lost while the request was under way.
    Lost,
    /// Its own disk gave an error, so it has no answer.
    ReadFailed,
    /// Its own disk refused the write.
    WriteFailed,
    /// Its queue was full, or the record is too large to be sent.
    Overloaded,
    /// It says that it does not own the key: its ring differs.
    NotOwner,
    /// Acknowledged a write that it has not synced to disk yet: see [`Durability::Relaxed`](crate::bucket::Durability).
    Accepted,
    /// It has lost its memory and is still reading it again from the others, so it has no answer.
    Rebuilding,
    /// It keeps as many hints for others as it takes.
    HintsFull,
}

impl fmt::Display for ReplicaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplicaState::Acked => "acknowledged",
            ReplicaState::SameDigest => "same digest",
            ReplicaState::NotAsked => "was not asked",
            ReplicaState::Waiting => "no answer yet",
            ReplicaState::TimedOut => "timed out",
            ReplicaState::Down => "is down",
            ReplicaState::Lost => "lost its connection",
            ReplicaState::ReadFailed => "could not read its disk",
            ReplicaState::WriteFailed => "could not write to its disk",
            ReplicaState::Overloaded => "is overloaded",
            ReplicaState::NotOwner => "does not own the key",
            ReplicaState::Accepted => "accepted",
            ReplicaState::Rebuilding => "is rebuilding its data from the other owners",
            ReplicaState::HintsFull => "takes no more hints",
        })
    }
}

/// One replica's part in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Which node, as an index into the ring's members.
    pub node: NodeIndex,
    /// In which role.
    pub role: Role,
    /// How it went.
    pub state: ReplicaState,
    /// Microseconds from the request's start to its answer, or to the reply if there was none.
    pub elapsed_us: u32,
}

/// What a read found: the record as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Sealed context; `None` if nothing was ever written under the key.
    pub context: Option<Bytes>,
    /// Values and deletes that are live side by side, in dot order. `None` is a delete.
    pub siblings: Vec<Option<Value>>,
    /// Hash of the live dots, for ETags.
    pub live_hash: u64,
}

impl View {
    /// The values, without the deletes.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.siblings.iter().flatten()
    }

    /// Whether a delete is live.
    pub fn has_tombstone(&self) -> bool {
        self.siblings.iter().any(Option::is_none)
    }
}

/// A request that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The write is durable on W owners.
    Written {
        /// The writer's own context plus the new dot, sealed.
        context: Bytes,
        /// The record after the write, if it was asked for.
        view: Option<View>,
        /// Who had acknowledged when the reply left, and how the others stood.
        replicas: Vec<ReplicaReport>,
    },
    /// What R owners hold, merged.
    Found {
        /// The record.
        view: View,
        /// Who answered, and how.
        replicas: Vec<ReplicaReport>,
    },
}

/// Whether a failed request changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Certainly not: no replica holds it, and none ever will.
    NotApplied,
    /// It may have been, now or later.
    Unknown,
}

/// Why a request failed. Codes are stable: they are on the wire and in the HTTP problem documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A parameter makes no sense for this bucket (`r` above `n`, say).
    BadRequest,
    /// The context is not one that this cluster issued for this key.
    ForgedContext,
    /// Not served by this version.
    Unsupported,
    /// A write that needs a context came without one.
    ContextRequired,
    /// The write would leave more siblings than the bucket allows; read, resolve, and write with the context.
    TooManySiblings,
    /// The request id was used for another write: another value, or the same one with another context.
    IdempotencyReuse,
    /// Value or record over its limit.
    TooLarge,
    /// Too few owners are up for the quorum; nothing was sent.
    Unavailable,
    /// Too few owners answered.
    QuorumNotMet,
    /// What was read does not cover the given minimum.
    MinimumUnmet,
    /// A queue is full; nothing was done.
    Overloaded,
    /// The node that was asked does not own the key, and the request was forwarded already.
    NotOwner,
    /// No answer came at all.
    DeadlineExceeded,
    /// The node is stopping.
    Stopping,
}

impl Code {
    /// Whether sending the same request again, under the same id, can help.
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Code::Unavailable
                | Code::QuorumNotMet
                | Code::MinimumUnmet
                | Code::Overloaded
                | Code::NotOwner
                | Code::DeadlineExceeded
                | Code::Stopping
        )
    }
}

/// A request that failed, what is certain about it, and who is to blame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// Why.
    pub code: Code,
    /// Whether anything changed. Always `NotApplied` for reads.
    pub outcome: Outcome,
    /// One sentence for people: what happened and what to do.
    pub detail: String,
    /// How each replica stood.
    pub replicas: Vec<ReplicaReport>,
}

impl Failure {
    /// A failure before anything was sent.
    pub fn not_applied(code: Code, detail: impl Into<String>) -> Failure {
        Failure {
            code,
            outcome: Outcome::NotApplied,
            detail: detail.into(),
            replicas: Vec::new(),
        }
    }
}

/// What every request ends in.
pub type Response = Result<Reply, Failure>;
