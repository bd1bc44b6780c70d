//! Requests for keys that the node does not own.

use super::asks::{failed, get, is_forward, key, put, read, texts, written};
use super::cluster::{Cluster, TIMEOUT, index};
use crate::bucket::BlindWrites;
use crate::engine::Input;
use crate::message::{Forward, PeerMessage};
use crate::request::{Code, Operation, Outcome, QuorumKind, ReplicaState};
use std::time::Duration;

#[test]
fn a_node_that_does_not_own_the_key_forwards_once() {
    let mut cluster = Cluster::new(5);
    let (owners, stranger) = cluster.owners_and_stranger();
    written(cluster.ask(stranger, put(1, "a", None)));
    assert_eq!(read(cluster.ask(stranger, get())).0, ["a"]);
    let forwards = cluster.sent_to(stranger, is_forward);
    assert_eq!(forwards.len(), 2);
    assert!(forwards.iter().all(|to| owners.contains(to)));
    assert!(cluster.record(stranger).is_empty());
    assert_eq!(cluster.engines[stranger].counters().forwarded, 2);
    cluster.assert_idle();
}

#[test]
fn a_request_that_was_forwarded_to_a_node_that_does_not_own_the_key_goes_no_further() {
    let mut cluster = Cluster::new(5);
    let (owners, stranger) = cluster.owners_and_stranger();
    let forward = Forward {
        id: 7,
        timeout_us: 1_000_000,
        operation: put(1, "a", None),
    };
    let from = index(owners[0]);
    let message = PeerMessage::Forward(forward);
    cluster.input(stranger, Input::Message { from, message });
    cluster.run();
    let [(_, to, PeerMessage::ForwardReply(reply))] = &cluster.sent[..] else {
        panic!("{:?}", cluster.sent);
    };
    assert_eq!((*to, reply.id), (owners[0], 7));
    let failure = failed(reply.response.clone());
    assert_eq!((failure.code, failure.outcome), (Code::NotOwner, Outcome::NotApplied));
}

#[test]
fn a_forwarded_request_is_given_what_is_left_of_the_deadline() {
    let mut cluster = Cluster::with_bucket(5, |bucket| bucket.quorum = QuorumKind::Strict);
    let (owners, stranger) = cluster.owners_and_stranger();
    for &a in &owners {
        owners.iter().filter(|&&b| b != a).for_each(|&b| cluster.hold(a, b));
    }
    let start = cluster.now;
    let failure = failed(cluster.wait(stranger, put(1, "a", None)));
    // The owner's own answer, which says who timed out, comes before the forwarder gives up.
    assert_eq!((failure.code, failure.outcome), (Code::QuorumNotMet, Outcome::Unknown));
    assert_eq!(failure.replicas.len(), 3);
    assert!(cluster.now.since(start) < TIMEOUT - Duration::from_millis(20));
    for &a in &owners {
        owners.iter().filter(|&&b| b != a).for_each(|&b| cluster.release(a, b));
    }
    cluster.advance(TIMEOUT);
    cluster.assert_idle();
}

#[test]
fn when_the_connections_to_all_owners_are_lost_a_write_is_unknown_and_a_read_is_not_applied() {
    let mut cluster = Cluster::new(5);
    let (owners, stranger) = cluster.owners_and_stranger();
    for (operation, outcome) in [(put(1, "a", None), Outcome::Unknown), (get(), Outcome::NotApplied)] {
        owners.iter().for_each(|&owner| cluster.hold(stranger, owner));
        cluster.sent.clear();
        let handle = cluster.begin(stranger, operation);
        for _ in 0..3 {
            assert_eq!(cluster.reply(handle), None);
            let to = *cluster.sent_to(stranger, is_forward).last().unwrap();
            cluster.disconnect(stranger, to);
        }
        let to = *cluster.sent_to(stranger, is_forward).last().unwrap();
        let failure = failed(cluster.reply(handle).unwrap());
        assert_eq!((failure.code, failure.outcome), (Code::QuorumNotMet, outcome));
        assert_eq!(failure.replicas[0].node, index(to));
        assert_eq!(failure.replicas[0].state, ReplicaState::Lost);
        assert_eq!(cluster.sent_to(stranger, is_forward).len(), 3, "once to each");
        owners.iter().for_each(|&owner| cluster.connect(stranger, owner));
    }
    cluster.assert_idle();
}

