//! Records that are found corrupt.

use super::asks::{failed, get, is_forward, key, put, read, states, texts, with_options, written};
use super::cluster::{Cluster, index};
use crate::engine::Input;
use crate::message::PeerMessage;
use crate::place::Place;
use crate::request::ReplicaState;
use std::time::Duration;

/// A cluster of three in which the key's record has become corrupt on these nodes.
fn damaged(nodes: &[usize]) -> Cluster {
    let mut cluster = Cluster::new(3);
    let all = with_options(put(1, "a", None), |options| options.w = Some(3));
    written(cluster.ask(1, all));
    for &node in nodes {
        cluster.disks[node].corrupt.insert(Place::Record(key()));
    }
    cluster.sent.clear();
    cluster
}

fn is_pull(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Pull(_))
}

/// The record is whole again on every node, and nothing goes on.
#[track_caller]
fn assert_healed(cluster: &Cluster, values: &[&str]) {
    for node in 0..3 {
        assert_eq!(texts(&cluster.record(node)), values, "node {node}");
        assert_eq!(cluster.engines[node].healing(), 0, "node {node}");
        assert_ne!(cluster.record_bytes(node)[0], 254, "node {node}");
    }
    cluster.assert_idle();
}

#[test]
fn a_corrupt_record_is_set_aside_and_read_again_from_the_others() {
    let mut cluster = damaged(&[0]);
    assert_eq!(read(cluster.ask(0, get())).0, ["a"], "the two others answered");
    assert_eq!(cluster.disks[0].aside, [Place::Record(key())]);
    assert_healed(&cluster, &["a"]);
    let counters = cluster.engines[0].counters();
    assert_eq!((counters.corrupt_records, counters.healed_records), (1, 1));
    assert_eq!(cluster.sent_to(0, is_pull).len(), 2);
    written(cluster.ask(0, put(2, "b", None)));
    assert_eq!(read(cluster.ask(1, get())).0, ["a", "b"]);
}

#[test]
fn until_it_is_whole_an_owner_answers_no_read_and_coordinates_no_write_of_it() {
    let mut cluster = damaged(&[0]);
    cluster.hold(1, 0);
    let from = index(2);
    cluster.input(0, Input::PeerDown(from));
    cluster.lose(1, 0);
    let failure = failed(cluster.ask(0, get()));
    assert_eq!(states(&failure.replicas)[0], ReplicaState::ReadFailed);
    // It merges what others coordinate, and that counts.
    let all = with_options(put(3, "c", None), |options| options.w = Some(3));
    let (_, replicas) = written(cluster.ask(1, all));
    assert_eq!(states(&replicas), [ReplicaState::Acked; 3]);
    assert_eq!(cluster.record_bytes(0)[0], 254);
    // It passes on what it is asked to write.
    let written_there = cluster.sent_to(0, is_forward).len();
    cluster.ask(0, put(4, "d", None)).unwrap();
    assert_eq!(cluster.sent_to(0, is_forward).len(), written_there + 1);
    cluster.input(0, Input::PeerUp(from));
    cluster.input(2, Input::PeerDown(index(0)));
    cluster.input(2, Input::PeerUp(index(0)));
    cluster.advance(Duration::from_secs(5));
    assert_healed(&cluster, &["a", "c", "d"]);
}

#[test]
fn a_record_that_is_corrupt_at_all_owners_is_whole_with_what_each_has_since() {
    let mut cluster = damaged(&[0, 1]);
    let one = with_options(put(2, "b", None), |options| options.w = Some(3));
    (0..2).for_each(|node| _ = cluster.ask(node, get()));
    written(cluster.ask(2, one));
    cluster.advance(Duration::from_secs(5));
    assert_healed(&cluster, &["a", "b"]);

    let mut cluster = damaged(&[0, 1, 2]);
    (0..3).for_each(|node| _ = cluster.ask(node, get()));
    cluster.advance(Duration::from_secs(5));
    assert!((0..3).all(|node| cluster.engines[node].healing() == 0));
    // It is gone, and was set aside for people to look at.
    written(cluster.ask(0, put(3, "c", None)));
    cluster.advance(Duration::from_secs(5));
    assert_healed(&cluster, &["c"]);
}

#[test]
fn an_incomplete_record_is_found_again_after_a_restart() {
    let mut cluster = damaged(&[0]);
    (1..3).for_each(|peer| cluster.hold(peer, 0));
    cluster.begin(0, get());
    cluster.crash(0, 50);
    assert_eq!(cluster.record_bytes(0)[0], 254);
    assert_eq!(cluster.engines[0].healing(), 0);
    assert_eq!(read(cluster.ask(0, get())).0, ["a"]);
    assert_healed(&cluster, &["a"]);
}

#[test]
fn those_that_do_not_answer_are_asked_again() {
    let mut cluster = damaged(&[0]);
    (1..3).for_each(|peer| cluster.disks[peer].fails_loads = true);
    failed(cluster.ask(0, get()));
    assert_eq!(cluster.engines[0].healing(), 1);
    cluster.advance(Duration::from_secs(3));
    let asked = cluster.sent_to(0, is_pull).len();
    assert!((4..10).contains(&asked), "{asked}");
    (1..3).for_each(|peer| cluster.disks[peer].fails_loads = false);
    cluster.advance(Duration::from_secs(10));
    assert_healed(&cluster, &["a"]);
}

#[test]
fn a_corrupt_record_on_a_disk_that_takes_no_writes_waits() {
    let mut cluster = damaged(&[0]);
    cluster.disks[0].refuses_stores = true;
    assert_eq!(read(cluster.ask(0, get())).0, ["a"]);
    for _ in 0..20 {
        assert_eq!(read(cluster.ask(0, get())).0, ["a"]);
        cluster.advance(Duration::from_millis(300));
    }
    assert!(cluster.engines[0].counters().corrupt_records < 20);
    cluster.disks[0].refuses_stores = false;
    cluster.advance(Duration::from_secs(120));
    assert_eq!(read(cluster.ask(0, get())).0, ["a"]);
    cluster.advance(Duration::from_secs(5));
    assert_healed(&cluster, &["a"]);
}

#[test]
fn a_record_that_only_this_node_owned_is_gone() {
    let mut cluster = Cluster::with_bucket(1, |bucket| bucket.n = 1);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[0].corrupt.insert(Place::Record(key()));
    failed(cluster.ask(0, get()));
    assert!(read(cluster.ask(0, get())).0.is_empty());
    assert_eq!(cluster.engines[0].counters().corrupt_records, 1);
    written(cluster.ask(0, put(2, "b", None)));
    assert_eq!(read(cluster.ask(0, get())).0, ["b"]);
}

#[test]
fn somebody_who_finds_a_row_corrupt_in_a_scan_has_it_healed() {
    let mut cluster = damaged(&[0]);
    let now = cluster.now;
    cluster.engines[0].found_corrupt(now, Place::Record(key()));
    cluster.run();
    cluster.advance(Duration::from_secs(1));
    assert_healed(&cluster, &["a"]);
    cluster.engines[0].found_corrupt(now, Place::Record(key()));
    cluster.run();
    assert_healed(&cluster, &["a"]);
    assert_eq!(cluster.engines[0].counters().corrupt_records, 1);
}
