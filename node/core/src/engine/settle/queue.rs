//! Which records wait to be settled, and when a partition is looked at again.
//!
//! Every owner keeps a row for each such record, written in the batch that made the record what it is. The rows are all there is to know, and they
//! are read by partition, a page at a time, by the partition's first owner. In memory it keeps which partitions have any, and when it looks at each of them again.
//!
//! Rejected: looking for tombstones in a scan of all records. It reads everything to find the few that were deleted.

use super::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use crate::engine::background::{Reader, Task};
use crate::engine::stored::Stored;
use crate::engine::{Engine, LoadFailed, Scan, ScanPage, ScanRows};
use crate::key::Key;
use crate::place::Place;
use crate::planted;
use crate::record::Record;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::PartitionId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Lives without a live sibling from which a record's context is worth trimming. Those of the owners' present processes may be among them, and stay.
const IDLE_LIVES: usize = 8;
/// Rows read at once.
const PAGE_ROWS: usize = 2048;
/// Between two batches of a partition.
const PAGE_PAUSE: Duration = Duration::from_millis(100);
/// Between two passes over a partition in which nothing could be settled: from, doubling, to.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// When a row that another node leads should be gone. A record may be lost after its row was written; then its first owner sees none, and a row of
/// another owner would stay for ever.
const SWEEP_AFTER: Duration = Duration::from_secs(60);
/// By how much the owners' clocks may differ: a value that has expired is settled this much later.
pub(in crate::engine) const SKEW_MS: u64 = 60_000;

/// What a record asks for, by its bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Want {
    /// To be left alone.
    Nothing,
    /// A shorter context.
    Trim,
    /// To be dropped: nothing in it is live, from this time of day on (milliseconds since 1970; 0 if all of it is deleted).
    Drop {
        /// When.
        ends_ms: u64,
    },
}

impl Want {
    pub(in crate::engine) fn of(record: &Record) -> Want {
        match record.ends_ms() {
            _ if record.is_empty() => Want::Nothing,
            Some(ends_ms) => Want::Drop { ends_ms },
            None if record.context().actors() >= IDLE_LIVES && record.idle_lives().len() >= IDLE_LIVES => Want::Trim,
            None => Want::Nothing,
        }
    }
}

/// What the row of a record that waits says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Since when it waits.
    since_ms: u64,
    /// When its last value expires; 0 if it has none.
    ends_ms: u64,
}

impl Row {
    fn encode(&self) -> Bytes {
        postcard::to_stdvec(self)
            .expect("a vector grows, and numbers serialize")
            .into()
    }

    /// When the proof may begin. A row from the future was written before the time of day was put right.
    fn ready_ms(&self, wall_ms: u64, age_ms: u64) -> u64 {
        let aged = if self.since_ms > wall_ms || planted::is(12) {
            0
        } else {
            self.since_ms.saturating_add(age_ms)
        };
        match self.ends_ms {
            0 => aged,
            ends_ms => aged.max(ends_ms.saturating_add(SKEW_MS)),
        }
    }
}

/// A partition while it has rows.
#[derive(Debug)]
struct Queued {
    /// This node is its first owner. Of others it only looks whether their rows have outlived their reason.
    leads: bool,
    /// When it is looked at.
    at: Instant,
    /// Behind which row.
    after: Option<Key>,
    /// Records of its next batch.
    size: usize,
    pause: Duration,
    pass: Pass,
    /// Rows that it is known to have.
    rows: u64,
    /// There are no others.
    is_counted: bool,
}

/// What the present pass over a partition's rows has met.
#[derive(Debug, Default)]
struct Pass {
    pages: u32,
    rows: u64,
    settled: u64,
    tried: bool,
    /// When the first of those is ready that were not, and of those that have come since.
    ready: Option<Instant>,
}

impl Queued {
    fn new(at: Instant, leads: bool) -> Queued {
        Queued {
            leads,
            at,
            after: None,
            size: BATCH_RECORDS_MAX,
            pause: if leads { PAUSE_MIN } else { PAUSE_MAX },
            pass: Pass::default(),
            rows: 0,
            is_counted: true,
        }
    }

    /// A row will be ready then.
    fn ready(&mut self, at: Instant) {
        let earliest = self.pass.ready.map_or(at, |other| other.min(at));
        self.pass.ready = Some(earliest);
    }

    /// Ends a pass. Returns whether the partition has to be looked at again.
    fn end_pass(&mut self, now: Instant) -> bool {
        let pass = std::mem::take(&mut self.pass);
        self.after = None;
        (self.rows, self.is_counted) = (pass.rows.saturating_sub(pass.settled), true);
        let again = match (pass.settled, pass.tried) {
            (0, false) => None,
            (0, true) => {
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                Some(now + self.pause)
            }
            _ => {
                self.pause = PAUSE_MIN;
                Some(now + self.pause)
            }
        };
        match again.into_iter().chain(pass.ready).min() {
            // Of values that expire one by one there is always one that is next: most of the time is for others.
            Some(at) => self.at = at.max(now + PAGE_PAUSE * (4 * pass.pages).max(1)),
            None => return false,
        }
        true
    }
}

/// The partitions in which something waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    partitions: BTreeMap<PartitionId, Queued>,
    /// Whether the walk over all rows was begun.
    walked: bool,
    /// When it is tried again, after it has failed.
    walk_again: Option<Instant>,
}

impl Queue {
    /// Whether the walk over all rows is still to be begun; it is from now on.
    pub(super) fn begin_walk(&mut self) -> bool {
        self.walk_again = None;
        !std::mem::replace(&mut self.walked, true)
    }

