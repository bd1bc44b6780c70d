//! A node's disk: the storage model, and the order of syncs around it.
//!
//! Stores are visible at once and survive a power cut when a sync that began after them has ended. One sync runs at a time, and one that
//! begins takes everything in that was applied before: the group commit of the real node.

use bytes::Bytes;
use quorate_core::engine::{Boot, LoadFailed, StoreTicket};
use quorate_core::key::Key;
use quorate_core::place::Place;
use quorate_storage::{Batch, Column, MemStorage, ScanLimit, Storage, SyncPoint};

/// What a load found.
pub(crate) type LoadResult = Result<Option<Bytes>, LoadFailed>;

/// A node's disk. It outlives the node's process.
#[derive(Default)]
pub(crate) struct Disk {
    store: MemStorage,
    batch: Batch,
    /// The newest ticket that was carried out, refused ones included.
    newest: StoreTicket,
    /// The newest ticket that a finished or running sync takes in.
    taken: StoreTicket,
    running: Option<(SyncPoint, StoreTicket)>,
    /// Running faults that make it refuse writes.
    pub(crate) full: u32,
    /// Running faults that make it refuse reads.
    pub(crate) unreadable: u32,
}

impl Disk {
    /// Applies a store. False: refused, and nothing of it is on disk.
    pub(crate) fn store(&mut self, ticket: StoreTicket, key: &Key, payload: &Bytes, refuse: bool) -> bool {
        self.newest = ticket;
        if refuse || self.full > 0 {
            return false;
        }
        self.batch.put_record(key.token().0, key.encoded(), payload);
        self.store.apply(&mut self.batch).is_ok()
    }

    /// Applies a store of a note, or its removal. False: refused, and nothing of it is on disk.
    pub(crate) fn store_note(
        &mut self,
        ticket: StoreTicket,
        place: &Place,
        note: Option<&Bytes>,
        refuse: bool,
    ) -> bool {
        self.newest = ticket;
        if refuse || self.full > 0 {
            return false;
        }
        let row = place.row();
        match note {
            Some(note) => self.batch.put(Column::Meta, row.token, &row.key, note),
            None => self.batch.delete(Column::Meta, row.token, &row.key),
        }
        self.store.apply(&mut self.batch).is_ok()
    }

    /// All notes on disk.
    pub(crate) fn notes(&self) -> Vec<(Place, Bytes)> {
        let page = self.store.scan(Column::Meta, 0..=0, None, ScanLimit::rows(usize::MAX));
        let rows = page.map_or_else(|_| Vec::new(), |page| page.rows);
        rows.into_iter()
            .filter_map(|row| Some((Place::note_in(&row.key)?, row.payload.ok()?)))
            .collect()
    }

    /// Begins a start of the directory: its generation is on disk before anything else happens.
    pub(crate) fn boot(&mut self) -> Boot {
        let row = Place::Own.row();
        let last = self.store.get_row(Column::Meta, row.token, &row.key).ok().flatten();
        let boot = Boot::next(last.as_deref()).expect("the note is what an engine wrote");
        self.batch.put(Column::Meta, row.token, &row.key, &boot.note());
        let stored = self.store.apply(&mut self.batch).and_then(|()| self.store.sync());
        debug_assert!(stored.is_ok(), "a disk takes a note at a start");
        boot
    }

    /// Reads what is visible.
    pub(crate) fn load(&self, key: &Key, fail: bool) -> LoadResult {
        if fail || self.unreadable > 0 {
            return Err(LoadFailed::Unreadable);
        }
        self.peek(key)
    }

    /// Reads what is visible, faults not regarded.
    pub(crate) fn peek(&self, key: &Key) -> LoadResult {
        self.store
            .get(key.token().0, key.encoded())
            .map_err(|_| LoadFailed::Corrupt)
    }

    /// Begins a sync if none is running and there is something to sync. Returns how many batches it takes in.
    pub(crate) fn begin_sync(&mut self) -> usize {
        if self.running.is_some() || self.taken == self.newest {
            return 0;
        }
        self.taken = self.newest;
        self.running = Some((self.store.begin_sync(), self.newest));
        self.store.unsynced().max(1)
    }

    /// Ends the running sync. Every store up to the returned one is durable.
    pub(crate) fn finish_sync(&mut self) -> Option<StoreTicket> {
        let (point, ticket) = self.running.take()?;
        self.store.finish_sync(point).ok()?;
        Some(ticket)
    }

    /// Power is lost: of what was not synced, the oldest `survive_pm` per mille are there afterwards. Returns how many batches were
    /// lost.
    pub(crate) fn crash(&mut self, survive_pm: u16) -> usize {
        let unsynced = self.store.unsynced();
        let survive = (unsynced * usize::from(survive_pm) + 500) / 1000;
        self.store.crash(survive);
        (self.newest, self.taken, self.running) = Default::default();
        unsynced - survive
    }

    /// Everything is gone.
    pub(crate) fn wipe(&mut self) {
        self.store.wipe();
    }

    /// One record is gone, as if it had never been. False if there was none.
    pub(crate) fn forget(&mut self, key: &Key) -> bool {
        self.store.wipe_key(key.token().0, key.encoded())
    }

    /// All keys on disk, encoded, with their payloads.
    pub(crate) fn rows(&self) -> Vec<(Bytes, Bytes)> {
        self.store
            .records()
            .into_iter()
            .filter_map(|row| Some((row.key, row.payload.ok()?)))
            .collect()
    }
}
