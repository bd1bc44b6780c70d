//! Hints: what this node keeps for owners that were away.
//!
//! Each is one row under its target and key. A fallback keeps the whole record in it, with a mark of its own if it coordinated a write of it.
//! An owner keeps only a *reference*: its own record has all that the hint is about, and only grows. So a node that is away for long costs
//! each owner a hundred bytes for each key, and not the data twice. [`handoff`](super::handoff) brings hints home.
//!
//! Hints are bounded by their bytes. A fallback that is full refuses and is not counted; an owner that is full notes the [partition](super::dirty)
//! instead, which is left to anti-entropy. They are counted by target and partition, exactly, since every change goes through the row's slot: settling asks
//! whether a partition has any, and a removal that is not durable leaves one that may. Dynamo paper, section 4.6.
//!
//! Rejected: whole records in owners' hints, as in Cassandra. They hold one write each, so they grow with every write of a hot key, and
//! delivering them replays all of its history.

use super::Engine;
use super::background::Task;
mod kept;

use super::slots::{Change, Waiter, Work};
use super::stored::{self, Stored};
use crate::key::Key;
use crate::message::{FetchHint, PeerMessage, Refusal, ReplicateReply, StoreHint};
use crate::place::Place;
use crate::planted;
use crate::record::Record;
use crate::time::Instant;
use bytes::Bytes;
use kept::row_bytes;
use quorate_ring::{NodeId, NodeIndex, PartitionId};

pub use kept::HintsFor;
pub(super) use kept::{HintChange, Hints};

/// Something to do with hints.
#[derive(Debug)]
pub(super) enum HintWork {
    /// Keep a reference to this node's own record.
    Refer,
    /// Keep this record.
    Keep(Bytes),
    /// The owner has merged it: the record with this hash, or this node's own where there is a reference. Drop it if it is still that.
    Drop(Option<u64>),
    /// Send this node's own record, which a reference stands for, under this number.
    Deliver(NodeIndex, u64),
}

impl Engine {
    /// Takes in a hint that was stored by a former process. For the start of a node, before the first input.
    pub fn restore_hint(&mut self, target: NodeId, key: &Key, payload: &[u8]) {
        let since_ms = stored::hint_since(payload).unwrap_or(self.config.wall_ms);
        self.hints.change(HintChange {
            target,
            partition: self.config.ring.partition_of(key.token()),
            before: 0,
            after: row_bytes(key, payload.len().max(1)),
            since_ms,
            refers: false,
        });
    }

    /// Takes all of them back.
    pub fn forget_hints(&mut self) {
        self.hints = Hints::default();
    }

    /// What is kept for each owner.
    pub fn hints(&self) -> Vec<HintsFor> {
        let of = |(&target, hints): (&NodeId, &kept::Target)| {
            let node = self.config.ring.index_of(target);
            let progress = node.map(|node| self.handoffs.progress(node)).unwrap_or_default();
            HintsFor {
                target,
                count: hints.count,
                bytes: hints.bytes,
                oldest_ms: hints.oldest_ms,
                delivered: progress.delivered,
                rate_per_second: progress.rate_per_second,
                under_way: progress.under_way,
            }
        };
        self.hints.targets.iter().map(of).collect()
    }

    /// Whether this node keeps any hint for a key of the partition, or may find one again after a power cut, since its removal is not durable. That
    /// it soon will be is seen to.
    pub(super) fn hints_in(&mut self, partition: PartitionId) -> bool {
        let may_come_back = self.hints.are_going_in(partition) && !planted::is(23);
        if may_come_back {
            self.slots.want_all();
        }
        may_come_back || self.hints.are_in(partition)
    }

    /// Another owner of the key is behind: keeps a hint for it, with this record where this node has none of its own.
    pub(super) fn keep_hint(&mut self, now: Instant, key: &Key, owner: NodeIndex, record: Option<Bytes>) {
        if !self.config.limits.hints {
            return;
        }
        let target = self.config.ring.member(owner).id;
        if self.slots.are_full(self.config.limits.slots_max) {
            return self.overflow(key, target);
        }
        match record {
            Some(record) => self.with_place(
                now,
                Place::Hint(target, key.clone()),
                Work::Hint(HintWork::Keep(record)),
            ),
            None => self.refer(now, key, target),
        }
    }