    /// Whether a walk that has failed is to be tried again.
    pub(super) fn walks_again(&self, now: Instant) -> bool {
        self.walk_again.is_some_and(|at| at <= now)
    }

    /// The walk has failed.
    fn end_walk(&mut self, again: Instant) {
        self.walked = false;
        self.walk_again = Some(again);
    }

    /// Who was away is back: all is tried again soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        for queued in self.partitions.values_mut().filter(|queued| queued.leads) {
            queued.pause = PAUSE_MIN;
            queued.at = queued.at.min(now + PAUSE_MIN);
        }
    }

    /// When the next partition is looked at (or the walk is tried again), but for those that `is_busy`.
    pub(super) fn next(&self, is_busy: impl Fn(PartitionId) -> bool) -> Option<Instant> {
        let waiting = self.partitions.iter().filter(|&(&partition, _)| !is_busy(partition));
        waiting.map(|(_, queued)| queued.at).chain(self.walk_again).min()
    }

    /// A partition whose time has come.
    pub(super) fn due(&self, now: Instant, is_busy: impl Fn(PartitionId) -> bool) -> Option<PartitionId> {
        let due = self
            .partitions
            .iter()
            .filter(|&(&partition, queued)| queued.at <= now && !is_busy(partition));
        due.min_by_key(|(_, queued)| queued.at).map(|(&partition, _)| partition)
    }

    /// Rows that the partitions that this node leads are known to have.
    pub(super) fn rows(&self) -> u64 {
        let leading = self.partitions.values().filter(|queued| queued.leads);
        leading.map(|queued| queued.rows).sum()
    }

    /// A row was written that will be ready at `at`.
    fn add(&mut self, partition: PartitionId, leads: bool, at: Instant, is_new: bool) {
        let queued = self
            .partitions
            .entry(partition)
            .or_insert_with(|| Queued::new(at, leads));
        queued.rows += u64::from(is_new);
        queued.ready(at);
        if queued.after.is_none() {
            queued.at = queued.at.min(at);
        }
    }

    /// The walk has met a partition's first row.
    fn found(&mut self, partition: PartitionId, leads: bool, at: Instant) {
        self.add(partition, leads, at, true);
        if let Some(queued) = self.partitions.get_mut(&partition) {
            queued.is_counted = false;
        }
    }

    /// A row has gone. Returns whether nothing has to be looked at in its partition any more.
    fn removed(&mut self, partition: PartitionId) -> bool {
        let Some(queued) = self.partitions.get_mut(&partition) else {
            return false;
        };
        queued.rows = queued.rows.saturating_sub(1);
        let is_over = !queued.leads && queued.rows == 0 && queued.is_counted;
        is_over && self.partitions.remove(&partition).is_some()
    }

    /// Takes the keys of a page that are ready for a batch. `ready` says when a row is. `None`: there are none, and the partition has been
    /// looked at for now.
    fn take(
        &mut self,
        now: Instant,
        partition: PartitionId,
        page: &ScanPage,
        ready: impl Fn(&Bytes) -> Instant,
    ) -> Option<Vec<Key>> {
        let queued = self.partitions.get_mut(&partition)?;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        queued.after = None;
        queued.pass.pages += 1;
        for (at, (key, payload)) in page.rows.iter().enumerate() {
            queued.pass.rows += 1;
            // A damaged row still names its key.
            match payload.as_ref().map_or(Instant(0), &ready) {
                at if at > now => queued.ready(at),
                _ => {
                    bytes += key.encoded().len();
                    taken.push(key.clone());
                }
            }
            let is_last = at + 1 == page.rows.len();
            if taken.len() >= queued.size || bytes >= BATCH_BYTES_MAX || (is_last && !page.done) {
                queued.after = Some(key.clone()).filter(|_| !(is_last && page.done));
                break;
            }
        }
        if !taken.is_empty() {
            queued.pass.tried = true;
            return Some(taken);
        }
        self.looked(now, partition, 0);
        None
    }

    /// A partition's page has been dealt with, and so many of its records are settled.
    pub(super) fn looked(&mut self, now: Instant, partition: PartitionId, settled: usize) {
        let Some(queued) = self.partitions.get_mut(&partition) else {
            return;
        };
        queued.pass.settled += settled as u64;
        if queued.after.is_some() {
            queued.at = now + PAGE_PAUSE;
        } else if !queued.end_pass(now) {
            self.partitions.remove(&partition);
        }
    }

    /// What was taken, or should have been, could not be dealt with.
    pub(super) fn failed(&mut self, partition: PartitionId) {
        if let Some(queued) = self.partitions.get_mut(&partition) {
            queued.pass.tried = true;
        }
    }

    /// A batch was too large to be answered for in time, or not.
    pub(super) fn resize(&mut self, partition: PartitionId, in_time: bool) {
        if let Some(queued) = self.partitions.get_mut(&partition) {
            let size = if in_time { queued.size * 2 } else { queued.size / 2 };
            queued.size = size.clamp(1, BATCH_RECORDS_MAX);
        }
    }
}

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

    fn settle_queue(&mut self, key: &Key, ends_ms: u64, is_new: bool) {
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
        let after = self
            .settling
            .queue
            .partitions
            .get(&partition)
            .and_then(|queued| queued.after.clone());
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
        let Ok(page) = result else {
            self.settling.queue.end_walk(now + PAUSE_MAX);
            return self.settle_wake();
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
