//! Nodes that have lost their data directory, until they have read everything again.

use super::asks::{get, is_fetch, is_forward, put, put_under, read, states, with_options, written};
use super::cluster::{Cluster, index};
use crate::engine::Boot;
use crate::engine::rebuild::Knew;
use crate::key::Key;
use crate::place::Place;
use crate::request::{ReplicaState, Reply};
use crate::tree::TreeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// A cluster of three in which the first node's directory was lost after a write.
fn wiped() -> Cluster {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(1, put(1, "a", None)));
    cluster.restart(0, 60, BTreeMap::new());
    cluster.sent.clear();
    cluster
}

/// Exchanges about everything that `node` still has to read from `peer` have ended.
fn read_all(cluster: &mut Cluster, node: usize, peer: usize) {
    let bits = cluster.engines[0].config().ring.partition_ids();
    let n = cluster.engines[0].config().buckets.defaults.n;
    for partition in bits {
        let tree = TreeId { partition, n };
        let engine = &mut cluster.engines[node];
        if engine.needs_source(index(peer), tree) {
            let knew = match engine.is_rebuilding(index(peer)) {
                true => Knew::Nothing,
                false => Knew::All,
            };
            engine.exchanged(index(peer), tree, knew);
        }
    }
    cluster.run();
}

fn own(cluster: &Cluster, node: usize) -> Boot {
    Boot::next(Some(&cluster.disks[node].applied[&Place::Own])).unwrap()
}

#[test]
fn a_node_that_lost_its_data_gives_no_answer_to_reads_until_it_has_read_all_again() {
    let mut cluster = wiped();
    assert_eq!(cluster.engines[0].rebuilding(), (0, 16));
    // Its own reads ask both others.
    let Ok(Reply::Found { replicas, .. }) = cluster.ask(0, get()) else {
        panic!("not found")
    };
    assert_eq!(states(&replicas)[0], ReplicaState::Rebuilding);
    assert_eq!(cluster.sent_to(0, is_fetch).len(), 2);
    assert_eq!(read(cluster.ask(0, get())).0, ["a"]);
    // And what another node asks is refused.
    cluster.isolate(2);
    let failure = super::asks::failed(cluster.ask(1, get()));
    assert_eq!(states(&failure.replicas)[0], ReplicaState::Rebuilding);
    assert!(failure.detail.contains("n1 is rebuilding"), "{failure}");
    cluster.connect(0, 2);
    cluster.connect(1, 2);
    read_all(&mut cluster, 0, 1);
    assert_eq!(
        cluster.engines[0].rebuilding(),
        (0, 16),
        "one of two others is not enough"
    );
    assert!(own(&cluster, 0).is_new);
    read_all(&mut cluster, 0, 2);
    assert_eq!(cluster.engines[0].rebuilding(), (16, 16));
    assert!(!own(&cluster, 0).is_new, "and that is durable");
    assert!(!cluster.engines[1].is_rebuilding(index(0)), "and the others know");
    cluster.crash(0, 61);
    assert_eq!(cluster.engines[0].rebuilding(), (0, 0));
    cluster.assert_idle();
}

#[test]
fn a_node_that_lost_its_data_leaves_writes_to_owners_that_know_more_and_merges_theirs() {
    let mut cluster = wiped();
    let (_, replicas) = written(cluster.ask(0, with_options(put(2, "b", None), |options| options.w = Some(3))));
    assert_eq!(states(&replicas), [ReplicaState::Acked; 3], "its ack counts");
    assert_eq!(cluster.sent_to(0, is_forward).len(), 1);
    cluster.isolate(0);
    cluster.sent.clear();
    // With nobody else there it writes itself.
    written(cluster.ask(0, with_options(put(3, "c", None), |options| options.w = Some(1))));
    cluster.connect(0, 1);
    cluster.connect(0, 2);
    assert_eq!(read(cluster.ask(1, get())).0, ["a", "b", "c"], "what it owed went home");
}

#[test]
fn a_restart_before_all_is_read_begins_again() {
    let mut cluster = wiped();
    read_all(&mut cluster, 0, 1);
    cluster.crash(0, 61);
    assert!(cluster.rebuilds.is_empty());
    assert_eq!(cluster.engines[0].rebuilding(), (0, 16));
    read_all(&mut cluster, 0, 2);
    assert_eq!(cluster.engines[0].rebuilding(), (0, 16));
    read_all(&mut cluster, 0, 1);
    assert_eq!(cluster.engines[0].rebuilding(), (16, 16));
}

#[test]
fn a_peer_that_is_rebuilding_is_no_source_until_it_is_done_unless_nobody_knows_more() {
    let mut cluster = wiped();
    cluster.restart(1, 61, BTreeMap::new());
    assert!(cluster.engines[0].is_rebuilding(index(1)));
    read_all(&mut cluster, 0, 1);
    assert_eq!(cluster.engines[0].rebuilding(), (0, 16));
    read_all(&mut cluster, 0, 2);
    assert_eq!(cluster.engines[0].rebuilding(), (16, 16), "nobody knows more");
    read_all(&mut cluster, 1, 0);
    read_all(&mut cluster, 1, 2);
    assert_eq!(cluster.engines[1].rebuilding(), (16, 16));
}

#[test]
fn a_peer_that_has_rebuilt_is_asked_again() {
    let mut cluster = wiped();
    cluster.restart(1, 61, BTreeMap::new());
    let first = cluster.engines[0].config().ring.partition_ids().next().unwrap();
    let tree = TreeId { partition: first, n: 3 };
    read_all(&mut cluster, 0, 1);
    assert!(!cluster.engines[0].needs_source(index(1), tree));
    read_all(&mut cluster, 1, 0);
    read_all(&mut cluster, 1, 2);
    assert!(cluster.engines[0].needs_source(index(1), tree));
}

