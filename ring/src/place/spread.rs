//! Whom a node shares its partitions with: the more different others, the less each has to take over when it dies.
//!
//! If all of a node's partitions had the same second owner, that one's load would double with the first one's death.
//! So while ranks are taken out of the sets, pairs are counted: how many sets hold both. Pairs should meet as often as
//! their loads suggest, no more and no less, so the sum over all pairs of meetings² / (load × load) should be small.
//! [`Spread::cost`] is what one choice adds to that sum. From two nodes to one it is not who meets whom, but who
//! stands behind whom: then pairs have an order.
//!
//! The price: with more different pairs, more pairs of nodes exist whose failing together leaves some partition with
//! few copies (Cidon et al., Copysets, USENIX ATC 2013, make the opposite choice). Here an even load after a failure
//! and many sources to repair from count for more. Rejected: leaving it to chance, where with few partitions some
//! neighbour inherits several times its part.

use super::sets::Sets;

/// Pairs are counted in sets up to this size. The replicas are among the first few; who shares the fallbacks of whom
/// hardly matters, and large sets are slow to count.
const COUNTED: usize = 8;

/// Loads are inverted in this unit. With at most 65,536 vnodes per node the sums stay below 2^55.
const UNIT: u64 = 1 << 24;

/// How often each pair of nodes meets.
pub(crate) struct Spread {
    nodes: usize,
    /// Row by row: meetings of the row's node with the column's. Empty if the sets are too large to count.
    ///
    /// In sets of two: how often the row's node stays as first and the column's becomes second.
    meetings: Vec<u32>,
    /// For each node, [`UNIT`] divided by its load.
    inverse: Vec<i64>,
}

impl Spread {
    /// Counts the sets of `n` nodes, before any node leaves one.
    pub(crate) fn new(sets: &Sets, n: usize, loads: &[u32]) -> Spread {
        let nodes = loads.len();
        let inverse = loads
            .iter()
            .map(|&load| (UNIT / u64::from(load.max(1))).cast_signed())
            .collect();
        let mut spread = Spread {
            nodes,
            meetings: Vec::new(),
            inverse,
        };
        if n > COUNTED {
            return spread;
        }
        spread.meetings = vec![0; nodes * nodes];
        if n > 2 {
            for set in (0..sets.partitions()).map(|p| sets.set(p, n)) {
                for (&a, &b) in set.iter().flat_map(|a| set.iter().map(move |b| (a, b))) {
                    *spread.meetings_of(a, b) += 1;
                }
            }
        }
        spread
    }

    fn meetings_of(&mut self, a: u16, b: u16) -> &mut u32 {
        &mut self.meetings[usize::from(a) * self.nodes + usize::from(b)]
    }

    /// What the sum of squares gains, or loses, if the node in `slot` leaves this set.
    pub(crate) fn cost(&self, set: &[u16], slot: usize) -> i64 {
        if self.meetings.is_empty() {
            return 0;
        }
        let leaves = usize::from(set[slot]);
        let mut cost = 0;
        for other in (0..set.len())
            .filter(|&other| other != slot)
            .map(|other| usize::from(set[other]))
        {
            let meetings = i64::from(self.meetings[other * self.nodes + leaves]);
            let change = if set.len() == 2 {
                2 * meetings + 1
            } else {
                1 - 2 * meetings
            };
            cost += change * self.inverse[other] * self.inverse[leaves];
        }
        cost
    }

    /// Notes that the node in `slot` leaves this set.
    pub(crate) fn leave(&mut self, set: &[u16], slot: usize) {
        self.note(set, slot, set.len() == 2);
    }

    /// Takes back a [`leave`](Spread::leave).
    pub(crate) fn stay(&mut self, set: &[u16], slot: usize) {
        self.note(set, slot, set.len() > 2);
    }

    fn note(&mut self, set: &[u16], slot: usize, more: bool) {
        if self.meetings.is_empty() {
            return;
        }
        for &other in set
            .iter()
            .enumerate()
            .filter(|&(at, _)| at != slot)
            .map(|(_, other)| other)
        {
            let pairs = [(other, set[slot]), (set[slot], other)];
            // A pair in order is counted one way only.
            for (a, b) in pairs.into_iter().take(if set.len() == 2 { 1 } else { 2 }) {
                let meetings = self.meetings_of(a, b);
                *meetings = if more { *meetings + 1 } else { *meetings - 1 };
            }
        }
    }
}
