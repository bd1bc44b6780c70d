//! Sloppy quorums: who stands in for an owner, and what that counts for.

use super::asks::{failed, get, is_store_hint, put, put_under, read, states, texts, with_options, written};
use super::cluster::{Cluster, config};
use crate::engine::tests::asks::key;
use crate::request::{Code, Operation, Outcome, QuorumKind, ReplicaReport, ReplicaState, Role};
use ReplicaState::{Acked, Down};
use std::time::Duration;

fn strict(operation: Operation) -> Operation {
    with_options(operation, |options| options.quorum = Some(QuorumKind::Strict))
}

fn all(operation: Operation) -> Operation {
    with_options(operation, |options| options.w = Some(3))
}

fn role_of(replicas: &[ReplicaReport], node: usize) -> Role {
    replicas.iter().find(|report| report.node.get() == node).unwrap().role
}

#[test]
fn a_fallback_keeps_the_record_for_an_owner_that_is_away_and_counts_for_w() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    cluster.isolate(owners[1]);
    let (_, replicas) = written(cluster.ask(owners[0], all(put(1, "a", None))));
    assert_eq!(cluster.hinted(fallbacks[0]), [owners[1]]);
    assert_eq!(texts(&cluster.hints(fallbacks[0])[0].2), ["a"]);
    assert!(cluster.hinted(fallbacks[1]).is_empty() && cluster.hinted(owners[0]).is_empty());
    assert_eq!(role_of(&replicas, fallbacks[0]), Role::Fallback);
    assert_eq!(role_of(&replicas, owners[1]), Role::Primary);
    let answered = replicas.iter().filter(|r| r.state == Acked).count();
    assert_eq!((answered, replicas.len()), (3, 4));
    assert_eq!(cluster.engines[owners[0]].counters().fallback_acks, 1);
    cluster.assert_idle();
}

#[test]
fn each_fallback_stands_in_for_one_owner_in_preference_order() {
    let mut cluster = Cluster::new(6);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    cluster.isolate(fallbacks[0]);
    cluster.isolate(owners[1]);
    cluster.isolate(owners[2]);
    written(cluster.ask(owners[0], all(put(1, "a", None))));
    assert_eq!(cluster.hinted(fallbacks[1]), [owners[1]]);
    assert_eq!(cluster.hinted(fallbacks[2]), [owners[2]]);
    cluster.assert_idle();
}

#[test]
fn a_strict_quorum_asks_no_fallback() {
    let mut cluster = Cluster::new(5);
    let (owners, _) = cluster.owners_and_fallbacks();
    cluster.isolate(owners[1]);
    written(cluster.ask(owners[0], strict(put(1, "a", None))));
    assert!(cluster.sent_to(owners[0], is_store_hint).is_empty());
    cluster.isolate(owners[2]);
    let failure = failed(cluster.ask(owners[0], strict(put(2, "b", None))));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    let mut by_bucket = Cluster::with_bucket(5, |bucket| bucket.quorum = QuorumKind::Strict);
    by_bucket.isolate(owners[1]);
    by_bucket.isolate(owners[2]);
    let failure = failed(by_bucket.ask(owners[0], put(1, "a", None)));
    assert_eq!(failure.code, Code::Unavailable);
    let sloppy = with_options(put(2, "b", None), |options| options.quorum = Some(QuorumKind::Sloppy));
    written(by_bucket.ask(owners[0], sloppy));
}

