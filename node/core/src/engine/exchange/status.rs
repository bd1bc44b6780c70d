//! What exchanges are doing, for people who watch.

use super::session::Phase;
use crate::engine::Engine;
use crate::time::Instant;
use quorate_ring::{NodeIndex, PartitionId};
use serde::Serialize;

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangePhase {
    /// Roots and branches are compared.
    Roots,
    /// Leaves are compared.
    Leaves,
    /// The keys of leaves that differ are listed.
    Keys,
    /// Records are on their way.
    Records,
}

/// An exchange that this node has started and that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RunningExchange {
    /// With whom.
    pub peer: NodeIndex,
    /// Over which partition.
    pub partition: PartitionId,
    /// Copies in the buckets that it is over.
    pub n: u8,
    /// How far it has come.
    pub phase: ExchangePhase,
    /// Keys that were found to differ and are not dealt with.
    pub keys_left: usize,
    /// Leaves that were found to differ and are not listed.
    pub leaves_left: usize,
}

/// The last exchange with a peer that this node started and that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LastExchange {
    /// With whom.
    pub peer: NodeIndex,
    /// How long ago it ended, in milliseconds.
    pub ago_ms: u64,
    /// Keys that differed in it.
    pub differing: u64,
    /// Records that it sent.
    pub sent: u64,
    /// Records that it brought here and that changed something.
    pub received: u64,
}

/// What exchanges are doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExchangeStatus {
    /// Those under way.
    pub running: Vec<RunningExchange>,
    /// The last ones, by peer.
    pub last: Vec<LastExchange>,
    /// Partitions of which some peer is known to have missed something.
    pub pending_dirty: usize,
    /// Trees shared with some peer that were equal, or could be made equal, when last compared. Each counts once a peer.
    pub trees_in_sync: usize,
    /// Trees shared with some peer. Each counts once a peer.
    pub trees_total: usize,
}

impl Engine {
    /// What exchanges are doing. Walks over all partitions: not for every request.
    pub fn exchanges(&self, now: Instant) -> ExchangeStatus {
        let running = self.exchange.sessions.values().map(|session| RunningExchange {
            peer: session.peer,
            partition: session.tree.partition,
            n: session.tree.n,
            phase: match &session.phase {
                Phase::Root { .. } => ExchangePhase::Roots,
                Phase::Leaves { .. } => ExchangePhase::Leaves,
                Phase::Keys { .. } => ExchangePhase::Keys,
                Phase::Ship { .. } => ExchangePhase::Records,
            },
            keys_left: match &session.phase {
                Phase::Ship { todo, flying } => todo.len() + flying,
                _ => 0,
            },
            leaves_left: session.leaves.len(),
        });
        let last = self.exchange.last.iter().map(|(&peer, (at, ended))| LastExchange {
            peer,
            ago_ms: u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX),
            differing: ended.differing,
            sent: ended.sent,
            received: ended.received,
        });
        ExchangeStatus {
            running: running.collect(),
            last: last.collect(),
            pending_dirty: self.dirty.iter().count(),
            trees_in_sync: self.exchange.in_sync.len(),
            trees_total: self.others().map(|peer| self.shared_trees(peer).count()).sum(),
        }
    }
}
