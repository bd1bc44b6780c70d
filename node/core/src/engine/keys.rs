//! One row at a time: loading it, working on it, storing it, and saying so once it is synced.
//!
//! Coordinated writes, local reads, merges and fetches for other coordinators all come through here as [`Work`], and all that has
//! gathered for a row is done in one go. What is said about it waits for the sync as a [`Waiter`].

use super::heal::HealWork;
use super::slots::{Change, LeafChange, Slot, Waiter, Work};
use super::stored::Stored;
use super::{Effect, Engine, LoadFailed, OpId, StoreTicket, acked, refused};
use crate::bucket::Durability;
use crate::key::Key;
use crate::message::{Held, Objection, PeerMessage, Refusal, ReplicateReply};
use crate::place::Place;
use crate::planted;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;

impl Engine {
    /// Does something with the record of a key that this node owns: at once if it is in memory, else when it has been loaded.
    pub(super) fn with_slot(&mut self, now: Instant, key: &Key, work: Work) {
        self.with_place(now, Place::Record(key.clone()), work);
    }

    /// Does something with a row: at once if it is in memory, else when it has been loaded.
    pub(super) fn with_place(&mut self, now: Instant, place: Place, work: Work) {
        let Some(work) = self.refuse_to_read(now, &place, work) else {
            return;
        };
        let mut slot = self.slots.take(&place);
        if slot.stored.is_some() {
            return self.run(now, place, slot, vec![work]);
        }
        self.slots.enqueue(&mut slot, work);
        self.load(place, slot);
    }

    /// Loads a slot, unless it is loading.
    fn load(&mut self, place: Place, mut slot: Slot) {
        if slot.loading.is_none() {
            let load = self.slots.begin_load(&place, &mut slot);
            self.effects.push_back(Effect::Load {
                load,
                place: place.clone(),
            });
        }
        self.slots.put_back(place, slot);
    }

    /// Stores bytes, or nothing, at a place that no slot stands behind.
    pub(super) fn store_plain(&mut self, place: Place, payload: Option<Bytes>) -> StoreTicket {
        let ticket = self.slots.begin_plain_store(place.clone());
        self.effects.push_back(Effect::Store { ticket, place, payload });
        ticket
    }

    /// A load has ended: all that waited for it is done now.
    pub(super) fn loaded(&mut self, now: Instant, place: Place, result: Result<Option<Bytes>, LoadFailed>) {
        let mut slot = self.slots.take(&place);
        slot.loading = None;
        let mut waiting = self.slots.dequeue(&mut slot);
        let stored = match result {
            Err(_) if planted::is(3) => Ok(Stored::empty()),
            Err(LoadFailed::Corrupt | LoadFailed::Damaged) if matches!(place, Place::Hint(..)) => {
                Ok(self.damaged_hint(&place, &mut waiting))
            }
            Err(failed @ (LoadFailed::Corrupt | LoadFailed::Damaged)) if self.set_aside(now, &place, failed) => {
                waiting.insert(0, Work::Heal(HealWork::Lose));
                Ok(Stored::empty())
            }
            Err(_) => Err(()),
            Ok(payload) => Stored::parse(payload).map_err(|_| ()),
        };
        match stored {
            Ok(stored) => {
                slot.stored = Some(stored);
                self.run(now, place, slot, waiting);
            }
            Err(()) => {
                self.counters.load_failures += 1;
                self.slots.put_back(place.clone(), slot);
                waiting.into_iter().for_each(|work| self.cannot_read(now, &place, work));
            }
        }
    }

