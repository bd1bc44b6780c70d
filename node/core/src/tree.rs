//! Merkle trees over what a node holds, so that two owners of a partition find out where they differ with few bytes.
//!
//! There is one tree for each partition *and* N: buckets differ in N, so their owners do, and a tree over all buckets would differ for ever. A
//! tree is a tree over token prefixes: [`BRANCHES`] branches of [`LEAVES`] leaves each, and a leaf stands for one range of tokens. Its hash is
//! the sum of the hashes of the records in it. Sums commute, so a changed record changes its leaf by a subtraction and an addition, whatever
//! else lies there; what the shell writes of it in the same batch as the record is in [`log`]. Branches and roots are made when somebody asks.
//!
//! A record's hash is over its key and its canonical bytes, context included: replicas that hold the same values under different
//! contexts do differ, and deletes are records like any other. Dynamo paper, section 4.7.
//!
//! Rejected: hashing the sorted records of a leaf. It would need a scan of the leaf for each write.

mod log;

use crate::key::Key;
use crate::planted;
use crate::record::Record;
use quorate_ring::{PartitionId, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use twox_hash::XxHash3_64;

use log::Log;
pub use log::{LeafRow, LeavesLost};

/// Branches of a tree.
pub const BRANCHES: usize = 64;
/// Leaves of a branch. 4,096 leaves a tree: with sixteen thousand records in a partition four in a leaf, so what two owners have to
/// list to find a record that differs is small beside the record.
pub const LEAVES: usize = 64;
/// Bits of the token, behind those of the partition, that name the leaf.
const LEAF_BITS: u32 = 12;

/// One tree: a partition, in buckets with this many copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId {
    /// The partition.
    pub partition: PartitionId,
    /// Copies of each record in it.
    pub n: u8,
}

/// One leaf of a tree: the `at`-th of its `BRANCHES * LEAVES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafId {
    /// The tree.
    pub tree: TreeId,
    /// Which leaf of it.
    pub at: u16,
}

/// Hash of one record in its leaf; zero for no record. `encoded` are its canonical bytes.
pub fn entry(key: &Key, encoded: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(Record::hash_encoded(encoded), key.encoded())
}

/// One branch of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BranchId {
    tree: TreeId,
    at: u8,
}

/// The leaves of a branch.
#[derive(Clone, Debug)]
struct Branch {
    sums: [u64; LEAVES],
    /// Leaves that have changed since they were last written, one bit each.
    changed: u64,
    /// Its row on disk lacks what is in the log.
    is_stale: bool,
}

type Tree = [Option<Box<Branch>>; BRANCHES];

/// The trees of a node. Invariant: a branch that is not there has only zero leaves.
#[derive(Clone, Debug)]
pub struct Trees {
    partition_bits: u8,
    trees: BTreeMap<TreeId, Box<Tree>>,
    /// Branches with leaves that have changed since they were last written.
    changed: Vec<BranchId>,
    log: Log,
}

impl Trees {
    /// No records yet, in a ring with 2^`partition_bits` partitions.
    pub fn new(partition_bits: u8) -> Trees {
        Trees {
            partition_bits,
            trees: BTreeMap::new(),
            changed: Vec::new(),
            log: Log::default(),
        }
    }

    /// The leaf that a token lies in, in buckets with `n` copies.
    pub fn leaf_of(&self, partition: PartitionId, token: Token, n: u8) -> LeafId {
        let at = (token.0 << u32::from(self.partition_bits)) >> (64 - LEAF_BITS);
        LeafId {
            tree: TreeId { partition, n },
            at: at as u16,
        }
    }

    /// The tokens of a leaf.
    pub fn tokens(&self, leaf: LeafId) -> RangeInclusive<u64> {
        let rest = 64 - u32::from(self.partition_bits) - LEAF_BITS;
        let first = ((u64::from(leaf.tree.partition.0) << LEAF_BITS) | u64::from(leaf.at)) << rest;
        first..=first | (u64::MAX >> (64 - rest))
    }

