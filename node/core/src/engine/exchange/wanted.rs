//! Where exchanges meet the rest of healing: nodes that have lost their memory, and records that are found corrupt.

use crate::engine::Engine;
use crate::place::Place;
use crate::time::Instant;
use crate::tree::TreeId;
use quorate_ring::NodeIndex;

impl Engine {
    /// Whether this node has lost its memory and still has to read this tree from this peer.
    pub(in crate::engine) fn needs_source(&self, _peer: NodeIndex, _tree: TreeId) -> bool {
        false
    }

    /// Whether a peer has lost its memory, so that what it does not have says nothing.
    pub(in crate::engine) fn is_rebuilding(&self, _peer: NodeIndex) -> bool {
        false
    }

    /// An exchange has made this node's tree equal to the peer's, or found it so. `peer_was_rebuilding` is as of its beginning.
    pub(in crate::engine) fn exchanged(
        &mut self,
        _now: Instant,
        _peer: NodeIndex,
        _tree: TreeId,
        _peer_was_rebuilding: bool,
    ) {
    }

    /// A row is damaged.
    pub(in crate::engine) fn found_corrupt(&mut self, _now: Instant, _place: Place) {}
}
