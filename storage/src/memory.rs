//! The store as the simulator sees it: rows in memory, with a log that a crash can cut.
//!
//! It gives the same answers as the store on disk and goes wrong the way disks do, on demand: a crash keeps any prefix of
//! the unsynced batches, bits rot, blocks are damaged, reads fail, the disk fills up, a sync fails, an old copy of the disk
//! is put back. Rows are kept in their stored form, so rot is found by the same checksums as on disk. Nothing in here draws
//! a random number or reads a clock: the caller decides what breaks, and the same calls give the same bytes.
//!
//! Rejected: files in a temporary directory under a real engine. Nothing could be crashed between two calls, and a seed
//! would not replay.

mod faults;
mod rows;

use std::{cell::RefCell, fmt, ops::RangeInclusive};

use bytes::Bytes;

use self::{
    faults::{Faults, damaged},
    rows::{Row, Rows, Stored},
};
use crate::{
    Batch, Count, Page, ScanLimit, ScanRow, Storage, StorageError, checksum,
    row::{self, Column},
    store::PageBuilder,
};
pub use faults::ApplyFault;
pub use rows::MemSnapshot;

/// A store in memory that crashes and rots when told to. Single-threaded.
///
/// The methods of [`Storage`] are what a node calls; everything else is for whoever plays the disk's part.
#[derive(Default)]
pub struct MemStorage {
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    rows: Rows,
    faults: Faults,
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
        SyncPoint(self.inner.borrow().rows.next())
    }

    /// Ends a sync: what had been applied when it began is durable from now on.
    ///
    /// # Errors
    /// As [`Storage::sync`], if a fault was set.
    pub fn finish_sync(&self, point: SyncPoint) -> Result<(), StorageError> {
        let mut inner = self.inner.borrow_mut();
        inner.faults.check_sync()?;
        inner.rows.sync_up_to(point.0);
        Ok(())
    }

    /// Number of batches that a crash could take back.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.inner.borrow().rows.unsynced()
    }

    /// Crashes and starts again: of the unsynced batches the oldest `survive` are kept, the rest never happened. What was
    /// synced stays, and so does what rotted or is damaged. All other faults are cleared.
    pub fn crash(&self, survive: usize) {
        let mut inner = self.inner.borrow_mut();
        inner.rows.crash(survive);
        inner.faults = Faults::default();
    }

    /// Lets the next `count` reads, scans and counts fail.
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
        self.inner.borrow_mut().rows.flip(&row::encode(column, token, key), bit)
    }

    /// Flips one bit of a record. False if there is none.
    pub fn corrupt(&self, token: u64, key: &[u8], bit: usize) -> bool {
        self.rot(Column::Record, token, key, bit)
    }

    /// Flips one bit of a metadata row. False if there is none.
    pub fn corrupt_meta(&self, name: &str, bit: usize) -> bool {
        self.rot(Column::Meta, 0, name.as_bytes(), bit)
    }

    /// Damages the rows of a column that lie in these tokens now: until one is overwritten or deleted, reads and scans that
    /// come to it fail with [`Damaged`](StorageError::Damaged). Returns how many rows there are. Outlasts crashes.
    pub fn damage(&self, column: Column, tokens: RangeInclusive<u64>) -> usize {
        self.inner.borrow_mut().rows.damage(column, &tokens)
    }

    /// As `damage`, and more like a disk: what is written over a damaged row can be read one by one, but a scan fails
    /// wherever it touches these tokens, whatever lies in them, until the disk is wiped or another one put in. To let
    /// compaction come upon it, use [`ApplyFault::Damaged`].
    pub fn damage_block(&self, column: Column, tokens: RangeInclusive<u64>) -> usize {
        let rows = &mut self.inner.borrow_mut().rows;
        rows.block(column, &tokens);
        rows.damage(column, &tokens)
    }

    /// Empties the disk: rows of all columns, log, damage. Faults stay.
    pub fn wipe(&self) {
        self.inner.borrow_mut().rows.wipe();
    }

    /// Forgets one record as if it had never been written, durably. False if there was none.
    pub fn wipe_key(&self, token: u64, key: &[u8]) -> bool {
        self.inner
            .borrow_mut()
            .rows
            .forget(&row::encode(Column::Record, token, key))
    }

    /// A copy of what is durable: the rows of all columns, rot and all, without what a crash could take back. Copies every
    /// row's name; payloads are shared.
    #[must_use]
    pub fn snapshot(&self) -> MemSnapshot {
        self.inner.borrow().rows.snapshot()
    }

    /// Puts an old copy of the disk in place of this one. What has been written since is gone, synced or not. Faults stay.
    pub fn restore(&self, snapshot: &MemSnapshot) {
        self.inner.borrow_mut().rows.restore(snapshot);
    }

    /// All records, in order, faults and damage not regarded. For checkers.
    #[must_use]
    pub fn records(&self) -> Vec<ScanRow> {
        self.rows(Column::Record)
    }

    /// All rows of a column, in order, faults and damage not regarded. For checkers.
    #[must_use]
    pub fn rows(&self, column: Column) -> Vec<ScanRow> {
        let inner = self.inner.borrow();
        let mut page = PageBuilder::new(column, ScanLimit::rows(usize::MAX));
        let (lower, upper) = row::range(column, &(0..=u64::MAX), None).expect("all tokens are some tokens");
        inner
            .rows
            .range(&lower, &upper)
            .for_each(|(row, stored)| page.push(row, &stored.bytes));
        page.finish(true).rows
    }

    /// The stored bytes of a row.
    fn read(&self, column: Column, token: u64, key: &[u8]) -> Result<(Row, Option<Bytes>), StorageError> {
        let Inner { rows, faults } = &mut *self.inner.borrow_mut();
        faults.check_read("get")?;
        faults.check_row("get", column, token, key)?;
        let row = row::encode(column, token, key);
        let bytes = rows.get(&row).map(readable).transpose()?.cloned();
        Ok((row, bytes))
    }
}

