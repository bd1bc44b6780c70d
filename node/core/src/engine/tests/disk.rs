//! Disks that fail, refuse, hang or forget.

use super::asks::{
    delete, failed, get, get_with, is_forward, key, put, put_under, read, states, texts, with_options, written,
};
use super::cluster::{Cluster, TIMEOUT};
use crate::engine::{Input, StoreTicket};
use crate::key::Key;
use crate::place::Place;
use crate::request::{Code, Outcome, ReadOptions, ReplicaState};
use ReplicaState::{Acked, NotAsked, ReadFailed, SameDigest, WriteFailed};
use bytes::Bytes;
use std::time::Duration;

#[test]
fn a_node_that_cannot_read_its_disk_passes_a_write_on_and_writes_nothing_itself() {
    let mut cluster = Cluster::new(3);
    let (context, _) = written(cluster.ask(1, put(1, "a", None)));
    cluster.disks[0].fails_loads = true;
    let before = cluster.disks[0].stores;
    for operation in [put(2, "b", Some(&context)), delete(3, Some(&context))] {
        written(cluster.ask(0, operation));
    }
    assert_eq!(cluster.sent_to(0, is_forward).len(), 2);
    assert_eq!(cluster.disks[0].stores, before);
    assert_eq!(texts(&cluster.record(1)), ["-", "b"], "each as it came");
}

#[test]
fn a_node_that_cannot_read_its_disk_refuses_what_was_passed_on_to_it() {
    let mut cluster = Cluster::new(3);
    (0..3).for_each(|node| cluster.disks[node].fails_loads = true);
    let failure = failed(cluster.ask(0, put(1, "a", None)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    let other = cluster.sent_to(0, is_forward)[0];
    let mut expected = [NotAsked; 3];
    expected[other] = ReadFailed;
    assert_eq!(states(&failure.replicas), expected);
    assert_eq!(cluster.sent.len(), 2, "one question and one answer");
    cluster.assert_idle();
}

#[test]
fn a_read_error_is_no_answer_and_least_of_all_nothing_there() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(1, put(1, "a", None)));
    cluster.disks[0].fails_loads = true;
    let response = cluster.ask(0, get());
    assert_eq!(read(response).0, ["a"], "the two others answered");
    cluster.disks[1].fails_loads = true;
    let failure = failed(cluster.ask(0, get()));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::QuorumNotMet, Outcome::NotApplied)
    );
    assert!(failure.detail.contains("n1 could not read its disk"), "{failure}");
    assert!(failure.detail.contains("n2 could not read its disk"), "{failure}");
    cluster.assert_idle();
}

#[test]
fn an_owner_that_cannot_read_its_disk_does_not_acknowledge_writes() {
    let mut cluster = Cluster::new(3);
    cluster.disks[1].fails_loads = true;
    cluster.disks[2].fails_loads = true;
    let failure = failed(cluster.ask(0, put(1, "a", None)));
    assert_eq!((failure.code, failure.outcome), (Code::QuorumNotMet, Outcome::Unknown));
    assert_eq!(states(&failure.replicas)[1..], [ReadFailed, ReadFailed]);
}

#[test]
fn stored_bytes_that_do_not_parse_are_a_read_error() {
    for bytes in [&b""[..], b"\x09", b"\x00\x01rubbish", b"\x00\x02"] {
        let mut cluster = Cluster::new(3);
        written(cluster.ask(1, put(1, "a", None)));
        cluster.disks[0]
            .applied
            .insert(Place::Record(key()), Bytes::from_static(bytes));
        assert_eq!(read(cluster.ask(0, get())).0, ["a"]);
        assert_eq!(read(cluster.ask(1, get())).0, ["a"]);
        written(cluster.ask(0, put(2, "b", None)));
        assert_eq!(cluster.sent_to(0, is_forward).len(), 1, "another owner coordinates");
        assert!(cluster.record_bytes(0) == bytes, "it is not overwritten");
    }
}

#[test]
fn a_refused_store_is_not_counted_and_its_dot_is_never_minted_again() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[0].refuses_stores = true;
    let (_, replicas) = written(cluster.ask(0, put(2, "b", None)));
    assert_eq!(states(&replicas), [WriteFailed, Acked, Acked]);
    assert_eq!(texts(&cluster.record(0)), ["a"]);
    cluster.disks[0].refuses_stores = false;
    cluster.advance(Duration::from_secs(1));
    // The harness checks that no dot stands for two writes.
    written(cluster.ask(0, put(3, "c", None)));
    assert_eq!(read(cluster.ask(0, get())).0, ["a", "b", "c"]);
    cluster.assert_idle();
}

