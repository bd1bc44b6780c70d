//! The working table: for each partition the set of its nodes, and behind it the ranks that have been dealt.
//!
//! A row has one entry per rank. At n its first n entries are the set, in no order; to take one out it is moved to the
//! last of them, where it has rank n. When n is 1 the row has become the preference list. Rejected: a set type of its
//! own per partition; the rows are small, all of one width, and end up as the answer without a copy.

use super::stage::Stage;

/// The sets of all partitions.
pub(crate) struct Sets {
    width: usize,
    entries: Vec<u16>,
}

impl Sets {
    /// As many empty rows as there are partitions. All entries are node 0 until they are set.
    pub(crate) fn new(width: usize, partitions: u32) -> Sets {
        Sets {
            width,
            entries: vec![0; width * partitions as usize],
        }
    }

    /// How many rows.
    pub(crate) fn partitions(&self) -> usize {
        self.entries.len() / self.width
    }

    /// All entries of partition `p`.
    pub(crate) fn row(&self, p: usize) -> &[u16] {
        &self.entries[p * self.width..][..self.width]
    }

    /// The set of partition `p` while it has `n` nodes.
    pub(crate) fn set(&self, p: usize, n: usize) -> &[u16] {
        &self.row(p)[..n]
    }

    /// Puts a node into one entry of a row.
    pub(crate) fn put(&mut self, p: usize, slot: usize, node: u16) {
        self.entries[p * self.width + slot] = node;
    }

    /// Exchanges two entries of a row.
    pub(crate) fn swap(&mut self, p: usize, slot: usize, other: usize) {
        self.entries[p * self.width..][..self.width].swap(slot, other);
    }

    /// How many of the sets of `n` each node is in.
    pub(crate) fn loads(&self, stage: &Stage, n: usize) -> Vec<u32> {
        let mut loads = vec![0; stage.nodes.len()];
        for &node in (0..self.partitions()).flat_map(|p| self.set(p, n)) {
            loads[usize::from(node)] += 1;
        }
        loads
    }
}

/// A fixed stream of numbers that look random (SplitMix64): ties are broken the same way everywhere, but in no
/// pattern.
pub(crate) struct Shuffle(pub(crate) u64);

impl Shuffle {
    /// A number below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        // The high half of a product maps 64 random bits to a range without a division.
        ((u128::from(bits) * end as u128) >> 64) as usize
    }
}
