//! How RocksDB is set up, and why.
//!
//! Only what an operator may have a reason to change is a field of [`RocksOptions`]; the rest is decided here. Numbers
//! that stand for memory: block cache + write buffers is what a node takes beside its own queues.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options};

const KIB: u64 = 1 << 10;
const MIB: u64 = KIB << 10;

/// What can be chosen about the store. `Default` suits a node with some GiB of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksOptions {
    /// Memory for blocks read from disk, indexes and filters included.
    pub block_cache_bytes: usize,
    /// Size at which a write buffer is written out as a file.
    pub write_buffer_bytes: usize,
    /// Write buffers at most; when all are full, writes stall.
    pub write_buffers_max: u16,
    /// Logs at most; reaching it writes out the oldest buffer. Also bounds how much is replayed after a crash.
    pub wal_bytes_max: u64,
    /// Threads for flushes and compactions.
    pub background_jobs: u16,
    /// Free space below which writes are refused with `Full`. Writing out the buffers and compacting need room too: a disk
    /// that is really full stops the engine.
    pub reserve_bytes: u64,
}

impl Default for RocksOptions {
    fn default() -> Self {
        RocksOptions {
            block_cache_bytes: (256 * MIB) as usize,
            write_buffer_bytes: (64 * MIB) as usize,
            write_buffers_max: 4,
            wal_bytes_max: 512 * MIB,
            background_jobs: 2,
            reserve_bytes: 512 * MIB,
        }
    }
}

impl RocksOptions {
    pub(super) fn engine(&self) -> Options {
        let mut o = Options::default();
        durability(&mut o);
        self.memory_and_files(&mut o);
        o.set_block_based_table_factory(&self.tables());
        quiet(&mut o);
        o
    }

    fn memory_and_files(&self, o: &mut Options) {
        o.set_write_buffer_size(self.write_buffer_bytes);
        o.set_max_write_buffer_number(self.write_buffers_max.into());
        o.set_max_total_wal_size(self.wal_bytes_max);
        o.set_max_background_jobs(self.background_jobs.into());
        even_out(o);
        // Cheap everywhere, and dense where nine tenths of the data end up.
        o.set_compression_type(DBCompressionType::Lz4);
        o.set_bottommost_compression_type(DBCompressionType::Zstd);
        // Large files are handed to the disk bit by bit, so that an fsync of the log does not queue behind 64 MiB.
        o.set_bytes_per_sync(MIB);
        // Obsolete files are deleted by a background job, not by the thread that happens to notice.
        o.set_avoid_unnecessary_blocking_io(true);
        // Half of the usual limit of 1,024 descriptors; sockets need some too.
        o.set_max_open_files(512);
    }

    fn tables(&self) -> BlockBasedOptions {
        let mut t = BlockBasedOptions::default();
        // An estimated entry charge of 0 lets the cache size its own table.
        t.set_block_cache(&Cache::new_hyper_clock_cache(self.block_cache_bytes, 0));
        // Ten bits a key: one lookup in a hundred for an absent key reads a block in vain. "false": one filter per file.
        t.set_bloom_filter(10.0, false);
        // Indexes and filters count against the cache, so that memory stays bounded however many files are open.
        t.set_cache_index_and_filter_blocks(true);
        t.set_pin_l0_filter_and_index_blocks_in_cache(true);
        t
    }
}

/// What keeps acknowledged writes.
fn durability(o: &mut Options) {
    // The log stays in a buffer until `flush_wal`: one write and one fsync for a whole group of batches.
    o.set_manual_wal_flush(true);
    // The default, PointInTime, takes a flipped bit in mid-log for the log's end and opens without what follows.
    o.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A closed log that is missing or too short is noticed. The log being written is not covered: see `log_check`.
    o.set_track_and_verify_wals_in_manifest(true);
    o.set_paranoid_checks(true);
}

/// What flushes and compactions may write, and how often they get their share of it.
const BACKGROUND_BYTES_PER_SECOND_MAX: i64 = 320 << 20;
const SHARE_EVERY_US: i64 = 10_000;
const SHARE_FAIRNESS: i32 = 10;

/// Compactions at an even pace instead of as fast as a core can. They take their share of cores and disk in any case; at full speed they take it in
/// one go, and requests wait for seconds. The rate follows what there is to do, between a twentieth of the most and the most, by a twentieth a
/// second: so it rises long before files pile up to where writes would be refused. Measured with three nodes on two cores, at a quarter of what
/// they can take: the slowest hundredth of requests while all three compact is 7 to 9 ms instead of 25 to 37 ms (4 to 5 ms without compaction).
///
/// Rejected, since measured: compactions at a lower priority. A compaction that is waiting for a core may hold the lock that a write needs; at nice
/// 10 and 19 the slowest hundredth went up, to 30 to 200 ms.
fn even_out(o: &mut Options) {
    o.set_auto_tuned_ratelimiter(BACKGROUND_BYTES_PER_SECOND_MAX, SHARE_EVERY_US, SHARE_FAIRNESS);
}

/// RocksDB's own log, `db/LOG`: warnings only, a few small files, no dumps of statistics.
fn quiet(o: &mut Options) {
    o.set_log_level(LogLevel::Warn);
    o.set_keep_log_file_num(3);
    o.set_max_log_file_size((8 * MIB) as usize);
    o.set_stats_dump_period_sec(0);
    o.set_stats_persist_period_sec(0);
}
