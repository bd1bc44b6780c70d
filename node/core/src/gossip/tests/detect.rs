//! How soon it is noticed that a node is away, and that it is back.

use super::net::{CALM, Net, ROUGH};
use crate::gossip::{Input, Liveness};
use crate::time::Instant;
use std::time::Duration;

const BEFORE: Duration = Duration::from_secs(5);

/// Kills the last of so many nodes; how long until all others call it Down.
fn kill(nodes: usize, seed: u64, ways: super::net::Ways) -> Duration {
    let mut net = Net::new(nodes, seed, ways);
    // At any moment of a round.
    net.run(BEFORE + Duration::from_millis(37 * (seed % 61)));
    net.kill(nodes - 1);
    net.beliefs.clear();
    let killed = net.now;
    net.run(Duration::from_secs(10));
    let noticed = net.all_believe(nodes - 1, Liveness::Down).unwrap();
    assert!(net.is_right(), "{nodes} nodes, seed {seed}");
    noticed.since(killed)
}

/// The longest of many kills, for each number of nodes.
fn longest(ways: super::net::Ways) -> Duration {
    let of = |nodes| {
        let mut took: Vec<Duration> = (0..200).map(|seed| kill(nodes, seed, ways)).collect();
        took.sort_unstable();
        println!(
            "{nodes} nodes: down everywhere after {:?} (median), {:?} (longest)",
            took[100], took[199]
        );
        took[199]
    };
    (2..=9).map(of).max().unwrap()
}

#[test]
fn a_killed_node_is_down_everywhere_within_three_seconds() {
    assert!(longest(CALM) <= Duration::from_secs(3));
}

#[test]
fn so_it_is_on_a_bad_network() {
    assert!(longest(ROUGH) <= Duration::from_secs(3));
}

#[test]
fn both_sides_of_a_silent_partition_see_it_within_five_seconds() {
    for nodes in 2..=9 {
        for seed in 0..100 {
            let mut net = Net::new(nodes, seed, ROUGH);
            net.run(BEFORE + Duration::from_millis(37 * (seed % 61)));
            let minority: Vec<usize> = (0..nodes / 2).collect();
            net.isolate(&minority);
            net.run(Duration::from_secs(5));
            assert!(net.is_right(), "{nodes} nodes, seed {seed}");
            net.cut.clear();
            net.run(Duration::from_secs(3));
            assert!(net.is_right(), "{nodes} nodes, seed {seed}: healed");
        }
    }
}

#[test]
fn a_node_that_lost_its_connection_is_asked_at_once() {
    let mut net = Net::new(3, 1, CALM);
    net.run(BEFORE);
    net.kill(2);
    let killed = net.now;
    for node in [0, 1] {
        net.hand(node, Input::Lost(super::net::id(2)));
    }
    net.run(Duration::from_secs(2));
    let noticed = net.all_believe(2, Liveness::Down).unwrap();
    assert!(
        noticed.since(killed) < Duration::from_millis(1_600),
        "{:?}",
        noticed.since(killed)
    );
}

#[test]
fn a_node_that_starts_again_is_alive_again_whatever_it_remembers() {
    for (seed, incarnation) in [(1, 0), (2, 1), (3, 1 << 20)] {
        let mut net = Net::new(5, seed, ROUGH);
        net.run(BEFORE);
        net.kill(4);
        net.run(BEFORE);
        assert!(net.is_right());
        net.start(4, incarnation);
        net.run(Duration::from_secs(2));
        assert!(net.is_right(), "incarnation {incarnation}");
    }
}

#[test]
fn a_node_that_stops_says_so() {
    let mut net = Net::new(4, 1, CALM);
    net.run(BEFORE);
    net.beliefs.clear();
    let at = net.now;
    net.hand(3, Input::Stop);
    net.run(Duration::from_millis(100));
    let told = net.all_believe(3, Liveness::Left).unwrap();
    assert!(told.since(at) < Duration::from_millis(10));
    assert_eq!(net.gossip(3).poll_timeout(), None);
    net.kill(3);
    net.run(BEFORE);
    assert!((0..3).all(|by| net.sees(by, 3) == Liveness::Left));
    net.start(3, 2);
    net.run(Duration::from_secs(1));
    assert!(net.is_right());
}

#[test]
fn a_paused_node_is_down_and_accuses_nobody_when_it_goes_on() {
    for seed in 0..50 {
        let mut net = Net::new(4, seed, ROUGH);
        net.run(BEFORE + Duration::from_millis(37 * seed));
        net.pause(3);
        net.run(BEFORE);
        assert!((0..3).all(|by| net.sees(by, 3) == Liveness::Down));
        net.beliefs.clear();
        net.resume(3);
        net.run(Duration::from_secs(5));
        assert!(net.is_right(), "seed {seed}");
        let wrong = net.beliefs.iter().find(|b| b.by == 3 && b.liveness == Liveness::Down);
        assert_eq!(wrong, None, "seed {seed}");
    }
}

#[test]
fn equal_seeds_give_equal_frames() {
    let run = |seed| {
        let mut net = Net::new(5, seed, ROUGH);
        net.run(BEFORE);
        net.kill(2);
        net.run(BEFORE);
        (net.frames, net.beliefs)
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
    assert_ne!(run(3).1[0].at, Instant(0));
}
