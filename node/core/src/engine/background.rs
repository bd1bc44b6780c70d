//! What an engine does of its own accord: tasks that wake at their time, and scans that they read rows with.
//!
//! Every task is woken, does a little, and says when it wants to be woken again; none runs long, so foreground requests never wait for one.
//! A scan belongs to whoever asked for it.

use super::{Effect, Engine, LoadFailed, Scan, ScanId, ScanPage};
use crate::time::Instant;
use quorate_ring::{NodeIndex, PartitionId};
use std::collections::{BTreeMap, BTreeSet};

/// Something that wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Proofs that records can be settled.
    Settle,
    /// Records are weighed for that.
    Weigh,
    /// Hints go home to a node.
    Handoff(NodeIndex),
    /// Owners compare their trees.
    Exchange,
    /// Greets peers again that may not have heard it.
    Greet,
    /// Reads records again that were lost.
    Heal,
    /// Reads all records, slowly, for what is wrong.
    Scrub,
    /// Starts over, if that is safe.
    StartOver,
    /// Stores the node's own note again.
    NoteOwn,
    /// Stores notes of what peers have missed again.
    NoteMissed,
}

/// Who reads rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// What waits to be settled in a partition, for the batch with this number.
    Settle(PartitionId, u64),
    /// Which partitions have anything that waits to be settled.
    SettleWalk,
    /// Whether what the scrub has met waits in the queue.
    SettleLook,
    /// Hints for a node, on this pass over them.
    Handoff(NodeIndex, u64),
    /// A list of keys, by its number.
    Exchange(u64),
    /// The scrub.
    Scrub,
}

/// Tasks that sleep and scans under way.
#[derive(Debug, Default)]
pub(super) struct Background {
    wakes: BTreeSet<(Instant, Task)>,
    scans: BTreeMap<ScanId, Reader>,
    next_scan: u64,
}

impl Background {
    /// When the next task wakes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.wakes.first().map(|&(at, _)| at)
    }

    /// Wakes a task at `at`. One that sleeps already wakes at the earlier time only.
    pub(super) fn wake(&mut self, at: Instant, task: Task) {
        match self.wakes.iter().find(|&&(_, sleeping)| sleeping == task).copied() {
            Some((earlier, _)) if earlier <= at => {}
            Some(later) => {
                self.wakes.remove(&later);
                self.wakes.insert((at, task));
            }
            None => {
                self.wakes.insert((at, task));
            }
        }
    }

    /// Lets a task sleep until `at`, whatever it slept for, or for ever.
    pub(super) fn sleep(&mut self, at: Option<Instant>, task: Task) {
        self.wakes.retain(|&(_, sleeping)| sleeping != task);
        self.wakes.extend(at.map(|at| (at, task)));
    }

    /// Lets all tasks sleep for good: nothing wakes them any more.
    pub(super) fn cancel_all(&mut self) {
        self.wakes.clear();
    }

    /// Whether a scan is under way for this reader.
    pub(super) fn is_read_by(&self, reader: &Reader) -> bool {
        self.scans.values().any(|scanning| scanning == reader)
    }

    fn due(&mut self, now: Instant) -> Option<Task> {
        let &(at, _) = self.wakes.first()?;
        if at > now {
            return None;
        }
        self.wakes.pop_first().map(|(_, task)| task)
    }
}

impl Engine {
    /// Lets every task do its part whose time has come.
    pub(super) fn run_tasks(&mut self, now: Instant) {
        if self.memory.is_silent() {
            self.background.cancel_all();
        }
        while !self.memory.is_silent()
            && let Some(task) = self.background.due(now)
        {
            match task {
                Task::Settle => self.settle_tick(now),
                // As at the end of every input.
                Task::Weigh => {}
                Task::Handoff(node) => self.run_handoff(now, node),
                Task::Exchange => self.run_exchanges(now),
                Task::Greet => self.greet_again(now),
                Task::Heal => self.run_heals(now),
                Task::Scrub => self.run_scrub(now),
                Task::StartOver => self.run_start_over(now),
                Task::NoteOwn => self.note_rebuilt(),
                Task::NoteMissed => self.note_unmarked(now),
            }
        }
    }

    /// Reads rows for somebody.
    pub(super) fn begin_scan(&mut self, reader: Reader, what: Scan) {
        self.background.next_scan += 1;
        let scan = ScanId(self.background.next_scan);
        self.background.scans.insert(scan, reader);
        self.effects.push_back(Effect::Scan { scan, what });
    }

    /// Rows have been read.
    pub(super) fn scanned(&mut self, now: Instant, scan: ScanId, result: Result<ScanPage, LoadFailed>) {
        if let Some(reader) = self.background.scans.remove(&scan) {
            match reader {
                Reader::Settle(partition, batch) => self.settle_page(now, partition, batch, result),
                Reader::SettleWalk => self.settle_walked(now, result),
                Reader::SettleLook => self.settle_looked(now, result),
                Reader::Handoff(node, pass) => self.hints_read(now, node, pass, result),
                Reader::Exchange(listing) => self.listed(now, listing, result),
                Reader::Scrub => self.scrubbed(now, result),
            }
        }
    }
}
