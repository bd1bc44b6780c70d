//! Where exchanges meet the rest of healing: hints that are on their way, and records that are found damaged while they are listed.

use crate::engine::Engine;
use crate::place::Place;
use crate::time::Instant;
use quorate_ring::{NodeIndex, PartitionId};

impl Engine {
    /// Whether this node keeps hints of a partition for a peer.
    pub(super) fn has_hints(&self, peer: NodeIndex, partition: PartitionId) -> bool {
        self.hints
            .are_for_partition(self.config.ring.member(peer).id, partition)
    }

    /// A row is damaged.
    pub(in crate::engine) fn found_corrupt(&mut self, _now: Instant, _place: Place) {}
}