#[test]
fn a_request_goes_to_another_owner_when_the_connection_is_lost_and_a_write_is_still_one() {
    let mut cluster = Cluster::new(5);
    let (owners, stranger) = cluster.owners_and_stranger();
    for (operation, is_write) in [(put(1, "a", None), true), (get(), false)] {
        cluster.sent.clear();
        owners.iter().for_each(|&owner| cluster.hold(owner, stranger));
        let handle = cluster.begin(stranger, operation);
        let first = cluster.sent_to(stranger, is_forward)[0];
        assert_eq!(
            texts(&cluster.record(first)),
            ["a"],
            "it is carried out, and nobody hears of it"
        );
        let others = owners.iter().filter(|&&owner| owner != first);
        others.for_each(|&owner| cluster.release(owner, stranger));
        cluster.disconnect(stranger, first);
        let response = cluster.reply(handle).unwrap();
        match is_write {
            true => drop(written(response)),
            false => assert_eq!(read(response).0, ["a"]),
        }
        let retries = cluster.sent.iter().filter_map(|(_, _, message)| match message {
            PeerMessage::Forward(Forward {
                operation: Operation::Put { retry, .. },
                ..
            }) => Some(*retry),
            _ => None,
        });
        let expected: &[bool] = if is_write { &[false, true] } else { &[] };
        assert_eq!(retries.collect::<Vec<_>>(), expected);
        owners
            .iter()
            .for_each(|&owner| assert_eq!(texts(&cluster.record(owner)), ["a"]));
        cluster.connect(stranger, first);
    }
    cluster.assert_idle();
}

#[test]
fn a_second_owner_that_refuses_a_write_does_not_make_the_first_try_certain() {
    let mut cluster = Cluster::with_bucket(5, |bucket| bucket.quorum = QuorumKind::Strict);
    let (owners, stranger) = cluster.owners_and_stranger();
    owners.iter().for_each(|&owner| cluster.hold(owner, stranger));
    let handle = cluster.begin(stranger, put(1, "a", None));
    let first = cluster.sent_to(stranger, is_forward)[0];
    let others: Vec<usize> = owners.iter().copied().filter(|&owner| owner != first).collect();
    cluster.disconnect(others[0], others[1]);
    others.iter().for_each(|&owner| cluster.disconnect(owner, first));
    others.iter().for_each(|&owner| cluster.release(owner, stranger));
    cluster.disconnect(stranger, first);
    let failure = failed(cluster.reply(handle).unwrap());
    assert_eq!((failure.code, failure.outcome), (Code::Unavailable, Outcome::Unknown));
}

#[test]
fn a_read_that_is_kept_waiting_goes_to_another_owner() {
    let mut cluster = Cluster::new(5);
    let (owners, stranger) = cluster.owners_and_stranger();
    written(cluster.ask(stranger, put(1, "a", None)));
    owners.iter().for_each(|&owner| cluster.hold(stranger, owner));
    cluster.sent.clear();
    let handle = cluster.begin(stranger, get());
    let first = cluster.sent_to(stranger, is_forward)[0];
    cluster.advance(Duration::from_millis(99));
    assert_eq!(cluster.sent_to(stranger, is_forward).len(), 1);
    let others = owners.iter().filter(|&&owner| owner != first);
    others.for_each(|&owner| cluster.lose(stranger, owner));
    cluster.advance(Duration::from_millis(1));
    assert_eq!(read(cluster.reply(handle).unwrap()).0, ["a"]);
    assert_eq!(cluster.sent_to(stranger, is_forward).len(), 2);
}

#[test]
fn a_write_goes_to_another_owner_when_the_first_is_silent_and_is_still_one_when_that_wakes() {
    let mut cluster = Cluster::new(5);
    let (owners, stranger) = cluster.owners_and_stranger();
    owners.iter().for_each(|&owner| cluster.hold(stranger, owner));
    let handle = cluster.begin(stranger, put(1, "a", None));
    let first = cluster.sent_to(stranger, is_forward)[0];
    let others: Vec<usize> = owners.iter().copied().filter(|&owner| owner != first).collect();
    for &other in &others {
        cluster.lose(stranger, other);
        cluster.hold(other, first);
    }
    cluster.advance(Duration::from_millis(100));
    written(cluster.reply(handle).unwrap());
    assert_eq!(cluster.sent_to(stranger, is_forward).len(), 2);
    assert!(
        cluster.engines[stranger].pending.may_hold(&key()),
        "it may still arrive"
    );
    // The first one wakes, does not know of the other try, and mints a dot of its own.
    cluster.release(stranger, first);
    for &other in &others {
        cluster.release(other, first);
    }
    cluster.advance(TIMEOUT);
    assert!(!cluster.engines[stranger].pending.may_hold(&key()));
    for &owner in &owners {
        assert_eq!(texts(&cluster.record(owner)), ["a"]);
    }
}

