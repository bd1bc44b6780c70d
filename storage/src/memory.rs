//! The store as the simulator sees it: rows in memory, with a log that a crash can cut.
//!
//! It gives the same answers as the store on disk and goes wrong the way disks do, on demand: a crash keeps any prefix of
//! the unsynced batches, bits rot, reads fail, the disk fills up, a sync fails. Rows are kept in their stored form, so
//! rot is found by the same checksums as on disk. Nothing in here draws a random number or reads a clock: the caller
//! decides what breaks, and the same calls give the same bytes.
//!
//! What a crash takes back is kept as an undo list per unsynced batch: one map of rows, and a few old values beside it.
//! Rejected: a durable and a visible copy of everything. A simulated cluster starts and crashes its nodes thousands of
//! times a second, and would spend that second copying maps.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fmt,
    ops::{Bound, RangeInclusive},
};

use bytes::Bytes;

use crate::{
    Batch, Page, ScanLimit, ScanRow, Storage, StorageError, checksum,
    row::{self, Column},
    store::PageBuilder,
};

type Row = Vec<u8>;
type ReadFault = Box<dyn FnMut(u64, &[u8]) -> bool>;

/// A store in memory that crashes and rots when told to. Single-threaded.
///
/// The methods of [`Storage`] are what a node calls; everything else is for whoever plays the disk's part.
#[derive(Default)]
pub struct MemStorage {
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What reads see: durable rows and unsynced ones.
    rows: BTreeMap<Row, Bytes>,
    /// Batches applied and not synced, oldest first.
    unsynced: VecDeque<Unsynced>,
    /// Number of the next batch. Never goes back, so a `SyncPoint` from before a crash cannot cover what came after it.
    next: u64,
    faults: Faults,
}

struct Unsynced {
    number: u64,
    /// Rows in the order they were written, with what each held before.
    undo: Vec<(Row, Option<Bytes>)>,
}

#[derive(Default)]
struct Faults {
    reads: usize,
    read_hook: Option<ReadFault>,
    apply: Option<ApplyFault>,
    sync: bool,
    full: bool,
    stopped: bool,
}

/// How the next `apply` is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyFault {
    /// The disk is full; certainly not applied.
    Full,
    /// Background work is behind; certainly not applied.
    Stalled,
    /// The log could not be written. Not visible, outcome unknown: the store stops, as after a failed sync.
    Io,
}

/// What a sync that was begun will make durable: see [`MemStorage::begin_sync`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "nothing is durable until the sync is finished"]
pub struct SyncPoint(u64);

