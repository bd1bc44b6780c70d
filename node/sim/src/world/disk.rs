//! A node's disk: the storage model, and the order of batches and syncs around it.
//!
//! All stores of one burst are one batch: visible at once, together on disk after a power cut or not at all. They survive it when a sync that
//! began after them has ended. One sync runs at a time, and one that begins takes everything in that was applied before: the group commit
//! of the real node.

use super::shell::{Found, Read};
use bytes::Bytes;
use quorate_core::engine::{Boot, LoadFailed, Scan, ScanPage, StoreTicket};
use quorate_core::place::{Place, RowName, Shelf};
use quorate_core::tree::LeafRow;
use quorate_storage::{Batch, Column, MemSnapshot, MemStorage, ScanLimit, ScanRow, Storage, StorageError, SyncPoint};
use std::ops::RangeInclusive;

/// What a load found.
pub(crate) type LoadResult = Result<Option<Bytes>, LoadFailed>;
/// What a scan found.
pub(crate) type ScanResult = Result<ScanPage, LoadFailed>;

/// How many earlier states of a disk are kept, to be put back.
const SNAPSHOTS_MAX: usize = 3;

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
    /// The next sync fails.
    pub(crate) sync_fails: bool,
    /// As it was before earlier starts, oldest first.
    past: Vec<MemSnapshot>,
    /// The one that was put back last.
    put_back: Option<MemSnapshot>,
}

impl Disk {
    /// Adds a store to the batch.
    pub(crate) fn stage(&mut self, place: &Place, payload: Option<&Bytes>) {
        let RowName { shelf, token, key } = place.row();
        match payload {
            Some(payload) => self.batch.put(column(shelf), token, &key, payload),
            None => self.batch.delete(column(shelf), token, &key),
        }
    }

    /// Adds a row of leaves of a Merkle tree to the batch.
    pub(crate) fn stage_leaf(&mut self, token: u64, key: &[u8], payload: &[u8]) {
        self.batch.put(Column::Leaf, token, key, payload);
    }

