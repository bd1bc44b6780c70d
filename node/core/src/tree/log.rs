//! How trees are kept on disk: in rows that go into the batches of the records that change them, so that no crash parts the two.
//!
//! ```text
//! key [n, 64], token: the branch's first     upto u64 ‖ which leaves u64 (one bit each) ‖ their hashes u64 …     a branch
//! key [],      token: half ‖ number of row   number u64 ‖ (leaf's first token >> 32 u32 ‖ n u8 ‖ hash u64) …     the log
//! ```
//!
//! A batch carries one row of the log, with the new hashes of all leaves that its records change. It lies next to the row before, which makes
//! it cheap: a row for each leaf would lie anywhere, and to find that place cost the store as much as the record itself. The log has two halves.
//! While one is filled, the branches that the other one speaks of are written, a few with each batch, each under the number
//! of the row *up to* which it knows all; when it is full, the other half is written over. A start reads all branches, and then the log in the
//! order of its numbers; what a branch knows already is skipped. Numbers grow over all starts: the generation is in front.
//!
//! A log is as long as some branches are many, so that a row of a branch is written for eight leaves that change, or for many more. Where a batch
//! is refused, the branches that were in it go into the next one. Rejected: to mark what has changed, store hashes now and then, and read the
//! records again after a crash. After one it would take a scan of nearly everything to know what a node holds.

use super::{BRANCHES, BranchId, LEAVES, LeafId, Trees, branch_in};
use bytes::{Buf, Bytes};
use quorate_ring::{PartitionId, Token};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The second byte of a branch's key.
const BRANCH: u8 = BRANCHES as u8;
/// Bits of a row's number behind those of the generation.
const NUMBER_BITS: u32 = 40;
/// Leaves in a row of the log at most.
const ROW_MAX: usize = 4096;
/// Bytes of a leaf in it.
const ENTRY: usize = 13;
/// Leaves in a half of the log for each branch there is, in so many parts of its least length.
const BRANCH_PART: usize = 8192;
/// The longest half is so many times the least.
const LONGEST: usize = 16;

/// A row of the column that holds the leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRow {
    /// Sorts first.
    pub token: u64,
    /// Sorts behind it.
    pub key: Bytes,
    /// What it says; `None` if that cannot be read.
    pub payload: Option<Bytes>,
}

/// The rows do not tell what the leaves are: they have to be made of all records again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log of the Merkle trees cannot be read, or has another format")]
pub struct LeavesLost;

/// Where the log stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// The number of the next row.
    next: u64,
    /// Which half is being filled, with how many rows and leaves so far.
    half: u64,
    rows: u64,
    filled: usize,
    /// Leaves in a half at least.
    least: usize,
    branches: usize,
    /// Branches whose rows lack what is in this half, and not what is in the other.
    fresh: Vec<BranchId>,
    /// Those that lack what is in the other half, and how many there were at its end.
    old: VecDeque<BranchId>,
    old_total: usize,
    /// Those whose rows went out with the last batch. It may be refused.
    last: Vec<BranchId>,
    /// Those whose rows were refused.
    refused: Vec<BranchId>,
}

impl Log {
    fn length(&self) -> usize {
        let least = self.least.max(1);
        (least + self.branches * least / BRANCH_PART).min(LONGEST * least)
    }

    /// How many of the old branches are left, when they are written in even steps and the last one half way through this half of the log.
    fn may_be_left(&self) -> usize {
        let length = self.length();
        let done = self.old_total * (2 * self.filled).min(length) / length;
        self.old_total - done
    }

    fn token(&self) -> u64 {
        (self.half << 32) | self.rows
    }
}

impl Trees {
    /// No records yet, at this start of a directory, whose number is in those of the log's rows. A half of the log has this many leaves at least.
    pub fn of_start(partition_bits: u8, generation: u64, least: usize) -> Trees {
        let mut trees = Trees::new(partition_bits);
        (trees.log.next, trees.log.least) = (generation << NUMBER_BITS, least);
        trees
    }

    /// Hands out the rows for the leaves that have changed since this was last asked: token, key and payload.
    pub fn write(&mut self, mut put: impl FnMut(u64, &[u8], &[u8])) {
        self.log.last.clear();
        if self.changed.is_empty() {
            return;
        }
        let mut row = Vec::with_capacity(8 + 4 * ENTRY);
        let changed = std::mem::take(&mut self.changed);
        let mut rest = &changed[..];
        while !rest.is_empty() {
            let count = self.log_row(&mut row, &mut rest);
            put(self.log.token(), &[], &row);
            self.log.rows += 1;
            self.log.filled += count;
            self.write_branches(&mut row, &mut put);
            self.log.next += 1;
        }
        self.changed = changed;
        self.changed.clear();
    }

