//! Many nodes: what it costs, and how long news take.

use super::net::{CALM, Net, ROUGH};
use crate::gossip::{Effect, Liveness};
use std::collections::BTreeSet;
use std::time::Duration;

/// Frames and bytes that one node sends in a second, when nothing happens but that all have just started.
fn cost(nodes: usize) -> (u64, u64) {
    let mut net = Net::new(nodes, 1, CALM);
    net.run(Duration::from_secs(2));
    (net.weighs, net.frames, net.bytes) = (true, 0, 0);
    net.run(Duration::from_secs(4));
    let seconds = 4 * nodes as u64;
    (net.frames / seconds, net.bytes / seconds)
}

#[test]
fn what_a_node_sends_does_not_grow_with_the_cluster() {
    for nodes in [3, 10, 100, 1000] {
        let (frames, bytes) = cost(nodes);
        println!("{nodes} nodes: {frames} frames and {bytes} bytes a second for each");
        assert!(
            frames <= 20 && bytes <= 2_000,
            "{nodes} nodes: {frames} frames, {bytes} bytes"
        );
    }
}

#[test]
fn a_death_among_a_thousand_is_known_to_all_within_three_seconds() {
    let mut net = Net::new(1000, 1, ROUGH);
    net.run(Duration::from_secs(3));
    net.kill(999);
    net.beliefs.clear();
    let killed = net.now;
    net.run(Duration::from_secs(5));
    let noticed = net.all_believe(999, Liveness::Down).unwrap().since(killed);
    println!("1000 nodes: down everywhere after {noticed:?}");
    assert!(noticed <= Duration::from_secs(3), "{noticed:?}");
    let wrong = net
        .beliefs
        .iter()
        .filter(|b| b.of != 999 && b.liveness == Liveness::Down)
        .count();
    assert_eq!(wrong, 0);
}

#[test]
fn a_new_state_of_the_cluster_is_known_to_all_of_a_thousand_soon() {
    let mut net = Net::new(1000, 1, ROUGH);
    net.run(Duration::from_secs(1));
    net.other.clear();
    let at = net.now;
    net.state(0, 7);
    let mut has: BTreeSet<usize> = [0].into();
    while has.len() < 1000 {
        net.run(Duration::from_millis(10));
        // Who hears of it fetches it at once.
        for (node, effect) in std::mem::take(&mut net.other) {
            if matches!(effect, Effect::Behind(_)) && has.insert(node) {
                net.state(node, 7);
            }
        }
    }
    let took = net.now.since(at);
    println!("1000 nodes: a state of the cluster was everywhere after {took:?}");
    assert!(took <= Duration::from_secs(2), "{took:?}");
}
