//! The thread that makes writes durable.
//!
//! The data loop applies one batch for each burst of input and tells the syncer how far it has come; this thread syncs the log, over and
//! over, and says how far that has come. So one fsync stands for everything that was written while the one before it ran, and
//! the data loop never waits for the disk. Rejected: an fsync for each batch on the data loop; keep-alives would wait behind it.
//!
//! A failed fsync stops the process at once: what is on disk is then anybody's guess, and acknowledging more on top of it would be
//! a lie. After a restart the log says what survived.

use quorate_core::engine::StoreTicket;
use quorate_storage::Storage;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use tokio::sync::Notify;

/// Where the data loop and the sync thread meet.
#[derive(Debug, Default)]
struct Shared {
    /// The newest store that was applied.
    applied: AtomicU64,
    /// The newest store that is durable.
    durable: AtomicU64,
    /// Syncs so far.
    syncs: AtomicU64,
    stopping: AtomicBool,
    /// Wakes the data loop.
    progress: Notify,
}

/// The data loop's end of the sync thread.
#[derive(Debug)]
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread.
    pub(crate) fn start<S: Storage + Send + Sync + 'static>(storage: Arc<S>) -> std::io::Result<Syncer> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let join = std::thread::Builder::new()
            .name("sync".into())
            .spawn(move || sync_loop(&*storage, &theirs))?;
        Ok(Syncer {
            thread: join.thread().clone(),
            join: Some(join),
            shared,
        })
    }

    /// Says that all stores up to `ticket` are applied (or were refused), and wants them durable.
    pub(crate) fn request(&self, ticket: StoreTicket) {
        self.shared.applied.store(ticket.0, Ordering::Release);
        self.thread.unpark();
    }

    /// Waits until more is durable than before; a call that was missed is remembered.
    pub(crate) fn progress(&self) -> impl Future<Output = ()> + use<> {
        let shared = self.shared.clone();
        async move { shared.progress.notified().await }
    }

    /// How far the disk has come.
    pub(crate) fn durable(&self) -> StoreTicket {
        StoreTicket(self.shared.durable.load(Ordering::Acquire))
    }

    /// Syncs so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// Syncs what is left and ends the thread.
    pub(crate) fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.thread.unpark();
        if let Some(join) = self.join.take()
            && join.join().is_err()
        {
            tracing::error!("the sync thread had panicked");
        }
    }
}

fn sync_loop(storage: &dyn Storage, shared: &Shared) {
    let mut done = 0;
    loop {
        let stopping = shared.stopping.load(Ordering::Acquire);
        let applied = shared.applied.load(Ordering::Acquire);
        if applied == done {
            if stopping {
                return;
            }
            std::thread::park();
            continue;
        }
        if let Err(error) = storage.sync() {
            tracing::error!(%error, "stopping at once: writes that are not acknowledged yet may be lost, acknowledged ones are safe");
            std::process::abort();
        }
        done = applied;
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        shared.durable.store(applied, Ordering::Release);
        shared.progress.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use quorate_storage::{Batch, RocksOptions, RocksStorage};

    #[tokio::test]
    async fn what_was_applied_becomes_durable_and_stop_waits_for_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let options = RocksOptions {
            reserve_bytes: 0,
            ..RocksOptions::default()
        };
        let storage = Arc::new(RocksStorage::open(&path, &options).unwrap());
        let mut syncer = Syncer::start(storage.clone()).unwrap();
        let mut batch = Batch::new();
        batch.put_record(1, b"key", b"payload");
        storage.apply(&mut batch).unwrap();
        syncer.request(StoreTicket(1));
        while syncer.durable() < StoreTicket(1) {
            syncer.progress().await;
        }
        syncer.request(StoreTicket(2));
        syncer.stop();
        assert_eq!(syncer.durable(), StoreTicket(2));
        assert_eq!(syncer.syncs(), 2);
    }
}