#[test]
fn a_write_that_is_refused_here_and_lost_elsewhere_is_unknown() {
    let mut cluster = Cluster::new(3);
    (0..2).for_each(|node| cluster.disks[node].refuses_stores = true);
    let failure = failed(cluster.ask(0, put(1, "a", None)));
    assert_eq!((failure.code, failure.outcome), (Code::QuorumNotMet, Outcome::Unknown));
    assert!(failure.detail.contains("n1 could not write to its disk"), "{failure}");
    assert!(failure.detail.contains("n2 could not write to its disk"), "{failure}");
}

#[test]
fn after_a_refused_store_the_key_is_read_as_it_is_on_disk_without_waiting_for_another_sync() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    (0..3).for_each(|node| cluster.disks[node].refuses_stores = true);
    failed(cluster.ask(0, put(2, "b", None)));
    let r = Some(3);
    let all = get_with(ReadOptions {
        r,
        ..ReadOptions::default()
    });
    assert_eq!(read(cluster.ask(0, all)).0, ["a"]);
    (0..3).for_each(|node| cluster.disks[node].refuses_stores = false);
    cluster.advance(TIMEOUT);
    cluster.assert_idle();
}

#[test]
fn a_refused_store_leaves_earlier_ones_waiting_for_their_sync() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    cluster.disks[0].holds_syncs = true;
    let first = cluster.begin(0, put(1, "a", None));
    cluster.disks[0].refuses_stores = true;
    cluster.begin(0, put(2, "b", None));
    let one = get_with(ReadOptions {
        r: Some(1),
        ..ReadOptions::default()
    });
    let read_early = cluster.begin(0, one);
    assert_eq!(cluster.reply(first), None);
    assert_eq!(cluster.reply(read_early), None, "what it would show is not synced");
    cluster.release_syncs(0);
    written(cluster.reply(first).unwrap());
    assert_eq!(read(cluster.reply(read_early).unwrap()).0, ["a"]);
    cluster.disks[0].refuses_stores = false;
    cluster.advance(TIMEOUT);
    cluster.assert_idle();
}

#[test]
fn a_refusal_that_is_told_twice_or_of_an_unknown_store_is_ignored() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    for ticket in [0, 1, 2, u64::MAX] {
        cluster.input(0, Input::StoreFailed(StoreTicket(ticket)));
        cluster.run();
    }
    assert_eq!(cluster.engines[0].counters().store_failures, 0);
    cluster.assert_idle();
}

#[test]
fn a_node_whose_disk_refuses_writes_lets_other_owners_coordinate() {
    let mut cluster = Cluster::new(3);
    cluster.disks[0].refuses_stores = true;
    written(cluster.ask(0, put(1, "a", None)));
    let actors = |cluster: &Cluster| cluster.record(1).context().actors();
    assert_eq!(actors(&cluster), 1);
    // However many writes it is asked for, no more dots of lives that have ended.
    for n in 2..50 {
        written(cluster.ask(0, put(n, "b", None)));
    }
    assert!(actors(&cluster) <= 3, "{:?}", cluster.record(1).context());
    assert_eq!(read(cluster.ask(0, get())).0.len(), 49);
}

#[test]
fn a_write_that_waited_for_its_record_while_the_disk_began_to_refuse_is_not_applied() {
    let mut cluster = Cluster::new(3);
    cluster.disks[0].holds_loads = true;
    let waiting = cluster.begin(0, put(1, "a", None));
    cluster.disks[0].holds_loads = false;
    cluster.disks[0].refuses_stores = true;
    let other = Key::new(b"bucket", b"other", None).unwrap();
    written(cluster.ask(0, put_under(other, 2, "b", None)));
    cluster.release_loads(0);
    let failure = failed(cluster.reply(waiting).unwrap());
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    assert!(cluster.record(1).is_empty());
    cluster.assert_idle();
}

