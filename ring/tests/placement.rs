//! What placement promises, over many rings: distinct nodes, then zones, then even load, then the rest.
//!
//! Random rings come from a fixed seed: loads of unequal nodes have no proven bound, and a test that fails once in a
//! million rings, on a day when nobody touched the ring, would be worse than none. Where a bound is exact the tests go
//! through *all* rings up to a size instead.

#![allow(clippy::unwrap_used)]

mod common;

use common::{distinct, equal_members, every_n, fair_shares, lists, member, ring, worst_distance, zones_of};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use quorate_ring::{DEPTH, Member, Ring, RingVersion};

/// 1 to 12 members with these weights in up to 6 zones.
fn members(weights: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = Vec<Member>> {
    vec((0..6usize, weights), 1..=12).prop_map(|list| {
        let numbered = list.into_iter().enumerate();
        numbered
            .map(|(number, (zone, weight))| member(number, zone, weight))
            .collect()
    })
}

fn fixed_seed(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(14),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// All ways to give `nodes` equal members to zones, as the zones' sizes in order.
fn zone_sizes(nodes: usize) -> Vec<Vec<usize>> {
    if nodes == 0 {
        return vec![Vec::new()];
    }
    let with_first = |first: usize| {
        zone_sizes(nodes - first)
            .into_iter()
            .map(move |rest| [vec![first], rest].concat())
    };
    (1..=nodes).flat_map(with_first).collect()
}

fn members_in_zones(sizes: &[usize]) -> Vec<Member> {
    let zones = sizes
        .iter()
        .enumerate()
        .flat_map(|(zone, &size)| std::iter::repeat_n(zone, size));
    zones
        .enumerate()
        .map(|(number, zone)| member(number, zone, 1))
        .collect()
}

proptest! {
    #![proptest_config(fixed_seed(2000))]

    #[test]
    fn every_list_holds_every_member_once(members in members(0..=10), bits in 0..=8u8) {
        let ring = ring(bits, members);
        for p in ring.partition_ids() {
            prop_assert_eq!(ring.preference_list(p).len(), ring.members().len());
            prop_assert_eq!(distinct(ring.preference_list(p).iter()), ring.members().len());
        }
    }

    #[test]
    fn the_first_n_are_in_as_many_zones_as_possible(members in members(0..=10), bits in 0..=8u8) {
        let ring = ring(bits, members);
        let all_zones = distinct(ring.members().iter().map(|member| &member.zone));
        let loaded = ring.members().iter().filter(|member| member.weight > 0);
        let (loaded, loaded_zones) = (loaded.clone().count(), distinct(loaded.map(|member| &member.zone)));
        for (p, n) in ring.partition_ids().flat_map(|p| every_n(&ring).map(move |n| (p, n))) {
            // Members of weight 0 stand behind all others, even where one of them has a zone of its own.
            let behind = usize::from(n).saturating_sub(loaded);
            let most = (loaded_zones.min(usize::from(n)) + behind).min(all_zones);
            prop_assert_eq!(zones_of(&ring, p, n), most);
        }
    }

    #[test]
    fn members_of_weight_zero_come_last(members in members(0..=2), bits in 0..=8u8) {
        let ring = ring(bits, members);
        for p in ring.partition_ids() {
            let idle: Vec<bool> = ring.preference_list(p).iter().map(|&node| ring.member(node).weight == 0).collect();
            prop_assert!(idle.is_sorted());
        }
    }

    #[test]
    fn unequal_nodes_hold_their_shares_within_two_vnodes(members in members(0..=10), bits in 0..=8u8) {
        prop_assert!(worst_distance(&ring(bits, members)) <= 2.01);
    }

    #[test]
    fn equal_nodes_in_any_zones_hold_their_shares_within_about_one_vnode(members in members(1..=1), bits in 0..=8u8) {
        prop_assert!(worst_distance(&ring(bits, members)) < 1.2);
    }

    #[test]
    fn the_published_shares_are_those_of_the_promise(members in members(0..=10), bits in 0..=8u8) {
        let ring = ring(bits, members);
        for n in every_n(&ring) {
            for (published, fair) in ring.fair_shares(n).into_iter().zip(fair_shares(&ring, n)) {
                prop_assert!((published - fair).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(
        (sorted, shuffled) in members(0..=10).prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        bits in 0..=8u8,
    ) {
        let (sorted, shuffled) = (ring(bits, sorted), ring(bits, shuffled));
        prop_assert_eq!(lists(&sorted), lists(&shuffled));
        prop_assert_eq!(sorted.digest(), shuffled.digest());
        prop_assert_eq!(sorted, shuffled);
    }
}

/// Names of members and zones only order them, so these are all rings of equal nodes up to this size.
#[test]
fn equal_nodes_hold_their_shares_rounded_in_every_ring_of_up_to_nine() {
    for sizes in (1..=9).flat_map(zone_sizes) {
        for bits in 0..=8 {
            let worst = worst_distance(&ring(bits, members_in_zones(&sizes)));
            assert!(worst < 1.0, "zones of {sizes:?}, {bits} bits: {worst}");
        }
    }
}

#[test]
fn equal_zones_differ_by_at_most_one_vnode_at_every_n() {
    let shapes = (1..=8).flat_map(|zones| (1..=24 / zones).map(move |size| (zones, size)));
    for (zones, size) in shapes {
        for bits in (0..=9).filter(|&bits| 1 << bits >= zones * size) {
            let ring = ring(bits, equal_members(zones * size, zones));
            for n in every_n(&ring) {
                let held = ring.ownership(n);
                let range = held.iter().max().unwrap() - held.iter().min().unwrap();
                assert!(range <= 1, "{zones} zones of {size}, {bits} bits, n = {n}: {held:?}");
            }
        }
    }
}

/// The most that the death of one node adds to another one's part as first owner, as a factor.
fn greatest_inheritance(ring: &Ring) -> f64 {
    let before = ring.ownership(1);
    let nodes = 0..ring.members().len();
    let factor = |dead: usize| {
        let mut first_alive = vec![0u32; nodes.len()];
        for p in ring.partition_ids() {
            let first = ring.owners(p, 3).iter().find(|node| node.get() != dead).unwrap();
            first_alive[first.get()] += 1;
        }
        let factors = first_alive
            .into_iter()
            .zip(&before)
            .map(|(after, &before)| f64::from(after) / f64::from(before));
        factors.fold(0.0, f64::max)
    };
    nodes.clone().map(factor).fold(0.0, f64::max)
}

#[test]
fn a_dead_nodes_load_is_spread_over_all_others() {
    // Each of five others should take over a fifth: 1.20. What is above is rounding, as these are few vnodes each.
    for (bits, most) in [(6, 1.31), (7, 1.25), (8, 1.22), (10, 1.21), (12, 1.205)] {
        let factor = greatest_inheritance(&ring(bits, equal_members(6, 1)));
        assert!(factor < most, "six nodes, {bits} bits: {factor}");
    }
    // In three zones of two, only four others may be second: 1.25.
    let factor = greatest_inheritance(&ring(8, equal_members(6, 3)));
    assert!(factor < 1.27, "six nodes in three zones: {factor}");
    for nodes in 3..=24 {
        let factor = greatest_inheritance(&ring(11, equal_members(nodes, 1)));
        let fair = 1.0 + 1.0 / (nodes as f64 - 1.0);
        assert!(factor < fair + 0.06, "{nodes} nodes: {factor}");
    }
}

#[test]
fn fewer_nodes_than_n_serve_with_what_there_is() {
    let ring = ring(4, equal_members(2, 1));
    for p in ring.partition_ids() {
        assert_eq!(ring.owners(p, 3).len(), 2);
        assert_eq!(ring.owners(p, 3), ring.preference_list(p));
        assert_eq!(ring.owners(p, 0), []);
    }
    assert_eq!(ring.ownership(3), [16, 16]);
    assert_eq!(ring.fair_shares(3), [16.0, 16.0]);
}

#[test]
fn one_node_holds_everything_whatever_its_weight() {
    for weight in [0, 1, u32::MAX] {
        let ring = ring(5, vec![member(7, 0, weight)]);
        assert_eq!(ring.ownership(1), [32]);
    }
}

#[test]
fn extreme_weights_are_served_without_overflow() {
    let weights = [u32::MAX, u32::MAX, 1, u32::MAX, 0, 1];
    let members = weights
        .into_iter()
        .enumerate()
        .map(|(number, weight)| member(number, number % 4, weight));
    for bits in [0, 1, 16] {
        assert!(worst_distance(&ring(bits, members.clone().collect())) <= 2.01);
    }
}

#[test]
fn names_and_addresses_do_not_move_data() {
    let before = equal_members(5, 2);
    let mut after = before.clone();
    for member in &mut after {
        member.name.push_str(".example");
        member.quic = "elsewhere:1".to_owned();
        member.http = "elsewhere:2".to_owned();
    }
    let (before, after) = (ring(6, before), ring(6, after));
    assert_eq!(lists(&before), lists(&after));
    assert_ne!(before.digest(), after.digest());
}

#[test]
fn the_largest_ring_is_even_and_keeps_the_first_entries_of_its_lists() {
    for zones in [3, 1000] {
        let ring = ring(16, equal_members(1000, zones));
        assert_eq!(ring.depth(), DEPTH);
        for n in every_n(&ring) {
            let shares = ring.fair_shares(n).into_iter().zip(ring.ownership(n));
            assert!(
                shares
                    .into_iter()
                    .all(|(fair, held)| (f64::from(held) - fair).abs() < 1.0)
            );
        }
        let n = u8::try_from(zones.min(DEPTH)).unwrap();
        assert!(ring.partition_ids().all(|p| zones_of(&ring, p, n) == usize::from(n)));
        assert_eq!(ring.owners(quorate_ring::PartitionId(0), 200).len(), DEPTH);
    }
}

/// Every node computes the table by itself. If this fails, two builds would disagree on who owns what: a new table may
/// only come with a new ring version that every member understands.
#[test]
fn tables_are_the_same_in_every_build() {
    let digest = |bits, members| Ring::new(RingVersion(3), bits, members).unwrap().digest();
    let weighted = (0..7).map(|number| member(number, number % 3, number as u32)).collect();
    assert_eq!(format!("{:016x}", digest(8, equal_members(5, 1))), "a498080865795332");
    assert_eq!(format!("{:016x}", digest(7, weighted)), "a614077ed10cbf0c");
    assert_eq!(format!("{:016x}", digest(6, equal_members(40, 4))), "fdd5ee0e49cf26d1");
}
