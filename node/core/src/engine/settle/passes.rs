//! When a partition's rows are looked at again.
//!
//! A pass reads all rows of a partition, a page at a time, and makes batches of those that are ready. The next pass is due when another row is ready; or
//! after a pause that doubles while nothing can be settled. In memory there is a line for each partition that has rows, and nothing for each row.

use super::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use crate::engine::ScanPage;
use crate::key::Key;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::PartitionId;
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two batches of a partition.
const PAGE_PAUSE: Duration = Duration::from_millis(100);
/// Between two passes over a partition in which nothing could be settled: from, doubling, to.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(1);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);

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
    /// Rows that it has, kept up with each that comes or goes.
    rows: u64,
    /// Whether they were ever counted. If not it has one at least.
    is_counted: bool,
}

/// What the present pass over a partition's rows has met.
#[derive(Debug, Default)]
struct Pass {
    pages: u32,
    rows: u64,
    settled: u64,
    tried: bool,
    /// It has come to the last row.
    is_whole: bool,
    /// A row has come or gone since it began, so what it has met is no count.
    is_mixed: bool,
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
        match (pass.is_whole, pass.is_mixed) {
            (true, false) => (self.rows, self.is_counted) = (pass.rows, true),
            (true, true) if !self.is_counted => self.rows = pass.rows,
            _ => {}
        }
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
    pub(super) fn end_walk(&mut self, again: Instant) {
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

    /// A partition is read. Behind which row?
    pub(super) fn begin_page(&mut self, partition: PartitionId) -> Option<Key> {
        let queued = self.partitions.get_mut(&partition)?;
        // What came before the first page is on it.
        queued.pass.is_mixed &= queued.pass.pages > 0;
        queued.after.clone()
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
        let rows = |queued: &Queued| match queued.is_counted {
            true => queued.rows,
            false => queued.rows.max(1),
        };
        leading.map(rows).sum()
    }

    /// A row was written that will be ready at `at`.
    pub(super) fn add(&mut self, partition: PartitionId, leads: bool, at: Instant, is_new: bool) {
        let queued = self
            .partitions
            .entry(partition)
            .or_insert_with(|| Queued::new(at, leads));
        queued.rows += u64::from(is_new);
        queued.pass.is_mixed |= is_new;
        queued.ready(at);
        if queued.after.is_none() {
            queued.at = queued.at.min(at);
        }
    }

    /// The walk has met a partition's first row, or it is not certain any more how many it has: a pass will tell.
    pub(super) fn found(&mut self, partition: PartitionId, leads: bool, at: Instant) {
        self.add(partition, leads, at, true);
        if let Some(queued) = self.partitions.get_mut(&partition) {
            queued.is_counted = false;
        }
    }

    /// A row has gone. Returns whether nothing has to be looked at in its partition any more.
    pub(super) fn removed(&mut self, partition: PartitionId) -> bool {
        let Some(queued) = self.partitions.get_mut(&partition) else {
            return false;
        };
        queued.rows = queued.rows.saturating_sub(1);
        queued.pass.is_mixed = true;
        let is_over = !queued.leads && queued.rows == 0 && queued.is_counted;
        is_over && self.partitions.remove(&partition).is_some()
    }

    /// Takes the keys of a page that are ready for a batch. `ready` says when a row is. `None`: there are none, and the partition has been
    /// looked at for now.
    pub(super) fn take(
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
        queued.pass.is_whole = page.done && queued.after.is_none();
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
