//! Whom a read asks, how long it waits for whom, and what it promises to have seen.

use super::asks::{failed, get, get_at_least, get_with, is_fetch, put, read, states, with_options, written};
use super::cluster::{Cluster, index};
use crate::engine::Input;
use crate::message::{FetchReply, Held, PeerMessage};
use crate::request::{Code, Outcome, ReadOptions, ReplicaState};
use ReplicaState::TimedOut;
use std::time::Duration;

pub(super) const HEDGE: Duration = Duration::from_millis(20);

/// A read that waits for one answer.
fn get_one() -> crate::request::Operation {
    get_with(ReadOptions {
        r: Some(1),
        ..ReadOptions::default()
    })
}

#[test]
fn a_read_asks_no_more_owners_than_it_needs() {
    let mut cluster = Cluster::new(3);
    read(cluster.ask(0, get()));
    assert_eq!(cluster.sent_to(0, is_fetch).len(), 1);
    read(cluster.ask(0, get_one()));
    assert_eq!(cluster.sent_to(0, is_fetch).len(), 1);
}

#[test]
fn reads_take_turns_among_the_other_owners() {
    let mut cluster = Cluster::new(3);
    (0..10).for_each(|_| drop(read(cluster.ask(0, get()))));
    let asked = cluster.sent_to(0, is_fetch);
    assert_eq!(asked.iter().filter(|&&to| to == 1).count(), 5, "{asked:?}");
}

#[test]
fn a_slow_owner_is_hedged_and_asked_last_until_it_answers() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.hold(1, 0);
    // Whoever of the two is asked first, some of these reads meet the slow one.
    let start = cluster.now;
    for _ in 0..4 {
        assert_eq!(read(cluster.wait(0, get())).0, ["a"]);
    }
    assert_eq!(cluster.now.since(start), HEDGE, "only one of them had to wait");
    assert_eq!(cluster.engines[0].counters().hedged, 1);
    cluster.sent.clear();
    (0..4).for_each(|_| drop(read(cluster.ask(0, get()))));
    assert_eq!(cluster.sent_to(0, is_fetch), [2, 2, 2, 2]);
    cluster.release(1, 0);
    cluster.sent.clear();
    (0..4).for_each(|_| drop(read(cluster.ask(0, get()))));
    assert!(
        cluster.sent_to(0, is_fetch).contains(&1),
        "it answered, so it is asked again"
    );
    cluster.assert_idle();
}

#[test]
fn a_read_does_not_wait_for_its_own_slow_disk() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(1, put(1, "a", None)));
    cluster.disks[0].holds_loads = true;
    for operation in [get(), get_one()] {
        let start = cluster.now;
        assert_eq!(read(cluster.wait(0, operation)).0, ["a"]);
        assert_eq!(cluster.now.since(start), HEDGE);
    }
    cluster.release_loads(0);
    cluster.assert_idle();
}

#[test]
fn a_read_sees_a_write_that_one_of_its_owners_missed() {
    let mut cluster = Cluster::without_hints(3);
    cluster.isolate(0);
    written(cluster.ask(1, put(1, "a", None)));
    cluster.connect(0, 1);
    cluster.connect(0, 2);
    assert_eq!(read(cluster.ask(0, get_one())).0.len(), 0, "one answer may be behind");
    assert_eq!(read(cluster.ask(0, get())).0, ["a"]);
    assert_eq!(cluster.engines[0].counters().replicas_differed, 1);
}

#[test]
fn a_read_with_a_minimum_asks_everybody_before_it_waits() {
    let mut cluster = Cluster::without_hints(3);
    cluster.isolate(0);
    let (context, _) = written(cluster.ask(1, put(1, "a", None)));
    cluster.connect(0, 1);
    cluster.connect(0, 2);
    let minimum = match get_at_least(&context) {
        crate::request::Operation::Get { key, minimum, .. } => crate::request::Operation::Get {
            key,
            minimum,
            options: ReadOptions {
                r: Some(1),
                ..ReadOptions::default()
            },
        },
        other => other,
    };
    assert_eq!(read(cluster.ask(0, minimum)).0, ["a"]);
    cluster.assert_idle();
}

/// A cluster whose nodes 0 and 1 have not received a write that node 2 has, and the write's context. Node 2 is out of their reach.
fn behind() -> (Cluster, bytes::Bytes) {
    let mut cluster = Cluster::without_hints(3);
    cluster.hold(2, 0);
    cluster.hold(2, 1);
    let one = with_options(put(1, "a", None), |options| options.w = Some(1));
    let (context, _) = written(cluster.ask(2, one));
    cluster.disconnect(0, 2);
    (cluster, context)
}

#[test]
fn a_read_whose_minimum_arrives_later_succeeds_then() {
    let (mut cluster, context) = behind();
    let handle = cluster.begin(0, get_at_least(&context));
    cluster.advance(Duration::from_millis(100));
    assert_eq!(cluster.reply(handle), None);
    cluster.release(2, 1);
    assert_eq!(read(cluster.wait_for(handle)).0, ["a"]);
    cluster.assert_idle();
}

#[test]
fn a_read_whose_minimum_never_arrives_says_so() {
    let (mut cluster, context) = behind();
    let failure = failed(cluster.wait(0, get_at_least(&context)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::MinimumUnmet, Outcome::NotApplied)
    );
    cluster.assert_idle();
    let fetches = cluster.sent_to(0, is_fetch).len();
    assert!(
        (5..15).contains(&fetches),
        "it asks again, and ever less often: {fetches}"
    );
}

#[test]
fn an_owner_that_hangs_does_not_keep_a_read_from_asking_the_others_again() {
    let (mut cluster, context) = behind();
    cluster.connect(0, 2);
    cluster.hold(2, 0);
    let handle = cluster.begin(0, get_at_least(&context));
    cluster.advance(Duration::from_millis(100));
    assert_eq!(cluster.reply(handle), None);
    cluster.release(2, 1);
    cluster.advance(Duration::from_millis(400));
    assert_eq!(read(cluster.reply(handle).unwrap()).0, ["a"]);
}

#[test]
fn a_read_with_a_minimum_that_too_few_answer_has_not_met_its_quorum() {
    let (mut cluster, context) = behind();
    cluster.hold(1, 0);
    let failure = failed(cluster.wait(0, get_at_least(&context)));
    assert_eq!(failure.code, Code::QuorumNotMet);
    assert!(states(&failure.replicas).contains(&TimedOut));
}

#[test]
fn an_owner_that_answers_the_same_without_having_been_told_as_what_is_not_counted() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(1, put(1, "a", None)));
    cluster.disks[0].holds_loads = true;
    cluster.hold(0, 1);
    cluster.hold(0, 2);
    let handle = cluster.begin(0, get());
    cluster.advance(HEDGE);
    let id = match &cluster.sent.last().unwrap().2 {
        PeerMessage::Fetch(fetch) => fetch.id,
        other => panic!("{other:?}"),
    };
    for node in [1, 2] {
        let result = Ok(Held::Same);
        let message = PeerMessage::FetchReply(FetchReply { id, result });
        let from = index(node);
        cluster.input(0, Input::Message { from, message });
    }
    cluster.run();
    let reply = cluster.reply(handle).expect("no quorum is left");
    assert_eq!(failed(reply).code, Code::QuorumNotMet);
}
