//! Reading all records again, slowly, to find what nobody asks for.
//!
//! ```text
//! partition by partition, page by page ──► each row: corrupt? heal it ──► each leaf read to its end: is its hash in memory the sum of its records?
//!                                                                                └── not: corrected, so that exchanges see the difference
//! ```
//!
//! Trees are kept up to date by additions and subtractions, so a record that changed on disk by itself is in no hash: two owners' trees stay
//! equal over it for ever. The scrub reads every record about once per pass and compares. A leaf that something was stored in while it was
//! being read is left for the next pass: what the scan saw is older or newer than the sum in memory, and nobody knows which. *Suspect*
//! leaves, which are known to be wrong, are read at once and until it works.
//!
//! Where not even the keys of a range can be read, a file is damaged under it. The range is halved down to single leaves, so that the rest is read
//! all the same. What was there can be read again only by reading everything again, with an empty directory: the node
//! [starts over](super::start_over). Dynamo paper, section 4.7. Rejected: rebuilding the damaged leaves alone, since nobody can tell what else was in the file.

use super::background::{Reader, Task};
use super::slots::Waiter;
use super::stored::Stored;
use super::{Engine, LoadFailed, Scan, ScanPage, ScanRows};
use crate::key::Key;
use crate::place::Place;
use crate::time::Instant;
use crate::tree::{BRANCHES, LEAVES, LeafId, TreeId};
use bytes::Bytes;
use quorate_ring::PartitionId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Rows and bytes of one page.
const ROWS_MAX: usize = 256;
const BYTES_MAX: usize = 1 << 20;
/// What a page costs beside its rows, in rows.
const PAGE_ROWS: u32 = 8;
/// Between two tries at a suspect leaf that is being written to.
const SUSPECT_AFTER: Duration = Duration::from_millis(200);
/// The first pass begins after this part of the time between passes.
const FIRST_PART: u32 = 60;
/// The last leaf of a tree.
const LAST: u16 = (BRANCHES * LEAVES - 1) as u16;

/// How far the scrub is, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Passes that came to their end since this process started.
    pub passes: u64,
    /// Partitions read in the present pass, and how many there are; `(0, 0)` between passes.
    pub partitions: (usize, usize),
    /// Records read since this process started.
    pub records: u64,
    /// Leaves that are known to be wrong, and not corrected yet.
    pub suspects: usize,
    /// Ranges of records in which not even the keys could be read.
    pub damaged: u64,
}

/// A range of leaves that is being read.
#[derive(Debug)]
struct Segment {
    partition: PartitionId,
    /// The leaf that the next row may lie in, and the last one.
    at: u16,
    last: u16,
    /// The row behind which the next page begins, if that is within leaf `at`.
    after: Option<Key>,
    /// What the rows of leaf `at` sum up to, by n.
    sums: BTreeMap<u8, u64>,
    /// Every row of leaf `at` could be read.
    is_sound: bool,
    /// Leaves that something was stored in since a page was asked for.
    touched: BTreeSet<u16>,
    is_suspect: bool,
}

impl Segment {
    /// How many suspect leaves it has still to look at.
    fn suspects(&self) -> usize {
        match self.is_suspect {
            true => usize::from(self.last - self.at) + 1,
            false => 0,
        }
    }
}

/// The scrub.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    running: Option<Segment>,
    /// What is left of the present pass, in order.
    rest: Vec<PartitionId>,
    total: usize,
    /// The rest of a partition, behind a range that could not be read in one go.
    behind: Option<(PartitionId, u16)>,
    /// Leaves that were corrected in memory and have not gone to disk.
    corrected: BTreeSet<LeafId>,
    suspects: BTreeSet<(PartitionId, u16)>,
    /// The last range was a suspect leaf. They take turns with the pass, since one that is always being written to stays suspect.
    was_suspect: bool,
    next_pass: Option<Instant>,
    passes: u64,
    records: u64,
    damaged: u64,
}

impl Scrub {
    /// Something is stored in a leaf, or a store is undone.
    pub(super) fn touch(&mut self, leaf: LeafId) {
        if let Some(running) = &mut self.running
            && running.partition == leaf.tree.partition
        {
            running.touched.insert(leaf.at);
        }
    }

    /// Whether there is something to be read now.
    fn is_busy(&self) -> bool {
        self.running.is_some() || self.behind.is_some() || !self.rest.is_empty() || !self.suspects.is_empty()
    }

