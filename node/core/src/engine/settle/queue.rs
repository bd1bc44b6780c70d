//! Which records wait to be settled: a row for each, and reading the rows.
//!
//! Every owner keeps a row for each such record, written in the batch that made the record what it is. The rows are all there is to know, and they
//! are read by partition by the partition's first owner; other owners only look, later, whether theirs have outlived their reason.
//!
//! Rejected: looking for tombstones in a scan of all records. It reads everything to find the few that were deleted.

use super::passes::{PAUSE_MAX, PAUSE_MIN};
use super::row::{Row, Want};
use crate::engine::background::{Reader, Task};
use crate::engine::stored::Stored;
use crate::engine::{Engine, LoadFailed, Scan, ScanPage, ScanRows};
use crate::key::Key;
use crate::place::Place;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::PartitionId;
use std::time::Duration;

/// Rows read at once.
const PAGE_ROWS: usize = 2048;
/// When a row that another node leads should be gone. A record may be lost after its row was written; then its first owner sees none, and a row of
/// another owner would stay for ever.
const SWEEP_AFTER: Duration = Duration::from_secs(60);

impl Engine {
    /// A row has changed. What was watched is watched no longer; and a record that has begun to wait, or waits no longer, gets or loses its row.
    pub(in crate::engine) fn settle_changed(&mut self, place: &Place, stored: &mut Stored) {
        if let Some(key) = place.key() {
            self.settling.watches.end(key);
        }
        let Place::Record(key) = place else { return };
        let (before, after) = stored.wants();
        match after {
            Want::Nothing if before == Want::Nothing => {}
            Want::Nothing => self.settle_unqueue(key),
            Want::Trim if before == Want::Trim => {}
            Want::Trim => self.settle_queue(key, 0, before == Want::Nothing),
            Want::Drop { ends_ms } => self.settle_queue(key, ends_ms, before == Want::Nothing),
        }
    }

    pub(super) fn settle_queue(&mut self, key: &Key, ends_ms: u64, is_new: bool) {
        let row = Row {
            since_ms: self.wall_ms,
            ends_ms,
        };
        self.store_plain(Place::Settle(key.clone()), Some(row.encode()));
        let (partition, leads) = self.leads(key);
        let at = self.ready_at(&row, leads);
        self.settling.queue.add(partition, leads, at, is_new);
        if self.settles() {
            self.background.wake(at, Task::Settle);
        }
    }

    pub(super) fn settle_unqueue(&mut self, key: &Key) {
        self.store_plain(Place::Settle(key.clone()), None);
        let (partition, _) = self.leads(key);
        if self.settling.queue.removed(partition) {
            self.settle_wake();
        }
    }

    /// A row could not be written or removed: what waits in its partition is counted anew.
    pub(in crate::engine) fn settle_store_failed(&mut self, now: Instant, key: &Key) {
        let (partition, leads) = self.leads(key);
        let at = if leads { now + PAUSE_MIN } else { now + SWEEP_AFTER };
        self.settling.queue.found(partition, leads, at);
        self.settle_wake();
    }

    /// The key's partition, and whether this node leads its settling: it is the first owner, whatever a bucket's n.
    pub(super) fn leads(&self, key: &Key) -> (PartitionId, bool) {
        let ring = &self.config.ring;
        let partition = ring.partition_of(key.token());
        (partition, ring.owners(partition, 1) == [self.me])
    }

    /// When the proof for a row may begin; or, if another node leads, when that should have ended.
    fn ready_at(&self, row: &Row, leads: bool) -> Instant {
        let age_ms = u64::try_from(self.config.limits.settle_age.as_millis()).unwrap_or(u64::MAX);
        let ready_ms = row.ready_ms(self.wall_ms, age_ms);
        let ready = Instant(ready_ms.saturating_sub(self.config.wall_ms).saturating_mul(1000));
        if leads { ready } else { ready + SWEEP_AFTER }
    }

    /// Reads what waits in a partition.
    pub(super) fn settle_read(&mut self, partition: PartitionId, batch: u64) {
        let after = self.settling.queue.begin_page(partition);
        let scan = Scan {
            rows: ScanRows::Settle(self.config.ring.token_range(partition)),
            after,
            rows_max: PAGE_ROWS,
            bytes_max: usize::MAX,
        };
        self.begin_scan(Reader::Settle(partition, batch), scan);
    }

    /// The keys of a page that a batch can be made of.
    pub(super) fn settle_take(&mut self, now: Instant, partition: PartitionId, page: &ScanPage) -> Option<Vec<Key>> {
        let mut queue = std::mem::take(&mut self.settling.queue);
        let leads = self.config.ring.owners(partition, 1) == [self.me];
        let ready = |payload: &Bytes| {
            let row = postcard::from_bytes::<Row>(payload);
            row.map_or(Instant(0), |row| self.ready_at(&row, leads))
        };
        let taken = queue.take(now, partition, page, ready);
        self.settling.queue = queue;
        taken
    }

    /// Looks which partitions have anything that waits, once after the start: from then on the queue knows.
    pub(super) fn settle_walk_once(&mut self) {
        if self.settling.queue.begin_walk() {
            self.settle_walk(0);
        }
    }

    fn settle_walk(&mut self, from: u64) {
        let scan = Scan {
            rows: ScanRows::Settle(from..=u64::MAX),
            after: None,
            rows_max: 1,
            bytes_max: usize::MAX,
        };
        self.begin_scan(Reader::SettleWalk, scan);
    }

    /// The first row behind where the walk had come.
    pub(in crate::engine) fn settle_walked(&mut self, now: Instant, result: Result<ScanPage, LoadFailed>) {
        let page = match result {
            Ok(page) => page,
            Err(failed) => {
                self.note_damaged(now, failed);
                self.settling.queue.end_walk(now + PAUSE_MAX);
                return self.settle_wake();
            }
        };
        let Some((key, _)) = page.rows.first() else { return };
        let (partition, leads) = self.leads(key);
        let at = if leads { now } else { now + SWEEP_AFTER };
        self.settling.queue.found(partition, leads, at);
        self.settle_wake();
        let ring = &self.config.ring;
        let tokens = ring.token_range(ring.partition_of(key.token()));
        if let Some(next) = tokens.end().checked_add(1) {
            self.settle_walk(next);
        }
    }
}
