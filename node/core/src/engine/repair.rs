//! Read repair that nobody waits for: owners that a read found behind get what it found.
//!
//! It merges whole records and deletes nothing, goes to owners only, never to fallbacks, and is kept to a rate: after an owner was away for
//! long, nearly every read finds it behind, and reads must not become as dear as writes then. What is over the rate, or larger than
//! a mebibyte, is skipped and counted; anti-entropy will find it.
//!
//! A repair is a write under way until it is answered or its connection is gone, though nobody waits for the answer: until then the record may
//! still arrive, and must not meet an owner that has dropped its tombstone. So unanswered ones are remembered.

use super::{Engine, OpId};
use crate::key::Key;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;
use std::collections::BTreeMap;
use std::time::Duration;

/// Largest record that is repaired in the background, in bytes.
const REPAIR_BYTES_MAX: usize = 1 << 20;

/// Repairs that are unanswered at most. An owner that has so many to answer has enough to do.
const UNANSWERED_MAX: usize = 4096;

/// How far ahead of its rate a burst may run.
const BURST: Duration = Duration::from_millis(100);

/// Repairs under way, and when the next one is due.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    unanswered: BTreeMap<(NodeIndex, OpId), Key>,
    /// When all that was let through is used up at the rate that is allowed.
    used_up: Instant,
}

impl Repairs {
    /// Remembers a record that was sent and that nobody waits for any more.
    pub(super) fn leave(&mut self, node: NodeIndex, id: OpId, key: &Key) {
        self.unanswered.insert((node, id), key.clone());
    }

    /// A node has answered one.
    pub(super) fn answered(&mut self, node: NodeIndex, id: OpId) {
        self.unanswered.remove(&(node, id));
    }

    /// The connection to a node is gone, and with it all that was under way on it.
    pub(super) fn lost(&mut self, node: NodeIndex) {
        self.unanswered.retain(|&(to, _), _| to != node);
    }

    /// The keys of those that are unanswered.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.unanswered.values()
    }

    /// Whether one more is within the rate; it is counted then.
    fn admit(&mut self, now: Instant, per_second: u32) -> bool {
        let Some(cost) = Duration::from_secs(1).checked_div(per_second) else {
            return false;
        };
        let has_room = self.used_up <= now + BURST && self.unanswered.len() < UNANSWERED_MAX;
        if has_room {
            self.used_up = self.used_up.max(now) + cost;
        }
        has_room
    }
}

impl Engine {
    /// Sends owners that are behind what a read has found.
    pub(super) fn repair(&mut self, now: Instant, key: &Key, record: &Bytes, behind: &[NodeIndex]) {
        for &node in behind {
            if node != self.me && !self.peers.is_up(node) {
                continue;
            }
            let fits = record.len() <= REPAIR_BYTES_MAX;
            if !fits || !self.repairs.admit(now, self.config.limits.repairs_per_second) {
                self.counters.read_repairs_skipped += 1;
                continue;
            }
            self.counters.read_repairs += 1;
            let id = self.new_op();
            if node != self.me {
                self.repairs.leave(node, id, key);
            }
            self.send_record(now, id, node, key.clone(), record.clone());
        }
    }
}