    /// The next range to be read.
    fn next(&mut self) -> Option<Segment> {
        let of_pass = self
            .behind
            .or_else(|| self.rest.last().map(|&partition| (partition, 0)));
        let is_suspect = !self.suspects.is_empty() && (of_pass.is_none() || !self.was_suspect);
        self.was_suspect = is_suspect;
        let ((partition, at), last) = match is_suspect {
            true => self.pop_suspects()?,
            false => {
                if self.behind.take().is_none() {
                    self.rest.pop();
                }
                (of_pass?, LAST)
            }
        };
        Some(Segment {
            partition,
            at,
            last,
            after: None,
            sums: BTreeMap::new(),
            is_sound: true,
            touched: BTreeSet::new(),
            is_suspect,
        })
    }

    /// The first suspect leaves that lie next to each other: a row on disk may have spoken of a whole branch.
    fn pop_suspects(&mut self) -> Option<((PartitionId, u16), u16)> {
        let (partition, at) = self.suspects.pop_first()?;
        let mut last = at;
        while last < LAST && self.suspects.remove(&(partition, last + 1)) {
            last += 1;
        }
        Some(((partition, at), last))
    }
}

impl Engine {
    /// How far the scrub is.
    pub fn scrub_progress(&self) -> ScrubProgress {
        let scrub = &self.scrub;
        let left = scrub.rest.len() + usize::from(scrub.running.as_ref().is_some_and(|r| !r.is_suspect));
        ScrubProgress {
            passes: scrub.passes,
            partitions: (scrub.total.saturating_sub(left), scrub.total),
            records: scrub.records,
            suspects: scrub.suspects.len() + scrub.running.as_ref().map_or(0, Segment::suspects),
            damaged: scrub.damaged,
        }
    }

    /// The hash of a key's leaf is wrong, or may be.
    pub(super) fn suspect_leaf(&mut self, key: &Key) {
        let partition = self.config.ring.partition_of(key.token());
        let leaf = self.trees.leaf_of(partition, key.token(), 0);
        self.scrub.suspects.insert((partition, leaf.at));
        self.background.wake(Instant(0), Task::Scrub);
    }

    /// Takes in that the stored hash of a leaf cannot be read. For the start of a node, before the first input.
    pub(super) fn restore_suspect(&mut self, leaf: LeafId) {
        self.scrub.suspects.insert((leaf.tree.partition, leaf.at));
        self.background.wake(Instant(0), Task::Scrub);
    }

    /// Whether some leaf of the partition is known to be wrong.
    pub(super) fn is_suspected(&self, partition: PartitionId) -> bool {
        let running = self.scrub.running.as_ref();
        running.is_some_and(|running| running.is_suspect && running.partition == partition)
            || self
                .scrub
                .suspects
                .range((partition, 0)..=(partition, u16::MAX))
                .next()
                .is_some()
    }

    /// Takes in that rows of this node could not be read at the start, and that nobody can name them.
    pub fn restore_damage(&mut self) {
        self.note_damage(Instant(0));
    }

    /// Plans the first pass. For the start of the engine.
    pub(super) fn begin_scrub(&mut self) {
        if self.config.limits.scrub_per_second > 0 {
            self.background.wake(Instant(0), Task::Scrub);
        }
    }

    /// Reads the next page, or plans the next pass.
    pub(super) fn run_scrub(&mut self, now: Instant) {
        self.store_leaves(now);
        if self.background.is_read_by(&Reader::Scrub) {
            return;
        }
        if self.scrub.running.is_none() {
            self.plan_pass(now);
            self.scrub.running = self.scrub.next();
        }
        self.read_on();
        self.sleep_scrub(now);
    }

    /// Wakes when there is something to do that does not wait for a page.
    fn sleep_scrub(&mut self, now: Instant) {
        let scrub = &self.scrub;
        let idle = scrub.next_pass.filter(|_| !scrub.is_busy());
        let refused = (!scrub.corrected.is_empty()).then(|| now + SUSPECT_AFTER);
        if let Some(at) = [idle, refused].into_iter().flatten().min() {
            self.background
                .wake(at.max(now + Duration::from_millis(1)), Task::Scrub);
        }
    }

