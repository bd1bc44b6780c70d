//! What the owners of a key hold, as hashes of their answers to a read.
//!
//! Most reads need to know one thing only: did all answer the same? The rest is for those where they did not, to tell who is behind. It is an
//! array and not a map, because a read in the common case makes no allocation that it can do without.

use crate::bucket::N_MAX;
use quorate_ring::NodeIndex;

/// Hashes of what was answered, over all rounds of a read. What an owner once held it holds still, perhaps with more.
#[derive(Debug)]
pub(super) struct Answers {
    owners: [(NodeIndex, u64); N_MAX as usize],
    count: usize,
    /// The first answer.
    first: Option<u64>,
    /// Whether any answer was not like the first.
    differ: bool,
}

impl Answers {
    pub(super) fn none() -> Answers {
        Answers {
            owners: [(NodeIndex(0), 0); N_MAX as usize],
            count: 0,
            first: None,
            differ: false,
        }
    }

    /// An owner's answer. It replaces an earlier one.
    pub(super) fn note(&mut self, node: NodeIndex, hash: u64) {
        self.compare_with(hash);
        match self.owners[..self.count].iter().position(|&(owner, _)| owner == node) {
            Some(at) => self.owners[at].1 = hash,
            None if self.count < self.owners.len() => {
                self.owners[self.count] = (node, hash);
                self.count += 1;
            }
            // More owners than a bucket can have. This one counts for nothing, and is found behind by nobody.
            None => self.differ = true,
        }
    }

    /// The answer of a fallback, which nobody has to bring up to date.
    pub(super) fn compare_with(&mut self, hash: u64) {
        self.differ |= *self.first.get_or_insert(hash) != hash;
    }

    /// Whether all answers were of equal records.
    pub(super) fn agree(&self) -> bool {
        !self.differ
    }

    /// The owners that answered, each with whether it holds just what has this hash.
    pub(super) fn compare(&self, hash: u64) -> impl Iterator<Item = (NodeIndex, bool)> {
        self.owners[..self.count]
            .iter()
            .map(move |&(node, held)| (node, held == hash))
    }
}
