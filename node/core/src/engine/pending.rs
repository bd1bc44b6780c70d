//! Writes that were sent, and that nobody waits for any more.
//!
//! A write that was sent may arrive as long as its connection lives, whatever became of the request: a machine that was suspended flushes old
//! writes when it wakes up. Until it is answered or the connection is gone it is *pending*, and a tombstone that it could slip under
//! must not be dropped (promise P4). While its operation is under way the tally knows who owes an answer; only what is open when the operation ends
//! comes in here, so that a write that all owners acknowledge in time costs nothing.
//!
//! Bounded: of a peer that owes very many answers no keys are kept beyond that, and anything may be under way to it.

use crate::key::Key;
use quorate_ring::NodeIndex;
use std::collections::{BTreeMap, BTreeSet};

/// Keys remembered for each peer.
const KEYS_MAX: usize = 16_384;

/// Unanswered writes whose operations have ended, by peer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    peers: BTreeMap<NodeIndex, BTreeMap<u64, Key>>,
    /// Peers that owe more answers than are remembered.
    beyond: BTreeSet<NodeIndex>,
}

impl Pending {
    /// A write went to the node under this number, and was not answered.
    pub(super) fn sent(&mut self, node: NodeIndex, id: u64, key: &Key) {
        let keys = self.peers.entry(node).or_default();
        if keys.len() < KEYS_MAX {
            keys.insert(id, key.clone());
        } else {
            self.beyond.insert(node);
        }
    }

    /// The node has answered it.
    pub(super) fn answered(&mut self, node: NodeIndex, id: u64) {
        if let Some(keys) = self.peers.get_mut(&node) {
            keys.remove(&id);
        }
    }

    /// The connection to the node is gone, and with it all that was under way on it.
    pub(super) fn lost(&mut self, node: NodeIndex) {
        self.peers.remove(&node);
        self.beyond.remove(&node);
    }

    /// Whether a write of the key may still be on its way somewhere.
    pub(super) fn may_hold(&self, key: &Key) -> bool {
        !self.beyond.is_empty() || self.peers.values().any(|keys| keys.values().any(|k| k == key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_write_is_pending_until_it_is_answered_or_its_connection_is_gone() {
        let (a, b) = (NodeIndex(1), NodeIndex(2));
        let key = Key::new(b"bucket", b"key", None).unwrap();
        let mut pending = Pending::default();
        pending.sent(a, 7, &key);
        pending.sent(b, 7, &key);
        pending.answered(a, 7);
        pending.answered(a, 8);
        assert!(pending.may_hold(&key));
        pending.lost(b);
        assert!(!pending.may_hold(&key));
    }

    #[test]
    fn beyond_what_is_remembered_any_key_may_be_pending() {
        let node = NodeIndex(1);
        let [key, other] = ["a", "b"].map(|name| Key::new(b"bucket", name.as_bytes(), None).unwrap());
        let mut pending = Pending::default();
        (0..KEYS_MAX as u64).for_each(|id| pending.sent(node, id, &key));
        assert!(!pending.may_hold(&other));
        pending.sent(node, u64::MAX, &key);
        (0..KEYS_MAX as u64).for_each(|id| pending.answered(node, id));
        assert!(pending.may_hold(&other));
        pending.lost(node);
        assert!(!pending.may_hold(&other));
    }
}
