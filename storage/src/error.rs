//! What can go wrong with a store that is open. Opening has its own errors, in `OpenError`.

use bytes::Bytes;

use crate::row::Column;

/// Why a storage call failed. "Not found" is not in here: that is `Ok(None)`, and a read that failed is never "not
/// found".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The row is there, its checksum does not hold. Other rows are fine. Move a record away with
    /// [`Batch::set_aside`](crate::Batch::set_aside) and fetch it from another replica.
    #[error("{column} {} at token {token:016x} is corrupt: {detail}", .key.escape_ascii())]
    Corrupt {
        /// The row's column.
        column: Column,
        /// The row's token.
        token: u64,
        /// The row's key.
        key: Bytes,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The metadata row is there, its checksum does not hold. Metadata is local: no replica can give it back.
    #[error("metadata {name:?} is corrupt: {detail}")]
    CorruptMeta {
        /// The row's name.
        name: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// A file of the database is damaged, and with it an unknown number of rows. They can be neither read nor set aside
    /// one by one; what a newer write covers is read well again by `get_row`, never by a scan. Give no answer for the row,
    /// and rebuild the data directory from the replicas.
    ///
    /// Out of `apply` it means that background work met such a file and no write and no sync will succeed any more, or that
    /// a record to be set aside lies in one. Nothing of the batch is on disk. Mark the directory with `mark_for_rebuild` and stop the process,
    /// when nothing is lost by that.
    #[error("the database is damaged: {detail}; set the data directory aside and rebuild it from the replicas")]
    Damaged {
        /// What the engine says.
        detail: String,
    },
    /// The disk is full, or nearly so. Nothing of the batch is visible. Reads go on; writes are taken again by themselves
    /// when there is space. Free space, or try again later.
    #[error("the disk is full: {detail}")]
    Full {
        /// The batch was refused before it reached the log: it cannot come back, not even after a restart.
        refused: bool,
        /// How full, or what the engine says.
        detail: String,
    },
    /// Background work is behind, and the write would have had to wait. Nothing was applied. Try again a little later.
    #[error("writes are stalled until background work has caught up")]
    Stalled,
    /// This sync failed, or an earlier one did. What was applied since the last good sync may or may not survive, and a
    /// second fsync that succeeds would prove nothing: the kernel may have dropped the pages. The process must stop; after
    /// a restart the store says what survived.
    #[error("sync failed, what was written last may be lost: {detail}; this process must stop")]
    SyncFailed {
        /// What the engine says.
        detail: String,
    },
    /// The engine failed otherwise. A read gave no answer. A write is not visible, but may come back after a restart.
    #[error("{operation} failed: {detail}")]
    Io {
        /// The call: `get`, `apply`, `scan`.
        operation: &'static str,
        /// What the engine says.
        detail: String,
    },
}

impl StorageError {
    /// After a failed `apply`: true if it is certain that nothing of the batch was written or ever will be. Otherwise its
    /// outcome is unknown until a restart.
    #[must_use]
    pub fn is_certainly_not_applied(&self) -> bool {
        matches!(self, StorageError::Stalled | StorageError::Full { refused: true, .. })
    }

    pub(crate) fn corrupt(column: Column, token: u64, key: &[u8], detail: &'static str) -> Self {
        StorageError::Corrupt {
            column,
            token,
            key: Bytes::copy_from_slice(key),
            detail,
        }
    }
}
