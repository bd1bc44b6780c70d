//! Whether anybody keeps a hint that a read's minimum may be in.
//!
//! ```text
//! all owners agree, minimum not covered ──► each fallback is asked for each owner ──► all keep nothing ──► all owners once more ──► they agree: settled
//! ```
//!
//! In a sloppy quorum a write may be acknowledged and on its way home, so agreement of the owners alone does not say that what they do not have is
//! settled history (promise P9). A hint only ever moves to its owner. So a write that no fallback has any more is at an owner before the last
//! fallback answers, and owners that are asked after that cannot miss it. They are asked under another number, since an answer to an earlier
//! question would prove nothing. What a fallback does keep is merged into what the read found.
//!
//! Rejected: taking the word of those fallbacks that are connected. The one that is away may be the one.

use super::{GetOp, Record};
use crate::engine::{Engine, Op, OpId, Timer};
use crate::key::Key;
use crate::message::{FetchHint, Held, PeerMessage, Refusal};
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;
use std::collections::BTreeSet;

/// One question to a fallback.
pub(in crate::engine) struct Look {
    /// For which read.
    read: OpId,
    pub(in crate::engine) key: Key,
    /// Who is asked.
    pub(in crate::engine) node: NodeIndex,
}

/// What a read knows of hints of its key.
pub(super) enum Kept {
    /// Nothing.
    Unknown,
    /// These questions are not answered; so far nobody keeps anything.
    Asking(BTreeSet<OpId>),
    /// Nobody kept anything when this round began.
    Nothing,
}

impl GetOp {
    /// A fallback keeps this. Returns whether that is news.
    fn take_kept(&mut self, bytes: &Bytes) -> bool {
        let Ok(record) = Record::decode(bytes) else { return true };
        if record.is_empty() {
            return false;
        }
        let before = self.merged.encode();
        self.merged.merge(&record);
        let is_news = self.merged.encode() != before;
        if is_news {
            self.answers.compare_with(Record::hash_encoded(bytes));
        }
        is_news
    }
}

impl Engine {
    /// Whether no node but the owners can keep anything of what a read is about.
    pub(super) fn fallbacks_are_none(&self, id: OpId) -> bool {
        matches!(self.ops.get(&id), Some(Op::Get(op)) if self.fallbacks(op.key()).is_empty())
    }

    /// Asks all fallbacks for what they keep, if all are there and there is room for as many operations. A read that is coordinated by one of them goes on
    /// asking owners only.
    pub(super) fn look_for_hints(&mut self, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get(&id) else { return };
        let (key, fallbacks) = (op.key.clone(), self.fallbacks(&op.key).to_vec());
        let is_known = !matches!(op.kept, Kept::Unknown);
        if is_known || !fallbacks.iter().all(|&node| self.peers.is_up(node)) {
            return;
        }
        let owners = self.owners(&key).to_vec();
        // Each question is an operation of its own. Without room for them the read asks its owners again, and in the end says what it missed.
        if self.ops.len() + fallbacks.len() * owners.len() > self.config.limits.operations_max {
            return;
        }
        let mut open = BTreeSet::new();
        for (&node, &owner) in fallbacks
            .iter()
            .flat_map(|node| owners.iter().map(move |owner| (node, owner)))
        {
            let look = self.new_op();
            open.insert(look);
            let key = key.clone();
            let message = PeerMessage::FetchHint(FetchHint {
                id: look.0,
                target: self.config.ring.member(owner).id,
                key: key.clone(),
                have: None,
            });
            self.ops.insert(look, Op::Look(Look { read: id, key, node }));
            self.send(node, message);
        }
        if let Some(Op::Get(op)) = self.ops.get_mut(&id) {
            op.kept = Kept::Asking(open);
        }
    }

    /// A fallback has answered, or will not.
    pub(in crate::engine) fn look_answer(
        &mut self,
        now: Instant,
        look: OpId,
        from: NodeIndex,
        result: Result<Held, Refusal>,
    ) {
        if !matches!(self.ops.get(&look), Some(Op::Look(asked)) if asked.node == from) {
            return;
        }
        let Some(Op::Look(Look { read: id, .. })) = self.ops.remove(&look) else {
            return;
        };
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let Kept::Asking(open) = &mut op.kept else { return };
        if op.write_back.is_some() {
            return;
        }
        open.remove(&look);
        let is_last = open.is_empty();
        let has_something = match result {
            Ok(Held::Record(bytes)) => op.take_kept(&bytes),
            // They were told no hash, so the same as what?
            Ok(Held::Same) | Err(_) => true,
        };
        let held = op.merged.value_bytes();
        self.ops.hold(id, held);
        if has_something {
            // If it is not enough, everybody is asked again after the pause before the next round.
            self.end_looks(id);
            self.decide_by_hint(now, id);
        } else if is_last {
            self.ask_owners_once_more(now, id);
        }
    }

    /// Replies if what a fallback kept is what was missed.
    fn decide_by_hint(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get(&id) else { return };
        let seen = op.merged.context();
        if op.minimum.as_ref().is_none_or(|minimum| seen.covers(minimum)) {
            self.get_decide(now, id);
        }
    }

    /// Nobody keeps anything, so what the owners say from now on is all there is.
    fn ask_owners_once_more(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(mut op)) = self.ops.remove(&id) else {
            return;
        };
        self.timers.remove(&(op.deadline, id, Timer::Deadline));
        if let Some((at, timer)) = op.timer.take() {
            self.timers.remove(&(at, id, timer));
        }
        op.kept = Kept::Nothing;
        let id = self.new_op();
        self.timers.insert((op.deadline, id, Timer::Deadline));
        self.ops.insert(id, Op::Get(op));
        self.get_again(now, id);
    }

    /// Waits for no fallback's answer any more. What was found out stays.
    pub(super) fn end_looks(&mut self, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        if let Kept::Asking(open) = &mut op.kept {
            let open = std::mem::take(open);
            op.kept = Kept::Unknown;
            open.iter().for_each(|look| drop(self.ops.remove(look)));
        }
    }
}