    fn plan_pass(&mut self, now: Instant) {
        let limits = &self.config.limits;
        let every = limits.scrub_every;
        let scrub = &mut self.scrub;
        if limits.scrub_per_second == 0 || !scrub.rest.is_empty() || scrub.behind.is_some() {
            return;
        }
        let at = *scrub.next_pass.get_or_insert(now + every / FIRST_PART);
        if scrub.total > 0 {
            (scrub.total, scrub.passes) = (0, scrub.passes + 1);
        }
        if at <= now {
            let most = self.config.buckets.all().map(|bucket| bucket.n).max().unwrap_or(1);
            let ring = &self.config.ring;
            let owned = ring.partition_ids().filter(|&p| ring.owns(self.me, p, most));
            scrub.rest = owned.collect();
            scrub.rest.reverse();
            scrub.total = scrub.rest.len();
            scrub.next_pass = Some(now + every);
        }
    }

    /// Asks for the next page.
    fn read_on(&mut self) {
        let Some(running) = &mut self.scrub.running else { return };
        // What was stored before is seen by the scan. But for the leaf that is half read: there it is not known.
        match running.after {
            Some(_) => running.touched.retain(|&at| at == running.at),
            None => running.touched.clear(),
        }
        let leaf = |at| LeafId {
            tree: TreeId {
                partition: running.partition,
                n: 0,
            },
            at,
        };
        let first = *self.trees.tokens(leaf(running.at)).start();
        let last = *self.trees.tokens(leaf(running.last)).end();
        let what = Scan {
            rows: ScanRows::Records(first..=last),
            after: running.after.clone(),
            rows_max: ROWS_MAX,
            bytes_max: BYTES_MAX,
        };
        self.begin_scan(Reader::Scrub, what);
    }

    /// A page has been read, or cannot be.
    pub(super) fn scrubbed(&mut self, now: Instant, result: Result<ScanPage, LoadFailed>) {
        let Some(running) = self.scrub.running.take() else {
            return;
        };
        let rows = match result {
            // A page that says nothing says that it could not be read.
            Ok(page) if !page.done && page.rows.is_empty() => {
                self.unreadable(now, running, LoadFailed::Unreadable);
                0
            }
            Ok(page) => {
                let rows = page.rows.len() as u32;
                self.take_page(now, running, page);
                rows
            }
            Err(failed) => {
                self.unreadable(now, running, failed);
                0
            }
        };
        self.scrub.records += u64::from(rows);
        self.store_leaves(now);
        if !self.scrub.is_busy() {
            self.plan_pass(now);
        }
        // A pass that has taken longer than the time between passes is followed by the next one at once: then there is something to be read.
        if !self.scrub.is_busy() {
            return self.sleep_scrub(now);
        }
        let pause = match self.scrub.running.as_ref().map(|running| running.is_suspect) {
            Some(true) => Duration::from_millis(1),
            _ if self.scrub.running.is_none() && !self.scrub.suspects.is_empty() => SUSPECT_AFTER,
            _ => Duration::from_secs(1) * (rows + PAGE_ROWS) / self.config.limits.scrub_per_second.max(1),
        };
        self.background.wake(now + pause, Task::Scrub);
    }

    fn take_page(&mut self, now: Instant, mut running: Segment, page: ScanPage) {
        let copies: BTreeSet<u8> = self.config.buckets.all().map(|bucket| bucket.n).collect();
        let mut waiting = Vec::new();
        for (key, row) in page.rows {
            let at = self.trees.leaf_of(running.partition, key.token(), 0).at;
            let end = at.min(running.last);
            self.end_leaves(&mut running, end, &copies);
            let waits = self.take_row(now, &mut running, &key, row);
            waiting.extend(waits.map(|ends_ms| (key.clone(), ends_ms)));
            running.after = Some(key);
        }
        self.settle_look(now, waiting);
        match page.done {
            true => {
                let end = running.last + 1;
                self.end_leaves(&mut running, end, &copies);
                self.end_segment(&running);
            }
            false => self.scrub.running = Some(running),
        }
    }