    /// Keeps a reference for another owner. A delivery of the same reference that is under way may have left without what this one is about. That is said
    /// now, since its answer may come, and remove the row, before the row is loaded for this one.
    fn refer(&mut self, now: Instant, key: &Key, target: NodeId) {
        if !planted::is(24) {
            self.handoffs.again(self.config.ring.index_of(target), key);
        }
        self.with_place(now, Place::Hint(target, key.clone()), Work::Hint(HintWork::Refer));
    }

    /// There is no room for a hint. An owner notes the partition instead; others have no tree of it to compare, and its owners do that in time.
    fn overflow(&mut self, key: &Key, target: NodeId) {
        self.counters.hints_overflowed += 1;
        if self.owners(key).contains(&self.me) {
            self.mark_dirty(target, self.config.ring.partition_of(key.token()));
        }
    }

    /// A coordinator asks this node to keep a record for an owner that is away.
    pub(super) fn store_hint(&mut self, now: Instant, from: NodeIndex, message: StoreHint) {
        let StoreHint {
            id,
            target,
            key,
            record,
        } = message;
        let is_owner = |node: Option<NodeIndex>| node.is_some_and(|node| self.owners(&key).contains(&node));
        let refusal = if !is_owner(self.config.ring.index_of(target)) {
            Some(Refusal::NotOwner)
        } else if self.slots.are_full(self.config.limits.slots_max) {
            Some(Refusal::Overloaded)
        } else if is_owner(Some(self.me)) {
            // Whoever asked has another ring, or is slow to notice who owns what. The record is at home here.
            if target != self.config.me && self.config.limits.hints {
                self.refer(now, &key, target);
            }
            let sync = true;
            return self.with_slot(now, &key, Work::Merge { from, id, record, sync });
        } else if !self.fallbacks(&key).contains(&self.me) {
            Some(Refusal::NotOwner)
        } else if !self.config.limits.hints {
            Some(Refusal::HintsFull)
        } else {
            None
        };
        match refusal {
            Some(refusal) => {
                self.counters.hints_refused += u64::from(refusal == Refusal::HintsFull);
                let result = Err(refusal);
                self.send(from, PeerMessage::ReplicateReply(ReplicateReply { id, result }));
            }
            None => {
                let sync = true;
                self.with_place(now, Place::Hint(target, key), Work::Merge { from, id, record, sync });
            }
        }
    }

    /// A coordinator asks for what this node keeps for an owner.
    pub(super) fn fetch_hint(&mut self, now: Instant, from: NodeIndex, message: FetchHint) {
        let FetchHint { id, target, key, have } = message;
        if self.owners(&key).contains(&self.me) || !self.fallbacks(&key).contains(&self.me) {
            self.send_held(from, id, Err(Refusal::NotOwner));
        } else if self.slots.are_full(self.config.limits.slots_max) {
            self.send_held(from, id, Err(Refusal::Overloaded));
        } else {
            self.with_place(now, Place::Hint(target, key), Work::Fetch { from, id, have });
        }
    }

    /// Does something with a row of hints, or with the record that a reference stands for.
    pub(super) fn hint_row(&mut self, now: Instant, place: &Place, work: HintWork, stored: &mut Stored) {
        match (work, place) {
            (HintWork::Refer, Place::Hint(target, key)) => {
                if stored.since_ms().is_some() {
                    // The row stands for all that this node has.
                    if planted::is(24) {
                        self.handoffs.again(self.config.ring.index_of(*target), key);
                    }
                } else if self.has_room(key, 0) {
                    stored.keep(self.wall_ms);
                } else {
                    self.overflow(key, *target);
                }
            }
            (HintWork::Keep(record), Place::Hint(target, key)) => {
                let is_kept = self.has_room(key, record.len()) && stored.merge(&record).is_ok();
                if !is_kept {
                    self.overflow(key, *target);
                }
            }
            (HintWork::Drop(delivered), _) => {
                let hash = (!stored.has_no_record()).then(|| Record::hash_encoded(stored.encoded()));
                if hash == delivered {
                    *stored = Stored::empty();
                }
            }
            (HintWork::Deliver(to, id), Place::Record(key)) => self.deliver(now, to, id, key, stored),
            _ => {}
        }
    }