    /// Fills a row of the log with the leaves of the first branches, and takes those away. Returns how many leaves it holds.
    fn log_row(&mut self, row: &mut Vec<u8>, rest: &mut &[BranchId]) -> usize {
        row.clear();
        row.extend_from_slice(&self.log.next.to_le_bytes());
        let mut count = 0;
        while let Some((&id, others)) = rest.split_first().filter(|_| count < ROW_MAX) {
            *rest = others;
            let first = (self.first_token(id) >> 32) as u32;
            let shift = 32 - u32::from(self.partition_bits) - super::LEAF_BITS;
            let branch = branch_in(&mut self.trees, id);
            for at in bits(std::mem::take(&mut branch.changed)) {
                row.extend_from_slice(&(first | (at as u32) << shift).to_le_bytes());
                row.push(id.tree.n);
                row.extend_from_slice(&branch.sums[at].to_le_bytes());
                count += 1;
            }
            if !std::mem::replace(&mut branch.is_stale, true) {
                self.log.fresh.push(id);
            }
        }
        count
    }

    /// Writes as many branches as it is time for, so that the other half of the log can be written over when this one is full.
    fn write_branches(&mut self, row: &mut Vec<u8>, put: &mut impl FnMut(u64, &[u8], &[u8])) {
        let mut due = std::mem::take(&mut self.log.refused);
        let is_full = self.log.filled >= self.log.length();
        let left = if is_full { 0 } else { self.log.may_be_left() };
        let many = self.log.old.len().saturating_sub(left);
        due.extend(self.log.old.drain(..many));
        for &id in &due {
            let number = self.log.next;
            let branch = self.branch_mut(id);
            branch.is_stale = false;
            encode_branch(row, number, &branch.sums);
            put(self.first_token(id), &[id.tree.n, BRANCH], row);
        }
        self.log.last.append(&mut due);
        if is_full {
            self.log.branches = self.trees.values().map(|tree| tree.iter().flatten().count()).sum();
            let log = &mut self.log;
            log.old.extend(log.fresh.drain(..));
            log.old_total = log.old.len();
            (log.half, log.rows, log.filled) = (log.half ^ 1, 0, 0);
        }
    }

    /// The batch with the rows that were handed out last is not on disk. What its stores did to leaves is undone, and goes out with the next batch.
    pub fn refused(&mut self) {
        let last = std::mem::take(&mut self.log.last);
        self.log.refused.extend(last);
    }

    /// Takes in all rows of leaves, in any order, before anything changes. Returns the leaves whose hashes cannot be read.
    ///
    /// # Errors
    /// They do not tell what the leaves are. Nothing was taken in.
    pub fn restore(&mut self, rows: impl IntoIterator<Item = LeafRow>) -> Result<Vec<LeafId>, LeavesLost> {
        let mut read = Read {
            trees: Trees::new(self.partition_bits),
            upto: BTreeMap::new(),
            log: BTreeMap::new(),
            unreadable: Vec::new(),
        };
        for row in rows {
            read.row(row)?;
        }
        let (next, least) = (self.log.next, self.log.least);
        let (trees, unreadable) = read.finish()?;
        *self = trees;
        self.log.next = self.log.next.max(next);
        self.log.least = least;
        Ok(unreadable)
    }

    fn first_token(&self, id: BranchId) -> u64 {
        let at = u16::from(id.at) * LEAVES as u16;
        *self.tokens(LeafId { tree: id.tree, at }).start()
    }

    /// The leaf of a token that may be any.
    fn leaf_at(&self, token: u64, n: u8) -> LeafId {
        let partition = token.checked_shr(64 - u32::from(self.partition_bits)).unwrap_or(0);
        self.leaf_of(PartitionId(partition as u32), Token(token), n)
    }
}

/// Rows that are being read.
struct Read {
    trees: Trees,
    /// The row of the log up to which a branch knows all.
    upto: BTreeMap<BranchId, u64>,
    /// Half, number in it, and entries of each row.
    log: BTreeMap<u64, (u64, u64, Bytes)>,
    unreadable: Vec<LeafId>,
}