impl MemStorage {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        MemStorage::default()
    }

    /// Starts a sync of everything applied so far. It takes effect with `finish_sync`; a crash in between may lose it all.
    pub fn begin_sync(&self) -> SyncPoint {
        SyncPoint(self.inner.borrow().next)
    }

    /// Ends a sync: what had been applied when it began is durable from now on.
    ///
    /// # Errors
    /// As [`Storage::sync`], if a fault was set.
    pub fn finish_sync(&self, point: SyncPoint) -> Result<(), StorageError> {
        let mut inner = self.inner.borrow_mut();
        if std::mem::take(&mut inner.faults.sync) {
            inner.faults.stopped = true;
        }
        inner.check_running()?;
        while inner.unsynced.front().is_some_and(|batch| batch.number < point.0) {
            inner.unsynced.pop_front();
        }
        Ok(())
    }

    /// Number of batches that a crash could take back.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.inner.borrow().unsynced.len()
    }

    /// Crashes and starts again: of the unsynced batches the oldest `survive` are kept, the rest never happened. What was
    /// synced stays, and so does what rotted. All other faults are cleared.
    pub fn crash(&self, survive: usize) {
        let mut inner = self.inner.borrow_mut();
        while inner.unsynced.len() > survive {
            let batch = inner.unsynced.pop_back().expect("longer than `survive`, so not empty");
            for (row, before) in batch.undo.into_iter().rev() {
                inner.set(row, before);
            }
        }
        inner.unsynced.clear();
        inner.faults = Faults::default();
    }

    /// Lets the next `count` reads and scans fail.
    pub fn fail_reads(&self, count: usize) {
        self.inner.borrow_mut().faults.reads = count;
    }

    /// Asks `fault` before every read of a record whether it is to fail; also for each row that a scan comes to. Until the
    /// next crash.
    pub fn fail_reads_if(&self, fault: impl FnMut(u64, &[u8]) -> bool + 'static) {
        self.inner.borrow_mut().faults.read_hook = Some(Box::new(fault));
    }

    /// Lets the next `apply` fail.
    pub fn fail_next_apply(&self, fault: ApplyFault) {
        self.inner.borrow_mut().faults.apply = Some(fault);
    }

    /// Lets the next sync fail. The store is then stopped until it is crashed; which of the unsynced batches are on disk is
    /// decided by that crash.
    pub fn fail_next_sync(&self) {
        self.inner.borrow_mut().faults.sync = true;
    }

    /// Fills the disk up, or frees it. While it is full, every `apply` fails.
    pub fn set_full(&self, full: bool) {
        self.inner.borrow_mut().faults.full = full;
    }

    /// Flips one bit (counted from the first, modulo the row's length) of a row as it is stored now. False if there is
    /// none.
    pub fn rot(&self, column: Column, token: u64, key: &[u8], bit: usize) -> bool {
        let mut inner = self.inner.borrow_mut();
        let Some(stored) = inner.rows.get_mut(&row::encode(column, token, key)) else {
            return false;
        };
        let mut bytes = stored.to_vec();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        *stored = bytes.into();
        true
    }

    /// Flips one bit of a record. False if there is none.
    pub fn corrupt(&self, token: u64, key: &[u8], bit: usize) -> bool {
        self.rot(Column::Record, token, key, bit)
    }

    /// Flips one bit of a metadata row. False if there is none.
    pub fn corrupt_meta(&self, name: &str, bit: usize) -> bool {
        self.rot(Column::Meta, 0, name.as_bytes(), bit)
    }

    /// Empties the disk: rows, metadata, log. Faults stay.
    pub fn wipe(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.rows.clear();
        inner.unsynced.clear();
    }

    /// Forgets one record as if it had never been written, durably. False if there was none.
    pub fn wipe_key(&self, token: u64, key: &[u8]) -> bool {
        let row = row::encode(Column::Record, token, key);
        let mut inner = self.inner.borrow_mut();
        for (undone, before) in inner.unsynced.iter_mut().flat_map(|batch| &mut batch.undo) {
            if *undone == row {
                *before = None;
            }
        }
        inner.rows.remove(&row).is_some()
    }

    /// All records, in order, faults not regarded. For checkers.
    #[must_use]
    pub fn records(&self) -> Vec<ScanRow> {
        let inner = self.inner.borrow();
        let mut page = PageBuilder::new(Column::Record, ScanLimit::rows(usize::MAX));
        let (lower, upper) = row::range(Column::Record, &(0..=u64::MAX), None).expect("all tokens are some tokens");
        inner
            .rows
            .range(lower..upper)
            .for_each(|(row, stored)| page.push(row, stored));
        page.finish(true).rows
    }

    fn read(&self, column: Column, token: u64, key: &[u8]) -> Result<(Row, Option<Bytes>), StorageError> {
        let mut inner = self.inner.borrow_mut();
        inner.faults.check_read("get")?;
        inner.faults.check_row("get", column, token, key)?;
        let row = row::encode(column, token, key);
        let stored = inner.rows.get(&row).cloned();
        Ok((row, stored))
    }
}

impl Storage for MemStorage {
    fn get_row(&self, column: Column, token: u64, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let (row, stored) = self.read(column, token, key)?;
        stored
            .map(|stored| payload(&row, &stored))
            .transpose()
            .map_err(|detail| StorageError::corrupt(column, token, key, detail))
    }