    /// A record has changed from one with the entry hash `before` to one with `after`; zero stands for none.
    pub fn change(&mut self, leaf: LeafId, before: u64, after: u64) {
        let sum = self.leaf_mut(leaf);
        *sum = sum.wrapping_sub(before).wrapping_add(after);
    }

    /// The leaf's hash is known to be this.
    pub fn correct(&mut self, leaf: LeafId, sum: u64) {
        *self.leaf_mut(leaf) = sum;
    }

    /// The leaf's hash.
    pub fn leaf(&self, leaf: LeafId) -> u64 {
        let (branch, at) = place(leaf.at);
        self.branch(leaf.tree, branch).map_or(0, |branch| branch.sums[at])
    }

    /// The first leaf of a tree, from the `from`-th on, that is not zero.
    pub fn next_leaf(&self, tree: TreeId, from: u16) -> Option<u16> {
        let (first, at) = place(from);
        let branches = self.trees.get(&tree)?.iter().enumerate().skip(usize::from(first));
        let mut leaves = branches.flat_map(|(number, branch)| {
            let skipped = if number == usize::from(first) { at } else { 0 };
            let sums = branch.iter().flat_map(|branch| branch.sums).enumerate();
            sums.skip(skipped).map(move |(at, sum)| (number * LEAVES + at, sum))
        });
        leaves.find(|&(_, sum)| sum != 0).map(|(at, _)| at as u16)
    }

    /// The hashes of a branch's leaves.
    pub fn leaves(&self, tree: TreeId, branch: u8) -> [u64; LEAVES] {
        self.branch(tree, branch).map_or([0; LEAVES], |branch| branch.sums)
    }

    /// The hashes of a tree's branches; zero for one without records.
    pub fn branches(&self, tree: TreeId) -> [u64; BRANCHES] {
        let mut hashes = [0; BRANCHES];
        if let Some(tree) = self.trees.get(&tree) {
            for (hash, branch) in hashes.iter_mut().zip(tree.iter()) {
                *hash = branch.as_ref().map_or(0, |branch| fold(&branch.sums));
            }
        }
        hashes
    }

    /// The tree's hash; zero if it has no records.
    pub fn root(&self, tree: TreeId) -> u64 {
        fold(&self.branches(tree))
    }

    /// The trees in which something was ever put.
    pub fn ids(&self) -> BTreeSet<TreeId> {
        self.trees.keys().copied().collect()
    }

    fn branch(&self, tree: TreeId, at: u8) -> Option<&Branch> {
        self.trees.get(&tree)?[usize::from(at)].as_deref()
    }

    fn branch_mut(&mut self, id: BranchId) -> &mut Branch {
        branch_in(&mut self.trees, id)
    }

    /// The leaf's hash, to be changed.
    fn leaf_mut(&mut self, leaf: LeafId) -> &mut u64 {
        let (branch, at) = place(leaf.at);
        let id = BranchId {
            tree: leaf.tree,
            at: branch,
        };
        let branch = branch_in(&mut self.trees, id);
        if branch.changed == 0 {
            self.changed.push(id);
        }
        branch.changed |= 1 << at;
        &mut branch.sums[at]
    }
}

/// The branch, made if it is not there.
fn branch_in(trees: &mut BTreeMap<TreeId, Box<Tree>>, id: BranchId) -> &mut Branch {
    let tree = trees
        .entry(id.tree)
        .or_insert_with(|| Box::new([const { None }; BRANCHES]));
    tree[usize::from(id.at)].get_or_insert_with(|| {
        Box::new(Branch {
            sums: [0; LEAVES],
            changed: 0,
            is_stale: false,
        })
    })
}

/// The branch of a leaf, and where in it.
fn place(at: u16) -> (u8, usize) {
    ((usize::from(at) / LEAVES) as u8, usize::from(at) % LEAVES)
}

/// A hash over hashes; zero if all are.
fn fold(hashes: &[u64]) -> u64 {
    if hashes.iter().all(|&hash| hash == 0) {
        return 0;
    }
    let mut bytes = [0; 8 * LEAVES];
    for (slot, hash) in bytes.chunks_exact_mut(8).zip(hashes) {
        slot.copy_from_slice(&hash.to_le_bytes());
    }
    XxHash3_64::oneshot(&bytes).max(1)
}

