//! Owners that a read finds behind are brought up to date, at a rate, and nobody waits for it.

use super::asks::{get, get_at_least, key, put, put_under, read, texts, written};
use super::cluster::Cluster;
use crate::engine::Input;
use crate::key::Key;
use crate::message::PeerMessage;
use crate::request::{Code, Operation, QuorumKind, ReadOptions};
use bytes::Bytes;
use std::time::Duration;

fn is_replicate(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Replicate(_))
}

fn numbered(n: usize) -> Key {
    Key::new(b"bucket", format!("key {n}").as_bytes(), None).unwrap()
}

fn get_under(key: Key) -> Operation {
    Operation::Get {
        key,
        minimum: None,
        options: ReadOptions::default(),
    }
}

/// Three nodes; node 0 was away while `keys` keys were written.
fn missed(keys: usize, change: impl Fn(&mut crate::engine::EngineConfig)) -> Cluster {
    let mut cluster = Cluster::with(3, |config| {
        config.limits.hints = false;
        change(config);
    });
    cluster.isolate(0);
    (0..keys).for_each(|n| drop(written(cluster.ask(1, put_under(numbered(n), n as u64, "a", None)))));
    cluster.connect(0, 1);
    cluster.connect(0, 2);
    cluster
}

#[test]
fn a_sloppy_read_replies_first_and_repairs_whoever_was_behind() {
    let mut cluster = Cluster::without_hints(3);
    cluster.isolate(0);
    written(cluster.ask(1, put(1, "a", None)));
    cluster.connect(0, 1);
    cluster.connect(0, 2);
    cluster.disks[0].holds_syncs = true;
    assert_eq!(read(cluster.ask(1, get())).0, ["a"]);
    assert_eq!(read(cluster.ask(1, get())).0, ["a"]);
    assert_eq!(texts(&cluster.record(0)), ["a"], "one of these reads asked it");
    assert_eq!(cluster.engines[1].counters().read_repairs, 1);
    cluster.release_syncs(0);
    assert!(!cluster.engines[1].pending.may_hold(&key()));
    cluster.assert_idle();
}

#[test]
fn the_coordinator_repairs_itself_as_well() {
    let mut cluster = missed(1, |_| {});
    read(cluster.ask(0, get_under(numbered(0))));
    assert_eq!(cluster.engines[0].counters().read_repairs, 1);
    assert_eq!(cluster.sent_to(0, is_replicate), [] as [usize; 0]);
    let one = ReadOptions {
        r: Some(1),
        ..ReadOptions::default()
    };
    let alone = Operation::Get {
        key: numbered(0),
        minimum: None,
        options: one,
    };
    assert_eq!(read(cluster.ask(0, alone)).0, ["a"]);
    cluster.assert_idle();
}

#[test]
fn a_strict_read_repairs_those_it_did_not_need_after_its_reply() {
    let mut cluster =
        Cluster::with_bucket_without_hints(3, |bucket| (bucket.quorum, bucket.r) = (QuorumKind::Strict, Some(3)));
    cluster.isolate(0);
    written(cluster.ask(1, put(1, "a", None)));
    cluster.connect(0, 1);
    cluster.connect(0, 2);
    cluster.disks[0].holds_syncs = true;
    assert_eq!(
        read(cluster.ask(1, get())).0,
        ["a"],
        "two of three have it, and one is enough"
    );
    assert_eq!(cluster.engines[1].counters().read_repairs, 1);
    cluster.release_syncs(0);
    assert_eq!(texts(&cluster.record(0)), ["a"]);
}

#[test]
fn repairs_keep_to_their_rate_and_the_rest_is_counted() {
    let mut cluster = missed(60, |config| config.limits.repairs_per_second = 100);
    let read_all = |cluster: &mut Cluster| {
        (0..60).for_each(|n| drop(read(cluster.ask(0, get_under(numbered(n))))));
        let counters = cluster.engines[0].counters();
        (counters.read_repairs, counters.read_repairs_skipped)
    };
    let (repaired, skipped) = read_all(&mut cluster);
    assert_eq!((repaired, skipped), (11, 49), "100 ms ahead of the rate, and no more");
    cluster.advance(Duration::from_millis(50));
    assert_eq!(read_all(&mut cluster).0, 16);
    cluster.advance(Duration::from_secs(60));
    assert_eq!(read_all(&mut cluster).0, 27, "what was not used is not saved up");
    cluster.assert_idle();
}

