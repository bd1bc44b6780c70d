//! How many vnodes each node should hold when every partition has n owners: the ideal, and the same in whole vnodes.
//!
//! Picture the nodes as vessels as wide as their weight, and n times Q vnodes poured over them at one level: that is a
//! fair share by weight. Two rules bend it. A node holds no partition twice, so a vessel is full at Q. And zones come
//! first: up to as many owners as there are zones, each owner is in a zone of its own, so a *zone* is full at Q;
//! beyond that, each partition has an owner in every zone, so a zone holds *at least* Q, however light it is. What a
//! rule takes from one node goes to the level of the others. As n grows no node's share ever falls, so one list can
//! serve every n.
//!
//! Shares are fixed-point numbers with 32 bits after the point: whole where the exact share is whole, and the same on
//! every machine. Rejected: floating point, where a share of exactly Q may come out a hair below it, and a node that
//! must be in every partition is missing from one.

use std::ops::RangeInclusive;

use super::stage::{Stage, Zone};

/// Bits after the point of a share.
const POINT: u32 = 32;

/// One vnode as a share.
pub(crate) const ONE: i64 = 1 << POINT;

/// The fair shares for one n.
pub(crate) struct Shares {
    /// Vnodes of each node of the stage, fixed-point.
    pub(crate) nodes: Vec<u64>,
    /// Vnodes of each zone of the stage, fixed-point. Not the rounded nodes' sum, but exact.
    zones: Vec<u64>,
    /// Q.
    partitions: u32,
    /// What all shares add up to: n times Q.
    total: u32,
}

/// The fair shares for every n of a stage.
pub(crate) struct Goals {
    /// The shares for n = 0, 1, … up to the stage's ranks.
    by_n: Vec<Shares>,
    /// For each zone the greatest n at which it is settled: it holds each partition once, or not at all if it was
    /// covered before.
    settled: Vec<usize>,
}

impl Goals {
    /// The shares of all ranks of the stage.
    pub(crate) fn new(stage: &Stage, partitions: u32) -> Goals {
        let by_n: Vec<Shares> = (0..=stage.ranks).map(|n| Shares::new(stage, partitions, n)).collect();
        let settled_at = |zone: usize, n: usize| {
            let vnodes = if stage.zones[zone].covered {
                0
            } else {
                u64::from(partitions)
            };
            n >= stage.new_zones && by_n[n].zones[zone] == vnodes << POINT
        };
        let settled = |zone| {
            (0..=stage.ranks)
                .rev()
                .find(|&n| settled_at(zone, n))
                .unwrap_or(stage.new_zones)
        };
        let settled = (0..stage.zones.len()).map(settled).collect();
        Goals { by_n, settled }
    }

    /// The shares in the first `n` ranks.
    pub(crate) fn at(&self, n: usize) -> &Shares {
        &self.by_n[n]
    }

    /// Until which n a zone needs no second node in a set, nor any if it was covered before. At least the number of
    /// new zones.
    pub(crate) fn settled(&self, zone: usize) -> usize {
        self.settled[zone]
    }
}

/// Vnodes per unit of weight, as a fraction. `per` is 0 for a level above every vessel.
#[derive(Clone, Copy)]
struct Level {
    of: u64,
    per: u64,
}