#[test]
fn pw_counts_owners_on_the_replies_and_no_fallback() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    cluster.isolate(owners[1]);
    let pw = |n| with_options(all(put(n, "a", None)), |options| options.pw = Some(2));
    // A third node acknowledges, but the second owner has not.
    cluster.hold(owners[0], owners[2]);
    let handle = cluster.begin(owners[0], pw(1));
    assert_eq!(cluster.hinted(fallbacks[0]), [owners[1]]);
    assert_eq!(cluster.reply(handle), None);
    cluster.release(owners[0], owners[2]);
    written(cluster.reply(handle).unwrap());
    // An owner that was connected when the request came, and went away, is not counted.
    cluster.hold(owners[0], owners[2]);
    let handle = cluster.begin(owners[0], pw(2));
    cluster.disconnect(owners[0], owners[2]);
    let failure = failed(cluster.reply(handle).unwrap());
    assert_eq!((failure.code, failure.outcome), (Code::QuorumNotMet, Outcome::Unknown));
    let failure = failed(cluster.ask(owners[0], pw(3)));
    assert_eq!(failure.code, Code::Unavailable);
    assert!(
        failure.detail.starts_with("3 acks (2 of owners) needed, 1 of"),
        "{failure}"
    );
    assert!(failure.detail.contains("owners is up and 2 fallbacks: "), "{failure}");
}

#[test]
fn an_owner_that_is_lost_before_it_acknowledges_has_a_fallback_stand_in() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    cluster.hold(owners[0], owners[1]);
    let handle = cluster.begin(owners[0], all(put(1, "a", None)));
    assert_eq!(cluster.reply(handle), None);
    cluster.disconnect(owners[0], owners[1]);
    let (_, replicas) = written(cluster.reply(handle).unwrap());
    assert_eq!(role_of(&replicas, fallbacks[0]), Role::Fallback);
    assert_eq!(cluster.hinted(fallbacks[0]), [owners[1]]);
}

#[test]
fn an_owner_that_refuses_has_a_fallback_stand_in_and_so_has_the_coordinator() {
    for refusing in [0, 1] {
        let mut cluster = Cluster::new(5);
        let (owners, fallbacks) = cluster.owners_and_fallbacks();
        cluster.disks[owners[refusing]].refuses_stores = true;
        written(cluster.ask(owners[0], all(put(1, "a", None))));
        assert_eq!(cluster.hinted(fallbacks[0]), [owners[refusing]]);
        assert_eq!(texts(&cluster.hints(fallbacks[0])[0].2), ["a"]);
    }
}

#[test]
fn an_owner_that_is_slow_while_the_quorum_is_not_met_has_a_fallback_stand_in() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    cluster.hold(owners[0], owners[1]);
    let start = cluster.now;
    written(cluster.wait(owners[0], all(put(1, "a", None))));
    assert_eq!(cluster.now.since(start), Duration::from_millis(100));
    assert_eq!(cluster.hinted(fallbacks[0]), [owners[1]]);
    cluster.release(owners[0], owners[1]);
    assert_eq!(read(cluster.ask(owners[1], get())).0, ["a"]);
    cluster.advance(Duration::from_secs(2));
    assert!(cluster.hinted(fallbacks[0]).is_empty(), "it went home all the same");
    cluster.assert_idle();
}

#[test]
fn a_fallback_that_has_no_room_refuses_and_the_next_one_is_asked() {
    let (owners, fallbacks) = Cluster::new(5).owners_and_fallbacks();
    let full = config(5, fallbacks[0], 0).me;
    let mut cluster = Cluster::with(5, |config| {
        if config.me == full {
            config.limits.hint_bytes_max = 60;
        }
    });
    cluster.isolate(owners[1]);
    let (_, replicas) = written(cluster.ask(owners[0], all(put(1, "a", None))));
    assert!(states(&replicas).contains(&ReplicaState::HintsFull));
    assert!(cluster.hinted(fallbacks[0]).is_empty());
    assert_eq!(cluster.hinted(fallbacks[1]), [owners[1]]);
}

#[test]
fn a_fallback_acknowledges_a_hint_only_when_it_is_synced() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    cluster.isolate(owners[1]);
    cluster.disks[fallbacks[0]].holds_syncs = true;
    let handle = cluster.begin(owners[0], all(put(1, "a", None)));
    assert_eq!(cluster.reply(handle), None);
    cluster.release_syncs(fallbacks[0]);
    written(cluster.reply(handle).unwrap());
}

