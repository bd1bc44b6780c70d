//! How settling stands, for people.

use super::Settling;
use crate::engine::Engine;
use crate::message::Objection;
use quorate_ring::NodeIndex;

/// How settling stands at a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettleStatus {
    /// Records that wait, in the partitions of which this node is the first owner, those in batches under way included. Over all nodes this
    /// counts each record once. What waited before this process began is one for each partition until it has been read, and nothing until all
    /// members were connected.
    pub queued: u64,
    /// Batches under way.
    pub batches: usize,
    /// Records that this node watches for a proof of any member.
    pub watched: usize,
    /// Rounds asked so far.
    pub rounds: u64,
    /// Members that are not connected. While there are any, nothing is settled.
    pub away: Vec<NodeIndex>,
    /// Who objected last to settling a record, and why.
    pub last_objection: Option<(NodeIndex, Objection)>,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) rounds: u64,
    pub(super) last_objection: Option<(NodeIndex, Objection)>,
}

impl Engine {
    /// How settling stands.
    pub fn settling(&self) -> SettleStatus {
        let Settling {
            queue,
            batches,
            watches,
            seen,
            ..
        } = &self.settling;
        SettleStatus {
            queued: queue.rows(),
            batches: batches.len(),
            watched: watches.len(),
            rounds: seen.rounds,
            away: self.away().collect(),
            last_objection: seen.last_objection,
        }
    }
}