#[test]
fn a_write_is_not_sent_on_while_anything_is_heard_of_who_has_it_nor_where_a_retry_replaces_nothing() {
    for replaces in [false, true] {
        let mut cluster = Cluster::with_bucket(5, |bucket| {
            if replaces {
                bucket.blind_writes = BlindWrites::Replace;
            }
        });
        let (owners, stranger) = cluster.owners_and_stranger();
        owners.iter().for_each(|&owner| cluster.hold(stranger, owner));
        let handle = cluster.begin(stranger, put(1, "a", None));
        let first = cluster.sent_to(stranger, is_forward)[0];
        while cluster.reply(handle).is_none() {
            if !replaces {
                let reply = crate::message::PullReply {
                    id: 7,
                    result: Err(crate::message::Refusal::NotOwner),
                    whole: false,
                };
                let (from, message) = (index(first), PeerMessage::PullReply(reply));
                cluster.input(stranger, Input::Message { from, message });
            }
            cluster.advance(Duration::from_millis(50));
        }
        assert_eq!(failed(cluster.reply(handle).unwrap()).code, Code::DeadlineExceeded);
        assert_eq!(cluster.sent_to(stranger, is_forward).len(), 1);
    }
}

#[test]
fn a_node_that_keeps_forwarded_requests_waiting_is_asked_last() {
    let mut cluster = Cluster::new(5);
    let (owners, stranger) = cluster.owners_and_stranger();
    owners.iter().for_each(|&owner| cluster.hold(stranger, owner));
    let failure = failed(cluster.wait(stranger, put(1, "a", None)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::DeadlineExceeded, Outcome::Unknown)
    );
    let slow = cluster.sent_to(stranger, is_forward)[0];
    owners
        .iter()
        .filter(|&&owner| owner != slow)
        .for_each(|&owner| cluster.release(stranger, owner));
    for n in 2..8 {
        written(cluster.ask(stranger, put(n, "b", None)));
    }
    cluster.release(stranger, slow);
    cluster.sent.clear();
    for n in 8..14 {
        written(cluster.ask(stranger, put(n, "c", None)));
    }
    assert!(cluster.sent_to(stranger, is_forward).contains(&slow));
    cluster.assert_idle();
}

#[test]
fn with_no_owner_in_reach_nothing_is_sent() {
    let mut cluster = Cluster::with_bucket(5, |bucket| bucket.quorum = QuorumKind::Strict);
    let (owners, stranger) = cluster.owners_and_stranger();
    owners.iter().for_each(|&owner| cluster.disconnect(stranger, owner));
    for operation in [put(1, "a", None), get()] {
        let failure = failed(cluster.ask(stranger, operation));
        assert_eq!(
            (failure.code, failure.outcome),
            (Code::Unavailable, Outcome::NotApplied)
        );
        assert_eq!(failure.replicas.len(), 3);
    }
    assert!(cluster.sent.is_empty());
}

#[test]
fn an_answer_to_a_forward_counts_only_from_the_node_that_had_it() {
    let mut cluster = Cluster::new(5);
    let (owners, stranger) = cluster.owners_and_stranger();
    owners.iter().for_each(|&owner| cluster.hold(stranger, owner));
    let handle = cluster.begin(stranger, get());
    let (_, to, PeerMessage::Forward(forward)) = &cluster.sent[0] else {
        panic!("no forward");
    };
    let (id, to) = (forward.id, *to);
    let liar = *owners.iter().find(|&&owner| owner != to).unwrap();
    let response = Err(crate::request::Failure::not_applied(Code::Stopping, "x"));
    let message = PeerMessage::ForwardReply(crate::message::ForwardReply { id, response });
    cluster.input(
        stranger,
        Input::Message {
            from: index(liar),
            message,
        },
    );
    assert_eq!(cluster.reply(handle), None);
    cluster.release(stranger, to);
    assert_eq!(read(cluster.reply(handle).unwrap()).0.len(), 0);
}
