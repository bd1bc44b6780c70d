//! Whose turn it is to be asked.
//!
//! Members stand in a ring of their own, in an order that each node draws for itself, and are asked one after the other. So
//! none is forgotten by chance, and two nodes seldom ask the same one at the same time. Each period asks as many as it takes
//! to come round in [`ROUND`] periods, up to [`AT_ONCE_MAX`]: with few nodes a dead one is found within three periods by
//! every other, and with many by one of the many, while each of them still sends no more than a handful of frames a period.
//!
//! SWIM draws a new order after each round. Kept as it is the longest gap is one round and not two.

use quorate_ring::NodeId;
use rand_chacha::rand_core::RngCore;
use std::collections::BTreeSet;

/// Periods in which everybody is asked once, where [`AT_ONCE_MAX`] allows it.
const ROUND: usize = 3;
/// Members that are asked in one period.
const AT_ONCE_MAX: usize = 4;

/// The order of turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    order: Vec<NodeId>,
    at: usize,
}

impl Turns {
    /// From now on these take part. Newcomers get a random place.
    pub(super) fn set(&mut self, nodes: &BTreeSet<NodeId>, rng: &mut impl RngCore) {
        self.order.retain(|node| nodes.contains(node));
        let newcomers: Vec<NodeId> = nodes.iter().copied().filter(|n| !self.order.contains(n)).collect();
        for node in newcomers {
            let at = below(rng, self.order.len() + 1);
            self.order.insert(at, node);
        }
    }

    /// How many are asked in one period.
    pub(super) fn at_once(&self) -> usize {
        self.order.len().div_ceil(ROUND).clamp(1, AT_ONCE_MAX)
    }

    /// The next one that fits, if any does.
    pub(super) fn next(&mut self, fits: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        for _ in 0..self.order.len() {
            let node = self.order[self.at % self.order.len()];
            self.at = (self.at + 1) % self.order.len();
            if fits(node) {
                return Some(node);
            }
        }
        None
    }
}

/// A random number below `end`, which is not zero.
pub(super) fn below(rng: &mut impl RngCore, end: usize) -> usize {
    (rng.next_u64() % end.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn everybody_is_asked_once_a_round_whoever_comes_and_goes() {
        let mut rng = ChaCha12Rng::from_seed([1; 32]);
        let mut turns = Turns::default();
        let nodes = |range: std::ops::Range<u8>| range.map(|n| NodeId([n; 16])).collect::<BTreeSet<_>>();
        for set in [nodes(0..5), nodes(2..9), nodes(0..1), nodes(0..3)] {
            turns.set(&set, &mut rng);
            for _ in 0..3 {
                let asked: BTreeSet<NodeId> = (0..set.len()).filter_map(|_| turns.next(|_| true)).collect();
                assert_eq!(asked, set);
            }
        }
        assert_eq!(turns.next(|_| false), None);
    }

    #[test]
    fn a_round_takes_three_periods_with_few_nodes() {
        let mut rng = ChaCha12Rng::from_seed([1; 32]);
        for (others, at_once) in [(1, 1), (2, 1), (3, 1), (4, 2), (8, 3), (12, 4), (200, 4)] {
            let mut turns = Turns::default();
            turns.set(&(0..others).map(|n| NodeId([n; 16])).collect(), &mut rng);
            assert_eq!(turns.at_once(), at_once, "{others}");
        }
    }
}