#[test]
fn where_nobody_is_left_to_stand_in_the_write_is_not_met_and_hints_are_no_votes() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    let failure = failed(cluster.ask(0, all(put(1, "a", None))));
    assert_eq!(failure.code, Code::Unavailable);
    let (_, replicas) = written(cluster.ask(0, put(2, "b", None)));
    assert_eq!(states(&replicas), [Acked, Acked, Down]);
    assert_eq!(cluster.hinted(0), [2], "the coordinator keeps it");
    assert!(cluster.hints(0)[0].2.is_empty(), "as a reference to its own record");
    assert!(cluster.hinted(1).is_empty());
    cluster.assert_idle();
}

#[test]
fn without_hints_nobody_stands_in() {
    let mut cluster = Cluster::without_hints(5);
    let (owners, _) = cluster.owners_and_fallbacks();
    cluster.isolate(owners[1]);
    let failure = failed(cluster.ask(owners[0], all(put(1, "a", None))));
    assert_eq!(failure.code, Code::Unavailable);
    written(cluster.ask(owners[0], put(2, "a", None)));
    assert!((0..5).all(|node| cluster.hints(node).is_empty()));
}

#[test]
fn a_relaxed_bucket_acknowledges_before_the_sync_and_a_write_with_dw_after_it() {
    let relaxed = |bucket: &mut crate::bucket::BucketProperties| bucket.durability = crate::bucket::Durability::Relaxed;
    let mut cluster = Cluster::with_bucket(3, relaxed);
    (0..3).for_each(|node| cluster.disks[node].holds_syncs = true);
    let (_, replicas) = written(cluster.ask(0, put(1, "a", None)));
    assert!(states(&replicas).contains(&ReplicaState::Accepted));
    assert!(!states(&replicas).contains(&Acked));
    assert_eq!(read(cluster.ask(1, get())).0, ["a"]);
    let other = crate::key::Key::new(b"bucket", b"other", None).unwrap();
    let dw = with_options(put_under(other, 2, "b", None), |options| options.dw = Some(1));
    let handle = cluster.begin(0, dw);
    assert_eq!(cluster.reply(handle), None);
    (0..3).for_each(|node| cluster.release_syncs(node));
    let (_, replicas) = written(cluster.reply(handle).unwrap());
    assert!(!states(&replicas).contains(&ReplicaState::Accepted));
    cluster.assert_idle();
}

#[test]
fn a_relaxed_bucket_acknowledges_nothing_that_a_disk_refuses() {
    let relaxed = |bucket: &mut crate::bucket::BucketProperties| bucket.durability = crate::bucket::Durability::Relaxed;
    for refuses in [0, 1] {
        let mut cluster = Cluster::with_bucket(3, relaxed);
        cluster.disks[refuses].refuses_stores = true;
        cluster.hold(0, 2);
        // Its own disk and that of one other owner: one of the two takes no writes.
        let handle = cluster.begin(0, put(1, "a", None));
        assert_eq!(cluster.reply(handle), None, "node {refuses} refuses");
        cluster.release(0, 2);
        let (_, replicas) = written(cluster.reply(handle).unwrap());
        let refusal = replicas
            .iter()
            .find(|report| report.node == super::cluster::index(refuses));
        assert_eq!(refusal.unwrap().state, ReplicaState::WriteFailed);
    }
}

#[test]
fn nothing_is_said_of_a_store_of_a_relaxed_bucket_that_is_refused_afterwards() {
    let relaxed = |bucket: &mut crate::bucket::BucketProperties| bucket.durability = crate::bucket::Durability::Relaxed;
    let mut cluster = Cluster::with_bucket_without_hints(3, relaxed);
    (1..3).for_each(|node| cluster.disks[node].refuses_stores = true);
    let failure = failed(cluster.wait(0, put(1, "a", None)));
    assert_eq!((failure.code, failure.outcome), (Code::QuorumNotMet, Outcome::Unknown));
    let (accepted, refused) = (ReplicaState::Accepted, ReplicaState::WriteFailed);
    assert_eq!(states(&failure.replicas), [accepted, refused, refused]);
    cluster.disks[0].refuses_stores = true;
    let one = with_options(put(2, "b", None), |options| options.w = Some(1));
    let failure = failed(cluster.wait(0, one));
    assert!(
        failure.replicas.iter().all(|replica| replica.state == refused),
        "{failure}"
    );
}