impl Level {
    /// The vnodes of a node of this weight, fixed-point.
    fn of_weight(self, weight: u64) -> u64 {
        if self.per == 0 {
            return u64::MAX;
        }
        let share = ((u128::from(self.of) * u128::from(weight)) << POINT) / u128::from(self.per);
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

impl Shares {
    /// The shares of the stage's nodes in the first `n` of its ranks.
    pub(crate) fn new(stage: &Stage, partitions: u32, n: usize) -> Shares {
        let full = u64::from(partitions) << POINT;
        let total = partitions * u32::try_from(n).expect("a stage has at most sixteen ranks");
        let mut shares = Shares {
            nodes: vec![0; stage.nodes.len()],
            zones: vec![0; stage.zones.len()],
            partitions,
            total,
        };
        let zones_fill = n <= stage.new_zones;
        let level = if zones_fill {
            level_below(stage, partitions, n)
        } else {
            level_beyond(stage, partitions, n)
        };
        for (at, zone) in stage.zones.iter().enumerate() {
            let once = Level {
                of: u64::from(partitions),
                per: zone.weight,
            };
            let share = |weight: u64| match (zones_fill, zone.covered) {
                (true, true) => 0,
                (true, false) => level.of_weight(weight).min(once.of_weight(weight)),
                (false, true) => level.of_weight(weight).min(full),
                (false, false) => level.of_weight(weight).max(once.of_weight(weight)).min(full),
            };
            for node in zone.nodes.clone() {
                shares.nodes[node] = share(stage.nodes[node].weight);
            }
            shares.zones[at] = if zones_fill {
                share(zone.weight)
            } else {
                zone_share(stage, zone, level, full)
            };
        }
        shares
    }

    /// The shares in whole vnodes: each rounded down or up, such that the sums of the zones and of all are right as
    /// well. No node is given more than its entry in `caps`, which may bend the rounding.
    pub(crate) fn whole(&self, stage: &Stage, caps: &[u32]) -> Vec<u32> {
        let zone_caps: Vec<u32> = stage
            .zones
            .iter()
            .map(|zone| caps[zone.nodes.clone()].iter().sum())
            .collect();
        let zones = round(&self.zones, &zone_caps, self.total);
        let mut whole = Vec::with_capacity(caps.len());
        for (zone, total) in stage.zones.iter().zip(zones) {
            whole.extend(round(&self.nodes[zone.nodes.clone()], &caps[zone.nodes.clone()], total));
        }
        whole
    }

    /// How many nodes of a zone are in a set, if they are spread over the sets as evenly as can be.
    pub(crate) fn per_set(&self, zone: usize) -> RangeInclusive<usize> {
        let full = u64::from(self.partitions) << POINT;
        let sets = |count: u64| usize::try_from(count).expect("a set has at most sixteen nodes");
        sets(self.zones[zone] / full)..=sets(self.zones[zone].div_ceil(full))
    }

    /// A node's share as a number to show. Exact: shares have at most 48 bits.
    pub(crate) fn as_f64(&self, node: usize) -> f64 {
        self.nodes[node] as f64 / (1u64 << POINT) as f64
    }

    /// How much a node with `vnodes` has above its share, fixed-point; negative if it has less.
    pub(crate) fn above(&self, node: usize, vnodes: usize) -> i64 {
        ((vnodes as u64) << POINT).cast_signed() - self.nodes[node].cast_signed()
    }
}

fn floor(share: u64) -> u32 {
    u32::try_from(share >> POINT).expect("a share is at most the partitions times sixteen")
}

/// The share of a new zone when n is beyond the zones: its full nodes, and the others at the level; at least Q.
fn zone_share(stage: &Stage, zone: &Zone, level: Level, full: u64) -> u64 {
    let (mut sum, mut unfilled) = (0, 0);
    for node in &stage.nodes[zone.nodes.clone()] {
        if level.of_weight(node.weight) >= full {
            sum += full;
        } else {
            unfilled += node.weight;
        }
    }
    // With all nodes full the level may be infinite, and an infinity of nothing is nothing.
    let rest = if unfilled == 0 { 0 } else { level.of_weight(unfilled) };
    if zone.covered {
        sum + rest
    } else {
        (sum + rest).max(full)
    }
}

/// The level while no zone may hold more than Q: fill zones from the heaviest, until the rest stays below Q.
fn level_below(stage: &Stage, partitions: u32, n: usize) -> Level {
    let mut weights: Vec<u64> = stage
        .zones
        .iter()
        .filter(|zone| !zone.covered)
        .map(|zone| zone.weight)
        .collect();
    weights.sort_unstable_by(|a, b| b.cmp(a));
    let mut left = n as u64;
    let mut rest: u64 = weights.iter().sum();
    for weight in weights {
        if left * weight < rest {
            break;
        }
        left -= 1;
        rest -= weight;
    }
    Level {
        of: left * u64::from(partitions),
        per: rest,
    }
}

/// The level while each new zone holds at least Q and each node at most Q.
///
/// As the level rises, a zone starts to rise with it when the level reaches Q / its weight, and a node stops at Q /
/// its own weight. Both are met in order of falling weight, and a zone before its only node.
fn level_beyond(stage: &Stage, partitions: u32, n: usize) -> Level {
    let rising = stage
        .zones
        .iter()
        .filter(|zone| !zone.covered)
        .map(|zone| (zone.weight, true));
    let stopping = stage.nodes.iter().map(|node| (node.weight, false));
    let mut events: Vec<(u64, bool)> = rising.chain(stopping).collect();
    events.sort_unstable_by(|a, b| b.cmp(a));
    // Vnodes are `still` times Q, plus `rest` at the level.
    let mut still = stage.new_zones as u64;
    let mut rest: u64 = stage
        .zones
        .iter()
        .filter(|zone| zone.covered)
        .map(|zone| zone.weight)
        .sum();
    for (weight, rises) in events {
        if rest > 0 && (n as u64 - still) * weight <= rest {
            break;
        }
        if rises {
            still -= 1;
            rest += weight;
        } else {
            still += 1;
            rest -= weight;
        }
    }
    Level {
        of: (n as u64 - still) * u64::from(partitions),
        per: rest,
    }
}

/// Rounds to whole numbers with the sum `total`: the greatest fractions go up. `caps` go before fractions.
fn round(shares: &[u64], caps: &[u32], total: u32) -> Vec<u32> {
    let mut whole: Vec<u32> = shares
        .iter()
        .zip(caps)
        .map(|(&share, &cap)| floor(share).min(cap))
        .collect();
    let mut left = total.saturating_sub(whole.iter().sum());
    let mut order: Vec<usize> = (0..shares.len()).collect();
    // First those rounded down by the most; where a cap leaves more to give, the same order again.
    order.sort_by_key(|&at| std::cmp::Reverse(shares[at].saturating_sub(u64::from(whole[at]) << POINT)));
    while left > 0 {
        let before = left;
        for &at in &order {
            if left > 0 && whole[at] < caps[at] {
                whole[at] += 1;
                left -= 1;
            }
        }
        assert!(left < before, "the caps leave room for the total");
    }
    whole
}