    fn get_aside(&self, token: u64, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.read(Column::Aside, token, key)?.1)
    }

    fn apply(&self, batch: &mut Batch) -> Result<(), StorageError> {
        let mut inner = self.inner.borrow_mut();
        inner.check_running()?;
        if batch.is_empty() {
            return Ok(());
        }
        inner.check_apply()?;
        let mut writes = Vec::with_capacity(batch.len());
        let Ok(()) = batch.resolve(
            |row| Ok::<_, Infallible>(inner.rows.get(row).map(|stored| stored.to_vec())),
            |write| {
                writes.push((
                    write.row.into_owned(),
                    write.stored.map(|s| Bytes::from(s.into_owned())),
                ))
            },
        );
        let mut undo = Vec::with_capacity(writes.len());
        for (row, stored) in writes {
            let before = inner.set(row.clone(), stored);
            undo.push((row, before));
        }
        let number = inner.next;
        inner.next += 1;
        inner.unsynced.push_back(Unsynced { number, undo });
        batch.clear();
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.finish_sync(self.begin_sync())
    }

    fn scan(
        &self,
        column: Column,
        tokens: RangeInclusive<u64>,
        after: Option<(u64, &[u8])>,
        limit: ScanLimit,
    ) -> Result<Page, StorageError> {
        let mut inner = self.inner.borrow_mut();
        let Inner { rows, faults, .. } = &mut *inner;
        faults.check_read("scan")?;
        let mut page = PageBuilder::new(column, limit);
        let Some((lower, upper)) = row::range(column, &tokens, after) else {
            return Ok(page.finish(true));
        };
        for (row, stored) in rows.range::<[u8], _>((Bound::Included(&lower[..]), Bound::Excluded(&upper[..]))) {
            if page.is_full() {
                return Ok(page.finish(false));
            }
            let (token, key) = row::decode(row).expect("rows are only made by `row::encode`");
            match faults.check_row("scan", column, token, key) {
                Ok(()) => page.push(row, stored),
                Err(_) if !page.is_empty() => return Ok(page.finish(false)),
                Err(error) => return Err(error),
            }
        }
        Ok(page.finish(true))
    }
}

fn payload(row: &[u8], stored: &Bytes) -> Result<Bytes, &'static str> {
    checksum::open(row, stored).map(|payload| stored.slice_ref(payload))
}

impl Inner {
    fn set(&mut self, row: Row, stored: Option<Bytes>) -> Option<Bytes> {
        match stored {
            Some(stored) => self.rows.insert(row, stored),
            None => self.rows.remove(&row),
        }
    }

    fn check_running(&self) -> Result<(), StorageError> {
        match self.faults.stopped {
            true => Err(StorageError::SyncFailed {
                detail: "simulated".to_owned(),
            }),
            false => Ok(()),
        }
    }

    fn check_apply(&mut self) -> Result<(), StorageError> {
        let full = self.faults.full.then_some(ApplyFault::Full);
        match self.faults.apply.take().or(full) {
            None => Ok(()),
            Some(ApplyFault::Full) => Err(StorageError::Full {
                refused: true,
                detail: "simulated".to_owned(),
            }),
            Some(ApplyFault::Stalled) => Err(StorageError::Stalled),
            Some(ApplyFault::Io) => {
                self.faults.stopped = true;
                Err(StorageError::Io {
                    operation: "apply",
                    detail: "simulated".to_owned(),
                })
            }
        }
    }
}

impl Faults {
    fn check_read(&mut self, operation: &'static str) -> Result<(), StorageError> {
        match self.reads.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                self.reads = left;
                Err(StorageError::Io {
                    operation,
                    detail: "simulated".to_owned(),
                })
            }
        }
    }

    /// Only reads of records are asked about.
    fn check_row(
        &mut self,
        operation: &'static str,
        column: Column,
        token: u64,
        key: &[u8],
    ) -> Result<(), StorageError> {
        let hook = self.read_hook.as_mut().filter(|_| column == Column::Record);
        match hook.is_some_and(|fails| fails(token, key)) {
            true => Err(StorageError::Io {
                operation,
                detail: "simulated".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for MemStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.borrow();
        f.debug_struct("MemStorage")
            .field("rows", &inner.rows.len())
            .field("unsynced", &inner.unsynced.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