    /// Does work on a row that is in memory, then stores it if it changed. All acks of this round wait for that store.
    fn run(&mut self, now: Instant, place: Place, mut slot: Slot, work: Vec<Work>) {
        let key = place.key().expect("only rows about keys have slots").clone();
        let mut stored = slot.stored.take().expect("run is called with a loaded slot");
        let before = stored.outline();
        let was_lost = matches!(work.first(), Some(Work::Heal(HealWork::Lose)));
        let (mut waiters, mut at_once, mut writes) = (Vec::with_capacity(work.len()), Vec::new(), Vec::new());
        let mut unreadable = Vec::new();
        for work in work {
            let is_taken = !(self.start_over.is_leaving() && work.brings_news());
            if !is_taken || (stored.is_incomplete() && !work.takes_parts()) {
                unreadable.push(work);
                continue;
            }
            let list = match self.waits_for_sync(&place, &work) {
                true => &mut waiters,
                false => &mut at_once,
            };
            match work {
                Work::Coordinate(op) => {
                    if self.coordinate(now, op, &key, &mut stored) {
                        writes.push(op);
                        list.push(Waiter::LocalAck(op));
                    }
                }
                Work::Weigh { check, at } => {
                    let is_steady = slot.unsynced.is_none() && !stored.differs(&before);
                    self.weigh(now, check, at, &key, Some((&mut stored, is_steady)));
                }
                Work::Settle(order) => {
                    let is_steady = slot.unsynced.is_none() && !stored.differs(&before);
                    self.settle(&order, &mut stored, is_steady);
                }
                Work::Read(op) => list.push(Waiter::LocalRead(op, stored.encoded().clone())),
                Work::Merge { from, id, record, .. } => list.push(match place {
                    Place::Hint(..) => self.merge_hint(from, id, &key, &record, &mut stored),
                    _ => self.merge(from, id, &record, &mut stored),
                }),
                Work::Handoff { from, id, record } => list.push(self.take_handoff(from, id, &record, &mut stored)),
                Work::Hint(work) => self.hint_row(now, &place, work, &mut stored),
                Work::Exchange(work) => list.push(Waiter::Exchange(self.exchange_row(work, &mut stored))),
                Work::Heal(work) => list.extend(self.heal_row(&place, work, &mut stored).map(Waiter::Heal)),
                Work::Fetch { from, id, have } => list.push(self.answer_fetch(from, id, have, &stored)),
            }
        }
        if matches!(place, Place::Hint(..)) && !stored.has_no_record() {
            stored.keep(self.wall_ms);
        }
        if stored.differs(&before) || was_lost {
            let change = match place {
                Place::Hint(..) => self.change_hint(now, &place, before.hint_bytes(), &stored),
                _ => {
                    self.exchange.note_change(now, &place);
                    self.change_leaf(&place, &before, &stored)
                }
            };
            let ticket = self.slots.begin_store(&place, &mut slot, change, !writes.is_empty());
            self.effects.push_back(Effect::Store {
                ticket,
                place: place.clone(),
                payload: (!stored.is_empty()).then(|| stored.payload()),
            });
            self.settle_changed(&place, &mut stored);
        }
        if stored.is_incomplete() {
            self.heal(now, &key);
        }
        let encoded = stored.encoded().clone();
        let refusing = (!unreadable.is_empty()).then(|| place.clone());
        slot.stored = Some(stored);
        let unsynced = slot.unsynced.filter(|_| !planted::is(17));
        self.slots.put_back(place, slot);
        // The record leaves for the other owners while the local write is being synced.
        writes.into_iter().for_each(|op| self.send_replicas(now, op, &encoded));
        let ready = match unsynced {
            Some(ticket) => self.slots.wait(ticket, waiters),
            None => Some(waiters),
        };
        self.tell(now, ready.unwrap_or_default(), Ok(Durability::Durable));
        if let Some(ticket) = unsynced {
            let ready = self.slots.wait_applied(ticket, at_once);
            self.tell(now, ready.unwrap_or_default(), Ok(Durability::Relaxed));
        } else {
            self.tell(now, at_once, Ok(Durability::Durable));
        }
        if let Some(place) = refusing {
            unreadable
                .into_iter()
                .for_each(|work| self.cannot_read(now, &place, work));
        }
    }

    /// Whether what is said about some work waits until all that it speaks of is on disk: always, but in buckets whose acks need not.
    fn waits_for_sync(&self, place: &Place, work: &Work) -> bool {
        let Place::Record(key) = place else { return true };
        let is_durable = self.config.buckets.of(key.bucket()).durability == Durability::Durable;
        is_durable
            || match work {
                Work::Coordinate(op) => self.put_waits_for_sync(*op),
                Work::Merge { sync, .. } => *sync,
                Work::Read(_) | Work::Fetch { .. } => false,
                Work::Handoff { .. } | Work::Hint(_) | Work::Exchange(_) | Work::Heal(_) => true,
                Work::Weigh { .. } | Work::Settle(_) => true,
            }
    }

    /// Takes note in the key's Merkle tree that its record has changed. What is kept for others is in no tree.
    fn change_leaf(&mut self, place: &Place, before: &Stored, after: &Stored) -> Option<Change> {
        let Place::Record(key) = place else { return None };
        if !self.config.limits.trees {
            return None;
        }
        let n = self.config.buckets.of(key.bucket()).n;
        let partition = self.config.ring.partition_of(key.token());
        let leaf = self.trees.leaf_of(partition, key.token(), n);
        let (before, after) = (before.leaf_entry(key), after.leaf_entry(key));
        self.trees.change(leaf, before, after);
        self.scrub.touch(leaf);
        Some(Change::Leaf(LeafChange { leaf, before, after }))
    }

