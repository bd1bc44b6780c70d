//! Where exchanges meet hints: what is on its way home already need not be found.

use crate::engine::Engine;
use quorate_ring::{NodeIndex, PartitionId};

impl Engine {
    /// Whether this node keeps hints of a partition for a peer.
    pub(super) fn has_hints(&self, peer: NodeIndex, partition: PartitionId) -> bool {
        self.hints
            .are_for_partition(self.config.ring.member(peer).id, partition)
    }
}