    /// The row that some work is about cannot be read.
    pub(super) fn cannot_read_hint(&mut self, now: Instant, place: &Place, work: &HintWork) {
        match (work, place) {
            (HintWork::Refer | HintWork::Keep(_), Place::Hint(target, key)) => self.overflow(key, *target),
            (&HintWork::Deliver(to, id), _) => self.skip_hint(now, to, id),
            // It will be delivered again.
            _ => {}
        }
    }

    /// A row of hints is damaged. An owner needs none of what was in it: that the row is there says that the other owner is behind. What a
    /// fallback kept is gone, and so is the hint: others hold the write too, or it was not acknowledged.
    pub(super) fn damaged_hint(&mut self, place: &Place, waiting: &mut Vec<Work>) -> Stored {
        let is_owner = place.key().is_some_and(|key| self.owners(key).contains(&self.me));
        let mut stored = Stored::empty();
        stored.keep(self.wall_ms);
        if !is_owner {
            self.counters.corrupt_records += 1;
            waiting.insert(0, Work::Hint(HintWork::Drop(None)));
        }
        stored
    }

    /// Merges what a coordinator sent for an owner that is away, if there is room.
    pub(super) fn merge_hint(
        &mut self,
        from: NodeIndex,
        id: u64,
        key: &Key,
        record: &Bytes,
        stored: &mut Stored,
    ) -> Waiter {
        match stored.encoded() == record || self.has_room(key, record.len()) {
            true => self.merge(from, id, record, stored),
            false => {
                self.counters.hints_refused += 1;
                Waiter::MergeAck(from, id, Err(Refusal::HintsFull))
            }
        }
    }

    /// Whether there is room for one more hint with such a record.
    pub(super) fn has_room(&self, key: &Key, record_bytes: usize) -> bool {
        self.hints.bytes + row_bytes(key, record_bytes + 10) <= self.config.limits.hint_bytes_max
    }

    /// Takes note that a row of hints changes. `before` is the length of its payload until now, 0 if there was none.
    pub(super) fn change_hint(
        &mut self,
        now: Instant,
        place: &Place,
        before: usize,
        stored: &Stored,
    ) -> Option<Change> {
        let Place::Hint(target, key) = place else { return None };
        let change = HintChange {
            target: *target,
            partition: self.config.ring.partition_of(key.token()),
            before: row_bytes(key, before),
            after: row_bytes(key, stored.hint_bytes()),
            since_ms: stored.since_ms().unwrap_or(self.wall_ms),
            refers: stored.has_no_record(),
        };
        self.hints.change(change);
        self.hints.removal_begins(change);
        if before == 0 {
            self.counters.hints_stored += 1;
            self.handoffs.is_new(self.config.ring.index_of(*target));
            self.wake_handoff_soon(now, *target);
        }
        Some(Change::Hint(change))
    }

    /// A store of a hint was refused.
    pub(super) fn undo_hint(&mut self, now: Instant, change: HintChange) {
        let HintChange {
            target,
            partition,
            before,
            after,
            refers,
            ..
        } = change;
        self.hints.change(HintChange {
            before: after,
            after: before,
            ..change
        });
        if after > 0 && refers {
            self.undo_mark(now, target, partition);
        }
        self.hints.removal_ends(change);
        if after == 0 {
            self.wake_handoff_later(now, target);
        }
    }

    /// A note that a partition is dirty was refused. It is made again when the disk may take stores again, also if nothing else is stored by then.
    pub(super) fn undo_mark(&mut self, now: Instant, target: NodeId, partition: PartitionId) {
        self.hints.unmarked.insert((target, partition));
        self.background.wake(self.gate.opens_at(now), Task::NoteMissed);
    }

    /// Notes what the disk would not take, when it takes something again.
    pub(super) fn note_unmarked(&mut self, now: Instant) {
        if self.hints.unmarked.is_empty() {
            return;
        }
        if self.gate.is_closed(now) {
            self.background.wake(self.gate.opens_at(now), Task::NoteMissed);
        } else {
            self.background.sleep(None, Task::NoteMissed);
            for (target, partition) in std::mem::take(&mut self.hints.unmarked) {
                self.mark_dirty_again(target, partition);
            }
        }
    }
}
