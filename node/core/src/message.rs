//! Every message on the wire. How they are framed is in [`frame`](FrameError).
//!
//! The version rule (`docs/wire.md`): the fields of a message never change under one version. A new message gets a new type, which older
//! nodes skip; a changed one gets a new frame version, which a node sends only to peers whose hello offers it. Every request carries its
//! sender's number and every answer repeats it, so answers may come in any order.

mod frame;
mod healing;

pub use frame::{FrameError, HEADER_BYTES, PEER_FRAME_BYTES_MAX, RECORD_BYTES_MAX, WIRE_VERSION};
pub use healing::{
    Candidate, FetchHint, Greeting, Handoff, HandoffReply, KeyEntry, Met, Objection, Pull, PullReply, Reap, SettleAsk,
    SettleReply, SettleRound, StoreHint, TreeAnswer, TreeAsk, TreeQuestion, TreeReply,
};

use crate::bucket::Durability;
use crate::key::Key;
use crate::request::{Operation, Response};
use bytes::Bytes;
use quorate_ring::{NodeId, Ring, RingVersion};
use serde::{Deserialize, Serialize};

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRole {
    /// A node of the cluster, with its identity; it must be the one in the certificate.
    Node(NodeId),
    /// A client.
    Client,
}

/// The first frame of a connection, by whoever opened it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Which cluster the sender believes it talks to; empty for a client that does not know yet.
    pub cluster: String,
    /// Who is speaking.
    pub role: PeerRole,
    /// Lowest and highest wire version that the sender speaks.
    pub versions: (u8, u8),
    /// Version of the sender's ring, and a digest of what all nodes must agree on (ring, buckets, context keys); zero for clients.
    pub ring: (RingVersion, u64),
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// Come in.
    Accepted {
        /// The cluster.
        cluster: String,
        /// Who answers.
        node: NodeId,
        /// The ring, with everybody's addresses.
        ring: Ring,
    },
    /// Go away, and why; the connection closes.
    Refused {
        /// One sentence for the log of the other side.
        reason: String,
    },
}

/// A request by a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The sender's number for it; the reply carries the same.
    pub id: u64,
    /// How long the sender waits, in milliseconds.
    pub timeout_ms: u32,
    /// What it wants.
    pub operation: Operation,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestReply {
    /// The request's number.
    pub id: u64,
    /// Its end.
    pub response: Response,
}

/// A question to the node itself rather than to the store: not on the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The ring as this node knows it.
    Ring,
    /// The node's state, as JSON (`docs/wire.md`).
    Status,
    /// Compare everything with all peers now; answered as [`Status`](Query::Status).
    Repair,
}

/// A [`Query`] with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryRequest {
    /// The sender's number for it.
    pub id: u64,
    /// What it asks.
    pub query: Query,
}

/// What a query is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryAnswer {
    /// The ring.
    Ring(Ring),
    /// A JSON object.
    Status(String),
}

/// The answer to a [`QueryRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReply {
    /// The query's number.
    pub id: u64,
    /// The answer.
    pub answer: QueryAnswer,
}

/// A coordinator sends the whole record of a key to another owner. Idempotent: the owner merges it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicate {
    /// The coordinator's number for it.
    pub id: u64,
    /// The record's name.
    pub key: Key,
    /// The record's canonical bytes.
    pub record: Bytes,
    /// The ack is to wait for the disk even in a bucket whose acks need not.
    pub sync: bool,
}

/// Why a replica gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Its disk gave an error: it does not know what it holds.
    ReadFailed,
    /// Its disk refused the write.
    WriteFailed,
    /// Its queue is full.
    Overloaded,
    /// It does not own the key.
    NotOwner,
    /// The bytes sent are no record.
    Malformed,
    /// It has lost its memory and has not read everything again: it does not know what it should hold.
    Rebuilding,
    /// It keeps as many hints as it takes.
    HintsFull,
}

/// The answer to a [`Replicate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicateReply {
    /// The number of the [`Replicate`].
    pub id: u64,
    /// `Ok`: merged; and whether it is synced to disk.
    pub result: Result<Durability, Refusal>,
}

/// A coordinator asks another owner for its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The coordinator's number for it.
    pub id: u64,
    /// The record's name.
    pub key: Key,
    /// Hash of the coordinator's own record: if the owner's is the same, only that is said.
    pub have: Option<u64>,
}

/// What an owner holds under a key, all of it synced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// The same as [`Fetch::have`].
    Same,
    /// The record's canonical bytes; those of the empty record if there is none.
    Record(Bytes),
}

/// The answer to a [`Fetch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReply {
    /// The number of the [`Fetch`].
    pub id: u64,
    /// What the owner holds.
    pub result: Result<Held, Refusal>,
}

/// A node that does not own a key passes a request on to an owner, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The forwarder's number for it.
    pub id: u64,
    /// What is left of the deadline, in microseconds.
    pub timeout_us: u32,
    /// The request.
    pub operation: Operation,
}

/// The answer to a [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardReply {
    /// The number of the [`Forward`].
    pub id: u64,
    /// The request's end.
    pub response: Response,
}

/// Everything that nodes say to each other about records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// See [`Replicate`].
    Replicate(Replicate),
    /// See [`ReplicateReply`].
    ReplicateReply(ReplicateReply),
    /// See [`Fetch`].
    Fetch(Fetch),
    /// See [`FetchReply`].
    FetchReply(FetchReply),
    /// See [`Forward`].
    Forward(Forward),
    /// See [`ForwardReply`].
    ForwardReply(ForwardReply),
    /// See [`Greeting`].
    Greeting(Greeting),
    /// See [`StoreHint`].
    StoreHint(StoreHint),
    /// See [`FetchHint`].
    FetchHint(FetchHint),
    /// See [`Handoff`].
    Handoff(Handoff),
    /// See [`HandoffReply`].
    HandoffReply(HandoffReply),
    /// See [`TreeAsk`].
    TreeAsk(TreeAsk),
    /// See [`TreeReply`].
    TreeReply(TreeReply),
    /// See [`Pull`].
    Pull(Pull),
    /// See [`PullReply`].
    PullReply(PullReply),
    /// See [`SettleAsk`].
    SettleAsk(SettleAsk),
    /// See [`SettleReply`].
    SettleReply(SettleReply),
    /// See [`Reap`].
    Reap(Reap),
}

impl PeerMessage {
    /// Whether nobody waits for it: it travels behind everything else, on streams of its own.
    pub fn is_bulk(&self) -> bool {
        use PeerMessage::*;
        match self {
            Replicate(_) | ReplicateReply(_) | Fetch(_) | FetchReply(_) | Forward(_) | ForwardReply(_)
            | Greeting(_) | StoreHint(_) | FetchHint(_) => false,
            Handoff(_) | HandoffReply(_) | TreeAsk(_) | TreeReply(_) | Pull(_) | PullReply(_) | SettleAsk(_)
            | SettleReply(_) | Reap(_) => true,
        }
    }
}

/// One message of any kind, as a frame carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// See [`Request`].
    Request(Request),
    /// See [`RequestReply`].
    RequestReply(RequestReply),
    /// See [`QueryRequest`].
    Query(QueryRequest),
    /// See [`QueryReply`].
    QueryReply(QueryReply),
    /// Between nodes.
    Peer(PeerMessage),
}

#[cfg(test)]
mod tests;
