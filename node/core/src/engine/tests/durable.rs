//! What a strict read returns is not unseen by a later one.

use super::asks::{failed, get, get_with, put, read, states, texts, with_options, written};
use super::cluster::Cluster;
use crate::message::{PeerMessage, RECORD_BYTES_MAX};
use crate::request::{Code, Operation, Outcome, QuorumKind, ReadOptions, ReplicaState};
use ReplicaState::{Acked, Lost, NotAsked, SameDigest, TimedOut, WriteFailed};

fn strict(nodes: usize) -> Cluster {
    Cluster::with_bucket_without_hints(nodes, |bucket| bucket.quorum = QuorumKind::Strict)
}

fn get_r(r: u8) -> Operation {
    get_with(ReadOptions {
        r: Some(r),
        ..ReadOptions::default()
    })
}

fn is_replicate(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Replicate(_))
}

/// Three nodes. Node 2 holds a write that it alone has, and that its client was not told of as done. Nothing that it sends arrives, and
/// the others do not know.
fn half_done() -> Cluster {
    let mut cluster = strict(3);
    cluster.hold(2, 0);
    cluster.hold(2, 1);
    let handle = cluster.begin(2, put(1, "a", None));
    assert_eq!(cluster.reply(handle), None);
    // What it sent is lost with its connections; then all are connected again.
    for other in [0, 1] {
        cluster.disconnect(2, other);
        cluster.connect(2, other);
    }
    assert_eq!((0..3).map(|n| texts(&cluster.record(n)).len()).sum::<usize>(), 1);
    cluster.sent.clear();
    cluster
}

#[test]
fn equal_answers_are_returned_at_once_and_nothing_is_written() {
    let mut cluster = strict(3);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.sent.clear();
    let stores = cluster.disks[0].stores;
    assert_eq!(read(cluster.ask(0, get())).0, ["a"]);
    assert_eq!(cluster.sent.len(), 2, "one question and one answer");
    assert_eq!(cluster.disks[0].stores, stores);
    cluster.assert_idle();
}

#[test]
fn a_half_done_write_that_one_read_returns_is_returned_by_the_next() {
    let mut cluster = half_done();
    // Whoever is asked second by node 2, the value is durable on two owners when this replies.
    assert_eq!(read(cluster.ask(2, get())).0, ["a"]);
    cluster.isolate(2);
    assert_eq!(read(cluster.ask(0, get())).0, ["a"]);
    assert_eq!(read(cluster.ask(1, get())).0, ["a"]);
}

#[test]
fn a_half_done_write_that_a_read_missed_may_be_missed_by_the_next_too() {
    let mut cluster = half_done();
    cluster.disconnect(0, 2);
    assert_eq!(read(cluster.ask(0, get())).0.len(), 0, "two owners without it");
    assert_eq!(cluster.sent_to(0, is_replicate), [] as [usize; 0]);
}

#[test]
fn what_was_written_back_is_waited_for_until_it_is_synced() {
    let mut cluster = half_done();
    cluster.disconnect(0, 2);
    cluster.disks[1].holds_syncs = true;
    let handle = cluster.begin(2, get());
    assert_eq!(cluster.sent_to(2, is_replicate), [1]);
    assert_eq!(cluster.reply(handle), None, "a power cut could still take it back");
    cluster.release_syncs(1);
    assert_eq!(read(cluster.reply(handle).unwrap()).0, ["a"]);
    cluster.assert_idle();
}

#[test]
fn the_coordinators_own_copy_is_written_back_too_and_counts_when_it_is_synced() {
    let mut cluster = half_done();
    cluster.disconnect(0, 1);
    cluster.disks[0].holds_syncs = true;
    let handle = cluster.begin(0, get());
    assert_eq!(cluster.reply(handle), None);
    cluster.release_syncs(0);
    assert_eq!(read(cluster.reply(handle).unwrap()).0, ["a"]);
    assert_eq!(texts(&cluster.record(0)), ["a"]);
    assert_eq!(cluster.sent_to(0, is_replicate), [] as [usize; 0], "the other has it");
    assert_eq!(cluster.engines[0].counters().replicated, 0);
    cluster.assert_idle();
}

