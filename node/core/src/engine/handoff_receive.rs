//! The owner's side of a handoff: what another node brings is merged like any replica's record, and acknowledged once it is synced.

use super::Engine;
use super::slots::{Waiter, Work};
use super::stored::Stored;
use crate::message::{Handoff, HandoffReply, PeerMessage, Refusal};
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;

impl Engine {
    pub(super) fn handoff(&mut self, now: Instant, from: NodeIndex, message: Handoff) {
        let Handoff { id, key, record } = message;
        match self.admit(&key) {
            Ok(()) => self.with_slot(now, &key, Work::Handoff { from, id, record }),
            Err(refusal) => self.answer_handoff(from, id, Err(refusal)),
        }
    }

    /// Merges what was brought.
    pub(super) fn take_handoff(&mut self, from: NodeIndex, id: u64, record: &Bytes, stored: &mut Stored) -> Waiter {
        let merged = stored.merge(record).map(|_changed| ()).map_err(|_| Refusal::Malformed);
        Waiter::HandoffAck(from, id, merged)
    }

    pub(super) fn answer_handoff(&mut self, to: NodeIndex, id: u64, result: Result<(), Refusal>) {
        let credit = self.config.limits.handoff_window;
        self.send(to, PeerMessage::HandoffReply(HandoffReply { id, result, credit }));
    }
}