    /// Stores are applied: what need not wait for the disk is said.
    pub(super) fn applied(&mut self, now: Instant, upto: StoreTicket) {
        for waiters in self.slots.applied(upto) {
            self.tell(now, waiters, Ok(Durability::Relaxed));
        }
    }

    /// Says what waited for a store: that it is applied or durable, or that it was refused.
    pub(super) fn tell(&mut self, now: Instant, waiters: Vec<Waiter>, result: Result<Durability, Refusal>) {
        for waiter in waiters {
            match waiter {
                Waiter::LocalAck(op) => {
                    let state = result.map_or_else(refused, acked);
                    self.put_answer(now, op, self.me, state);
                }
                Waiter::LocalRead(op, encoded) => {
                    let result = result.map(|_| Held::Record(encoded));
                    self.get_answer(now, op, self.me, result);
                }
                Waiter::MergeAck(to, id, merged) => self.send_ack(now, to, id, merged.and(result)),
                Waiter::FetchAnswer(to, id, held) => self.send_held(to, id, result.and(held)),
                Waiter::HandoffAck(to, id, merged) => self.answer_handoff(now, to, id, result.and(merged)),
                Waiter::Exchange(waiter) => self.exchange_synced(now, waiter, result.map(|_| ())),
                Waiter::Heal(waiter) => self.heal_synced(now, waiter, result.is_ok()),
                Waiter::PeerNoted(node) => self.peer_noted(now, node, result.is_ok()),
                Waiter::Leaves(leaves) => self.leaves_stored(leaves, result.is_ok()),
                Waiter::OwnNoted(boot) => self.own_noted(now, boot, result.is_ok()),
            }
        }
    }

    /// A store was refused. What waited for it is told so. If a dot was minted in it, the vnode takes a new life: the dot may have
    /// reached other owners, and must not be minted again from the older record that is on disk.
    pub(super) fn store_failed(&mut self, now: Instant, ticket: StoreTicket) {
        let Some(failed) = self.slots.fail_store(ticket) else {
            return;
        };
        self.counters.store_failures += 1;
        self.gate.refused(now, ticket);
        match failed.change {
            Some(Change::Leaf(LeafChange { leaf, before, after })) => {
                self.trees.change(leaf, after, before);
                self.scrub.touch(leaf);
            }
            Some(Change::Hint(change)) => self.undo_hint(now, change),
            None => {}
        }
        match &failed.place {
            Place::Dirty(node, partition) => self.undo_mark(now, *node, *partition),
            Place::Settle(key) => self.settle_store_failed(now, key),
            _ => {}
        }
        if let Some(key) = failed.place.key().filter(|_| failed.minted) {
            self.vnodes.retire(self.config.ring.partition_of(key.token()));
        }
        if matches!(failed.place, Place::Record(_) | Place::Hint(..)) {
            let slot = self.slots.take(&failed.place);
            self.load(failed.place, slot);
        }
        self.tell(now, failed.waiters, Err(Refusal::WriteFailed));
    }

    /// The disk could not say what it holds under a key. That is no answer, and least of all "nothing".
    fn cannot_read(&mut self, now: Instant, place: &Place, work: Work) {
        match work {
            Work::Coordinate(op) => self.cannot_coordinate(now, op),
            Work::Read(op) => self.get_answer(now, op, self.me, Err(Refusal::ReadFailed)),
            Work::Merge { from, id, .. } => self.send_ack(now, from, id, Err(Refusal::ReadFailed)),
            Work::Fetch { from, id, .. } => self.send_held(from, id, Err(Refusal::ReadFailed)),
            Work::Weigh { check, at } => self.weighed(check, at, Err(Some(Objection::Unreadable))),
            Work::Settle(_) => {}
            Work::Handoff { from, id, .. } => self.answer_handoff(now, from, id, Err(Refusal::ReadFailed)),
            Work::Exchange(work) => self.exchange_unreadable(now, work),
            Work::Heal(work) => self.heal_unreadable(&work),
            Work::Hint(work) => self.cannot_read_hint(now, place, &work),
        }
    }

    /// Tells whoever had a record merged here, which may be this node itself, what became of it.
    fn send_ack(&mut self, now: Instant, to: NodeIndex, id: u64, result: Result<Durability, Refusal>) {
        match to == self.me {
            true => self.replicate_answer(now, OpId(id), to, result),
            false => self.send(to, PeerMessage::ReplicateReply(ReplicateReply { id, result })),
        }
    }
}