#[test]
fn one_full_disk_does_not_fail_reads() {
    let mut cluster = half_done();
    cluster.disks[1].refuses_stores = true;
    for _ in 0..4 {
        assert_eq!(read(cluster.ask(2, get())).0, ["a"]);
    }
    assert!(cluster.record(1).is_empty());
    assert_eq!(texts(&cluster.record(0)), ["a"], "the third owner stands in");
}

#[test]
fn the_coordinators_full_disk_does_not_fail_reads() {
    let mut cluster = half_done();
    cluster.disks[0].refuses_stores = true;
    for _ in 0..4 {
        let _ = read(cluster.ask(0, get()));
    }
    assert!(cluster.record(0).is_empty());
    assert_eq!(texts(&cluster.record(1)), ["a"], "one of the reads saw it");
}

#[test]
fn a_slow_owner_does_not_keep_a_write_back_waiting() {
    let mut cluster = half_done();
    cluster.disks[1].holds_syncs = true;
    let start = cluster.now;
    for _ in 0..4 {
        assert_eq!(read(cluster.wait(2, get())).0, ["a"]);
    }
    assert!(cluster.now.since(start) <= 2 * super::reads::HEDGE);
    cluster.release_syncs(1);
    cluster.assert_idle();
}

#[test]
fn a_lost_owner_does_not_keep_a_write_back_waiting() {
    let mut cluster = half_done();
    let handles: Vec<_> = [0, 1]
        .map(|other| cluster.hold(other, 2))
        .map(|()| cluster.begin(2, get()))
        .into();
    let asked = cluster.sent_to(2, super::asks::is_fetch)[0];
    cluster.release(asked, 2);
    cluster.hold(asked, 2);
    cluster.disconnect(asked, 2);
    cluster.release(1 - asked, 2);
    for handle in handles {
        assert_eq!(read(cluster.wait_for(handle)).0, ["a"]);
    }
    assert_eq!(texts(&cluster.record(1 - asked)), ["a"]);
    cluster.assert_idle();
}

#[test]
fn a_read_of_one_asks_all_and_a_read_of_all_needs_one_copy() {
    let mut cluster = half_done();
    assert_eq!(read(cluster.ask(0, get_r(1))).0, ["a"]);
    assert_eq!(cluster.sent_to(0, super::asks::is_fetch).len(), 2);
    assert!(
        (0..3).all(|node| texts(&cluster.record(node)) == ["a"]),
        "three owners of three"
    );

    let mut cluster = half_done();
    (0..2).for_each(|node| cluster.disks[node].refuses_stores = true);
    assert_eq!(read(cluster.ask(0, get_r(3))).0, ["a"]);
    assert!(cluster.record(0).is_empty() && cluster.record(1).is_empty());
}

#[test]
fn a_strict_read_of_one_is_refused_at_once_while_an_owner_is_away() {
    let mut cluster = strict(3);
    cluster.isolate(2);
    let failure = failed(cluster.ask(0, get_r(1)));
    assert_eq!(failure.code, Code::Unavailable);
    assert!(
        failure
            .detail
            .starts_with("3 answers needed, 2 of the key's 3 owners are up: n3 is down"),
        "{failure}"
    );
    assert!(
        failure
            .detail
            .contains("r is 1, but a strict read returns only what 3 owners hold"),
        "{failure}"
    );
    let mut sloppy = Cluster::without_hints(3);
    sloppy.isolate(2);
    assert_eq!(read(sloppy.ask(0, get_r(1))).0.len(), 0);
}

#[test]
fn a_write_back_that_too_few_acknowledge_in_time_says_what_is_missing() {
    let mut cluster = half_done();
    (0..2).for_each(|node| cluster.disks[node].holds_syncs = true);
    let failure = failed(cluster.wait(2, get()));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::QuorumNotMet, Outcome::NotApplied)
    );
    assert_eq!(states(&failure.replicas), [TimedOut, TimedOut, SameDigest]);
    let said = "2 answers came and differ; what they make together is durable on 1 of 2 owners";
    assert!(failure.detail.starts_with(said), "{failure}");
    assert!(failure.detail.contains("n1 timed out"), "{failure}");
    (0..2).for_each(|node| cluster.release_syncs(node));
    cluster.assert_idle();
}