#[test]
fn what_a_fallback_keeps_is_read_from_it() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    cluster.isolate(owners[1]);
    written(cluster.ask(owners[0], all(put(1, "a", None))));
    let target = cluster.engines[owners[1]].config().me;
    let fetch = |key| {
        crate::message::PeerMessage::FetchHint(crate::message::FetchHint {
            id: 9,
            target,
            key,
            have: None,
        })
    };
    cluster.sent.clear();
    for node in [fallbacks[0], owners[2]] {
        let from = super::cluster::index(owners[0]);
        let message = fetch(key());
        cluster.input(node, crate::engine::Input::Message { from, message });
    }
    cluster.run();
    let answers: Vec<_> = cluster
        .sent
        .iter()
        .filter_map(|(_, _, message)| match message {
            crate::message::PeerMessage::FetchReply(reply) => Some(reply.result.clone()),
            _ => None,
        })
        .collect();
    let [
        Ok(crate::message::Held::Record(record)),
        Err(crate::message::Refusal::NotOwner),
    ] = &answers[..]
    else {
        panic!("{answers:?}");
    };
    assert_eq!(texts(&crate::record::Record::decode(record).unwrap()), ["a"]);
}

/// Six nodes. The first fallback reaches the other two, and no owner. The owners reach each other.
fn cut_off() -> (Cluster, Vec<usize>, Vec<usize>) {
    let mut cluster = Cluster::new(6);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    for &owner in &owners {
        fallbacks
            .iter()
            .for_each(|&fallback| cluster.disconnect(owner, fallback));
    }
    (cluster, owners, fallbacks)
}

fn reconnect(cluster: &mut Cluster, owners: &[usize], fallbacks: &[usize]) {
    for &owner in owners {
        fallbacks.iter().for_each(|&fallback| cluster.connect(owner, fallback));
    }
    cluster.advance(Duration::from_secs(2));
}

#[test]
fn a_fallback_that_reaches_no_owner_coordinates_itself_and_what_it_wrote_goes_home() {
    let (mut cluster, owners, fallbacks) = cut_off();
    let (context, replicas) = written(cluster.ask(fallbacks[0], all(put(1, "a", None))));
    assert!(fallbacks.iter().all(|&node| role_of(&replicas, node) == Role::Fallback));
    assert_eq!(replicas.iter().filter(|r| r.state == Acked).count(), 3);
    for (at, &fallback) in fallbacks.iter().enumerate() {
        assert_eq!(cluster.hinted(fallback), [owners[at]]);
        assert_eq!(texts(&cluster.hints(fallback)[0].2), ["a"]);
        assert!(cluster.record(fallback).is_empty());
    }
    assert_eq!(read(cluster.ask(fallbacks[0], get())).0, ["a"]);
    written(cluster.ask(fallbacks[0], all(put(2, "b", Some(&context)))));
    written(cluster.ask(owners[0], put(3, "c", None)));
    reconnect(&mut cluster, &owners, &fallbacks);
    for node in 0..6 {
        assert!(cluster.hints(node).is_empty());
    }
    for owner in owners {
        assert_eq!(texts(&cluster.record(owner)), ["b", "c"]);
    }
    cluster.assert_idle();
}

