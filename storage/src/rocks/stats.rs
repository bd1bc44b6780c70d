//! Figures about the store for metrics.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rocksdb::{DB, properties};

use super::aside;

/// What the store holds and how far background work is behind. A figure that the engine does not give is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RocksStats {
    /// Rows, about: overwritten and deleted ones count until they are compacted away.
    pub keys_estimate: u64,
    /// Bytes in data files.
    pub sst_bytes: u64,
    /// Bytes in write buffers.
    pub memtable_bytes: u64,
    /// Bytes in logs on disk.
    pub wal_bytes: u64,
    /// Bytes that compaction still has to rewrite.
    pub pending_compaction_bytes: u64,
    /// Bytes in use in the block cache.
    pub block_cache_bytes: u64,
    /// Background work that failed since the start.
    pub background_errors: u64,
    /// Bytes per second to which writes are slowed down; 0 if they are not.
    pub delayed_write_bytes_per_s: u64,
    /// Writes are refused until background work has caught up.
    pub is_write_stopped: bool,
    /// Bytes free on the disk; `None` if the system does not say.
    pub free_bytes: Option<u64>,
    /// There is less than the reserve, so writes are refused.
    pub is_low: bool,
    /// Directories in which data were set aside.
    pub asides: u64,
    /// Bytes in them.
    pub aside_bytes: u64,
}

impl RocksStats {
    pub(super) fn read(
        db: &DB,
        db_path: &Path,
        (free_bytes, is_low): (Option<u64>, bool),
        (asides, aside_bytes): (u64, u64),
    ) -> Self {
        let figure = |name: &rocksdb::properties::PropName| db.property_int_value(name).ok().flatten().unwrap_or(0);
        RocksStats {
            keys_estimate: figure(properties::ESTIMATE_NUM_KEYS),
            sst_bytes: figure(properties::TOTAL_SST_FILES_SIZE),
            memtable_bytes: figure(properties::CUR_SIZE_ALL_MEM_TABLES),
            wal_bytes: wal_bytes(db_path),
            pending_compaction_bytes: figure(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            block_cache_bytes: figure(properties::BLOCK_CACHE_USAGE),
            background_errors: figure(properties::BACKGROUND_ERRORS),
            delayed_write_bytes_per_s: figure(properties::ACTUAL_DELAYED_WRITE_RATE),
            is_write_stopped: figure(properties::IS_WRITE_STOPPED) != 0,
            free_bytes,
            is_low,
            asides,
            aside_bytes,
        }
    }
}

/// How long figures count as fresh.
const FRESH: Duration = Duration::from_secs(2);

/// The figures that were gathered last, and when.
#[derive(Debug, Default)]
pub(super) struct RecentStats(Mutex<Option<(Instant, RocksStats)>>);

impl RecentStats {
    /// What was gathered a moment ago, or what `gather` finds now.
    pub(super) fn get_or(&self, gather: impl FnOnce() -> RocksStats) -> RocksStats {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((when, stats)) if when.elapsed() < FRESH => stats,
            _ => {
                let stats = gather();
                *last = Some((Instant::now(), stats));
                stats
            }
        }
    }
}

/// What was set aside in a data directory. Nothing is ever added to such a directory, so its files are counted when it is first seen.
#[derive(Debug, Default)]
pub(super) struct Asides(Mutex<BTreeMap<PathBuf, u64>>);

impl Asides {
    /// How many directories there are now, and how many bytes are in them.
    pub(super) fn look(&self, path: &Path) -> (u64, u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = aside::directories(path).unwrap_or_default();
        known.retain(|path, _| found.contains(path));
        for path in found {
            known
                .entry(path)
                .or_insert_with_key(|path| aside::bytes_in(path).unwrap_or_default());
        }
        (known.len() as u64, known.values().sum())
    }
}

/// RocksDB has no property for this. A log that goes away while we look does not count.
fn wal_bytes(db_path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(db_path) else {
        return 0;
    };
    let logs = entries
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "log"));
    logs.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}