    /// Takes a row into its leaf's sum. If its record waits to be settled: until when, at least.
    fn take_row(
        &mut self,
        now: Instant,
        running: &mut Segment,
        key: &Key,
        row: Result<Bytes, LoadFailed>,
    ) -> Option<u64> {
        let n = self.config.buckets.of(key.bucket()).n;
        let stored = match row {
            Ok(payload) => Stored::parse(Some(payload)).ok(),
            Err(LoadFailed::Unreadable) => None,
            Err(LoadFailed::Corrupt | LoadFailed::Damaged) => {
                self.found_corrupt(now, Place::Record(key.clone()));
                None
            }
        };
        match stored {
            Some(mut stored) => {
                let sum = running.sums.entry(n).or_default();
                *sum = sum.wrapping_add(stored.leaf_entry(key));
                if stored.is_incomplete() {
                    self.heal(now, key);
                }
                stored.wants().1.waits_until()
            }
            None => {
                running.is_sound = false;
                None
            }
        }
    }

    /// All rows of the leaves before `end` have been seen. Those behind the present one have none, so only what memory has of them is looked at.
    fn end_leaves(&mut self, running: &mut Segment, end: u16, copies: &BTreeSet<u8>) {
        while running.at < end {
            self.end_leaf(running, copies);
            let partition = running.partition;
            let held = |&n| self.trees.next_leaf(TreeId { partition, n }, running.at);
            running.at = copies.iter().filter_map(held).fold(end, u16::min);
        }
    }

    /// All rows of a leaf have been seen: its hashes are compared, and the next leaf begins.
    fn end_leaf(&mut self, running: &mut Segment, copies: &BTreeSet<u8>) {
        let at = running.at;
        let sums = std::mem::take(&mut running.sums);
        let is_sound = std::mem::replace(&mut running.is_sound, true);
        let is_known = is_sound && !running.touched.contains(&at);
        let mut is_right = true;
        for &n in copies.iter().filter(|_| self.config.limits.trees) {
            let tree = TreeId {
                partition: running.partition,
                n,
            };
            let (leaf, sum) = (LeafId { tree, at }, sums.get(&n).copied().unwrap_or(0));
            if self.trees.leaf(leaf) != sum {
                is_right = false;
                if is_known {
                    self.trees.correct(leaf, sum);
                    self.scrub.corrected.insert(leaf);
                    self.counters.leaves_corrected += 1;
                }
            }
        }
        // What is damaged is suspected again when it has been set aside, so this ends.
        if !is_right && is_sound && !is_known {
            self.scrub.suspects.insert((running.partition, at));
        }
        running.after = None;
        running.at += 1;
    }

    /// Sends the corrected leaves to disk. They travel with a store; this one says nothing new.
    fn store_leaves(&mut self, now: Instant) {
        if !self.scrub.corrected.is_empty() && !self.gate.is_closed(now) {
            let leaves = std::mem::take(&mut self.scrub.corrected);
            let ticket = self.store_plain(Place::Own, Some(self.own().note()));
            self.slots.wait(ticket, vec![Waiter::Leaves(leaves)]);
        }
    }

    /// They are there, or the store was refused.
    pub(super) fn leaves_stored(&mut self, leaves: BTreeSet<LeafId>, is_stored: bool) {
        if !is_stored {
            for leaf in leaves {
                self.trees.correct(leaf, self.trees.leaf(leaf));
                self.scrub.corrected.insert(leaf);
            }
        }
    }

    /// A segment has been read. What is left of its partition is read next.
    fn end_segment(&mut self, running: &Segment) {
        if !running.is_suspect && running.last < LAST {
            self.scrub.behind = Some((running.partition, running.last + 1));
        }
    }

    /// A range could not be read: the first half is tried, down to a single leaf, which is left out.
    fn unreadable(&mut self, now: Instant, mut running: Segment, failed: LoadFailed) {
        (running.after, running.is_sound) = (None, true);
        running.sums.clear();
        if running.at < running.last {
            let half = running.at + (running.last - running.at) / 2;
            if running.is_suspect {
                let others = (half + 1..=running.last).map(|at| (running.partition, at));
                self.scrub.suspects.extend(others);
            }
            running.last = half;
            self.scrub.running = Some(running);
            return;
        }
        if failed != LoadFailed::Unreadable {
            self.scrub.damaged += 1;
            self.note_damage(now);
        }
        self.end_segment(&running);
    }

    /// Something could not be read: if that is for good, and rows are lost that nobody can name, it is noted.
    pub(super) fn note_damaged(&mut self, now: Instant, failed: LoadFailed) {
        if failed != LoadFailed::Unreadable {
            self.note_damage(now);
        }
    }
}
