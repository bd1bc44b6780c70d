//! Writes that were sent, and that nobody waits for any more.
//!
//! A write that was sent may arrive as long as its connection lives, whatever became of the request: a machine that was suspended flushes old
//! writes when it wakes up. Until it is answered or the connection is gone it is *pending*, and a tombstone that it could slip under
//! must not be dropped (promise P4). While its operation is under way the tally knows who owes an answer; only what is open when the operation ends
//! comes in here, so that a write that all owners acknowledge in time costs nothing.
//!
//! Bounded: of a peer that owes very many answers only the numbers are kept beyond that, and as long as one of them is open anything may be under
//! way to it. Beyond what is kept of numbers, too, that stays so until its connection is gone.

use crate::key::Key;
use quorate_ring::NodeIndex;
use std::collections::{BTreeMap, BTreeSet};

/// Keys remembered for each peer.
const KEYS_MAX: usize = 16_384;
/// Numbers remembered for each peer without their keys.
const NUMBERS_MAX: usize = 1 << 20;

/// Unanswered writes whose operations have ended, by peer. Invariant: `keys` counts how often each key is in `peers`.
#[derive(Debug, Default)]
pub(super) struct Pending {
    peers: BTreeMap<NodeIndex, Owed>,
    keys: BTreeMap<Key, usize>,
}

/// What one peer has not answered.
#[derive(Debug, Default)]
struct Owed {
    keys: BTreeMap<u64, Key>,
    /// Those whose keys are not kept.
    beyond: BTreeSet<u64>,
    /// There were more than can be told.
    is_untold: bool,
}

impl Owed {
    /// Whether it may be a write of any key.
    fn may_be_any(&self) -> bool {
        self.is_untold || !self.beyond.is_empty()
    }
}

impl Pending {
    /// A write went to the node under this number, and was not answered.
    pub(super) fn sent(&mut self, node: NodeIndex, id: u64, key: &Key) {
        let owed = self.peers.entry(node).or_default();
        if owed.keys.len() < KEYS_MAX {
            *self.keys.entry(key.clone()).or_default() += 1;
            if let Some(before) = owed.keys.insert(id, key.clone()) {
                self.forget(&before);
            }
        } else if owed.beyond.len() < NUMBERS_MAX {
            owed.beyond.insert(id);
        } else {
            owed.is_untold = true;
        }
    }

    /// The node has answered it.
    pub(super) fn answered(&mut self, node: NodeIndex, id: u64) {
        let Some(owed) = self.peers.get_mut(&node) else { return };
        owed.beyond.remove(&id);
        if let Some(key) = owed.keys.remove(&id) {
            self.forget(&key);
        }
    }

    /// The connection to the node is gone, and with it all that was under way on it.
    pub(super) fn lost(&mut self, node: NodeIndex) {
        let owed = self.peers.remove(&node).unwrap_or_default();
        owed.keys.values().for_each(|key| self.forget(key));
    }

    /// Whether a write of the key may still be on its way somewhere.
    pub(super) fn may_hold(&self, key: &Key) -> bool {
        self.keys.contains_key(key) || self.peers.values().any(Owed::may_be_any)
    }

    /// One write of the key less.
    fn forget(&mut self, key: &Key) {
        if let Some(count) = self.keys.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(b"bucket", name.as_bytes(), None).unwrap()
    }

    #[test]
    fn a_write_is_pending_until_it_is_answered_or_its_connection_is_gone() {
        let (a, b) = (NodeIndex(1), NodeIndex(2));
        let key = key("key");
        let mut pending = Pending::default();
        pending.sent(a, 7, &key);
        pending.sent(b, 7, &key);
        pending.sent(b, 7, &key);
        pending.answered(a, 7);
        pending.answered(a, 8);
        assert!(pending.may_hold(&key));
        pending.lost(b);
        assert!(!pending.may_hold(&key));
        assert!(pending.keys.is_empty());
    }

    #[test]
    fn beyond_what_is_remembered_any_key_may_be_pending_until_that_is_answered() {
        let node = NodeIndex(1);
        let (busy, other) = (key("a"), key("b"));
        let mut pending = Pending::default();
        let kept = 0..KEYS_MAX as u64;
        let beyond = 1_000_000..1_003_000;
        kept.clone().for_each(|id| pending.sent(node, id, &busy));
        assert!(!pending.may_hold(&other));
        beyond.clone().for_each(|id| pending.sent(node, id, &busy));
        kept.for_each(|id| pending.answered(node, id));
        assert!(pending.may_hold(&other));
        beyond.for_each(|id| pending.answered(node, id));
        assert!(!pending.may_hold(&busy) && !pending.may_hold(&other));
    }

    #[test]
    fn what_was_beyond_is_gone_with_its_connection() {
        let node = NodeIndex(1);
        let mut pending = Pending::default();
        (0..=KEYS_MAX as u64).for_each(|id| pending.sent(node, id, &key("a")));
        assert!(pending.may_hold(&key("b")));
        pending.lost(node);
        assert!(!pending.may_hold(&key("a")) && !pending.may_hold(&key("b")));
    }
}
