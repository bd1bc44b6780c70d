//! The sets of nodes at the greatest n, from which all ranks are then taken.
//!
//! Where there are no more nodes than ranks every set is all nodes. Else the nodes are laid out on a line, zone by
//! zone, each as long as its share, and the line is wound round the partitions: a partition's set is what lies over it
//! after n turns. No node is longer than one turn, so a set holds it at most once; a zone of at most one turn is in a
//! set at most once, one of at least one turn at least once. So all shares and all zones are met exactly (McNaughton's
//! wrap-around rule of 1959, for machines instead of partitions).
//!
//! But a node would meet only its neighbours on the line, and they would inherit all its load. So the sets are then
//! mixed: two partitions trade one node each, many times, where both keep as many nodes of each zone as the line gave
//! to some partition. Trades change no node's share. Rejected: drawing the sets at random, which meets neither shares
//! nor zones.

use super::sets::{Sets, Shuffle};
use super::share::Goals;
use super::stage::Stage;

/// Trades per entry of the table. Four leave no trace of the line (see the tests of how a dead node's load is spread).
const TRADES: usize = 4;

/// Sets of `stage.ranks` nodes for each partition, with as even loads as can be.
pub(crate) fn fill(stage: &Stage, goals: &Goals, partitions: u32) -> Sets {
    let caps = vec![partitions; stage.nodes.len()];
    let loads = goals.at(stage.ranks).whole(stage, &caps);
    let mut sets = Sets::new(stage.ranks, partitions);
    let line = (0u16..)
        .zip(&loads)
        .flat_map(|(node, &load)| std::iter::repeat_n(node, load as usize));
    for (at, node) in line.enumerate() {
        sets.put(at % partitions as usize, at / partitions as usize, node);
    }
    if stage.ranks < stage.nodes.len() {
        mix(stage, goals, &mut sets);
    }
    sets
}

/// Lets random pairs of partitions trade nodes.
fn mix(stage: &Stage, goals: &Goals, sets: &mut Sets) {
    let mut shuffle = Shuffle(0x0071_7565_756d);
    let per_set: Vec<_> = (0..stage.zones.len())
        .map(|zone| goals.at(stage.ranks).per_set(zone))
        .collect();
    for _ in 0..TRADES * sets.partitions() * stage.ranks {
        let (p, slot) = (shuffle.below(sets.partitions()), shuffle.below(stage.ranks));
        let (other_p, other_slot) = (shuffle.below(sets.partitions()), shuffle.below(stage.ranks));
        let (gives, takes) = (sets.row(p)[slot], sets.row(other_p)[other_slot]);
        if sets.row(p).contains(&takes) || sets.row(other_p).contains(&gives) {
            continue;
        }
        let zone = |node: u16| stage.nodes[usize::from(node)].zone;
        let (less, more) = (zone(gives), zone(takes));
        let count = |p: usize, in_zone: usize| sets.row(p).iter().filter(|&&node| zone(node) == in_zone).count();
        let even = |p: usize, less: usize, more: usize| {
            count(p, less) > *per_set[less].start() && count(p, more) < *per_set[more].end()
        };
        if less == more || (even(p, less, more) && even(other_p, more, less)) {
            sets.put(p, slot, takes);
            sets.put(other_p, other_slot, gives);
        }
    }
}
