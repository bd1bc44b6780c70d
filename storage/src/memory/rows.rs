//! What lies on the simulated disk: rows, the log that a crash can cut, and damage.
//!
//! What a crash takes back is kept as an undo list per unsynced batch: one map of rows, and a few old values beside it.
//! Rejected: a durable and a visible copy of everything. A simulated cluster starts and crashes its nodes thousands of
//! times a second, and would spend that second copying maps.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::{Bound, RangeInclusive},
};

use bytes::Bytes;

use crate::{Column, row};

/// The name of a row.
pub(super) type Row = Vec<u8>;

/// A row's value as it is stored. Damage belongs to the value: what is written over it reads well, and if a crash takes
/// that write back, the damage is there again.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    pub(super) damaged: bool,
}

#[derive(Debug, Default)]
pub(super) struct Rows {
    /// What reads see: durable rows and unsynced ones.
    visible: BTreeMap<Row, Stored>,
    /// Batches applied and not synced, oldest first.
    unsynced: VecDeque<Unsynced>,
    /// Number of the next batch. Never goes back, so a `SyncPoint` from before a crash cannot cover what came after it.
    next: u64,
    /// Ranges of row names, `[from, to)`, that no scan gets through.
    blocks: Vec<(Row, Row)>,
}

#[derive(Debug)]
struct Unsynced {
    number: u64,
    /// Rows in the order they were written, with what each held before.
    undo: Vec<(Row, Option<Stored>)>,
}

/// A copy of what was durable at some moment: see [`MemStorage::snapshot`](super::MemStorage::snapshot).
#[derive(Debug, Clone)]
pub struct MemSnapshot {
    rows: BTreeMap<Row, Stored>,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.visible.len()
    }

    pub(super) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn get(&self, row: &[u8]) -> Option<&Stored> {
        self.visible.get(row)
    }

    /// The rows of `[lower, upper)`, in order.
    pub(super) fn range<'a>(&'a self, lower: &[u8], upper: &[u8]) -> impl Iterator<Item = (&'a Row, &'a Stored)> {
        self.visible
            .range::<[u8], _>((Bound::Included(lower), Bound::Excluded(upper)))
    }

    /// Where a scan of `[lower, upper)` runs into a block that it cannot get through.
    pub(super) fn blocked_at(&self, lower: &[u8], upper: &[u8]) -> Option<&[u8]> {
        let met = self
            .blocks
            .iter()
            .filter(|(from, to)| from[..] < *upper && *lower < to[..]);
        met.map(|(from, _)| &from[..]).min()
    }

    /// One more unsynced batch.
    pub(super) fn apply(&mut self, writes: Vec<(Row, Option<Bytes>)>) {
        let mut undo = Vec::with_capacity(writes.len());
        for (row, bytes) in writes {
            let stored = bytes.map(|bytes| Stored { bytes, damaged: false });
            let before = self.set(row.clone(), stored);
            undo.push((row, before));
        }
        let number = self.next;
        self.next += 1;
        self.unsynced.push_back(Unsynced { number, undo });
    }

    /// Makes the batches before this number durable.
    pub(super) fn sync_up_to(&mut self, number: u64) {
        while self.unsynced.front().is_some_and(|batch| batch.number < number) {
            self.unsynced.pop_front();
        }
    }

    /// Takes back all unsynced batches but the oldest few.
    pub(super) fn crash(&mut self, survive: usize) {
        while self.unsynced.len() > survive {
            let batch = self.unsynced.pop_back().expect("longer than `survive`, so not empty");
            for (row, before) in batch.undo.into_iter().rev() {
                self.set(row, before);
            }
        }
        self.unsynced.clear();
    }

    pub(super) fn flip(&mut self, row: &[u8], bit: usize) -> bool {
        let Some(stored) = self.visible.get_mut(row) else {
            return false;
        };
        let mut bytes = stored.bytes.to_vec();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        stored.bytes = bytes.into();
        true
    }

    /// Damages every value in these tokens, also those that a crash would bring back. Returns how many rows are hit.
    pub(super) fn damage(&mut self, column: Column, tokens: &RangeInclusive<u64>) -> usize {
        let Some((lower, upper)) = row::range(column, tokens, None) else {
            return 0;
        };
        let olds = self.unsynced.iter_mut().flat_map(|batch| &mut batch.undo);
        for (_, before) in olds.filter(|(row, _)| lower <= *row && *row < upper) {
            before.iter_mut().for_each(|stored| stored.damaged = true);
        }
        let hit = self.visible.range_mut(lower..upper);
        hit.map(|(_, stored)| stored.damaged = true).count()
    }

    pub(super) fn block(&mut self, column: Column, tokens: &RangeInclusive<u64>) {
        self.blocks.extend(row::range(column, tokens, None));
    }

    pub(super) fn wipe(&mut self) {
        self.visible.clear();
        self.unsynced.clear();
        self.blocks.clear();
    }

    /// Removes a row and every older value of it.
    pub(super) fn forget(&mut self, row: &[u8]) -> bool {
        for (undone, before) in self.unsynced.iter_mut().flat_map(|batch| &mut batch.undo) {
            if undone == row {
                *before = None;
            }
        }
        self.visible.remove(row).is_some()
    }

    pub(super) fn snapshot(&self) -> MemSnapshot {
        let mut rows = self.visible.clone();
        let undone = self.unsynced.iter().rev().flat_map(|batch| batch.undo.iter().rev());
        for (row, before) in undone {
            match before {
                Some(stored) => rows.insert(row.clone(), stored.clone()),
                None => rows.remove(row),
            };
        }
        MemSnapshot { rows }
    }

    pub(super) fn restore(&mut self, snapshot: &MemSnapshot) {
        self.wipe();
        self.visible.clone_from(&snapshot.rows);
    }

    fn set(&mut self, row: Row, stored: Option<Stored>) -> Option<Stored> {
        match stored {
            Some(stored) => self.visible.insert(row, stored),
            None => self.visible.remove(&row),
        }
    }
}
