//! The contract between the node and the bytes: [`Storage`].
//!
//! One data loop calls everything but `sync`, inline; `sync` may be called by another thread (if the implementation is
//! `Sync`, as the one on disk is). The trait asks for neither `Send` nor `Sync`, so that the simulator's model can be
//! plain single-threaded data.
//!
//! Scans come in pages, and not as an iterator: a page borrows nothing, so a caller can put it aside while it serves
//! requests and go on from the last row, and an error in mid-scan cannot be mistaken for the end.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::{Batch, Column, StorageError};

/// A store of rows (column, token, key -> payload).
///
/// A read that goes wrong is never "not there", and callers rely on telling three cases apart:
///
/// - [`Corrupt`](StorageError::Corrupt): this one row's checksum does not hold. Every other row is fine, and the row can
///   be set aside, deleted or overwritten.
/// - [`Damaged`](StorageError::Damaged): a file is damaged under it, and with it rows that nobody can name. A row written
///   over is read again by `get_row`; a scan goes on failing there:
///   see [`ScanAround`](crate::ScanAround).
/// - [`Io`](StorageError::Io): the engine failed otherwise, perhaps for the moment. It says nothing about the row.
pub trait Storage {
    /// The payload of a row. Sees every batch that was applied, synced or not.
    ///
    /// # Errors
    /// See above. Rows of [`Column::Aside`] are always corrupt.
    fn get_row(&self, column: Column, token: u64, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// The payload of a record: `get_row` of [`Column::Record`].
    ///
    /// # Errors
    /// As for `get_row`.
    fn get(&self, token: u64, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.get_row(Column::Record, token, key)
    }

    /// The payload of a metadata row.
    ///
    /// # Errors
    /// As for `get_row`; a bad checksum is [`CorruptMeta`](StorageError::CorruptMeta).
    fn get_meta(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        self.get_row(Column::Meta, 0, name.as_bytes())
            .map_err(|error| match error {
                StorageError::Corrupt { detail, .. } => StorageError::CorruptMeta {
                    name: name.to_owned(),
                    detail,
                },
                other => other,
            })
    }

    /// The stored bytes of a record that was set aside, exactly as they were found (so with format and checksum in front).
    ///
    /// # Errors
    /// As for `get_row`, but never `Corrupt`.
    fn get_aside(&self, token: u64, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Carries out all of the batch or nothing of it, and empties it if that went well. Visible at once, *not* durable yet:
    /// see `sync`. If it fails, the batch is left as it was, so that it can be tried again.
    ///
    /// Batches survive a crash in the order in which they were applied: those up to some point, and none behind it.
    ///
    /// # Errors
    /// Nothing of a failed batch is visible. [`StorageError::is_certainly_not_applied`] tells whether it can come back.
    fn apply(&self, batch: &mut Batch) -> Result<(), StorageError>;

    /// Makes everything durable that was applied before this call began. Blocks for the disk.
    ///
    /// # Errors
    /// After any error the process must stop: see [`StorageError::SyncFailed`]. `apply` and `sync` fail from then on.
    fn sync(&self) -> Result<(), StorageError>;

    /// The next rows of a column in a token range, in the order of (token, key), behind `after` if that is given. Corrupt
    /// rows are listed too, as errors of their own. Each page is one moment of the store; between pages it moves on.
    ///
    /// # Errors
    /// A page that could not be read to its end or limit is never passed off as complete: either it ends early with
    /// `done` false (and the next call fails), or the call fails.
    fn scan(
        &self,
        column: Column,
        tokens: RangeInclusive<u64>,
        after: Option<(u64, &[u8])>,
        limit: ScanLimit,
    ) -> Result<Page, StorageError>;

    /// Rows and bytes of a column in a token range, without copying them. Blocks until all are counted, about a second for a
    /// million: for the start of a process.
    ///
    /// # Errors
    /// As for `scan`; there is no partial count.
    fn count(&self, column: Column, tokens: RangeInclusive<u64>) -> Result<Count, StorageError>;
}

/// What [`Storage::count`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Rows, corrupt ones included.
    pub rows: u64,
    /// Bytes of their keys and payloads.
    pub bytes: u64,
}

impl Count {
    /// Adds a row by its name and stored value.
    pub(crate) fn add(&mut self, row: &[u8], stored: &[u8]) {
        let key = row.len() - crate::row::HEADER_LEN;
        let payload = stored.len().saturating_sub(crate::checksum::HEADER_LEN);
        self.rows += 1;
        self.bytes += (key + payload) as u64;
    }
}

/// How much one page may hold. At least one row is returned if there is one, whatever the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimit {
    /// Rows.
    pub rows: usize,
    /// Bytes of keys and payloads; the page ends with the row that reaches it.
    pub bytes: usize,
}

impl ScanLimit {
    /// A limit of rows alone. One of up to 64 is taken for one of many small scans, and served so that the next one beside it
    /// is cheap; a larger one for part of a pass over everything, which leaves no trace in caches.
    #[must_use]
    pub fn rows(rows: usize) -> Self {
        ScanLimit {
            rows,
            bytes: usize::MAX,
        }
    }
}

/// One page of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The rows, in order of (token, key).
    pub rows: Vec<ScanRow>,
    /// Nothing follows in the range. If false, go on behind [`Page::last`].
    pub done: bool,
}

impl Page {
    /// Where the next page goes on; `None` if this one is empty.
    #[must_use]
    pub fn last(&self) -> Option<(u64, &[u8])> {
        self.rows.last().map(|row| (row.token, &row.key[..]))
    }
}

/// One row of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRow {
    /// The row's token.
    pub token: u64,
    /// The row's key.
    pub key: Bytes,
    /// The payload, or [`StorageError::Corrupt`].
    pub payload: Result<Bytes, StorageError>,
}

/// Collects rows until the limit is reached; both stores fill their pages with it.
pub(crate) struct PageBuilder {
    column: Column,
    limit: ScanLimit,
    rows: Vec<ScanRow>,
    bytes: usize,
}

impl PageBuilder {
    pub(crate) fn new(column: Column, limit: ScanLimit) -> Self {
        PageBuilder {
            column,
            limit,
            rows: Vec::new(),
            bytes: 0,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        !self.rows.is_empty() && (self.rows.len() >= self.limit.rows || self.bytes >= self.limit.bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row by its name and stored value.
    pub(crate) fn push(&mut self, row: &[u8], stored: &[u8]) {
        let (token, key) = crate::row::decode(row).expect("only this crate writes rows, and all have a token");
        let payload = match crate::checksum::open(row, stored) {
            Ok(payload) => Ok(Bytes::copy_from_slice(payload)),
            Err(detail) => Err(StorageError::corrupt(self.column, token, key, detail)),
        };
        self.bytes += key.len() + stored.len();
        self.rows.push(ScanRow {
            token,
            key: Bytes::copy_from_slice(key),
            payload,
        });
    }

    pub(crate) fn finish(self, done: bool) -> Page {
        Page { rows: self.rows, done }
    }
}
