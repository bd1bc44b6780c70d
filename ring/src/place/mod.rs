//! Placement: deals the partitions to the members so that every N is served well by the same list.
//!
//! Wanted, in this order, for the first n of each preference list and for *every* n: distinct nodes; as many distinct
//! zones as there can be; load as even as those two allow; and little movement when members change. Evenness is a
//! property of all lists together, so the whole table is made at once, and *from the back*:
//!
//! 1. `share` says how many vnodes each node should hold at each n: by weight, but no node twice in a partition, and
//!    each zone once before any zone twice.
//! 2. `fill` picks the set of nodes of each partition at the greatest n, and meets those numbers exactly.
//! 3. `peel` takes one node out of each set, n by n, such that the numbers for n - 1 are met; what leaves at n has
//!    rank n. Among all ways to do so `spread` prefers those that mix the nodes well.
//! 4. `even` repairs the few loads that the third step could not meet.
//!
//! From the back, because then the first ranks cannot spoil the later ones. Take the case of as many zones as owners,
//! or of one zone: a set keeps its zones whatever leaves it, and if each node leaves the same fraction of its sets,
//! then every set loses one node on average, whichever nodes it holds. So a fair way to take one out always exists
//! (Tillé's elimination procedure for samples of unequal probability, Biometrika 1996), and a matching finds it in
//! whole numbers, give or take one vnode. Dealing the first owners first, as is more common, has to look ahead: two
//! heavy nodes that must both be in every partition from n = 3 on may find one where light nodes have taken both of
//! the first two places.
//!
//! What comes out, for every n: nodes of equal weight hold their share, rounded up or down, in zones of any sizes. The
//! tests go through all rings of up to nine nodes; of eleven or twelve nodes one table in some thousands is off by one
//! vnode more. Nodes of unequal weight are within two vnodes of it in the tests' rings, and nearly always within one.
//!
//! A change of members fits the same frame: the second step starts from the sets of the previous table, and the third
//! prefers to take out what it took out before. Rejected: CRUSH and rendezvous hashing. They need no table, but at a
//! hundred vnodes each, chance leaves nodes 10 to 20 % off their shares.

mod even;
mod fill;
mod peel;
mod sets;
mod share;
mod spread;
mod stage;

use crate::{Member, NodeIndex};

use sets::Sets;
use share::{Goals, Shares};
use stage::Stage;

/// Rows of `min(members, depth)` nodes, one row for each partition: its preference list.
pub(crate) fn table(partitions: u32, members: &[Member], depth: usize) -> Vec<NodeIndex> {
    let depth = depth.min(members.len());
    let dealt: Vec<(Stage, Sets)> = stage::stages(members, depth)
        .into_iter()
        .map(|stage| {
            let sets = deal(&stage, partitions);
            (stage, sets)
        })
        .collect();
    let mut table = Vec::with_capacity(depth * partitions as usize);
    for p in 0..partitions as usize {
        for (stage, sets) in &dealt {
            table.extend(sets.row(p).iter().map(|&node| stage.nodes[usize::from(node)].member));
        }
    }
    table
}

/// The ranks that one stage deals, as rows of its own node numbers.
fn deal(stage: &Stage, partitions: u32) -> Sets {
    let goals = Goals::new(stage, partitions);
    let mut sets = fill::fill(stage, &goals, partitions);
    for n in (2..=stage.ranks).rev() {
        peel::peel(stage, &goals, &mut sets, n);
    }
    even::even(stage, &goals, &mut sets);
    sets
}

/// The fair share of each member in the first `n` places, in vnodes.
pub(crate) fn shares(partitions: u32, members: &[Member], n: usize) -> Vec<f64> {
    let mut shares = vec![0.0; members.len()];
    for stage in stage::stages(members, n.min(members.len())) {
        let of_stage = Shares::new(&stage, partitions, stage.ranks);
        for (at, node) in stage.nodes.iter().enumerate() {
            shares[node.member.get()] = of_stage.as_f64(at);
        }
    }
    shares
}