/// The entry of a record as planted bug 16 makes it: of the values alone.
pub(crate) fn entry_of(key: &Key, encoded: &[u8], is_empty: bool) -> u64 {
    if is_empty {
        return 0;
    }
    if planted::is(16)
        && let Ok(record) = Record::decode(encoded)
    {
        return XxHash3_64::oneshot_with_seed(record.live_hash(), key.encoded());
    }
    entry(key, encoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn trees_of(bits: u8, entries: &[(u64, u64)]) -> Trees {
        let mut trees = Trees::new(bits);
        for &(token, hash) in entries {
            let partition = token.checked_shr(64 - u32::from(bits)).unwrap_or(0) as u32;
            let leaf = trees.leaf_of(PartitionId(partition), Token(token), 3);
            trees.change(leaf, 0, hash);
        }
        trees
    }

    proptest! {
        #[test]
        fn a_leaf_holds_the_tokens_that_lead_to_it(bits in 0u8..=16, token in any::<u64>()) {
            let trees = Trees::new(bits);
            let partition = token.checked_shr(64 - u32::from(bits)).unwrap_or(0) as u32;
            let leaf = trees.leaf_of(PartitionId(partition), Token(token), 3);
            let tokens = trees.tokens(leaf);
            prop_assert!(tokens.contains(&token));
            for edge in [*tokens.start(), *tokens.end()] {
                prop_assert_eq!(trees.leaf_of(PartitionId(partition), Token(edge), 3), leaf);
            }
        }

        #[test]
        fn the_order_of_changes_does_not_matter_and_undoing_all_leaves_nothing(
            entries in prop::collection::vec((any::<u64>(), 1u64..), 1..30), bits in 0u8..8,
        ) {
            let forward = trees_of(bits, &entries);
            let reversed: Vec<_> = entries.iter().rev().copied().collect();
            let mut backward = trees_of(bits, &reversed);
            for tree in forward.ids() {
                prop_assert_eq!(forward.root(tree), backward.root(tree));
            }
            for &(token, hash) in &entries {
                let partition = token.checked_shr(64 - u32::from(bits)).unwrap_or(0) as u32;
                let leaf = backward.leaf_of(PartitionId(partition), Token(token), 3);
                backward.change(leaf, hash, 0);
            }
            for tree in backward.ids() {
                prop_assert_eq!(backward.root(tree), 0);
            }
        }
    }

    #[test]
    fn the_next_leaf_that_holds_something_is_found_from_anywhere() {
        let held = [0u16, 5, 63, 64, 700, 4095];
        let tokens = held.map(|at| (u64::from(at) << 48, 1));
        let trees = trees_of(4, &tokens);
        let tree = TreeId {
            partition: PartitionId(0),
            n: 3,
        };
        for from in 0..4096 {
            let expected = held.into_iter().find(|&at| at >= from);
            assert_eq!(trees.next_leaf(tree, from), expected, "from {from}");
        }
        assert_eq!(trees.next_leaf(TreeId { n: 2, ..tree }, 0), None);
    }

    #[test]
    fn one_record_more_changes_its_root_branch_and_leaf_and_no_other() {
        let mut trees = trees_of(4, &[(1, 5), (u64::MAX, 7), (1 << 59, 9)]);
        let tree = TreeId {
            partition: PartitionId(0),
            n: 3,
        };
        let (root, branches) = (trees.root(tree), trees.branches(tree));
        let leaf = trees.leaf_of(PartitionId(0), Token(1 << 58), 3);
        trees.change(leaf, 0, 11);
        assert_ne!(trees.root(tree), root);
        let differ: Vec<_> = (0..BRANCHES)
            .filter(|&b| trees.branches(tree)[b] != branches[b])
            .collect();
        assert_eq!(differ, [usize::from(leaf.at) / LEAVES]);
        let leaves = trees.leaves(tree, differ[0] as u8);
        assert_eq!(leaves.iter().filter(|&&hash| hash != 0).count(), 1);
        assert_eq!(trees.root(TreeId { n: 2, ..tree }), 0, "another n is another tree");
    }
}