#[test]
fn a_node_whose_disk_refuses_writes_says_so_when_there_is_nobody_else() {
    let mut cluster = Cluster::with_bucket(1, |bucket| bucket.n = 1);
    // Its own note is on disk.
    cluster.run();
    cluster.disks[0].refuses_stores = true;
    let failure = failed(cluster.ask(0, put(1, "a", None)));
    assert_eq!(failure.outcome, Outcome::Unknown);
    let failure = failed(cluster.ask(0, put(2, "b", None)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    assert!(failure.detail.contains("takes no writes"), "{failure}");
    cluster.disks[0].refuses_stores = false;
    cluster.advance(Duration::from_millis(100));
    written(cluster.ask(0, put(3, "c", None)));
    written(cluster.ask(0, put(4, "d", None)));
    cluster.assert_idle();
}

#[test]
fn a_crash_forgets_what_was_not_synced_and_mints_no_dot_twice() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    for round in 2..8 {
        cluster.disks[0].holds_syncs = true;
        written(cluster.ask(0, put(round, &round.to_string(), None)));
        cluster.crash(0, 100 + round as u8);
    }
    assert_eq!(texts(&cluster.record(0)), ["a"]);
    written(cluster.ask(0, put(9, "9", None)));
    assert_eq!(read(cluster.ask(1, get())).0, ["2", "3", "4", "5", "6", "7", "9", "a"]);
}

#[test]
fn a_node_that_lost_one_record_counts_anew_for_that_key() {
    let mut cluster = Cluster::new(3);
    for n in 1..5 {
        written(cluster.ask(0, put(n, &n.to_string(), None)));
        cluster.disks[0].applied.remove(&Place::Record(key()));
    }
    assert_eq!(read(cluster.ask(1, get())).0, ["1", "2", "3", "4"]);
}

#[test]
fn a_replica_never_answers_with_what_it_has_not_synced() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    cluster.disks[0].holds_syncs = true;
    cluster.disks[1].holds_syncs = true;
    cluster.begin(0, put(1, "a", None));
    let here = cluster.begin(0, get());
    let there = cluster.begin(1, get());
    assert_eq!((cluster.reply(here), cluster.reply(there)), (None, None));
    cluster.release_syncs(1);
    assert_eq!((cluster.reply(here), cluster.reply(there)), (None, None));
    cluster.release_syncs(0);
    assert_eq!(read(cluster.reply(here).unwrap()).0, ["a"]);
    assert_eq!(read(cluster.reply(there).unwrap()).0, ["a"]);
}

#[test]
fn a_merge_that_changes_nothing_still_waits_for_the_sync_of_what_it_confirms() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    cluster.disks[1].holds_syncs = true;
    let first = cluster.begin(0, put(1, "a", None));
    let second = cluster.begin(0, put(1, "a", None));
    assert_eq!(cluster.disks[1].stores, 1);
    assert_eq!((cluster.reply(first), cluster.reply(second)), (None, None));
    cluster.release_syncs(1);
    written(cluster.reply(first).unwrap());
    written(cluster.reply(second).unwrap());
}

#[test]
fn a_write_whose_record_is_not_loaded_in_time_is_not_applied_ever() {
    let mut cluster = Cluster::new(3);
    cluster.disks[0].holds_loads = true;
    let failure = failed(cluster.wait(0, put(1, "a", None)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::DeadlineExceeded, Outcome::NotApplied)
    );
    cluster.release_loads(0);
    assert_eq!(read(cluster.ask(1, get())).0.len(), 0);
    assert!(cluster.record(0).is_empty());
    cluster.assert_idle();
}

#[test]
fn equal_replicas_answer_with_a_hash_only() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.sent.clear();
    let Ok(crate::request::Reply::Found { replicas, .. }) = cluster.ask(0, get()) else {
        panic!("not found");
    };
    assert_eq!(states(&replicas)[0], Acked);
    assert_eq!(states(&replicas)[1..].iter().filter(|&&s| s == SameDigest).count(), 1);
    assert_eq!(cluster.engines[0].counters().replicas_differed, 0);
    let w1 = with_options(put(2, "b", None), |options| options.w = Some(1));
    cluster.isolate(0);
    cluster.connect(0, 1);
    written(cluster.ask(0, w1));
    cluster.connect(0, 2);
    assert_eq!(
        read(cluster.ask(2, get())).0.len(),
        2,
        "R = 2 meets one of two that have it"
    );
}
