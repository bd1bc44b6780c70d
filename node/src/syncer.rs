//! The thread that makes writes durable.
//!
//! The data loop applies one batch for each burst of input and tells the syncer how far it has come; this thread syncs the log, over and
//! over, and says how far that has come. So one fsync stands for everything that was written while the one before it ran, and
//! the data loop never waits for the disk. Rejected: an fsync for each batch on the data loop; keep-alives would wait behind it.
//!
//! What no client waits for (records that healing brings home) may be synced with the next store that a client waits for, or alone a few
//! milliseconds later: a client's write then finds no sync under way that it has to sit out, and healing needs fewer of them. What nobody
//! waits for (writes to buckets of relaxed durability, the queue of what is to be settled) does not wake the thread at once either: it is synced
//! with what somebody waits for, or after the flush interval.
//!
//! A failed fsync stops the process at once: what is on disk is then anybody's guess, and acknowledging more on top of it would be
//! a lie. After a restart the log says what survived. Where a damaged file is the reason, nothing is synced any more, and so nothing acknowledged; the
//! data loop is told, and goes on reading until the directory can be given up.

use quorate_core::engine::{StoreTicket, SyncWanted};
use quorate_storage::{RocksStorage, Storage, StorageError};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long healing may wait for a sync that it shares with a client's write.
const SHARE: Duration = Duration::from_millis(4);

/// What the thread knows of what is not synced.
const NOTHING: u8 = 0;
/// Something that nobody waits for.
const IDLE: u8 = 1;
/// Something that healing waits for.
const HEALING: u8 = 2;

/// Where the data loop and the sync thread meet.
#[derive(Debug, Default)]
struct Shared {
    /// The newest store that was applied.
    applied: AtomicU64,
    /// The newest store that a client waits for.
    urgent: AtomicU64,
    /// The newest store that healing waits for.
    healing: AtomicU64,
    /// The newest store that is durable.
    durable: AtomicU64,
    /// What the thread knows, of what is less than urgent.
    known: AtomicU8,
    /// Syncs so far.
    syncs: AtomicU64,
    stopping: AtomicBool,
    /// What the store says is damaged. Nothing is synced any more.
    damage: OnceLock<String>,
    /// Wakes the data loop.
    progress: Notify,
}

impl Shared {
    fn say_damaged(&self, error: &StorageError) {
        self.damage.get_or_init(|| error.to_string());
        self.progress.notify_one();
    }
}