impl Read {
    fn row(&mut self, row: LeafRow) -> Result<(), LeavesLost> {
        match (&row.key[..], row.payload) {
            (&[], Some(mut entries)) if entries.len() >= 8 && (entries.len() - 8).is_multiple_of(ENTRY) => {
                let number = entries.get_u64_le();
                let place = (row.token >> 32, row.token & u64::from(u32::MAX));
                self.log.insert(number, (place.0, place.1, entries));
                Ok(())
            }
            (&[n, BRANCH], payload) => {
                let leaf = self.trees.leaf_at(row.token, n);
                self.branch(leaf, payload.and_then(decode_branch));
                Ok(())
            }
            _ => Err(LeavesLost),
        }
    }

    fn branch(&mut self, first: LeafId, decoded: Option<(u64, [u64; LEAVES])>) {
        let id = BranchId {
            tree: first.tree,
            at: super::place(first.at).0,
        };
        let Some((upto, sums)) = decoded else {
            let leaves = (0..LEAVES as u16).map(|at| LeafId {
                tree: id.tree,
                at: u16::from(id.at) * LEAVES as u16 + at,
            });
            self.unreadable.extend(leaves);
            return;
        };
        self.trees.branch_mut(id).sums = sums;
        self.upto.insert(id, upto);
    }

    /// Reads the log, and goes on with it where it ended.
    fn finish(mut self) -> Result<(Trees, Vec<LeafId>), LeavesLost> {
        let half = self.log.last_key_value().map_or(0, |(_, row)| row.0 & 1);
        let other = self.log.iter().rev().find(|(_, row)| row.0 != half);
        let other = other.map(|(&number, _)| number);
        let mut old = BTreeSet::new();
        for (number, (_, row, mut entries)) in std::mem::take(&mut self.log) {
            let is_current = other.is_none_or(|other| number > other);
            if is_current {
                self.trees.log.rows = row + 1;
                self.trees.log.filled += entries.len() / ENTRY;
            }
            while entries.has_remaining() {
                let (token, n, sum) = (entries.get_u32_le(), entries.get_u8(), entries.get_u64_le());
                self.entry(number, is_current, u64::from(token) << 32, n, sum, &mut old);
            }
            self.trees.log.next = number + 1;
        }
        let trees = &mut self.trees;
        trees.log.half = half;
        trees.log.old_total = old.len();
        trees.log.old = old.into_iter().collect();
        trees.log.branches = trees.trees.values().map(|tree| tree.iter().flatten().count()).sum();
        Ok((self.trees, self.unreadable))
    }

    fn entry(&mut self, number: u64, is_current: bool, token: u64, n: u8, sum: u64, old: &mut BTreeSet<BranchId>) {
        let leaf = self.trees.leaf_at(token, n);
        let (at, leaf_at) = super::place(leaf.at);
        let id = BranchId { tree: leaf.tree, at };
        if self.upto.get(&id).is_some_and(|&upto| number <= upto) {
            return;
        }
        let branch = self.trees.branch_mut(id);
        branch.sums[leaf_at] = sum;
        if !std::mem::replace(&mut branch.is_stale, true) {
            match is_current {
                true => self.trees.log.fresh.push(id),
                false => _ = old.insert(id),
            }
        }
    }
}

fn encode_branch(row: &mut Vec<u8>, upto: u64, sums: &[u64; LEAVES]) {
    row.clear();
    row.extend_from_slice(&upto.to_le_bytes());
    let held = (0..LEAVES).filter(|&at| sums[at] != 0);
    let held = held.fold(0_u64, |held, at| held | 1 << at);
    row.extend_from_slice(&held.to_le_bytes());
    bits(held).for_each(|at| row.extend_from_slice(&sums[at].to_le_bytes()));
}

fn decode_branch(mut payload: Bytes) -> Option<(u64, [u64; LEAVES])> {
    let (upto, held) = (payload.try_get_u64_le().ok()?, payload.try_get_u64_le().ok()?);
    let mut sums = [0; LEAVES];
    for at in bits(held) {
        sums[at] = payload.try_get_u64_le().ok()?;
    }
    (!payload.has_remaining()).then_some((upto, sums))
}

/// The places of the bits that are set.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (at < LEAVES).then_some(at)
    })
}

#[cfg(test)]
mod tests;
