//! The store on a real disk: RocksDB in a data directory of ours.
//!
//! `apply` writes to RocksDB's memtable and to its log's buffer in this process, and makes no system call. `sync` writes
//! that buffer out and fsyncs it once, however many batches it holds, while `apply` goes on beside it: RocksDB holds its
//! log's lock for the write, not for the fsync. A failed sync stops the store for good, because Linux may drop the pages
//! that it could not write and then report the next fsync as a success ("Can Applications Recover from fsync Failures?",
//! Rebello et al., ATC 2020).
//!
//! RocksDB's own recovery must not be trusted with bit rot: by default it takes the first flipped bit in its log for the
//! end of the log. See `log_check`.
//!
//! Rejected: a column family per kind of row. Batches stay atomic across families, but each has memtables, flushes and
//! a share in the log's life of its own, and one ordered key space does as well with a byte in front.

mod aside;
mod directory;
mod log_check;
mod open_error;
mod options;
mod space;
mod stats;

use std::{ops::RangeInclusive, path::Path, sync::OnceLock};

use bytes::Bytes;
use rocksdb::{DB, DBRawIterator, ErrorKind, ReadOptions, WriteBatch, WriteOptions};

use self::{
    directory::DataDir,
    space::Space,
    stats::{Asides, RecentStats},
};
use crate::{
    Batch, Count, Page, ScanLimit, Storage, StorageError, checksum,
    row::{self, Column},
    store::PageBuilder,
};
pub use aside::{mark_for_rebuild, set_aside_before, set_directory_aside};
pub use open_error::OpenError;
pub use options::RocksOptions;
pub use stats::RocksStats;

/// A store in a data directory, held exclusively while this value lives. `Send` and `Sync`: one thread applies and reads,
/// another one calls [`Storage::sync`] in a loop.
///
/// Dropping it without a `sync` is like a crash: what was applied last may or may not be there next time.
pub struct RocksStorage {
    // Declared, and so dropped, before the directory with its lock.
    db: DB,
    reads: ReadOptions,
    writes: WriteOptions,
    space: Space,
    /// Why no write and no sync may succeed any more.
    stopped: OnceLock<StorageError>,
    recent: RecentStats,
    asides: Asides,
    is_new: bool,
    dir: DataDir,
}

impl RocksStorage {
    /// Opens the data directory, and creates it if it does not exist or is empty.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing is deleted or repaired, whatever was found.
    pub fn open(path: impl AsRef<Path>, options: &RocksOptions) -> Result<Self, OpenError> {
        let dir = DataDir::open(path.as_ref())?;
        let db_path = dir.db_path();
        if !dir.is_new() {
            log_check::check_database(dir.path(), &db_path)?;
        }
        let is_new = dir.is_new();
        let mut engine = options.engine();
        engine.create_if_missing(is_new);
        let db = DB::open(&engine, &db_path).map_err(|error| OpenError::from_engine(dir.path(), &error))?;
        let dir = dir.created()?;
        let space = Space::new(dir.path(), options.reserve_bytes);
        space.check();
        let mut writes = WriteOptions::default();
        writes.set_no_slowdown(true);
        tracing::info!(path = %dir.path().display(), "data directory opened");
        Ok(RocksStorage {
            db,
            reads: checked_reads(),
            writes,
            space,
            stopped: OnceLock::new(),
            recent: RecentStats::default(),
            asides: Asides::default(),
            is_new,
            dir,
        })
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether this open created the store: a first start, or memory lost. It says so once; who must act on it had better
    /// leave a row of its own in the first batch, and take the absence of that row for the same.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Changes how much space is left to the system: see [`RocksOptions::reserve_bytes`].
    pub fn set_reserve_bytes(&self, reserve_bytes: u64) {
        self.space.set_reserve(reserve_bytes);
    }

    /// The same as [`apply`](Storage::apply) for what is worth the reserve: a few small rows without which the node is of no use. They are written
    /// also where other writes are refused for the disk's sake, down to a few MiB.
    ///
    /// # Errors
    /// As for `apply`.
    pub fn apply_in_reserve(&self, batch: &mut Batch) -> Result<(), StorageError> {
        self.check_running()?;
        self.space.refuse_if_out()?;
        self.write(batch)
    }

    fn write(&self, batch: &mut Batch) -> Result<(), StorageError> {
        let mut writes = WriteBatch::with_capacity_bytes(batch.size_bytes() + 16 * batch.len());
        batch.resolve(
            |row| Ok(self.stored(row)?.map(|stored| stored.to_vec())),
            |write| match write.stored {
                Some(stored) => writes.put(&write.row, &stored),
                None => writes.delete(&write.row),
            },
        )?;
        self.db
            .write_opt(writes, &self.writes)
            .map_err(|error| self.write_error(&error))?;
        batch.clear();
        Ok(())
    }

    /// Hands everything that was applied to the system, in one write: a crash of this process takes none of it back any more, a
    /// crash of the system may. For whoever acknowledges before [`sync`](Storage::sync).
    ///
    /// # Errors
    /// As for `sync`.
    pub fn hand_over(&self) -> Result<(), StorageError> {
        self.flush(false)
    }

    fn flush(&self, sync: bool) -> Result<(), StorageError> {
        self.check_running()?;
        if let Err(error) = self.db.flush_wal(sync) {
            self.stop(StorageError::SyncFailed {
                detail: error.to_string(),
            });
            return self.check_running();
        }
        Ok(())
    }

    /// Figures for metrics, up to two seconds old: to gather them takes a walk through a directory, so they are kept for
    /// that long, and whoever asks in between gets the same ones for next to nothing.
    pub fn stats(&self) -> RocksStats {
        self.recent.get_or(|| self.fresh_stats())
    }

    fn fresh_stats(&self) -> RocksStats {
        let is_low = self.space.check().is_some();
        let space = (self.space.free_bytes(), is_low);
        RocksStats::read(&self.db, &self.dir.db_path(), space, self.asides.look(self.dir.path()))
    }

    fn check_running(&self) -> Result<(), StorageError> {
        self.stopped.get().cloned().map_or(Ok(()), Err)
    }

    /// No write and no sync after this one, with this error. The first one counts.
    fn stop(&self, error: StorageError) {
        tracing::error!(%error, "storage stopped");
        self.stopped.get_or_init(|| error);
    }

    /// The stored bytes of a row.
    fn stored(&self, row: &[u8]) -> Result<Option<rocksdb::DBPinnableSlice<'_>>, StorageError> {
        self.db
            .get_pinned_opt(row, &self.reads)
            .map_err(|error| read_error("get", &error))
    }

