//! Evens out what the matchings could not.
//!
//! A level of matchings only sees its own n. With zones of different sizes, or few partitions, it may leave sets from
//! which a later level cannot take the right nodes: the last node of a zone has to stay, and a node may be the last
//! one too often. Then some node is off its share by a vnode or more, at some n.
//!
//! Two nodes that change places in one preference list, at ranks r < s, move one vnode from the first to the second
//! for each n from r to s - 1, and change nothing else. So: go through the table and make every such exchange that
//! concerns a node so far off and does not make the sum of squares of all distances from the shares larger. An
//! exchange that leaves the sum as it is hands the surplus on to a node that may be better placed to lose it. Most
//! tables need no exchange at all. Rejected: making every exchange that helps a little, which would undo how
//! [`spread`](super::spread) mixed the nodes.

use super::sets::Sets;
use super::share::{Goals, ONE};
use super::stage::Stage;

/// Sweeps over the table at most. Most of the few tables that need any need one or two; a surplus that has to be
/// handed on many times needs more, and after sixteen nothing that still moves gets anywhere.
const SWEEPS: usize = 16;

/// Exchanges ranks within preference lists until no exchange makes the loads more even.
pub(crate) fn even(stage: &Stage, goals: &Goals, sets: &mut Sets) {
    let above = (1..stage.ranks).map(|n| above_shares(stage, goals, sets, n)).collect();
    let mut even = Even { stage, sets, above };
    if even.above.iter().flatten().all(|above| above.abs() < ONE) {
        return;
    }
    for _ in 0..SWEEPS {
        if !even.sweep() {
            return;
        }
    }
}

/// For each node how much it holds above its share at n, fixed-point.
fn above_shares(stage: &Stage, goals: &Goals, sets: &Sets, n: usize) -> Vec<i64> {
    let loads = sets.loads(stage, n);
    loads
        .into_iter()
        .enumerate()
        .map(|(node, load)| goals.at(n).above(node, load as usize))
        .collect()
}

struct Even<'a> {
    stage: &'a Stage,
    sets: &'a mut Sets,
    /// For n = 1, 2, … and each node: how much it holds above its share.
    above: Vec<Vec<i64>>,
}

impl Even<'_> {
    /// Makes each useful exchange that it comes across. False if there was none.
    fn sweep(&mut self) -> bool {
        let mut any = false;
        for p in 0..self.sets.partitions() {
            for first in 0..self.stage.ranks {
                for second in first + 1..self.stage.ranks {
                    if self.allowed(p, first, second) && self.useful(p, first, second) {
                        self.exchange(p, first, second);
                        any = true;
                    }
                }
            }
        }
        any
    }

    fn node(&self, p: usize, slot: usize) -> usize {
        usize::from(self.sets.row(p)[slot])
    }

    /// Whether the zones stay as they should: any order will do within the ranks that cover the zones, and within
    /// those behind; between the two a node may only be replaced by one of its own zone.
    fn allowed(&self, p: usize, first: usize, second: usize) -> bool {
        let covering = self.stage.new_zones;
        let zone = |slot| self.stage.nodes[self.node(p, slot)].zone;
        second < covering || first >= covering || zone(first) == zone(second)
    }

    /// Whether an exchange concerns a node that is off by a vnode or more, and harms no more than it helps.
    fn useful(&self, p: usize, first: usize, second: usize) -> bool {
        let (loses, gains) = (self.node(p, first), self.node(p, second));
        let levels = &self.above[first..second];
        if !levels.iter().any(|above| above[loses] >= ONE || above[gains] <= -ONE) {
            return false;
        }
        // (x - 1)² + (y + 1)² - x² - y² = 2 (y - x + 1), summed over the levels. Shares are rounded, so nothing is
        // almost nothing.
        levels
            .iter()
            .map(|above| above[gains] - above[loses] + ONE)
            .sum::<i64>()
            <= ONE >> 16
    }

    fn exchange(&mut self, p: usize, first: usize, second: usize) {
        let (loses, gains) = (self.node(p, first), self.node(p, second));
        for above in &mut self.above[first..second] {
            above[loses] -= ONE;
            above[gains] += ONE;
        }
        self.sets.swap(p, first, second);
    }
}
