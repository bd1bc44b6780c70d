//! What a seed becomes before anything runs: an explicit list of operations and faults.
//!
//! A plan can be read, kept in a file, and made smaller: a run that fails is repeated with fewer faults and fewer
//! operations for as long as it still fails in the same way ([`crate::shrink`]). For that, operations say nothing about what an
//! earlier one returned. "The last context that this client holds for the key" means something whatever was left out before it.
//!
//! What is not in the plan is drawn while the run goes on, from streams of its own: delays, losses, read errors.

mod draw;
mod faults;
mod options;
mod steps;

pub use options::{BucketPlan, ClientPlan, DiskRates, HealingPlan, KeyPlan, LimitsPlan, NetworkRates, Options};
pub(crate) use options::{node_id, node_of, owners};

use quorate_core::request::QuorumKind;
use serde::{Deserialize, Serialize};

/// One run, written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The seed; also of the streams that are drawn from during the run.
    pub seed: u64,
    /// The cluster and its rates.
    pub options: Options,
    /// What clients do, by time.
    pub steps: Vec<Step>,
    /// What goes wrong, by time.
    pub faults: Vec<Fault>,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When, in virtual microseconds.
    pub at_us: u64,
    /// Index into [`Options::clients`].
    pub client: u8,
    /// Which node gets the request.
    pub target: Target,
    /// How long the client waits.
    pub timeout_ms: u32,
    /// What it does.
    pub action: Action,
}

/// Which node a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The key's owner of this rank, modulo their number.
    Owner(u8),
    /// This node, whether it owns the key or not.
    Node(u8),
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Reads.
    Get {
        /// Index into [`Options::keys`].
        key: u8,
        /// Answers to wait for.
        r: Option<u8>,
        /// Of these, owners'.
        #[serde(default)]
        pr: Option<u8>,
        /// Which quorum.
        #[serde(default)]
        quorum: Option<QuorumKind>,
        /// Whether the client's last context for the key is sent as a minimum.
        minimum: bool,
    },
    /// Writes a value.
    Put {
        /// Index into [`Options::keys`].
        key: u8,
        /// Which context.
        context: ContextChoice,
        /// Acks to wait for.
        w: Option<u8>,
        /// Of these, owners'.
        #[serde(default)]
        pw: Option<u8>,
        /// Durable acks to wait for.
        dw: Option<u8>,
        /// Which quorum.
        #[serde(default)]
        quorum: Option<QuorumKind>,
        /// Bytes of the value.
        bytes: u32,
        /// Whether the record is to come back.
        representation: bool,
    },
    /// Deletes.
    Delete {
        /// Index into [`Options::keys`].
        key: u8,
        /// Which context.
        context: ContextChoice,
        /// Acks to wait for.
        w: Option<u8>,
        /// Of these, owners'.
        #[serde(default)]
        pw: Option<u8>,
        /// Which quorum.
        #[serde(default)]
        quorum: Option<QuorumKind>,
    },
    /// Sends an earlier write of this client again, under the same id: one of unknown outcome if there is one.
    Again {
        /// How many to go back.
        back: u8,
        /// Whether it says that it is a retry; otherwise it is the same request once more, as a network may deliver it.
        retry: bool,
    },
    /// Uses the id of an earlier write of this client for another value.
    ReuseId {
        /// How many to go back.
        back: u8,
    },
    /// Asks for more owners than there are: must be refused.
    Unsupported {
        /// Index into [`Options::keys`].
        key: u8,
        /// Of a read or of a write.
        which: u8,
    },
}

/// Which context a write carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContextChoice {
    /// None.
    None,
    /// The client's last one for the key, if it has one.
    Last,
    /// One that it held so many before, or its oldest.
    Stale(u8),
    /// The last one that the client holds for another key: must be refused.
    OtherKey,
    /// Its last one with a bit flipped: must be refused.
    Flipped(u16),
    /// Its last one with counters that were never issued, in the right format, with a made-up seal: must be refused.
    Invented,
    /// Larger than what is taken: must be refused.
    Oversized,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When, in virtual microseconds.
    pub at_us: u64,
    /// What.
    pub kind: FaultKind,
}

/// What rots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rotten {
    /// A record.
    Record,
    /// A hint.
    Hint,
    /// A leaf of a Merkle tree.
    Leaf,
}

/// Kinds of faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// A node loses power and starts again.
    Crash {
        /// Which.
        node: u8,
        /// Of the batches that were not synced, how many per mille are found on disk: the oldest.
        survive_pm: u16,
        /// Until it starts again.
        down_ms: u32,
        /// Whether it comes back with an empty disk. Not if that held the last copy of what was acknowledged, nor while another node reads
        /// again what it has lost.
        wipe: bool,
    },
    /// A node loses power, and comes back over an older copy of its disk; with the same restraint.
    RollBack {
        /// Which.
        node: u8,
        /// Over the copy from before its last start (0), the one before that (1), and so on.
        starts: u8,
        /// Until it starts again.
        down_ms: u32,
    },
    /// A node goes away and never comes back.
    Leave {
        /// Which.
        node: u8,
    },
    /// A bit of a row flips; with the same restraint if it is a record's.
    Rot {
        /// Which node.
        node: u8,
        /// In what.
        what: Rotten,
        /// Which of its rows, modulo their number.
        row: u16,
        /// Which bit, modulo their number.
        bit: u16,
    },
    /// A file is damaged under some of a node's rows: they cannot be read any more, and no scan gets past them. With the same restraint.
    Damage {
        /// Which node.
        node: u8,
        /// Records or hints. Leaves of trees are computed again.
        what: Rotten,
        /// Which is the first of them, modulo their number.
        row: u16,
        /// How many follow. All hints for one node lie together.
        more: u8,
    },
    /// A node's next sync fails, and its process stops.
    SyncFails {
        /// Which.
        node: u8,
    },
    /// What a node sends takes longer for a while.
    Slow {
        /// Which.
        node: u8,
        /// By how much.
        by_ms: u32,
        /// For how long.
        for_ms: u32,
    },
    /// All nodes lose power at the same moment.
    PowerCut {
        /// As in `Crash`.
        survive_pm: u16,
        /// As in `Crash`; each node takes a little longer than the one before.
        down_ms: u32,
    },
    /// All nodes lose power, and all that is not synced, the moment after the next write is acknowledged.
    CutAtAck {
        /// As in `PowerCut`.
        down_ms: u32,
    },
    /// A node loses power while it carries out its effects.
    CrashAtEffect {
        /// Which.
        node: u8,
        /// After this many effects, counted from the moment of the fault.
        effects: u32,
        /// Until it starts again.
        down_ms: u32,
    },
    /// A node stops for a while; what comes in waits.
    Pause {
        /// Which.
        node: u8,
        /// For how long.
        for_ms: u32,
    },
    /// Messages stop getting through.
    Partition {
        /// From these nodes.
        from: Vec<u8>,
        /// To these.
        to: Vec<u8>,
        /// And back.
        both_ways: bool,
        /// For how long.
        for_ms: u32,
    },
    /// The connection between two nodes is lost.
    Reset {
        /// One.
        a: u8,
        /// The other.
        b: u8,
    },
    /// An owner of a key forgets its record while it runs. Always the same owner of the same key.
    Forget {
        /// Index into [`Options::keys`].
        key: u8,
    },
    /// A node's disk refuses writes for a while.
    DiskFull {
        /// Which.
        node: u8,
        /// For how long.
        for_ms: u32,
    },
    /// A node's disk cannot be read for a while.
    Unreadable {
        /// Which.
        node: u8,
        /// For how long.
        for_ms: u32,
    },
}
