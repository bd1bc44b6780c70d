//! Rows in memory: those being loaded, and those whose last write is not on disk yet.
//!
//! A slot makes everything that happens to one row happen in order: the record of a key at its owner, or what a fallback keeps of it
//! for an owner that is away. While the row is loading, work waits; when it is there, all that
//! waits is done in one go and leaves at most one store. A written slot stays until its store is durable, so later work
//! on the key needs no load and can wait for the sync: **a replica never answers with a version that it has not synced**
//! (otherwise a read could return a write that a power cut then takes back).
//!
//! Rejected: letting each request load and store on its own. Two writes of one key in one burst would both start from the old
//! record, and the second store would silently undo the first.

use super::exchange::{RowWaiter, RowWork};
use super::heal::{HealWaiter, HealWork};
use super::hints::{HintChange, HintWork};
use super::memory::Boot;
use super::settle::Order;
use super::stored::Stored;
use super::{LoadId, OpId, StoreTicket, SyncWanted};
use crate::message::{Held, Refusal};
use crate::place::Place;
use crate::tree::LeafId;
use bytes::Bytes;
use quorate_ring::NodeIndex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Something to do with a row once it is in memory.
#[derive(Debug)]
pub(super) enum Work {
    /// Write for a client.
    Coordinate(OpId),
    /// The local half of a read for a client.
    Read(OpId),
    /// Merge a record for another coordinator.
    Merge {
        /// Who.
        from: NodeIndex,
        /// Its number for this.
        id: u64,
        /// The record's bytes.
        record: Bytes,
        /// The ack waits for the disk, whatever the bucket says.
        sync: bool,
    },
    /// Merge a record that another node brought home.
    Handoff {
        /// Who.
        from: NodeIndex,
        /// Its number for this.
        id: u64,
        /// The record's bytes.
        record: Bytes,
    },
    /// Something about hints.
    Hint(HintWork),
    /// Read for another coordinator.
    Fetch {
        /// Who.
        from: NodeIndex,
        /// Its number for this.
        id: u64,
        /// Hash of what it has.
        have: Option<u64>,
    },
    /// Look whether anything stands against settling it.
    Weigh {
        /// For which check.
        check: u64,
        /// As which of its records.
        at: u16,
    },
    /// Settle it, if it is still what was proved.
    Settle(Box<Order>),
    /// A part of an exchange.
    Exchange(RowWork),
    /// A part of healing a record that was lost.
    Heal(HealWork),
}

impl Work {
    /// Whether this is done with a record that is incomplete, too: it adds to it, and says nothing about it.
    pub(super) fn takes_parts(&self) -> bool {
        match self {
            Work::Merge { .. } | Work::Handoff { .. } | Work::Exchange(RowWork::Absorb { .. }) | Work::Heal(_) => true,
            Work::Coordinate(_) | Work::Read(_) | Work::Fetch { .. } | Work::Exchange(_) | Work::Hint(_) => false,
            // What is incomplete is refused.
            Work::Weigh { .. } | Work::Settle(_) => false,
        }
    }

    /// Whether this may bring what no other node has.
    pub(super) fn brings_news(&self) -> bool {
        matches!(self, Work::Coordinate(_) | Work::Merge { .. } | Work::Handoff { .. })
    }
}

/// Something to say once a row is on disk as it is now.
#[derive(Debug)]
pub(super) enum Waiter {
    /// The local ack of a write.
    LocalAck(OpId),
    /// The local answer of a read.
    LocalRead(OpId, Bytes),
    /// An ack for another coordinator.
    MergeAck(NodeIndex, u64, Result<(), Refusal>),
    /// An answer for another coordinator.
    FetchAnswer(NodeIndex, u64, Result<Held, Refusal>),
    /// An ack for a record that another node brought home.
    HandoffAck(NodeIndex, u64, Result<(), Refusal>),
    /// What an exchange goes on with.
    Exchange(RowWaiter),
    /// What healing goes on with.
    Heal(HealWaiter),
    /// The note of a peer.
    PeerNoted(NodeIndex),
    /// Leaves that were corrected, and go to disk with this store.
    Leaves(BTreeSet<LeafId>),
    /// The node's own note, and what is in it.
    OwnNoted(Boot),
}

impl Waiter {
    /// Whether a client waits, here or behind another coordinator, or a node that wants to be let in. Healing can share a sync with those.
    fn is_urgent(&self) -> bool {
        match self {
            Waiter::LocalAck(_) | Waiter::LocalRead(..) | Waiter::MergeAck(..) | Waiter::FetchAnswer(..) => true,
            Waiter::PeerNoted(_) | Waiter::OwnNoted(_) => true,
            Waiter::HandoffAck(..) | Waiter::Exchange(_) | Waiter::Heal(_) | Waiter::Leaves(_) => false,
        }
    }
}

/// One row in memory.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The load that is under way. Invariant: `loading` and `stored` are never both set.
    pub(super) loading: Option<LoadId>,
    /// The record, once loaded.
    pub(super) stored: Option<Stored>,
    /// Work that waits for the load.
    pub(super) waiting: Vec<Work>,
    /// The newest store of this row that is not durable yet.
    pub(super) unsynced: Option<StoreTicket>,
}