    /// All rows of leaves.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = LeafRow> + use<> {
        self.rows(Column::Leaf).into_iter().map(|row| LeafRow {
            token: row.token,
            key: row.key,
            payload: row.payload.ok(),
        })
    }

    /// All rows of leaves go, as a start has it that cannot make anything of them.
    pub(crate) fn drop_leaves(&mut self) {
        for row in self.rows(Column::Leaf) {
            self.batch.delete(Column::Leaf, row.token, &row.key);
        }
    }

    /// Applies what a start adds to the batch, and syncs it.
    pub(crate) fn commit_start(&mut self) {
        let stored = self.store.apply(&mut self.batch).and_then(|()| self.store.sync());
        debug_assert!(stored.is_ok(), "a disk takes a note at a start");
    }

    /// Adds to the batch that a corrupt record is moved out of the way.
    pub(crate) fn stage_aside(&mut self, place: &Place) {
        let RowName { shelf, token, key } = place.row();
        match shelf {
            Shelf::Record => self.batch.set_aside(token, &key),
            _ => self.batch.delete(column(shelf), token, &key),
        }
    }

    /// Applies the batch, of stores up to `newest`. False: refused, and nothing of it is on disk.
    pub(crate) fn commit(&mut self, newest: StoreTicket, refuse: bool) -> bool {
        self.newest = newest;
        let applied = !refuse && self.full == 0 && self.store.apply(&mut self.batch).is_ok();
        self.batch.clear();
        applied
    }

    /// Reads what is visible.
    pub(super) fn read(&self, read: &Read, fail: bool) -> Found {
        match read {
            Read::Load(_, place) => Found::Load(self.load(place, fail)),
            Read::Scan(_, what) => Found::Scan(self.scan(what, fail)),
        }
    }

    /// Reads one row.
    pub(crate) fn load(&self, place: &Place, fail: bool) -> LoadResult {
        if fail || self.unreadable > 0 {
            return Err(LoadFailed::Unreadable);
        }
        let RowName { shelf, token, key } = place.row();
        self.store
            .get_row(column(shelf), token, &key)
            .map_err(|error| load_failed(&error))
    }

    /// Reads rows in order.
    pub(crate) fn scan(&self, what: &Scan, fail: bool) -> ScanResult {
        if fail || self.unreadable > 0 {
            return Err(LoadFailed::Unreadable);
        }
        let (shelf, tokens, after) = what.bounds();
        let after = after.as_ref().map(|row| (row.token, &row.key[..]));
        let limit = ScanLimit {
            rows: what.rows_max,
            bytes: what.bytes_max,
        };
        let page = self.store.scan(column(shelf), tokens, after, limit);
        let page = page.map_err(|error| load_failed(&error))?;
        let row = |row: ScanRow| {
            let key = Place::key_in(shelf, &row.key)?;
            Some((key, row.payload.map_err(|error| load_failed(&error))))
        };
        Ok(ScanPage {
            rows: page.rows.into_iter().filter_map(row).collect(),
            done: page.done,
        })
    }

    /// Whether a store that was carried out is in no sync that has ended or is running.
    pub(crate) fn lacks(&self, ticket: StoreTicket) -> bool {
        self.taken < ticket
    }

    /// Whether any is.
    pub(crate) fn is_dirty(&self) -> bool {
        self.lacks(self.newest)
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

    /// The directory of a node that has been started before, and holds nothing: as it is when all of a cluster is founded together.
    pub(crate) fn found(&mut self) {
        let boot = Boot {
            generation: 0,
            is_new: false,
            ..Boot::default()
        };
        self.stage(&Place::Own, Some(&boot.note()));
        self.commit_start();
    }

    /// Begins a start of the directory: its generation is on disk before anything else happens.
    pub(crate) fn boot(&mut self) -> Boot {
        let RowName { token, key, .. } = Place::Own.row();
        let own = self.store.get_row(Column::Meta, token, &key).ok().flatten();
        let boot = Boot::next(own.as_deref()).expect("the note is what an engine wrote");
        self.stage(&Place::Own, Some(&boot.note()));
        self.commit_start();
        boot
    }

    /// Whether its node has read all that it should hold since the directory was made, as far as is noted on it.
    pub(crate) fn is_whole(&self) -> bool {
        let own = self.notes().into_iter().find(|(place, _)| *place == Place::Own);
        own.is_some_and(|(_, note)| Boot::next(Some(&note)).is_ok_and(|boot| !boot.is_new))
    }

    /// All notes on disk.
    pub(crate) fn notes(&self) -> Vec<(Place, Bytes)> {
        let rows = self.rows(Column::Meta).into_iter();
        rows.filter_map(|row| Some((Place::note_in(&row.key)?, row.payload.ok()?)))
            .collect()
    }

    /// Power is lost: of what was not synced, the oldest `survive_pm` per mille are there afterwards. Returns how many batches were
    /// lost.
    pub(crate) fn crash(&mut self, survive_pm: u16) -> usize {
        let unsynced = self.store.unsynced();
        let survive = (unsynced * usize::from(survive_pm) + 500) / 1000;
        self.store.crash(survive);
        self.batch.clear();
        (self.newest, self.taken, self.running, self.sync_fails) = Default::default();
        unsynced - survive
    }

    /// Everything is gone.
    pub(crate) fn wipe(&mut self) {
        self.store.wipe();
    }

    /// Keeps the disk as it is, to be put back.
    pub(crate) fn remember(&mut self) {
        self.past.push(self.store.snapshot());
        if self.past.len() > SNAPSHOTS_MAX {
            self.past.remove(0);
        }
    }

    /// How many earlier states are kept.
    pub(crate) fn remembered(&self) -> usize {
        self.past.len()
    }

    /// Puts the disk back as it was before the last start (0), the one before that (1), and so on.
    pub(crate) fn roll_back(&mut self, starts: usize) {
        let at = self.past.len() - 1 - starts.min(self.past.len() - 1);
        self.past.truncate(at + 1);
        let old = self.past.pop().expect("there is one at least");
        self.store.restore(&old);
        self.put_back = Some(old);
    }

    /// Puts the same older copy back once more.
    pub(crate) fn put_back_again(&mut self) {
        if let Some(old) = &self.put_back {
            self.store.restore(old);
        }
    }

    /// One row is gone, as if it had never been. False if there was none.
    pub(crate) fn forget(&mut self, key: &quorate_core::key::Key) -> bool {
        self.store.wipe_key(key.token().0, key.encoded())
    }

    /// A bit of a row flips.
    pub(crate) fn rot(&mut self, column: Column, row: &ScanRow, bit: usize) {
        self.store.rot(column, row.token, &row.key, bit);
    }

    /// A file is damaged under these rows.
    pub(crate) fn damage(&mut self, column: Column, tokens: RangeInclusive<u64>) {
        self.store.damage_block(column, tokens);
    }

    /// All rows of a column.
    pub(crate) fn rows(&self, column: Column) -> Vec<ScanRow> {
        let mut rows = self.store.rows(column);
        for row in rows.iter_mut().filter(|row| row.payload.is_ok()) {
            if let Err(damaged @ StorageError::Damaged { .. }) = self.store.get_row(column, row.token, &row.key) {
                row.payload = Err(damaged);
            }
        }
        rows
    }
}

/// The column of the store that holds a shelf.
fn column(shelf: Shelf) -> Column {
    match shelf {
        Shelf::Record => Column::Record,
        Shelf::Hint => Column::Hint,
        Shelf::Settle => Column::Settle,
        Shelf::Note => Column::Meta,
    }
}

/// What the engine is told about a failed read. Damage is for good, anything else may pass.
fn load_failed(error: &StorageError) -> LoadFailed {
    match error {
        StorageError::Corrupt { .. } | StorageError::CorruptMeta { .. } => LoadFailed::Corrupt,
        StorageError::Damaged { .. } => LoadFailed::Damaged,
        _ => LoadFailed::Unreadable,
    }
}