#[test]
fn a_fallback_that_has_handed_its_hint_over_and_coordinates_again_is_another_actor() {
    let (mut cluster, owners, fallbacks) = cut_off();
    written(cluster.ask(fallbacks[0], all(put(1, "a", None))));
    reconnect(&mut cluster, &owners, &fallbacks);
    assert_eq!(texts(&cluster.record(owners[0])), ["a"]);
    for &owner in &owners {
        fallbacks
            .iter()
            .for_each(|&fallback| cluster.disconnect(owner, fallback));
    }
    // The harness checks that the dot is not that of the first write.
    written(cluster.ask(fallbacks[0], all(put(2, "b", None))));
    reconnect(&mut cluster, &owners, &fallbacks);
    for owner in owners {
        assert_eq!(texts(&cluster.record(owner)), ["a", "b"]);
    }
}

#[test]
fn a_fallback_coordinates_no_strict_request_and_none_that_needs_owners() {
    let (mut cluster, owners, fallbacks) = cut_off();
    let pw = with_options(put(1, "a", None), |options| options.pw = Some(1));
    for operation in [strict(put(2, "a", None)), pw] {
        let failure = failed(cluster.ask(fallbacks[0], operation));
        assert_eq!(
            (failure.code, failure.outcome),
            (Code::Unavailable, Outcome::NotApplied)
        );
    }
    cluster.connect(fallbacks[0], owners[1]);
    cluster.sent.clear();
    written(cluster.ask(fallbacks[0], put(3, "b", None)));
    assert_eq!(cluster.sent_to(fallbacks[0], super::asks::is_forward), [owners[1]]);
}

#[test]
fn a_fallback_that_coordinated_alone_keeps_the_record_for_every_owner() {
    let (mut cluster, owners, fallbacks) = cut_off();
    fallbacks[1..]
        .iter()
        .for_each(|&node| cluster.disconnect(fallbacks[0], node));
    let one = with_options(put(1, "a", None), |options| options.w = Some(1));
    written(cluster.ask(fallbacks[0], one));
    let mut hinted = cluster.hinted(fallbacks[0]);
    let mut expected = owners.clone();
    hinted.sort();
    expected.sort();
    assert_eq!(hinted, expected);
    reconnect(&mut cluster, &owners, &fallbacks);
    for owner in owners {
        assert_eq!(texts(&cluster.record(owner)), ["a"]);
    }
}

#[test]
fn a_fallback_that_is_full_coordinates_nothing() {
    let fallback = config(6, Cluster::new(6).owners_and_fallbacks().1[0], 0).me;
    let mut cluster = Cluster::with(6, |config| {
        if config.me == fallback {
            config.limits.hint_bytes_max = 60;
        }
    });
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    owners.iter().for_each(|&owner| cluster.disconnect(fallbacks[0], owner));
    let failure = failed(cluster.ask(fallbacks[0], put(1, "a", None)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    assert!(failure.detail.contains("as many hints"), "{failure}");
    cluster.assert_idle();
}

#[test]
fn an_owner_that_was_slow_of_late_is_left_to_a_fallback_until_it_is_probed() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    cluster.hold(owners[1], owners[0]);
    written(cluster.ask(owners[0], put(1, "a", None)));
    cluster.advance(Duration::from_millis(101));
    cluster.sent.clear();
    let (_, replicas) = written(cluster.ask(owners[0], all(put(2, "b", None))));
    assert_eq!(cluster.sent_to(owners[0], is_store_hint), [fallbacks[0]]);
    let slow = replicas.iter().find(|r| r.node.get() == owners[1]).unwrap();
    assert_eq!(slow.state, ReplicaState::NotAsked);
    // Where it matters who acknowledges it is asked all the same.
    let pw = with_options(put(3, "c", None), |options| options.pw = Some(3));
    let handle = cluster.begin(owners[0], pw);
    cluster.release(owners[1], owners[0]);
    written(cluster.reply(handle).unwrap());
    cluster.advance(Duration::from_secs(3));
    assert!((0..5).all(|node| cluster.hints(node).is_empty()));
    assert_eq!(texts(&cluster.record(owners[1])), ["a", "b", "c"]);
    cluster.assert_idle();
}
