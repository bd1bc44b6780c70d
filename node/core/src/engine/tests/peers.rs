//! Owners that are down, go down, hang or answer late.

use super::asks::{failed, get, put, read, states, written};
use super::cluster::{Cluster, TIMEOUT, index};
use crate::bucket::Durability;
use crate::engine::Input;
use crate::message::{Held, PeerMessage, ReplicateReply};
use crate::request::{Code, Outcome, ReplicaState};
use ReplicaState::{Acked, Down, Lost, NotAsked, TimedOut};
use std::time::Duration;

#[test]
fn without_enough_owners_a_request_fails_at_once_and_names_who_is_down() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(1);
    cluster.isolate(2);
    let failure = failed(cluster.ask(0, put(1, "a", None)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    assert_eq!(states(&failure.replicas), [NotAsked, Down, Down]);
    let (a, b) = ("n2 is down, n3 is down", "n3 is down, n2 is down");
    assert!(failure.detail.contains(a) || failure.detail.contains(b), "{failure}");
    assert!(
        failure
            .detail
            .starts_with("2 acks needed, 1 of the key's 3 owners is up: "),
        "{failure}"
    );
    let failure = failed(cluster.ask(0, get()));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    assert!(cluster.record(0).is_empty());
    cluster.assert_idle();
}

#[test]
fn with_one_owner_down_writes_and_reads_go_on() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    let (_, replicas) = written(cluster.ask(0, put(1, "a", None)));
    assert_eq!(states(&replicas), [Acked, Acked, Down]);
    assert_eq!(read(cluster.ask(1, get())).0, ["a"]);
    cluster.assert_idle();
}

#[test]
fn owners_that_go_while_the_record_is_loading_leave_the_write_not_applied() {
    let mut cluster = Cluster::new(3);
    cluster.disks[0].holds_loads = true;
    let handle = cluster.begin(0, put(1, "a", None));
    cluster.isolate(1);
    cluster.isolate(2);
    cluster.release_loads(0);
    let failure = failed(cluster.reply(handle).unwrap());
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    assert!(cluster.record(0).is_empty());
    cluster.assert_idle();
}

#[test]
fn a_write_whose_quorum_is_lost_under_way_is_unknown_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 1);
    cluster.hold(0, 2);
    let handle = cluster.begin(0, put(1, "a", None));
    cluster.disconnect(0, 1);
    assert_eq!(cluster.reply(handle), None, "the other may still acknowledge");
    cluster.disconnect(0, 2);
    let failure = failed(cluster.reply(handle).unwrap());
    assert_eq!((failure.code, failure.outcome), (Code::QuorumNotMet, Outcome::Unknown));
    assert_eq!(states(&failure.replicas), [Acked, Lost, Lost]);
    assert!(failure.detail.contains("n2 lost its connection"), "{failure}");
    assert!(failure.detail.contains("n3 lost its connection"), "{failure}");
    cluster.assert_idle();
}

#[test]
fn a_write_that_was_sent_and_not_acknowledged_in_time_is_unknown_and_may_be_there() {
    let mut cluster = Cluster::new(3);
    cluster.hold(1, 0);
    cluster.hold(2, 0);
    let start = cluster.now;
    let failure = failed(cluster.wait(0, put(1, "a", None)));
    assert!(
        cluster.now.since(start) < TIMEOUT,
        "the reply comes before the client gives up"
    );
    assert_eq!((failure.code, failure.outcome), (Code::QuorumNotMet, Outcome::Unknown));
    assert_eq!(states(&failure.replicas), [Acked, TimedOut, TimedOut]);
    assert!(failure.detail.contains("n2 timed out after 980 ms"), "{failure}");
    cluster.release(1, 0);
    cluster.release(2, 0);
    cluster.advance(TIMEOUT);
    cluster.assert_idle();
    assert_eq!(read(cluster.ask(1, get())).0, ["a"]);
}

#[test]
fn an_ack_that_comes_twice_or_from_a_stranger_counts_nothing() {
    let mut cluster = Cluster::new(4);
    let (owners, stranger) = cluster.owners_and_stranger();
    let (me, other) = (owners[0], owners[1]);
    owners[1..].iter().for_each(|&owner| cluster.hold(me, owner));
    cluster.disks[me].holds_syncs = true;
    let handle = cluster.begin(me, put(1, "a", None));
    let id = cluster
        .sent
        .iter()
        .find_map(|(_, _, message)| match message {
            PeerMessage::Replicate(m) => Some(m.id),
            _ => None,
        })
        .unwrap();
    for from in [other, other, stranger, me] {
        for id in [id, id + 1, 0] {
            let message = PeerMessage::ReplicateReply(ReplicateReply {
                id,
                result: Ok(Durability::Durable),
            });
            if from != me {
                cluster.input(
                    me,
                    Input::Message {
                        from: index(from),
                        message,
                    },
                );
            }
        }
    }
    cluster.run();
    assert_eq!(cluster.reply(handle), None);
    cluster.release_syncs(me);
    written(cluster.reply(handle).unwrap());
}

#[test]
fn an_answer_of_the_wrong_kind_is_ignored() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 1);
    cluster.hold(0, 2);
    let write = cluster.begin(0, put(1, "a", None));
    let id = match &cluster.sent[0].2 {
        PeerMessage::Replicate(m) => m.id,
        other => panic!("{other:?}"),
    };
    let answers = [
        PeerMessage::FetchReply(crate::message::FetchReply {
            id,
            result: Ok(Held::Same),
        }),
        PeerMessage::ForwardReply(crate::message::ForwardReply {
            id,
            response: Err(crate::request::Failure::not_applied(Code::Stopping, "x")),
        }),
    ];
    for message in answers {
        cluster.input(
            0,
            Input::Message {
                from: index(1),
                message,
            },
        );
    }
    cluster.run();
    assert_eq!(cluster.reply(write), None);
    cluster.release(0, 1);
    written(cluster.reply(write).unwrap());
}

#[test]
fn a_read_goes_on_at_another_owner_when_a_connection_is_lost() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.hold(0, 1);
    cluster.hold(0, 2);
    let handle = cluster.begin(0, get());
    let asked = *cluster.sent_to(0, super::asks::is_fetch).last().unwrap();
    let other = 3 - asked;
    cluster.release(0, other);
    assert_eq!(cluster.reply(handle), None);
    cluster.disconnect(0, asked);
    assert_eq!(read(cluster.reply(handle).unwrap()).0, ["a"]);
    cluster.assert_idle();
}

#[test]
fn a_read_that_nobody_answers_says_who_did_not() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 1);
    cluster.hold(0, 2);
    let failure = failed(cluster.wait(0, get()));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::QuorumNotMet, Outcome::NotApplied)
    );
    assert_eq!(states(&failure.replicas), [Acked, TimedOut, TimedOut]);
    cluster.advance(Duration::from_secs(2));
    cluster.assert_idle();
}

#[test]
fn a_ring_smaller_than_n_serves_what_its_nodes_can_acknowledge() {
    let mut cluster = Cluster::new(2);
    written(cluster.ask(0, put(1, "a", None)));
    assert_eq!(read(cluster.ask(1, get())).0, ["a"]);
    let all = super::asks::with_options(put(2, "b", None), |options| options.w = Some(3));
    let failure = failed(cluster.ask(0, all));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    assert!(
        failure.detail.contains("3 acks needed, 2 of the key's 2 owners are up"),
        "{failure}"
    );
}
