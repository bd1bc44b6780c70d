//! Whom a sloppy read asks when owners are away.

use super::asks::{failed, found, get_at_least, get_with, is_fetch, put, read, written};
use super::cluster::{Cluster, index};
use crate::engine::Input;
use crate::message::{FetchReply, Held, PeerMessage, Refusal};
use crate::request::{Code, Operation, QuorumKind, ReadOptions, ReplicaState, Reply, Role};
use quorate_ring::NodeId;
use std::time::Duration;

fn is_fetch_hint(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::FetchHint(_))
}

fn get_r(r: u8, pr: Option<u8>) -> Operation {
    get_with(ReadOptions {
        r: Some(r),
        pr,
        ..ReadOptions::default()
    })
}

/// Six nodes, with a value on all owners: the cluster, the owners, and the others in the order in which they stand in.
fn six() -> (Cluster, Vec<usize>, Vec<usize>) {
    let mut cluster = Cluster::new(6);
    let ring = cluster.engines[0].config().ring.clone();
    let list = ring.preference_list(ring.partition_of(super::asks::key().token()));
    let list: Vec<usize> = list.iter().map(|node| usize::from(node.0)).collect();
    written(cluster.ask(list[0], put(1, "a", None)));
    cluster.run();
    cluster.sent.clear();
    (cluster, list[..3].to_vec(), list[3..].to_vec())
}

/// What hints were asked for by `me`: of whom, and for whom.
fn asked_hints(cluster: &Cluster, me: usize) -> Vec<(usize, NodeId)> {
    let hints = cluster.sent.iter().filter_map(|(from, to, message)| match message {
        PeerMessage::FetchHint(m) if *from == me => Some((*to, m.target)),
        _ => None,
    });
    hints.collect()
}

/// The fallback's answer to the last question for a hint.
fn answer_hint(cluster: &mut Cluster, me: usize, held: Held) {
    let (from, id) = cluster
        .sent
        .iter()
        .rev()
        .find_map(|(from, to, message)| match message {
            PeerMessage::FetchHint(m) if *from == me => Some((*to, m.id)),
            _ => None,
        })
        .expect("a hint was asked for");
    let message = PeerMessage::FetchReply(FetchReply { id, result: Ok(held) });
    let from = index(from);
    cluster.input(me, Input::Message { from, message });
    cluster.run();
}

#[test]
fn fallbacks_are_asked_in_order_each_for_one_owner_that_is_down() {
    let (mut cluster, owners, others) = six();
    let me = owners[0];
    others.iter().for_each(|&other| cluster.hold(other, me));
    cluster.disconnect(me, owners[1]);
    cluster.disconnect(me, owners[2]);
    let handle = cluster.begin(me, get_r(3, None));
    assert_eq!(cluster.reply(handle), None);
    let id = |node: usize| NodeId([node as u8 + 1; 16]);
    let expected = [(others[0], id(owners[1])), (others[1], id(owners[2]))];
    assert_eq!(asked_hints(&cluster, me), expected);
    for other in &others {
        cluster.release(*other, me);
    }
    let Ok(Reply::Found { view, replicas }) = cluster.wait_for(handle) else {
        panic!("it is found")
    };
    assert_eq!(view.siblings.len(), 1);
    let roles: Vec<Role> = replicas.iter().map(|report| report.role).collect();
    assert_eq!(
        roles,
        [
            Role::Primary,
            Role::Primary,
            Role::Primary,
            Role::Fallback,
            Role::Fallback
        ]
    );
    cluster.assert_idle();
}

#[test]
fn a_fallback_that_keeps_something_newer_is_heard_and_one_that_keeps_nothing_repairs_nobody() {
    let (mut cluster, owners, others) = six();
    let me = owners[0];
    others.iter().for_each(|&other| cluster.hold(other, me));
    let newer = {
        let (mut elsewhere, owners, _) = six();
        written(elsewhere.ask(owners[0], put(2, "b", None)));
        elsewhere.record(owners[0]).encode()
    };
    owners[1..].iter().for_each(|&owner| cluster.disconnect(me, owner));
    let nothing = crate::record::Record::default().encode();
    for (held, expected) in [
        (Held::Record(nothing), vec!["a"]),
        (Held::Record(newer), vec!["a", "b"]),
    ] {
        let handle = cluster.begin(me, get_r(2, None));
        assert_eq!(cluster.reply(handle), None);
        answer_hint(&mut cluster, me, held);
        let (mut texts, _) = read(cluster.reply(handle).unwrap());
        texts.dedup();
        assert_eq!(texts, expected);
        assert_eq!(cluster.engines[me].counters().read_repairs, expected.len() as u64 - 1);
    }
}

