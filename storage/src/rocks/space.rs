//! The watermark below which writes are refused.
//!
//! A disk that is really full is a bad place to find out, and what happens then depends on who hits the wall first:
//!
//! - a flush or compaction: the engine refuses writes with `Full { refused: false }`, looks for space every five seconds,
//!   and goes on by itself when there is room for one write buffer. Nothing is lost, reads go on;
//! - the log, in `apply` or in `sync`: what was buffered for it may be lost. The store stops with `SyncFailed`, and so must
//!   the process;
//! - the next start: the log cannot be written out as a file, and opening fails with `OpenError::Full` until there is
//!   space. What had been synced is there then.
//!
//! So writes are refused while there is still a reserve, and are taken again by themselves once there is space. The figure
//! is read after each sync, which is off the request path; `apply` only looks at a flag, and asks the system again while
//! that flag is set. So nothing has to be synced, and no timer to run, for the first write behind the shortage to pass.
//!
//! Rejected: asking on every `apply`. It is a system call on the path that was built to have none.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use crate::StorageError;

/// Of the reserve nobody may use this much: a log that cannot be written stops the process.
const LEAST_BYTES: u64 = 8 << 20;

pub(super) struct Space {
    path: PathBuf,
    reserve_bytes: AtomicU64,
    low: AtomicBool,
}

impl Space {
    pub(super) fn new(path: &Path, reserve_bytes: u64) -> Self {
        Space {
            path: path.to_owned(),
            reserve_bytes: AtomicU64::new(reserve_bytes),
            low: AtomicBool::new(false),
        }
    }

    pub(super) fn set_reserve(&self, reserve_bytes: u64) {
        self.reserve_bytes.store(reserve_bytes, Relaxed);
        self.check();
    }

    /// The engine ran out of space.
    pub(super) fn set_low(&self) {
        self.low.store(true, Relaxed);
    }

    /// Bytes that this process may still write; `None` if the system does not say.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let fs = rustix::fs::statvfs(&self.path).ok()?;
        Some(fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    /// Looks how much there is and remembers whether it is enough. A system that does not say counts as enough.
    pub(super) fn check(&self) -> Option<u64> {
        let free = self.free_bytes()?;
        let low = free < self.reserve_bytes.load(Relaxed);
        if self.low.swap(low, Relaxed) != low {
            tracing::warn!(
                free_bytes = free,
                writes = if low { "refused" } else { "taken again" },
                "disk space"
            );
        }
        low.then_some(free)
    }

    pub(super) fn refuse_if_low(&self) -> Result<(), StorageError> {
        if !self.low.load(Relaxed) {
            return Ok(());
        }
        match self.check() {
            None => Ok(()),
            Some(free) => Err(full(free, self.reserve_bytes.load(Relaxed))),
        }
    }

    /// The same for what may go into the reserve: it ends a little above nothing.
    pub(super) fn refuse_if_out(&self) -> Result<(), StorageError> {
        let least = self.reserve_bytes.load(Relaxed).min(LEAST_BYTES);
        match self.check() {
            Some(free) if free < least => Err(full(free, least)),
            _ => Ok(()),
        }
    }
}

fn full(free: u64, reserve: u64) -> StorageError {
    let detail = format!("{free} bytes are free and {reserve} are kept in reserve");
    StorageError::Full { refused: true, detail }
}
