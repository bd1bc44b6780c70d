//! Lists of members for the tests, and how a list should be served, computed another way than the crate does.

#![allow(dead_code, unreachable_pub, missing_docs)]

use quorate_ring::{Member, NodeId, NodeIndex, PartitionId, Ring, RingVersion};

/// A member by number; its zone by number; its weight.
pub fn member(number: usize, zone: usize, weight: u32) -> Member {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&(number as u64).to_be_bytes());
    Member {
        id: NodeId(id),
        name: format!("node-{number}"),
        zone: format!("zone-{zone:04}"),
        weight,
        quic: format!("10.0.0.{number}:7000"),
        http: String::new(),
    }
}

/// `nodes` members of weight 1, dealt to `zones` zones in turn.
pub fn equal_members(nodes: usize, zones: usize) -> Vec<Member> {
    (0..nodes).map(|number| member(number, number % zones, 1)).collect()
}

pub fn ring(bits: u8, members: Vec<Member>) -> Ring {
    Ring::new(RingVersion(1), bits, members).expect("the tests' members are in order")
}

/// All lists, for comparing whole tables.
pub fn lists(ring: &Ring) -> Vec<Vec<NodeIndex>> {
    ring.partition_ids().map(|p| ring.preference_list(p).to_vec()).collect()
}

/// Every n that a ring can serve.
pub fn every_n(ring: &Ring) -> std::ops::RangeInclusive<u8> {
    1..=u8::try_from(ring.depth()).expect("lists have at most sixteen entries")
}

/// In how many zones the first `n` owners of a partition are.
pub fn zones_of(ring: &Ring, p: PartitionId, n: u8) -> usize {
    distinct(ring.owners(p, n).iter().map(|&node| &ring.member(node).zone))
}

/// How many different values there are.
pub fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> usize {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.dedup();
    values.len()
}

/// The greatest distance of any node, at any n, between the vnodes that it holds and its fair share.
pub fn worst_distance(ring: &Ring) -> f64 {
    let distance = |n| {
        let shares = fair_shares(ring, n);
        let distances = ring
            .ownership(n)
            .into_iter()
            .zip(shares)
            .map(|(held, fair)| (f64::from(held) - fair).abs());
        distances.fold(0.0, f64::max)
    };
    every_n(ring).map(distance).fold(0.0, f64::max)
}

/// Fair shares by bisection: pour until n times Q vnodes are in the nodes. Written from the promise, in floating
/// point.
pub fn fair_shares(ring: &Ring, n: u8) -> Vec<f64> {
    let members = ring.members();
    let loaded: Vec<usize> = (0..members.len()).filter(|&at| members[at].weight > 0).collect();
    let spare: Vec<usize> = (0..members.len()).filter(|&at| members[at].weight == 0).collect();
    let mut shares = vec![0.0; members.len()];
    let in_first = usize::from(n).min(loaded.len());
    pour(ring, &loaded, &[], in_first, &mut shares);
    pour(ring, &spare, &loaded, usize::from(n) - in_first, &mut shares);
    shares
}

/// Pours `n` times Q vnodes over `nodes`, where the zones of the nodes `before` are already in every partition.
fn pour(ring: &Ring, nodes: &[usize], before: &[usize], n: usize, shares: &mut [f64]) {
    let vessels = vessels(ring, nodes, before);
    let q = f64::from(ring.partitions());
    let new_zones = distinct(
        vessels
            .iter()
            .filter(|vessel| !vessel.covered)
            .map(|vessel| vessel.zone),
    );
    let share = |vessel: &Vessel, level: f64| {
        let once = q / vessel.zone_weight;
        match (n <= new_zones, vessel.covered) {
            (true, true) => 0.0,
            (true, false) => vessel.weight * level.min(once),
            (false, true) => (vessel.weight * level).min(q),
            (false, false) => (vessel.weight * level.max(once)).min(q),
        }
    };
    let (mut low, mut high) = (0.0, q);
    for _ in 0..90 {
        let middle = (low + high) / 2.0;
        let poured: f64 = vessels.iter().map(|vessel| share(vessel, middle)).sum();
        if poured < n as f64 * q {
            low = middle
        } else {
            high = middle
        }
    }
    for (&node, vessel) in nodes.iter().zip(&vessels) {
        shares[node] = share(vessel, high);
    }
}

struct Vessel<'a> {
    zone: &'a str,
    weight: f64,
    zone_weight: f64,
    covered: bool,
}

fn vessels<'a>(ring: &'a Ring, nodes: &[usize], before: &[usize]) -> Vec<Vessel<'a>> {
    let members = ring.members();
    let weight = |node: usize| f64::from(members[node].weight.max(1));
    let zone = |node: usize| members[node].zone.as_str();
    let vessel = |&node: &usize| Vessel {
        zone: zone(node),
        weight: weight(node),
        zone_weight: nodes
            .iter()
            .filter(|&&other| zone(other) == zone(node))
            .map(|&other| weight(other))
            .sum(),
        covered: before.iter().any(|&other| zone(other) == zone(node)),
    };
    nodes.iter().map(vessel).collect()
}