/// The data loop's end of the sync thread.
#[derive(Debug)]
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    /// What was asked for last.
    last: (StoreTicket, SyncWanted),
    /// A store that was not durable when it was applied, the oldest that is known of, and when that was.
    oldest: Option<(StoreTicket, Instant)>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread.
    pub(crate) fn start(storage: Arc<RocksStorage>, flush_interval: Duration) -> std::io::Result<Syncer> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let join = std::thread::Builder::new()
            .name("sync".into())
            .spawn(move || sync_loop(&storage, &theirs, flush_interval))?;
        Ok(Syncer {
            thread: join.thread().clone(),
            join: Some(join),
            last: Default::default(),
            oldest: None,
            shared,
        })
    }

    /// Says that all stores up to `applied` are applied (or were refused), and what is waited for of those.
    pub(crate) fn request(&mut self, applied: StoreTicket, wanted: SyncWanted) {
        let last = std::mem::replace(&mut self.last, (applied, wanted));
        if last == self.last {
            return;
        }
        if self.oldest.is_none_or(|(oldest, _)| oldest <= self.durable()) {
            self.oldest = Some((applied, Instant::now()));
        }
        let is_urgent = wanted.now > last.1.now;
        if is_urgent {
            self.shared.urgent.store(wanted.now.0, Ordering::Release);
        }
        self.shared.healing.store(wanted.soon.0, Ordering::Release);
        self.shared.applied.store(applied.0, Ordering::Release);
        let news = match wanted.soon > last.1.soon {
            true => HEALING,
            false => IDLE,
        };
        if is_urgent || self.shared.known.fetch_max(news, Ordering::AcqRel) < news {
            self.thread.unpark();
        }
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

    /// What is damaged, if nothing is synced any more because of that.
    pub(crate) fn damage(&self) -> Option<String> {
        self.shared.damage.get().cloned()
    }

    /// How long the oldest store waits for the disk, about: at a sync that leaves some out, it begins anew with the next.
    pub(crate) fn oldest(&self) -> Duration {
        let waiting = self.oldest.filter(|(oldest, _)| *oldest > self.durable());
        waiting.map_or(Duration::ZERO, |(_, since)| since.elapsed())
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

fn sync_loop(storage: &RocksStorage, shared: &Shared, flush_interval: Duration) {
    let mut done = 0;
    // When what is not urgent is synced, if there is something.
    let mut flush_at: Option<Instant> = None;
    loop {
        let stopping = shared.stopping.load(Ordering::Acquire);
        let urgent = shared.urgent.load(Ordering::Acquire) > done;
        let healing = shared.healing.load(Ordering::Acquire) > done;
        let applied = shared.applied.load(Ordering::Acquire);
        if applied == done {
            if stopping {
                return;
            }
            // The mark may be of a store that the last sync covered. With it gone, the next store wakes us again.
            shared.known.swap(NOTHING, Ordering::AcqRel);
            if shared.applied.load(Ordering::Acquire) == done {
                std::thread::park();
            }
            continue;
        }
        if !urgent && !stopping {
            let now = Instant::now();
            let wait = if healing {
                SHARE.min(flush_interval)
            } else {
                flush_interval
            };
            let at = flush_at.map_or(now + wait, |at| at.min(now + wait));
            flush_at = Some(at);
            if now < at {
                std::thread::park_timeout(at - now);
                continue;
            }
        }
        shared.known.swap(NOTHING, Ordering::AcqRel);
        let applied = shared.applied.load(Ordering::Acquire);
        if let Err(error) = storage.sync() {
            if let StorageError::Damaged { .. } = error {
                return shared.say_damaged(&error);
            }
            tracing::error!(%error, "stopping at once: writes that are not acknowledged yet may be lost, acknowledged ones are safe");
            std::process::abort();
        }
        done = applied;
        flush_at = None;
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        shared.durable.store(applied, Ordering::Release);
        shared.progress.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use quorate_storage::{Batch, RocksOptions};

    /// A store in a directory that goes with the guard.
    fn storage() -> (tempfile::TempDir, Arc<RocksStorage>) {
        let directory = tempfile::tempdir().unwrap();
        let options = RocksOptions {
            reserve_bytes: 0,
            ..RocksOptions::default()
        };
        let storage = RocksStorage::open(directory.path().join("data"), &options).unwrap();
        (directory, Arc::new(storage))
    }

    fn request(syncer: &mut Syncer, applied: u64, now: u64, soon: u64) {
        let wanted = SyncWanted {
            now: StoreTicket(now),
            soon: StoreTicket(soon),
        };
        syncer.request(StoreTicket(applied), wanted);
    }

    async fn until_durable(syncer: &Syncer, ticket: u64) {
        while syncer.durable() < StoreTicket(ticket) {
            syncer.progress().await;
        }
    }

    #[tokio::test]
    async fn what_was_applied_becomes_durable_and_stop_waits_for_the_rest() {
        let (_directory, storage) = storage();
        let mut syncer = Syncer::start(storage.clone(), Duration::from_secs(3600)).unwrap();
        let mut batch = Batch::new();
        batch.put_record(1, b"key", b"payload");
        storage.apply(&mut batch).unwrap();
        request(&mut syncer, 1, 1, 0);
        until_durable(&syncer, 1).await;
        request(&mut syncer, 2, 2, 0);
        syncer.stop();
        assert_eq!(syncer.durable(), StoreTicket(2));
        assert_eq!(syncer.syncs(), 2);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_synced_with_what_somebody_does_or_after_the_interval() {
        let (_directory, storage) = storage();
        let mut syncer = Syncer::start(storage.clone(), Duration::from_secs(3600)).unwrap();
        request(&mut syncer, 1, 0, 0);
        request(&mut syncer, 2, 0, 0);
        assert_eq!(syncer.syncs(), 0);
        assert!(syncer.oldest() > Duration::ZERO);
        request(&mut syncer, 3, 2, 0);
        until_durable(&syncer, 3).await;
        assert_eq!((syncer.syncs(), syncer.oldest()), (1, Duration::ZERO));
        request(&mut syncer, 4, 2, 0);
        syncer.stop();
        assert_eq!(
            (syncer.durable(), syncer.syncs()),
            (StoreTicket(4), 2),
            "stopping syncs all"
        );

        let mut syncer = Syncer::start(storage, Duration::from_millis(1)).unwrap();
        request(&mut syncer, 1, 0, 0);
        until_durable(&syncer, 1).await;
        request(&mut syncer, 2, 0, 0);
        until_durable(&syncer, 2).await;
    }
    #[tokio::test]
    async fn what_healing_waits_for_needs_no_write_of_a_client() {
        let (_directory, storage) = storage();
        let mut syncer = Syncer::start(storage, Duration::from_secs(3600)).unwrap();
        request(&mut syncer, 1, 0, 0);
        request(&mut syncer, 2, 0, 1);
        request(&mut syncer, 3, 0, 3);
        until_durable(&syncer, 3).await;
        request(&mut syncer, 4, 0, 3);
        request(&mut syncer, 5, 4, 5);
        until_durable(&syncer, 5).await;
        syncer.stop();
    }
}
