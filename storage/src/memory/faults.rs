//! What is to go wrong with a [`MemStorage`](super::MemStorage), apart from what has gone wrong with its rows.

use crate::{Column, StorageError};

pub(super) type ReadFault = Box<dyn FnMut(u64, &[u8]) -> bool>;

/// Faults that wait for their moment. A crash clears them all.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) reads: usize,
    pub(super) read_hook: Option<ReadFault>,
    pub(super) apply: Option<ApplyFault>,
    pub(super) sync: bool,
    pub(super) full: bool,
    /// No write and no sync any more, and why.
    stopped: Option<StorageError>,
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
    /// Background work met a damaged file. Not visible, outcome unknown: the store stops, and says `Damaged` from then on.
    Damaged,
}

impl Faults {
    pub(super) fn check_running(&self) -> Result<(), StorageError> {
        self.stopped.clone().map_or(Ok(()), Err)
    }

    pub(super) fn check_sync(&mut self) -> Result<(), StorageError> {
        if std::mem::take(&mut self.sync) {
            self.stopped.get_or_insert_with(sync_failed);
        }
        self.check_running()
    }

    pub(super) fn check_apply(&mut self) -> Result<(), StorageError> {
        let full = self.full.then_some(ApplyFault::Full);
        match self.apply.take().or(full) {
            None => Ok(()),
            Some(ApplyFault::Full) => Err(StorageError::Full {
                refused: true,
                detail: SIMULATED.to_owned(),
            }),
            Some(ApplyFault::Stalled) => Err(StorageError::Stalled),
            Some(ApplyFault::Io) => {
                self.stopped = Some(sync_failed());
                Err(io("apply"))
            }
            Some(ApplyFault::Damaged) => {
                self.stopped = Some(damaged());
                Err(damaged())
            }
        }
    }

    /// Once for each call that reads.
    pub(super) fn check_read(&mut self, operation: &'static str) -> Result<(), StorageError> {
        match self.reads.checked_sub(1) {
            None => Ok(()),
            Some(left) => {
                self.reads = left;
                Err(io(operation))
            }
        }
    }

    /// Once for each row that is read. Only about records the hook is asked.
    pub(super) fn check_row(
        &mut self,
        operation: &'static str,
        column: Column,
        token: u64,
        key: &[u8],
    ) -> Result<(), StorageError> {
        let hook = self.read_hook.as_mut().filter(|_| column == Column::Record);
        match hook.is_some_and(|fails| fails(token, key)) {
            true => Err(io(operation)),
            false => Ok(()),
        }
    }
}

const SIMULATED: &str = "simulated";

pub(super) fn damaged() -> StorageError {
    StorageError::Damaged {
        detail: SIMULATED.to_owned(),
    }
}

fn sync_failed() -> StorageError {
    StorageError::SyncFailed {
        detail: SIMULATED.to_owned(),
    }
}

fn io(operation: &'static str) -> StorageError {
    StorageError::Io {
        operation,
        detail: SIMULATED.to_owned(),
    }
}
