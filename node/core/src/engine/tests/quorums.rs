//! What a write waits for before it says that it happened.

use super::asks::{failed, get, get_with, key, put, put_under, read, states, with_options, written};
use super::cluster::Cluster;
use crate::bucket::BlindWrites;
use crate::key::Key;
use crate::request::{Code, Outcome, ReadOptions, ReplicaState};
use ReplicaState::{Acked, Waiting};

#[test]
fn a_put_is_read_at_every_node() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    for node in 0..3 {
        assert_eq!(read(cluster.ask(node, get())).0, ["a"]);
    }
    cluster.assert_idle();
}

#[test]
fn a_key_that_was_never_written_is_found_empty() {
    let mut cluster = Cluster::new(3);
    assert_eq!(read(cluster.ask(0, get())), (vec![], None));
}

#[test]
fn a_put_is_acknowledged_only_when_w_owners_have_synced_it() {
    let mut cluster = Cluster::new(3);
    cluster.disks[0].holds_syncs = true;
    cluster.disks[1].holds_syncs = true;
    let handle = cluster.begin(0, put(1, "a", None));
    assert_eq!(cluster.reply(handle), None, "one of two acks came");
    cluster.release_syncs(1);
    let (_, replicas) = written(cluster.reply(handle).unwrap());
    assert_eq!(
        states(&replicas),
        [Waiting, Acked, Acked],
        "the coordinator's own sync is one ack among others"
    );
    cluster.release_syncs(0);
    cluster.assert_idle();
}

#[test]
fn w_and_dw_say_how_many_acks_are_waited_for() {
    for (w, dw, held_back, replies) in [
        (Some(1), None, 2, true),
        (Some(2), None, 2, false),
        (Some(1), Some(2), 2, false),
        (Some(3), None, 1, false),
        (Some(3), Some(1), 1, false),
        (None, Some(3), 1, false),
        (None, None, 1, true),
    ] {
        let mut cluster = Cluster::new(3);
        (0..held_back).for_each(|node| cluster.disks[node].holds_syncs = true);
        let operation = with_options(put(1, "a", None), |options| (options.w, options.dw) = (w, dw));
        let handle = cluster.begin(0, operation);
        assert_eq!(cluster.reply(handle).is_some(), replies, "w {w:?}, dw {dw:?}");
        (0..held_back).for_each(|node| cluster.release_syncs(node));
        written(cluster.reply(handle).unwrap());
    }
}

#[test]
fn a_buckets_quorums_hold_where_the_request_names_none() {
    let mut cluster = Cluster::with_bucket(3, |bucket| (bucket.r, bucket.w) = (Some(3), Some(3)));
    cluster.disks[2].holds_syncs = true;
    let write = cluster.begin(0, put(1, "a", None));
    assert_eq!(cluster.reply(write), None);
    let one = with_options(put(2, "b", None), |options| options.w = Some(1));
    written(cluster.ask(0, one));
    cluster.release_syncs(2);
    written(cluster.reply(write).unwrap());
    cluster.isolate(2);
    assert_eq!(failed(cluster.ask(0, get())).code, Code::Unavailable);
    let r = Some(2);
    let two = ReadOptions {
        r,
        ..ReadOptions::default()
    };
    assert_eq!(read(cluster.ask(0, get_with(two))).0.len(), 2);
}

#[test]
fn quorums_outside_of_1_to_n_are_refused() {
    let mut cluster = Cluster::new(3);
    for bad in [0, 4, 255] {
        let r = ReadOptions {
            r: Some(bad),
            ..ReadOptions::default()
        };
        let requests = [
            get_with(r),
            with_options(put(1, "a", None), |options| options.w = Some(bad)),
            with_options(put(1, "a", None), |options| options.dw = Some(bad)),
            with_options(put(1, "a", None), |options| options.pw = Some(bad)),
        ];
        for request in requests {
            let failure = failed(cluster.ask(0, request));
            assert_eq!((failure.code, failure.outcome), (Code::BadRequest, Outcome::NotApplied));
            assert!(
                failure.detail.contains(&format!("{bad}; it must be 1 to n")),
                "{failure}"
            );
        }
    }
    assert!(cluster.sent.is_empty());
}

#[test]
fn pr_and_pw_raise_r_and_w() {
    let mut cluster = Cluster::new(3);
    cluster.disks[1].holds_syncs = true;
    cluster.disks[2].holds_syncs = true;
    let pw = with_options(put(1, "a", None), |options| {
        (options.w, options.pw) = (Some(1), Some(2))
    });
    let handle = cluster.begin(0, pw);
    assert_eq!(cluster.reply(handle), None);
    cluster.release_syncs(1);
    written(cluster.reply(handle).unwrap());
    cluster.isolate(1);
    let pr = ReadOptions {
        r: Some(1),
        pr: Some(3),
        ..ReadOptions::default()
    };
    let failure = failed(cluster.ask(0, get_with(pr)));
    assert_eq!(failure.code, Code::Unavailable);
    assert!(
        failure.detail.starts_with("3 answers (3 of owners) needed"),
        "{failure}"
    );
}

#[test]
fn two_puts_that_waited_for_one_load_are_stored_once() {
    let mut cluster = Cluster::new(3);
    cluster.disks[0].holds_loads = true;
    let first = cluster.begin(0, put(1, "a", None));
    let second = cluster.begin(0, put(2, "b", None));
    cluster.release_loads(0);
    assert_eq!(cluster.disks[0].stores, 1);
    written(cluster.reply(first).unwrap());
    written(cluster.reply(second).unwrap());
    assert_eq!(read(cluster.ask(1, get())).0, ["a", "b"]);
    cluster.assert_idle();
}

#[test]
fn a_put_on_top_of_one_that_is_not_synced_keeps_both() {
    let mut cluster = Cluster::with_bucket(3, |bucket| bucket.blind_writes = BlindWrites::Siblings);
    cluster.disks[0].holds_syncs = true;
    written(cluster.ask(0, put(1, "a", None)));
    written(cluster.ask(0, put(2, "b", None)));
    assert_eq!(cluster.disks[0].stores, 2);
    cluster.release_syncs(0);
    assert_eq!(read(cluster.ask(0, get())).0, ["a", "b"]);
}

#[test]
fn keys_do_not_see_each_other() {
    let mut cluster = Cluster::new(3);
    let other = Key::new(b"bucket", b"key", Some(b"sort")).unwrap();
    assert_eq!(other.token(), key().token());
    written(cluster.ask(0, put_under(other, 1, "a", None)));
    assert_eq!(read(cluster.ask(0, get())).0.len(), 0);
}