    /// An iterator at the first row of `[lower, upper)`.
    fn iterator(&self, (lower, upper): (Vec<u8>, Vec<u8>), fill_cache: bool) -> DBRawIterator<'_> {
        let mut reads = checked_reads();
        reads.fill_cache(fill_cache);
        reads.set_iterate_upper_bound(upper);
        let mut iterator = self.db.raw_iterator_opt(reads);
        iterator.seek(lower);
        iterator
    }

    fn write_error(&self, error: &rocksdb::Error) -> StorageError {
        let detail = error.to_string();
        if error.kind() == ErrorKind::Incomplete {
            StorageError::Stalled
        } else if is_no_space(&detail) && !names_log(&detail) {
            self.space.set_low();
            StorageError::Full { refused: false, detail }
        } else if error.kind() == ErrorKind::Corruption {
            // Background work met a damaged file. The engine repeats that to every write from now on.
            let error = StorageError::Damaged { detail };
            self.stop(error.clone());
            error
        } else {
            self.stop(StorageError::SyncFailed { detail: detail.clone() });
            StorageError::Io {
                operation: "apply",
                detail,
            }
        }
    }
}

impl Storage for RocksStorage {
    fn get_row(&self, column: Column, token: u64, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let row = row::encode(column, token, key);
        let Some(stored) = self.stored(&row)? else {
            return Ok(None);
        };
        match checksum::open(&row, &stored) {
            Ok(payload) => Ok(Some(Bytes::copy_from_slice(payload))),
            Err(detail) => Err(StorageError::corrupt(column, token, key, detail)),
        }
    }

    fn get_aside(&self, token: u64, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let stored = self.stored(&row::encode(Column::Aside, token, key))?;
        Ok(stored.map(|stored| Bytes::copy_from_slice(&stored)))
    }

    fn apply(&self, batch: &mut Batch) -> Result<(), StorageError> {
        self.check_running()?;
        if batch.is_empty() {
            return Ok(());
        }
        self.space.refuse_if_low()?;
        self.write(batch)
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.flush(true)?;
        self.space.check();
        Ok(())
    }

    fn scan(
        &self,
        column: Column,
        tokens: RangeInclusive<u64>,
        after: Option<(u64, &[u8])>,
        limit: ScanLimit,
    ) -> Result<Page, StorageError> {
        let mut page = PageBuilder::new(column, limit);
        let Some(range) = row::range(column, &tokens, after) else {
            return Ok(page.finish(true));
        };
        let mut iterator = self.iterator(range, limit.rows <= CACHED_ROWS_MAX);
        while let Some((row, stored)) = iterator.item() {
            if page.is_full() {
                return Ok(page.finish(false));
            }
            page.push(row, stored);
            iterator.next();
        }
        // An iterator that meets a damaged block ends just as one that has seen everything.
        match iterator.status() {
            Ok(()) => Ok(page.finish(true)),
            Err(_) if !page.is_empty() => Ok(page.finish(false)),
            Err(error) => Err(read_error("scan", &error)),
        }
    }

    fn count(&self, column: Column, tokens: RangeInclusive<u64>) -> Result<Count, StorageError> {
        let mut count = Count::default();
        let Some(range) = row::range(column, &tokens, None) else {
            return Ok(count);
        };
        let mut iterator = self.iterator(range, false);
        while let Some((row, stored)) = iterator.item() {
            count.add(row, stored);
            iterator.next();
        }
        iterator.status().map_err(|error| read_error("count", &error))?;
        Ok(count)
    }
}

/// Pages up to this size leave what they read in the block cache. Larger ones do not: a scrub or a transfer reads
/// everything once, and would push the hot blocks out. Small ones must, since otherwise each of them reads the whole index
/// of a file again until somebody else happens to cache it (measured: 300 µs for four rows, and 9 µs with it).
const CACHED_ROWS_MAX: usize = 64;

/// Read options of every read. There is no prefix extractor, so seeks are in total order without being asked.
fn checked_reads() -> ReadOptions {
    let mut reads = ReadOptions::default();
    reads.set_verify_checksums(true);
    reads
}

fn read_error(operation: &'static str, error: &rocksdb::Error) -> StorageError {
    let detail = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => StorageError::Damaged { detail },
        _ => StorageError::Io { operation, detail },
    }
}

/// The log itself could not be written. What its buffer held may be lost then, and the engine does not go on even when
/// there is space again; from an error of a table file it recovers by itself.
fn names_log(detail: &str) -> bool {
    detail.contains(".log:")
}

/// RocksDB hands errors over as text; these are the words of ENOSPC and EDQUOT.
fn is_no_space(detail: &str) -> bool {
    detail.contains("No space left on device") || detail.contains("Disk quota exceeded")
}

impl std::fmt::Debug for RocksStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksStorage")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