#[test]
fn a_rate_of_none_repairs_nothing() {
    let mut cluster = missed(1, |config| config.limits.repairs_per_second = 0);
    assert_eq!(read(cluster.ask(0, get_under(numbered(0)))).0, ["a"]);
    let counters = cluster.engines[0].counters();
    assert_eq!((counters.read_repairs, counters.read_repairs_skipped), (0, 1));
}

#[test]
fn a_large_record_is_left_to_anti_entropy() {
    let mut cluster = Cluster::with_bucket_without_hints(3, |bucket| bucket.value_bytes_max = 2 << 20);
    cluster.isolate(0);
    let large = "x".repeat((1 << 20) + 1);
    written(cluster.ask(1, put(1, &large, None)));
    cluster.connect(0, 1);
    cluster.connect(0, 2);
    assert_eq!(read(cluster.ask(0, get())).0, [large]);
    let counters = cluster.engines[0].counters();
    assert_eq!((counters.read_repairs, counters.read_repairs_skipped), (0, 1));
}

#[test]
fn a_repair_is_under_way_until_it_is_answered_or_its_connection_is_gone() {
    for is_answered in [true, false] {
        let mut cluster = Cluster::without_hints(3);
        cluster.isolate(0);
        written(cluster.ask(1, put(1, "a", None)));
        cluster.connect(0, 1);
        cluster.connect(0, 2);
        cluster.disks[0].holds_syncs = true;
        (0..2).for_each(|_| drop(read(cluster.ask(1, get()))));
        assert!(cluster.engines[1].pending.may_hold(&key()));
        match is_answered {
            true => cluster.release_syncs(0),
            false => cluster.disconnect(0, 1),
        }
        assert!(!cluster.engines[1].pending.may_hold(&key()));
    }
}

#[test]
fn an_owner_that_is_gone_again_is_not_repaired() {
    let mut cluster = Cluster::with_bucket_without_hints(3, |bucket| bucket.r = Some(3));
    cluster.isolate(0);
    written(cluster.ask(1, put(1, "a", None)));
    cluster.connect(0, 1);
    cluster.connect(0, 2);
    cluster.hold(2, 1);
    let handle = cluster.begin(1, get());
    cluster.disconnect(0, 1);
    cluster.release(2, 1);
    assert_eq!(read(cluster.reply(handle).unwrap()).0, ["a"]);
    assert_eq!(cluster.engines[1].counters().read_repairs, 0);
}

/// A context that no owner has ever seen: another cluster's dots, sealed with the same keys.
fn settled() -> Bytes {
    let mut elsewhere = Cluster::with(3, |config| config.seed[0] += 100);
    written(elsewhere.ask(0, put(9, "z", None))).0
}

#[test]
fn a_minimum_is_met_when_all_owners_hold_just_the_same() {
    let mut cluster = Cluster::without_hints(3);
    written(cluster.ask(0, put(1, "a", None)));
    let minimum = settled();
    assert_eq!(read(cluster.ask(0, get_at_least(&minimum))).0, ["a"]);
    cluster.assert_idle();
    // Not while one of them may know more.
    cluster.isolate(2);
    let failure = super::asks::failed(cluster.wait(0, get_at_least(&minimum)));
    assert_eq!(failure.code, Code::MinimumUnmet);
}

#[test]
fn a_minimum_is_met_by_agreement_once_the_owners_have_been_brought_together() {
    let mut cluster = Cluster::without_hints(3);
    cluster.isolate(0);
    let (context, _) = written(cluster.ask(1, put(1, "a", None)));
    cluster.connect(0, 1);
    cluster.connect(0, 2);
    let minimum = settled();
    let handle = cluster.begin(1, get_at_least(&minimum));
    assert_eq!(cluster.reply(handle), None, "one owner differs");
    assert_eq!(read(cluster.ask(0, get_at_least(&context))).0, ["a"], "this repairs it");
    assert_eq!(read(cluster.wait_for(handle)).0, ["a"]);
    cluster.input(0, Input::Tick);
    cluster.assert_idle();
}