#[test]
fn a_write_back_that_too_few_can_take_fails_at_once() {
    let mut cluster = half_done();
    (0..2).for_each(|node| cluster.disks[node].refuses_stores = true);
    let failure = failed(cluster.ask(2, get()));
    assert_eq!(failure.code, Code::QuorumNotMet);
    assert_eq!(states(&failure.replicas), [WriteFailed, WriteFailed, SameDigest]);
    cluster.assert_idle();

    let mut cluster = half_done();
    (0..2).for_each(|node| cluster.disks[node].holds_syncs = true);
    let handle = cluster.begin(2, get());
    cluster.isolate(2);
    let failure = failed(cluster.reply(handle).unwrap());
    let states = states(&failure.replicas);
    assert!(states.contains(&Lost) && states.contains(&SameDigest), "{states:?}");
    (0..2).for_each(|node| cluster.release_syncs(node));
    cluster.assert_idle();
}

#[test]
fn an_owner_that_answers_late_and_holds_the_same_counts_as_a_copy() {
    // Nodes 1 and 2 have it, node 0 does not and its disk hangs. Its question to one of the others is answered late.
    let mut cluster = strict(3);
    cluster.isolate(0);
    written(cluster.ask(1, put(1, "a", None)));
    cluster.connect(0, 1);
    cluster.connect(0, 2);
    cluster.disks[0].holds_syncs = true;
    cluster.hold(2, 0);
    cluster.hold(1, 0);
    let handle = cluster.begin(0, get());
    cluster.advance(super::reads::HEDGE);
    cluster.release(1, 0);
    assert_eq!(
        cluster.reply(handle),
        None,
        "one owner has it, and this node's disk hangs"
    );
    cluster.release(2, 0);
    assert_eq!(read(cluster.reply(handle).unwrap()).0, ["a"]);
    cluster.release_syncs(0);
    cluster.assert_idle();
}

#[test]
fn answers_that_differ_all_are_merged_and_one_copy_of_that_is_enough_for_a_read_of_all() {
    let mut cluster = strict(3);
    (0..3).for_each(|node| cluster.isolate(node));
    for node in 0..3 {
        for other in 0..3 {
            if other != node {
                cluster.connect(node, other);
                cluster.hold(node, other);
            }
        }
    }
    for (node, value) in ["a", "b", "c"].into_iter().enumerate() {
        let one = with_options(put(node as u64, value, None), |options| options.w = Some(1));
        written(cluster.ask(node, one));
    }
    for node in 0..3 {
        cluster.isolate(node);
    }
    for node in 0..3 {
        (0..node).for_each(|other| cluster.connect(node, other));
    }
    assert_eq!(read(cluster.ask(0, get_r(3))).0, ["a", "b", "c"]);
    assert!((0..3).all(|node| texts(&cluster.record(node)).len() == 3));
    cluster.assert_idle();
}

#[test]
fn a_record_too_large_to_be_sent_is_not_returned_by_a_strict_read() {
    let mut cluster = Cluster::with_bucket_without_hints(3, |bucket| {
        bucket.quorum = QuorumKind::Strict;
        bucket.value_bytes_max = RECORD_BYTES_MAX as u32;
        bucket.record_bytes_max = RECORD_BYTES_MAX as u32;
    });
    let large = "x".repeat(RECORD_BYTES_MAX * 3 / 5);
    for node in [0, 1] {
        cluster.isolate(node);
    }
    // Each of two owners has one that the other does not have.
    for node in [0, 1] {
        cluster.connect(node, 2);
        cluster.hold(node, 2);
        cluster.hold(2, node);
        let one = with_options(put(node as u64, &large, None), |options| options.w = Some(1));
        written(cluster.ask(node, one));
        cluster.disconnect(node, 2);
    }
    cluster.connect(0, 1);
    let failure = failed(cluster.ask(0, get()));
    assert_eq!(failure.code, Code::QuorumNotMet);
    assert!(
        failure.detail.contains("can be sent: read it with a sloppy quorum"),
        "{failure}"
    );
    cluster.assert_idle();
}

#[test]
fn the_reply_names_who_answered() {
    let mut cluster = strict(3);
    written(cluster.ask(0, put(1, "a", None)));
    match cluster.ask(0, get()).unwrap() {
        crate::request::Reply::Found { replicas, .. } => {
            let mut states = states(&replicas);
            states.sort_by_key(|state| format!("{state:?}"));
            assert_eq!(states, [Acked, NotAsked, SameDigest]);
        }
        other => panic!("{other:?}"),
    }
}