/// All rows in memory, and who waits for which store.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: BTreeMap<Place, Slot>,
    loads: BTreeMap<LoadId, Place>,
    /// One entry a store that is not durable, in order. Invariant: tickets run without a gap.
    syncing: VecDeque<Syncing>,
    next_load: u64,
    next_ticket: u64,
    /// Stores up to this one are applied, as far as was said.
    applied: StoreTicket,
    /// The newest stores that somebody waits for.
    wanted: SyncWanted,
    /// Work that waits for loads, and waiters for stores.
    queued: usize,
}

/// A store on its way to disk.
#[derive(Debug)]
pub(super) struct Syncing {
    pub(super) ticket: StoreTicket,
    pub(super) place: Place,
    pub(super) waiters: Vec<Waiter>,
    /// Those that wait only until it is applied.
    hasty: Vec<Waiter>,
    /// What it did to what is counted in memory.
    change: Option<Change>,
    /// Whether dots were minted in it.
    minted: bool,
    failed: bool,
}

impl Syncing {
    /// What it did to what is counted in memory, unless it was refused: then that was undone.
    pub(super) fn change(&self) -> Option<Change> {
        self.change.filter(|_| !self.failed)
    }
}

/// What a store does to what is counted in memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Leaf(LeafChange),
    Hint(HintChange),
}

/// What a store does to a leaf: which entry goes, and which one comes. Zero stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeafChange {
    pub(super) leaf: LeafId,
    pub(super) before: u64,
    pub(super) after: u64,
}

/// A store that was refused.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) place: Place,
    /// What it had done to what is counted in memory, to be undone.
    pub(super) change: Option<Change>,
    pub(super) waiters: Vec<Waiter>,
    /// Whether dots were minted in it, which other owners may have by now.
    pub(super) minted: bool,
}

impl Slots {
    /// How many rows are in memory.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether `max` rows are in memory, or as many things wait for rows: a hot key may have many.
    pub(super) fn are_full(&self, max: usize) -> bool {
        self.slots.len() >= max || self.queued >= max
    }

    /// Takes the slot of a row out, to be put back by [`Slots::put_back`]; a new one if there is none.
    pub(super) fn take(&mut self, place: &Place) -> Slot {
        self.slots.remove(place).unwrap_or_default()
    }

    /// Puts a slot back, unless nothing holds it in memory.
    pub(super) fn put_back(&mut self, place: Place, slot: Slot) {
        if slot.loading.is_some() || slot.unsynced.is_some() {
            self.slots.insert(place, slot);
        }
    }

    /// Lets work wait for the slot's load.
    pub(super) fn enqueue(&mut self, slot: &mut Slot, work: Work) {
        self.queued += 1;
        slot.waiting.push(work);
    }

    /// The work that waited for the slot's load.
    pub(super) fn dequeue(&mut self, slot: &mut Slot) -> Vec<Work> {
        self.queued -= slot.waiting.len();
        std::mem::take(&mut slot.waiting)
    }

    /// Starts a load of the slot.
    pub(super) fn begin_load(&mut self, place: &Place, slot: &mut Slot) -> LoadId {
        self.next_load += 1;
        let load = LoadId(self.next_load);
        self.loads.insert(load, place.clone());
        slot.loading = Some(load);
        slot.stored = None;
        load
    }

    /// The place of a load that has ended; `None` for an answer that nobody waits for.
    pub(super) fn end_load(&mut self, load: LoadId) -> Option<Place> {
        let place = self.loads.remove(&load)?;
        let current = self.slots.get(&place).is_some_and(|slot| slot.loading == Some(load));
        current.then_some(place)
    }

    /// Numbers a store of the slot. `minted`: dots were minted in it.
    pub(super) fn begin_store(
        &mut self,
        place: &Place,
        slot: &mut Slot,
        change: Option<Change>,
        minted: bool,
    ) -> StoreTicket {
        let ticket = self.enter_store(place.clone(), change, minted);
        slot.unsynced = Some(ticket);
        ticket
    }

    /// Numbers a store that no slot stands behind: nobody will load the row before it is durable.
    pub(super) fn begin_plain_store(&mut self, place: Place) -> StoreTicket {
        self.enter_store(place, None, false)
    }

    fn enter_store(&mut self, place: Place, change: Option<Change>, minted: bool) -> StoreTicket {
        self.next_ticket += 1;
        let ticket = StoreTicket(self.next_ticket);
        self.syncing.push_back(Syncing {
            ticket,
            place,
            waiters: Vec::new(),
            hasty: Vec::new(),
            change,
            minted,
            failed: false,
        });
        ticket
    }

    /// Lets waiters wait for a store. Gives them back if the store is durable already.
    pub(super) fn wait(&mut self, ticket: StoreTicket, waiters: Vec<Waiter>) -> Option<Vec<Waiter>> {
        let (count, is_urgent) = (waiters.len(), waiters.iter().any(Waiter::is_urgent));
        match self.entry(ticket) {
            Some(entry) => {
                entry.waiters.extend(waiters);
                self.queued += count;
                match is_urgent {
                    true => self.wanted.now = self.wanted.now.max(ticket),
                    false if count > 0 => self.wanted.soon = self.wanted.soon.max(ticket),
                    false => {}
                }
                None
            }
            None => Some(waiters),
        }
    }

