//! The owner's side of a handoff: what another node brings is merged like any replica's record, and acknowledged once it is synced.
//!
//! With each ack goes a credit: how many the other may have under way. It is what this node has room for, so a node that serves many requests
//! takes its hints slowly. That costs no timer and no measurement at the sender, which cannot know why answers are late.

use super::Engine;
use super::slots::{Waiter, Work};
use super::stored::Stored;
use crate::message::{Handoff, HandoffReply, PeerMessage, Refusal};
use crate::planted;
use crate::record::Record;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;

/// With so many requests and rows in memory the credit is half the window.
const BUSY: usize = 32;

impl Engine {
    pub(super) fn handoff(&mut self, now: Instant, from: NodeIndex, message: Handoff) {
        let Handoff { id, key, record } = message;
        match self.admit(&key) {
            Ok(()) => self.with_slot(now, &key, Work::Handoff { from, id, record }),
            Err(refusal) => self.answer_handoff(now, from, id, Err(refusal)),
        }
    }

    /// Merges what was brought.
    pub(super) fn take_handoff(&mut self, from: NodeIndex, id: u64, record: &Bytes, stored: &mut Stored) -> Waiter {
        if planted::is(11)
            && let Ok(record) = Record::decode(record)
        {
            let mark = stored.mark();
            stored.replace(record, mark);
        }
        let merged = stored.merge(record).map(|_changed| ()).map_err(|_| Refusal::Malformed);
        Waiter::HandoffAck(from, id, merged)
    }

    pub(super) fn answer_handoff(&mut self, now: Instant, to: NodeIndex, id: u64, result: Result<(), Refusal>) {
        let credit = self.credit(now);
        self.send(to, PeerMessage::HandoffReply(HandoffReply { id, result, credit }));
    }

    /// How many handoffs another node may have under way to this one.
    fn credit(&mut self, now: Instant) -> u16 {
        let in_use = self.ops.len() + self.slots.len();
        let window = usize::from(self.healing_window(now, self.config.limits.handoff_window));
        // Those that are brought are in use, too, so a small window is not cut further for them.
        let credit = window * BUSY / (BUSY + in_use.saturating_sub(window));
        u16::try_from(credit).unwrap_or(u16::MAX).max(1)
    }
}