#[test]
fn while_enough_owners_answer_no_fallback_is_asked() {
    let (mut cluster, owners, _) = six();
    cluster.disconnect(owners[0], owners[1]);
    for _ in 0..4 {
        read(cluster.ask(owners[0], get_r(2, None)));
    }
    assert_eq!(cluster.sent_to(owners[0], is_fetch_hint), [] as [usize; 0]);
}

#[test]
fn a_strict_read_asks_no_fallback() {
    let (mut cluster, owners, _) = six();
    owners[1..]
        .iter()
        .for_each(|&owner| cluster.disconnect(owners[0], owner));
    let strict = get_with(ReadOptions {
        quorum: Some(QuorumKind::Strict),
        ..ReadOptions::default()
    });
    assert_eq!(failed(cluster.ask(owners[0], strict)).code, Code::Unavailable);
    assert_eq!(cluster.sent_to(owners[0], is_fetch_hint), [] as [usize; 0]);
}

#[test]
fn a_fallbacks_answer_does_not_count_for_pr() {
    let (mut cluster, owners, others) = six();
    let me = owners[0];
    others.iter().for_each(|&other| cluster.hold(other, me));
    // One owner cannot read its disk, and the other is down.
    cluster.disks[owners[1]].fails_loads = true;
    cluster.hold(owners[2], me);
    let handle = cluster.begin(me, get_r(2, Some(2)));
    cluster.advance(Duration::from_millis(30));
    cluster.disconnect(me, owners[2]);
    let failure = failed(cluster.wait_for(handle));
    assert_eq!(failure.code, Code::QuorumNotMet);
    assert!(failure.detail.contains("of owners"), "{failure}");
}

#[test]
fn an_owner_that_refuses_has_a_fallback_stand_in() {
    let (mut cluster, owners, others) = six();
    let me = owners[0];
    others.iter().for_each(|&other| cluster.hold(other, me));
    owners[1..]
        .iter()
        .for_each(|&owner| cluster.disks[owner].fails_loads = true);
    let handle = cluster.begin(me, get_r(2, None));
    assert_eq!(asked_hints(&cluster, me).len(), 1);
    answer_hint(&mut cluster, me, Held::Same);
    assert_eq!(found(cluster.reply(handle).unwrap()).siblings.len(), 1);
}

#[test]
fn a_fallback_that_is_lost_is_followed_by_the_next() {
    let (mut cluster, owners, others) = six();
    let me = owners[0];
    others.iter().for_each(|&other| cluster.hold(other, me));
    owners[1..].iter().for_each(|&owner| cluster.disconnect(me, owner));
    let handle = cluster.begin(me, get_r(2, None));
    cluster.disconnect(me, others[0]);
    answer_hint(&mut cluster, me, Held::Same);
    let Ok(Reply::Found { replicas, .. }) = cluster.reply(handle).unwrap() else {
        panic!("it is found")
    };
    let state = |node: usize| {
        replicas
            .iter()
            .find(|report| report.node == index(node))
            .map(|report| report.state)
    };
    assert_eq!(state(others[0]), Some(ReplicaState::Lost));
    assert_eq!(state(others[1]), Some(ReplicaState::SameDigest));
}

#[test]
fn owners_that_hang_have_fallbacks_stand_in_within_100_ms() {
    let (mut cluster, owners, others) = six();
    let me = owners[0];
    others.iter().for_each(|&other| cluster.hold(other, me));
    owners[1..].iter().for_each(|&owner| cluster.hold(owner, me));
    let handle = cluster.begin(me, get_r(2, None));
    cluster.advance(Duration::from_millis(99));
    assert_eq!(cluster.sent_to(me, is_fetch).len(), 2, "the other owner is tried first");
    cluster.advance(Duration::from_millis(1));
    answer_hint(&mut cluster, me, Held::Same);
    read(cluster.reply(handle).unwrap());
    // When both are known to be slow, the next read does not wait for them at all.
    cluster.advance(Duration::from_millis(20));
    let handle = cluster.begin(me, get_r(2, None));
    answer_hint(&mut cluster, me, Held::Same);
    read(cluster.reply(handle).unwrap());
}

