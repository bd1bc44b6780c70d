//! A node that hangs while its connection lives is routed round, and found again when it is back.

use super::asks::{get, get_with, is_fetch, put, read, written};
use super::cluster::{Cluster, index};
use crate::engine::PeerHealth;
use crate::request::ReadOptions;
use std::time::Duration;

const SLOW: Duration = Duration::from_millis(100);

/// Three nodes; node 1 hangs, and node 0 has found out.
fn one_hangs() -> Cluster {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.hold(0, 1);
    (0..2).for_each(|_| drop(read(cluster.wait(0, get()))));
    cluster.advance(SLOW);
    assert!(
        cluster.engines[0].peer_health(index(1)).slow,
        "no request is needed to tell"
    );
    cluster.sent.clear();
    cluster
}

#[test]
fn a_node_that_hangs_is_routed_round_within_100_ms() {
    let mut cluster = one_hangs();
    let start = cluster.now;
    for _ in 0..10 {
        read(cluster.wait(0, get()));
    }
    assert_eq!(cluster.now, start, "nobody waited for it");
    assert_eq!(cluster.engines[0].counters().peers_slowed, 1);
}

#[test]
fn a_read_that_moved_on_after_20_ms_does_not_make_a_node_slow() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.hold(1, 0);
    (0..2).for_each(|_| drop(read(cluster.wait(0, get()))));
    assert_eq!(cluster.engines[0].counters().hedged, 1);
    cluster.release(1, 0);
    cluster.advance(SLOW);
    assert_eq!(cluster.engines[0].counters().peers_slowed, 0);
}

#[test]
fn a_slow_node_is_probed_beside_those_that_are_needed_and_welcome_when_it_is_quick() {
    let mut cluster = one_hangs();
    cluster.advance(SLOW);
    let start = cluster.now;
    for _ in 0..5 {
        read(cluster.wait(0, get()));
    }
    assert_eq!(cluster.now, start);
    let probes = |cluster: &Cluster| cluster.sent_to(0, is_fetch).iter().filter(|&&to| to == 1).count();
    assert_eq!(probes(&cluster), 1, "one at a time");
    cluster.advance(Duration::from_millis(150));
    read(cluster.wait(0, get()));
    assert_eq!(probes(&cluster), 1, "the pause has doubled");
    // It is back. What it owed is answered too late to say that it is quick.
    cluster.release(0, 1);
    assert!(cluster.engines[0].peer_health(index(1)).slow);
    cluster.advance(Duration::from_millis(50));
    read(cluster.wait(0, get()));
    assert_eq!(probes(&cluster), 2);
    assert!(!cluster.engines[0].peer_health(index(1)).slow);
    cluster.sent.clear();
    (0..4).for_each(|_| drop(read(cluster.ask(0, get()))));
    assert_eq!(probes(&cluster), 2, "it takes its turn again");
    cluster.assert_idle();
}

#[test]
fn a_slow_node_is_asked_if_the_quorum_needs_it() {
    let mut cluster = one_hangs();
    cluster.release(0, 1);
    let all = ReadOptions {
        r: Some(3),
        ..ReadOptions::default()
    };
    assert_eq!(read(cluster.ask(0, get_with(all))).0, ["a"]);
    assert!(!cluster.engines[0].peer_health(index(1)).slow);
}

#[test]
fn a_node_whose_disk_is_slow_to_sync_is_found_by_writes() {
    let mut cluster = Cluster::new(3);
    cluster.disks[1].holds_syncs = true;
    written(cluster.ask(0, put(1, "a", None)));
    cluster.advance(SLOW);
    assert!(cluster.engines[0].peer_health(index(1)).slow);
    assert!(!cluster.engines[0].peer_health(index(2)).slow);
    cluster.release_syncs(1);
    cluster.advance(SLOW);
    written(cluster.ask(0, put(2, "b", None)));
    assert!(!cluster.engines[0].peer_health(index(1)).slow, "a quick ack closes it");
}

#[test]
fn how_a_node_is_doing_can_be_asked() {
    let mut cluster = Cluster::new(3);
    let health = |cluster: &Cluster| cluster.engines[0].peer_health(index(1));
    let expected = PeerHealth {
        up: true,
        slow: false,
        probe_at: None,
        answer_us: 0,
    };
    assert_eq!(health(&cluster), expected);
    cluster.hold(1, 0);
    (0..2).for_each(|_| drop(read(cluster.wait(0, get()))));
    cluster.release(1, 0);
    assert_eq!(health(&cluster).answer_us, 20_000);
    cluster.disconnect(0, 1);
    assert!(!health(&cluster).up);
}