impl Storage for MemStorage {
    fn get_row(&self, column: Column, token: u64, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let (row, stored) = self.read(column, token, key)?;
        stored
            .map(|stored| checksum::open(&row, &stored).map(|payload| stored.slice_ref(payload)))
            .transpose()
            .map_err(|detail| StorageError::corrupt(column, token, key, detail))
    }

    fn get_aside(&self, token: u64, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.read(Column::Aside, token, key)?.1)
    }

    fn apply(&self, batch: &mut Batch) -> Result<(), StorageError> {
        let Inner { rows, faults } = &mut *self.inner.borrow_mut();
        faults.check_running()?;
        if batch.is_empty() {
            return Ok(());
        }
        faults.check_apply()?;
        let mut writes = Vec::with_capacity(batch.len());
        batch.resolve(
            |row| Ok(rows.get(row).map(readable).transpose()?.map(|bytes| bytes.to_vec())),
            |write| {
                writes.push((
                    write.row.into_owned(),
                    write.stored.map(|s| Bytes::from(s.into_owned())),
                ))
            },
        )?;
        rows.apply(writes);
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
        let Inner { rows, faults } = &mut *self.inner.borrow_mut();
        faults.check_read("scan")?;
        let mut page = PageBuilder::new(column, limit);
        let Some((lower, upper)) = row::range(column, &tokens, after) else {
            return Ok(page.finish(true));
        };
        let blocked = rows.blocked_at(&lower, &upper);
        for (row, stored) in rows.range(&lower, blocked.map_or(&upper, |at| at.max(&lower))) {
            if page.is_full() {
                return Ok(page.finish(false));
            }
            let (token, key) = row::decode(row).expect("rows are only made by `row::encode`");
            let read = faults.check_row("scan", column, token, key);
            match read.and_then(|()| readable(stored)) {
                Ok(bytes) => page.push(row, bytes),
                Err(_) if !page.is_empty() => return Ok(page.finish(false)),
                Err(error) => return Err(error),
            }
        }
        match blocked {
            None => Ok(page.finish(true)),
            Some(_) if !page.is_empty() => Ok(page.finish(false)),
            Some(_) => Err(damaged()),
        }
    }

    fn count(&self, column: Column, tokens: RangeInclusive<u64>) -> Result<Count, StorageError> {
        let Inner { rows, faults } = &mut *self.inner.borrow_mut();
        faults.check_read("count")?;
        let mut count = Count::default();
        let Some((lower, upper)) = row::range(column, &tokens, None) else {
            return Ok(count);
        };
        if rows.blocked_at(&lower, &upper).is_some() {
            return Err(damaged());
        }
        for (row, stored) in rows.range(&lower, &upper) {
            count.add(row, readable(stored)?);
        }
        Ok(count)
    }
}

fn readable(stored: &Stored) -> Result<&Bytes, StorageError> {
    match stored.damaged {
        true => Err(damaged()),
        false => Ok(&stored.bytes),
    }
}

impl fmt::Debug for MemStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.borrow();
        f.debug_struct("MemStorage")
            .field("rows", &inner.rows.len())
            .field("unsynced", &inner.rows.unsynced())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
