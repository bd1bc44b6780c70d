//! What nodes say to each other to heal: hints, handoff, anti-entropy, settling, and who has lost its memory.
//!
//! All of it is [bulk](super::PeerMessage::is_bulk) but for what a client waits for (hints as they are made, reads of them) and greetings:
//! the shell sends bulk behind everything else, on streams of its own. Nodes are named by their ids here, not by their place in a ring, since hints
//! outlive rings.

use super::Refusal;
use crate::key::Key;
use bytes::Bytes;
use quorate_ring::{NodeId, PartitionId};
use serde::{Deserialize, Serialize};

/// One process of a node, as its peers remember it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// The generation of its data directory: rises by one with each start.
    pub generation: u64,
    /// A random number of the process. The upper half is the same for all processes over one directory.
    #[serde(with = "postcard::fixint::le")]
    pub start: u64,
}

/// The first message on a connection between nodes, both ways: who has which memory. Nothing else counts until both accept each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The sender.
    pub me: Met,
    /// The newest process of the receiver that the sender remembers.
    pub remembers: Option<Met>,
    /// The sender has noted durably who the receiver is, and takes in what it sends.
    pub accepts: bool,
    /// The sender has lost its memory and has not read everything again: what it does not have says nothing.
    pub rebuilding: bool,
    /// The sender has not heard that the receiver accepts it, and wants to be told.
    pub asks: bool,
}

/// A coordinator asks a fallback to keep the record of a key for an owner that is away. Idempotent: the fallback merges it with what it
/// keeps. Answered by a [`ReplicateReply`](super::ReplicateReply).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreHint {
    /// The coordinator's number for it.
    pub id: u64,
    /// The owner that it is for.
    pub target: NodeId,
    /// The record's name.
    pub key: Key,
    /// The record's canonical bytes.
    pub record: Bytes,
}

/// A coordinator asks a fallback for what it keeps for an owner. Answered by a [`FetchReply`](super::FetchReply).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchHint {
    /// The coordinator's number for it.
    pub id: u64,
    /// The owner that it is for.
    pub target: NodeId,
    /// The record's name.
    pub key: Key,
    /// As [`Fetch::have`](super::Fetch::have).
    pub have: Option<u64>,
}

/// A record on its way to an owner that was behind: a hint going home, or what an exchange found. Idempotent: the owner merges it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// The sender's number for it.
    pub id: u64,
    /// The record's name.
    pub key: Key,
    /// The record's canonical bytes.
    pub record: Bytes,
}

/// The answer to a [`Handoff`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoffReply {
    /// The number of the [`Handoff`].
    pub id: u64,
    /// `Ok`: merged, and synced to disk.
    pub result: Result<(), Refusal>,
    /// How many handoffs the sender may have under way to this node from now on: its credit.
    pub credit: u16,
}

/// What is asked about one tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeQuestion {
    /// Is the root this? If not, the hashes of all branches.
    Root(u64),
    /// The hashes of these branches' leaves, in this order.
    Leaves(Vec<u8>),
    /// The keys in these leaves.
    Keys {
        /// The leaves, in order.
        leaves: Vec<u16>,
        /// Of the first leaf only the keys behind this one: where an earlier answer stopped. One leaf may hold more than an answer does, since
        /// all items of one partition key lie in one.
        after: Option<Key>,
    },
}

/// One owner asks another about a tree of theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeAsk {
    /// The sender's number for it.
    pub id: u64,
    /// The partition.
    pub partition: PartitionId,
    /// Copies in the buckets that it is about.
    pub n: u8,
    /// What is asked.
    pub question: TreeQuestion,
}

/// One record, as a list of keys names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// The record's name.
    pub key: Key,
    /// Hash of its canonical bytes; zero if it was written a moment ago, and the other owners may not have that write yet.
    #[serde(with = "postcard::fixint::le")]
    pub hash: u64,
    /// Its context as postcard, so that the other side knows whose record is the newer one; empty if it is longer than a small record.
    pub context: Bytes,
}

/// What is answered about a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeAnswer {
    /// The roots are equal.
    Same,
    /// The hashes of all branches.
    Branches(Vec<u64>),
    /// The hashes of the leaves of the branches that were asked for.
    Leaves(Vec<u64>),
    /// The keys in the leaves that were asked for, up to a bound. `done`: how many of these leaves are listed to their end; the next one is
    /// listed up to the last key.
    Keys {
        /// The keys, in their order.
        entries: Vec<KeyEntry>,
        /// Leaves listed to their end.
        done: u16,
    },
}

/// The answer to a [`TreeAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeReply {
    /// The number of the [`TreeAsk`].
    pub id: u64,
    /// What the sender's tree says.
    pub result: Result<TreeAnswer, Refusal>,
}

/// One owner asks another for a record that an exchange found to differ, or that it has lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// The sender's number for it.
    pub id: u64,
    /// The record's name.
    pub key: Key,
    /// If the receiver has lost the record, too, it gives what it has.
    pub parts: bool,
}

/// The answer to a [`Pull`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullReply {
    /// The number of the [`Pull`].
    pub id: u64,
    /// The record's canonical bytes, synced; those of the empty record if there is none.
    pub result: Result<Bytes, Refusal>,
    /// The sender has not lost anything of it.
    pub whole: bool,
}

/// A record that may be settled: its key, the hash of its canonical bytes, and what is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The record's name.
    pub key: Key,
    /// Hash of its canonical bytes.
    #[serde(with = "postcard::fixint::le")]
    pub hash: u64,
    /// The lives whose actors leave its context. None: nothing in the record is live, and all of it goes.
    pub retire: Vec<u64>,
}

/// Which of the two rounds of the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleRound {
    /// From now on the member watches these records.
    First,
    /// Nothing has come in between.
    Second,
}

/// An owner asks every member whether anything stands against settling these records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleAsk {
    /// The sender's number for the batch, the same in both rounds.
    pub id: u64,
    /// Which round.
    pub round: SettleRound,
    /// The records.
    pub candidates: Vec<Candidate>,
}

/// What stands against settling a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Objection {
    /// An owner holds another record.
    Differs,
    /// An owner has not synced it.
    Unsynced,
    /// An owner cannot read it.
    Unreadable,
    /// An owner has lost its memory and has not read everything again.
    Rebuilding,
    /// A value in it has not expired yet by an owner's clock.
    NotExpired,
    /// A request for the key is under way, or something that was sent for it has not been answered.
    UnderWay,
    /// A member keeps a hint.
    Hint,
    /// A life that should have ended goes on.
    Living,
    /// Between the rounds something came, or they were too close together, or the member has started anew.
    NotWatched,
    /// The member has too much else to do.
    Busy,
    /// A member is away, or did not answer in time.
    Away,
}

/// The answer to a [`SettleAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleReply {
    /// The number of the [`SettleAsk`].
    pub id: u64,
    /// Its round.
    pub round: SettleRound,
    /// Positions of those against which something stands here, and what.
    pub refused: Vec<(u16, Objection)>,
    /// Those of the lives to be retired that go on here.
    pub living: Vec<u64>,
}

/// It is proved: owners settle these records, each only if it still has this hash and nothing came since the second round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reap {
    /// The number of the [`SettleAsk`]s.
    pub id: u64,
    /// The records.
    pub candidates: Vec<Candidate>,
}
