//! Read repair that nobody waits for: owners that a read found behind get what it found.
//!
//! It merges whole records and deletes nothing, goes to owners only, never to fallbacks, and is kept to a rate: after an owner was away for
//! long, nearly every read finds it behind, and reads must not become as dear as writes then. What is over the rate, or larger than
//! a mebibyte, is skipped and counted; anti-entropy will find it.
//!
//! A repair is a write under way until it is answered or its connection is gone, though nobody waits for the answer: it is
//! [pending](super::pending).

use super::Engine;
use crate::key::Key;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;
use std::time::Duration;

/// Largest record that is repaired in the background, in bytes.
const REPAIR_BYTES_MAX: usize = 1 << 20;

/// How far ahead of its rate a burst may run.
const BURST: Duration = Duration::from_millis(100);

/// When the next repair is within the rate.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// When all that was let through is used up at the rate that is allowed.
    used_up: Instant,
}

impl Repairs {
    /// Whether one more is within the rate; it is counted then.
    fn admit(&mut self, now: Instant, per_second: u32) -> bool {
        let Some(cost) = Duration::from_secs(1).checked_div(per_second) else {
            return false;
        };
        let has_room = self.used_up <= now + BURST;
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
                self.pending.sent(node, id.0, key);
            }
            self.send_record(now, id, node, key.clone(), record.clone());
        }
    }
}