#[test]
fn owners_beyond_those_that_are_needed_are_read_too_unless_they_go_or_that_fails() {
    for fails in [false, true] {
        let mut cluster = Cluster::with_bucket(5, |bucket| bucket.n = 5);
        cluster.restart(0, 60, BTreeMap::new());
        (1..4).for_each(|peer| read_all(&mut cluster, 0, peer));
        assert_eq!(cluster.engines[0].rebuilding(), (0, 16));
        match fails {
            true => {
                for partition in cluster.engines[0].config().ring.clone().partition_ids() {
                    cluster.engines[0].source_failed(index(4), TreeId { partition, n: 5 });
                }
            }
            false => cluster.disconnect(0, 4),
        }
        assert_eq!(cluster.engines[0].rebuilding(), (16, 16), "fails: {fails}");
    }
}

#[test]
fn a_cluster_is_born_when_all_have_asked_all_and_a_node_alone_at_once() {
    let mut cluster = Cluster::with(3, |config| {
        config.boot = Boot::next(None).unwrap();
    });
    for node in 0..3 {
        for peer in (0..3).filter(|&peer| peer != node) {
            read_all(&mut cluster, node, peer);
        }
        assert_eq!(cluster.engines[node].rebuilding(), (16, 16));
    }
    written(cluster.ask(0, put(1, "a", None)));
    assert_eq!(read(cluster.ask(1, get())).0, ["a"]);
    let mut alone = Cluster::with(1, |config| {
        config.boot = Boot::next(None).unwrap();
    });
    alone.run();
    assert!(!own(&alone, 0).is_new);
    let once = with_options(put(1, "a", None), |options| options.w = Some(1));
    written(alone.ask(0, once));
}

#[test]
fn the_note_that_all_is_read_is_stored_again_if_the_disk_refuses_it() {
    let mut cluster = wiped();
    read_all(&mut cluster, 0, 1);
    cluster.disks[0].refuses_stores = true;
    read_all(&mut cluster, 0, 2);
    assert!(own(&cluster, 0).is_new);
    cluster.disks[0].refuses_stores = false;
    cluster.advance(Duration::from_secs(2));
    assert!(!own(&cluster, 0).is_new);
    cluster.assert_idle();
}

/// A cluster in which the data of some nodes were set aside at once, and those of `wiped` are just gone.
fn set_aside(nodes: &[usize], wiped: &[usize]) -> Cluster {
    let is_new = |node: usize| nodes.contains(&node) || wiped.contains(&node);
    let mut cluster = Cluster::with(3, |config| {
        let me = usize::from(config.me.0[0] - 1);
        config.limits.exchange = true;
        config.is_replaced = nodes.contains(&me);
        if is_new(me) {
            config.boot = Boot::next(None).unwrap();
        }
    });
    cluster.advance(std::time::Duration::from_secs(100));
    cluster
}

#[test]
fn nodes_whose_data_were_all_set_aside_do_not_go_on_with_nothing() {
    for (aside, wiped) in [(&[0, 1, 2][..], &[][..]), (&[0, 1], &[2]), (&[1], &[0, 2])] {
        let cluster = set_aside(aside, wiped);
        for node in 0..3 {
            assert_eq!(
                cluster.engines[node].rebuilding(),
                (0, 16),
                "node {node} of {aside:?}, {wiped:?}"
            );
        }
    }
}

#[test]
fn one_that_has_not_lost_its_memory_is_enough_for_those_that_have() {
    for (aside, wiped) in [(&[0, 1][..], &[][..]), (&[0], &[2]), (&[1], &[])] {
        let cluster = set_aside(aside, wiped);
        for node in aside.iter().chain(wiped) {
            assert_eq!(
                cluster.engines[*node].rebuilding(),
                (16, 16),
                "node {node} of {aside:?}, {wiped:?}"
            );
        }
    }
}

/// A new cluster, in which exchanges take place.
fn unborn() -> Cluster {
    Cluster::with(3, |config| {
        config.boot = Boot::next(None).unwrap();
        config.limits.exchange = true;
    })
}

#[test]
fn a_new_cluster_is_born_within_a_second_of_its_first_contact_also_under_writes() {
    for late in [false, true] {
        let mut cluster = unborn();
        let mut written_so_far = 0;
        let mut write = |cluster: &mut Cluster, count: u64| {
            for n in written_so_far..written_so_far + count {
                let key = Key::new(b"bucket", format!("key {n}").as_bytes(), None).unwrap();
                written(cluster.ask((n % 2) as usize, put_under(key, n, "a", None)));
            }
            written_so_far += count;
        };
        if late {
            cluster.isolate(2);
            write(&mut cluster, 300);
            cluster.advance(Duration::from_secs(20));
            assert_eq!(cluster.engines[0].rebuilding().0, 0, "the last owner may know more");
            cluster.connect(2, 0);
            cluster.connect(2, 1);
        }
        for _ in 0..20 {
            write(&mut cluster, 10);
            cluster.advance(Duration::from_millis(50));
        }
        assert!(cluster.engines.iter().all(|engine| engine.rebuilding() == (16, 16)));
        // One is lost for good in its first seconds.
        cluster.isolate(2);
        written(cluster.ask(0, put(1_000_000, "b", None)));
        assert_eq!(read(cluster.ask(1, get())).0, ["b"]);
    }
}
