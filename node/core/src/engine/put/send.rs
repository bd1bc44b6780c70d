//! Who gets the record of a write: every owner, and fallbacks for those that cannot be reached.
//!
//! In a sloppy quorum an owner that is not connected, is lost, refuses, was slow of late, or is slow while the quorum is not met has the next unused
//! connected node of the preference list stand in for it. That node keeps the record as a hint for this owner, says so once it is on disk, and
//! counts towards W, never towards the owners that a request may ask for (`pw`). Each fallback stands in for one owner, so that as many
//! distinct nodes hold the write as acknowledged it. If there is nobody left the coordinator keeps the hint, and counts for itself only.
//!
//! Rejected: fallbacks beside the owners from the start. Every write would be sent more often to be faster in the rare case.

use super::{Sent, Stage};
use crate::engine::tally::Verdict;
use crate::engine::{Effect, Engine, Op, OpId};
use crate::key::Key;
use crate::message::{PeerMessage, RECORD_BYTES_MAX, Replicate, StoreHint};
use crate::planted;
use crate::request::ReplicaState;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;

impl Engine {
    /// Sends the record, as it is after this round's writes, to the other owners.
    pub(in crate::engine) fn send_replicas(&mut self, now: Instant, id: OpId, record: &Bytes) {
        let slow_at = now + self.config.limits.slow_after;
        let mut spare = self.spare_fallbacks(id);
        let Some(Op::Put(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let Stage::Written { context, view } = std::mem::replace(&mut op.stage, Stage::Loading) else {
            return;
        };
        op.stage = Stage::Sent(Sent {
            context,
            view,
            record: record.clone(),
            slow_at,
        });
        let owners: Vec<NodeIndex> = op.tally.unasked().collect();
        for node in owners {
            if record.len() > RECORD_BYTES_MAX {
                op.tally.settle(now, node, ReplicaState::Overloaded);
            } else if !self.peers.is_up(node) {
                op.tally.settle(now, node, ReplicaState::Down);
            } else if spare > 0 && !self.peers.is_usable(node) {
                spare -= 1;
                op.tally.settle(now, node, ReplicaState::NotAsked);
            } else {
                op.tally.ask(node);
                let message = Replicate {
                    id: id.0,
                    key: op.key.clone(),
                    record: record.clone(),
                    sync: op.sync,
                };
                self.effects.push_back(Effect::Send {
                    to: node,
                    message: PeerMessage::Replicate(message),
                });
            }
        }
        self.slow.push_back((slow_at, id));
        self.ask_fallbacks(id, false);
        if planted::is(7) && self.is_promised(id) {
            return self.put_reply(now, id);
        }
        self.put_decide(now, id);
    }

    /// How many fallbacks there are for owners that are slow: those that owners which are away do not need. None if it matters who
    /// acknowledges.
    fn spare_fallbacks(&self, id: OpId) -> usize {
        let Some(Op::Put(op)) = self.ops.get(&id) else { return 0 };
        let quorum = op.tally.quorum();
        if !op.tally.unasked().any(|node| self.peers.is_slow(node))
            || !quorum.takes_fallbacks()
            || !self.config.limits.hints
            || quorum.primary > 0
        {
            return 0;
        }
        let can_ask = |node: &&NodeIndex| self.peers.is_usable(**node) && !op.tally.has(**node);
        let fallbacks = self.fallbacks(&op.key).iter().filter(can_ask).count();
        let away = op.tally.unasked().filter(|&node| !self.peers.is_up(node)).count();
        fallbacks.saturating_sub(away)
    }

    /// Whether those who were asked would be enough.
    fn is_promised(&self, id: OpId) -> bool {
        matches!(self.ops.get(&id), Some(Op::Put(op)) if usize::from(op.tally.need()) <= op.tally.promised())
    }

    /// Lets fallbacks stand in for owners from which no ack will come, or none has come yet if `late`.
    fn ask_fallbacks(&mut self, id: OpId, late: bool) {
        let Some(Op::Put(op)) = self.ops.get(&id) else { return };
        let Stage::Sent(sent) = &op.stage else { return };
        let takes_fallbacks = op.tally.quorum().takes_fallbacks() && self.config.limits.hints;
        if !takes_fallbacks || sent.record.len() > RECORD_BYTES_MAX {
            return;
        }
        let owners: Vec<NodeIndex> = op.tally.unattended(late).collect();
        if owners.is_empty() {
            return;
        }
        let (key, record) = (op.key.clone(), sent.record.clone());
        let unused = |node: &&NodeIndex| self.peers.is_usable(**node) && !op.tally.has(**node);
        let fallbacks: Vec<NodeIndex> = self.fallbacks(&key).iter().filter(unused).copied().collect();
        for (owner, fallback) in owners.into_iter().zip(fallbacks) {
            if let Some(Op::Put(op)) = self.ops.get_mut(&id) {
                op.tally.stand_in(fallback, owner);
            }
            self.send_hint(fallback, id, owner, &key, &record);
        }
    }

    fn send_hint(&mut self, to: NodeIndex, id: OpId, owner: NodeIndex, key: &Key, record: &Bytes) {
        let message = StoreHint {
            id: id.0,
            target: self.config.ring.member(owner).id,
            key: key.clone(),
            record: record.clone(),
        };
        self.send(to, PeerMessage::StoreHint(message));
    }

    /// A node has answered, or will not answer any more.
    pub(in crate::engine) fn put_answer(&mut self, now: Instant, id: OpId, from: NodeIndex, state: ReplicaState) {
        let Some(Op::Put(op)) = self.ops.get_mut(&id) else {
            return self.tail_answer(now, id, from, state);
        };
        if op.tally.settle(now, from, state) {
            if !matches!(state, ReplicaState::Acked | ReplicaState::Accepted) {
                self.ask_fallbacks(id, false);
            }
            self.put_decide(now, id);
        }
    }

    fn put_decide(&mut self, now: Instant, id: OpId) {
        let Some(Op::Put(op)) = self.ops.get(&id) else { return };
        if matches!(op.stage, Stage::Sent(_)) {
            match op.tally.verdict() {
                Verdict::Met => self.put_reply(now, id),
                Verdict::Lost => self.put_fail(now, id, ReplicaState::Waiting),
                Verdict::Pending => {}
            }
        }
    }

    /// Looks at the writes that were sent so long ago that owners which have not acknowledged are slow.
    pub(in crate::engine) fn fire_slow(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.slow.front()
            && at <= now
        {
            self.slow.pop_front();
            match self.ops.get(&id) {
                Some(Op::Put(_)) => {
                    self.ask_fallbacks(id, true);
                    self.put_decide(now, id);
                }
                Some(Op::Tail(_)) => self.end_tail(now, id),
                _ => {}
            }
        }
    }

    /// Forgets when those writes become slow that have ended, as far as they are the oldest.
    pub(in crate::engine) fn forget_slow(&mut self) {
        while let Some(&(_, id)) = self.slow.front()
            && self.ops.get(&id).is_none()
        {
            self.slow.pop_front();
        }
    }
}