#[test]
fn an_owner_that_is_rebuilding_gives_no_answer_and_the_next_one_is_asked() {
    for quorum in [QuorumKind::Strict, QuorumKind::Sloppy] {
        let (mut cluster, owners, _) = six();
        let me = owners[0];
        owners[1..].iter().for_each(|&owner| cluster.hold(me, owner));
        let handle = cluster.begin(
            me,
            get_with(ReadOptions {
                quorum: Some(quorum),
                ..ReadOptions::default()
            }),
        );
        let asked = cluster.sent_to(me, is_fetch);
        let [first] = asked[..] else { panic!("{asked:?}") };
        let id = cluster.sent.iter().find_map(|(_, _, message)| match message {
            PeerMessage::Fetch(m) => Some(m.id),
            _ => None,
        });
        let result = Err(Refusal::Rebuilding);
        let message = PeerMessage::FetchReply(FetchReply {
            id: id.unwrap(),
            result,
        });
        let from = index(first);
        cluster.input(me, Input::Message { from, message });
        cluster.run();
        assert_eq!(cluster.reply(handle), None);
        owners[1..]
            .iter()
            .filter(|&&owner| owner != first)
            .for_each(|&owner| cluster.release(me, owner));
        let Ok(Reply::Found { replicas, .. }) = cluster.reply(handle).unwrap() else {
            panic!("it is found")
        };
        let rebuilding = replicas.iter().find(|report| report.state == ReplicaState::Rebuilding);
        assert_eq!(rebuilding.unwrap().node, index(first));
    }
}

/// Five nodes, one copy of each key: the owner's disk took no write, which a fallback keeps. With the owner, the fallbacks and the context.
fn kept_elsewhere() -> (Cluster, usize, Vec<usize>, bytes::Bytes) {
    let mut cluster = Cluster::with_bucket(5, |bucket| bucket.n = 1);
    let (owners, mut fallbacks) = cluster.owners_and_fallbacks();
    fallbacks.splice(0..0, owners[1..].iter().copied());
    cluster.disks[owners[0]].refuses_stores = true;
    let (context, _) = written(cluster.ask(owners[0], put(1, "a", None)));
    assert!(cluster.record(owners[0]).is_empty());
    (cluster, owners[0], fallbacks, context)
}

#[test]
fn a_minimum_that_only_a_hint_covers_is_found_there_though_all_owners_agree() {
    let (mut cluster, owner, _, context) = kept_elsewhere();
    assert_eq!(read(cluster.wait(owner, get_at_least(&context))).0, ["a"]);
}

#[test]
fn a_minimum_is_not_settled_while_a_member_that_may_keep_a_hint_is_away() {
    let (mut cluster, owner, fallbacks, context) = kept_elsewhere();
    fallbacks
        .iter()
        .for_each(|&fallback| cluster.disconnect(owner, fallback));
    let failure = failed(cluster.wait(owner, get_at_least(&context)));
    assert_eq!(failure.code, Code::MinimumUnmet);
}

#[test]
fn a_minimum_that_no_owner_and_no_fallback_knows_is_settled_history() {
    let mut elsewhere = Cluster::with(3, |config| config.seed[0] += 100);
    let (context, _) = written(elsewhere.ask(0, put(9, "z", None)));
    let (mut cluster, owners, others) = six();
    assert_eq!(read(cluster.ask(owners[0], get_at_least(&context))).0, ["a"]);
    assert_eq!(
        asked_hints(&cluster, owners[0]).len(),
        9,
        "each fallback for each owner"
    );
    assert!(
        cluster.sent_to(owners[0], is_fetch).len() >= 4,
        "the owners are asked once more"
    );
    cluster.assert_idle();
    cluster.disks[others[0]].fails_loads = true;
    let failure = failed(cluster.wait(owners[0], get_at_least(&context)));
    assert_eq!(failure.code, Code::MinimumUnmet);
    cluster.assert_idle();
}

#[test]
fn a_read_asks_no_fallback_for_what_it_missed_when_there_is_no_room_for_so_many_operations() {
    let mut elsewhere = Cluster::with(3, |config| config.seed[0] += 100);
    let (context, _) = written(elsewhere.ask(0, put(9, "z", None)));
    for (room, is_found) in [(9, false), (10, true)] {
        let mut cluster = Cluster::with(6, |config| config.limits.operations_max = room);
        let (owners, others) = cluster.owners_and_fallbacks();
        others.iter().for_each(|&other| cluster.hold(owners[0], other));
        let handle = cluster.begin(owners[0], get_at_least(&context));
        assert_eq!(cluster.engines[owners[0]].in_flight().0, if is_found { 10 } else { 1 });
        others.iter().for_each(|&other| cluster.release(owners[0], other));
        let reply = cluster.wait_for(handle);
        match is_found {
            true => assert!(read(reply).0.is_empty()),
            false => assert_eq!(failed(reply).code, Code::MinimumUnmet),
        }
        cluster.assert_idle();
    }
}