    /// Lets waiters wait until a store is applied, if not synced. Gives them back if it is.
    pub(super) fn wait_applied(&mut self, ticket: StoreTicket, waiters: Vec<Waiter>) -> Option<Vec<Waiter>> {
        if ticket <= self.applied || waiters.is_empty() {
            return Some(waiters);
        }
        let count = waiters.len();
        match self.entry(ticket) {
            Some(entry) => {
                entry.hasty.extend(waiters);
                self.queued += count;
                None
            }
            None => Some(waiters),
        }
    }

    /// Stores up to `upto` are applied, but for those that were refused. Who waited for that, in order.
    pub(super) fn applied(&mut self, upto: StoreTicket) -> Vec<Vec<Waiter>> {
        // Most are durable before this is said.
        let oldest = self.syncing.front().map_or(upto.0 + 1, |entry| entry.ticket.0);
        let first = oldest.max(self.applied.0 + 1);
        self.applied = self.applied.max(upto);
        let mut ready = Vec::new();
        for ticket in first..=upto.0 {
            let waiters = self
                .entry(StoreTicket(ticket))
                .map(|entry| std::mem::take(&mut entry.hasty));
            ready.extend(waiters.filter(|waiters| !waiters.is_empty()));
        }
        self.queued -= ready.iter().map(Vec::len).sum::<usize>();
        ready
    }

    /// The newest stores that somebody waits for. When half of `max` rows are in memory all are wanted: only a sync lets them go.
    pub(super) fn wanted(&self, max: usize) -> SyncWanted {
        let mut wanted = self.wanted;
        if self.slots.len() >= max.div_ceil(2) {
            wanted.soon = StoreTicket(self.next_ticket);
        }
        wanted
    }

    /// All that was stored so far is to be synced soon.
    pub(super) fn want_all(&mut self) {
        self.wanted.soon = StoreTicket(self.next_ticket);
    }

    /// The next store that is durable now that all up to `upto` are. Its slot leaves memory if that was the last.
    pub(super) fn next_durable(&mut self, upto: StoreTicket) -> Option<Syncing> {
        if self.syncing.front()?.ticket > upto {
            return None;
        }
        let mut done = self.syncing.pop_front()?;
        done.waiters.append(&mut done.hasty);
        self.queued -= done.waiters.len();
        self.forget(&done.place, done.ticket, None);
        Some(done)
    }

    /// Takes note that a store was refused. Its entry stays in its place, so that tickets run on, until it is the oldest.
    pub(super) fn fail_store(&mut self, ticket: StoreTicket) -> Option<Failed> {
        let entry = self.entry(ticket).filter(|entry| !entry.failed)?;
        entry.failed = true;
        entry.waiters.append(&mut entry.hasty);
        let failed = Failed {
            place: entry.place.clone(),
            change: entry.change,
            waiters: std::mem::take(&mut entry.waiters),
            minted: entry.minted,
        };
        self.queued -= failed.waiters.len();
        // What is on disk now is what an earlier store of the row left, and that may still have to be synced.
        let earlier = self.syncing.iter().rev().find(|e| !e.failed && e.place == failed.place);
        let earlier = earlier.map(|e| e.ticket);
        self.forget(&failed.place, ticket, earlier);
        while self.syncing.front().is_some_and(|entry| entry.failed) {
            self.syncing.pop_front();
        }
        Some(failed)
    }

    /// Puts another store, or none, in the place of a slot's newest one, if that is `ticket`.
    fn forget(&mut self, place: &Place, ticket: StoreTicket, instead: Option<StoreTicket>) {
        if let Some(slot) = self.slots.get_mut(place)
            && slot.unsynced == Some(ticket)
        {
            slot.unsynced = instead;
            if slot.loading.is_none() && instead.is_none() {
                self.slots.remove(place);
            }
        }
    }

    fn entry(&mut self, ticket: StoreTicket) -> Option<&mut Syncing> {
        let first = self.syncing.front()?.ticket;
        let at = ticket.0.checked_sub(first.0)?;
        self.syncing.get_mut(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::key::Key;

    #[test]
    fn stores_that_are_refused_leave_nothing_behind() {
        let mut slots = Slots::default();
        let place = Place::Record(Key::new(b"bucket", b"key", None).unwrap());
        for n in 1..10 {
            let mut slot = slots.take(&place);
            let ticket = slots.begin_store(&place, &mut slot, None, n % 2 == 0);
            slots.put_back(place.clone(), slot);
            assert!(slots.wait(ticket, vec![Waiter::LocalAck(OpId(n))]).is_none());
            let failed = slots.fail_store(ticket).unwrap();
            assert_eq!((failed.waiters.len(), failed.minted), (1, n % 2 == 0));
            assert!(slots.fail_store(ticket).is_none());
            assert_eq!((slots.len(), slots.syncing.len(), slots.queued), (0, 0, 0));
        }
    }
}
