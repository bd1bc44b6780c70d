//! One effect per request id.

use super::asks::{again, delete, failed, get, get_with, key, put, read, written};
use super::cluster::{Cluster, context_keys};
use crate::context::Context;
use crate::request::{Code, Outcome, ReadOptions};
use bytes::Bytes;

/// Which dots a sealed context names.
fn dots(sealed: &Bytes) -> Context {
    context_keys().open(sealed, &key()).unwrap().context
}

#[test]
fn a_retry_at_the_same_coordinator_mints_nothing() {
    let mut cluster = Cluster::new(3);
    let (first, _) = written(cluster.ask(0, put(1, "a", None)));
    let before = cluster.record(0);
    let (second, _) = written(cluster.ask(0, again(put(1, "a", None))));
    assert_eq!(dots(&first), dots(&second));
    assert_eq!(cluster.record(0), before);
    assert_eq!(cluster.disks[0].stores, 1);
}

#[test]
fn a_retry_that_waits_for_the_same_load_mints_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.disks[0].holds_loads = true;
    let first = cluster.begin(0, put(1, "a", None));
    let second = cluster.begin(0, again(put(1, "a", None)));
    cluster.release_loads(0);
    let [first, second] = [first, second].map(|handle| written(cluster.reply(handle).unwrap()).0);
    assert_eq!(dots(&first), dots(&second));
    assert_eq!(cluster.record(0).siblings().len(), 1);
}

#[test]
fn a_retry_at_a_coordinator_that_knows_nothing_of_the_first_try_leaves_one_sibling() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 1);
    cluster.hold(0, 2);
    let first = cluster.begin(0, put(1, "a", None));
    assert_eq!(cluster.reply(first), None);
    written(cluster.ask(1, again(put(1, "a", None))));
    cluster.release(0, 1);
    cluster.release(0, 2);
    written(cluster.reply(first).unwrap());
    for node in 0..3 {
        assert_eq!(read(cluster.ask(node, get())).0, ["a"]);
        assert_eq!(cluster.record(node).siblings().len(), 1);
    }
}

#[test]
fn a_read_that_meets_two_tries_of_one_write_shows_it_once() {
    let mut cluster = Cluster::new(3);
    let links = [(0, 1), (0, 2), (1, 0), (1, 2)];
    links.into_iter().for_each(|(a, b)| cluster.hold(a, b));
    cluster.begin(0, put(1, "a", None));
    cluster.begin(1, again(put(1, "a", None)));
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        cluster.disconnect(a, b);
        cluster.connect(a, b);
    }
    let r = Some(3);
    let all = get_with(ReadOptions {
        r,
        ..ReadOptions::default()
    });
    assert_eq!(read(cluster.ask(2, all)).0, ["a"]);
}

#[test]
fn a_retry_of_a_write_that_was_overwritten_does_not_bring_it_back() {
    let mut cluster = Cluster::new(3);
    let (first, _) = written(cluster.ask(0, put(1, "a", None)));
    written(cluster.ask(1, put(2, "b", Some(&first))));
    for node in 0..3 {
        written(cluster.ask(node, again(put(1, "a", None))));
        assert_eq!(read(cluster.ask(node, get())).0, ["b"]);
    }
}

#[test]
fn a_first_try_that_arrives_after_its_retry_was_overwritten_does_not_come_back() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 1);
    cluster.hold(0, 2);
    cluster.begin(0, put(1, "a", None));
    let (context, _) = written(cluster.ask(1, again(put(1, "a", None))));
    cluster.hold(1, 0);
    cluster.hold(2, 0);
    written(cluster.ask(1, put(2, "b", Some(&context))));
    for (from, to) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        cluster.release(from, to);
    }
    for node in 0..3 {
        assert_eq!(read(cluster.ask(node, get())).0, ["b"]);
    }
}

#[test]
fn a_first_try_that_arrives_after_its_retry_was_overwritten_many_times_and_deleted_does_not_come_back() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 1);
    cluster.hold(0, 2);
    cluster.begin(0, put(1, "a", None));
    cluster.hold(1, 0);
    cluster.hold(2, 0);
    let (mut context, _) = written(cluster.ask(1, again(put(1, "a", None))));
    for n in 2..40 {
        context = written(cluster.ask(1, put(n, "b", Some(&context)))).0;
    }
    written(cluster.ask(1, delete(40, Some(&context))));
    for (from, to) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        cluster.release(from, to);
    }
    for node in 0..3 {
        assert_eq!(read(cluster.ask(node, get())).0, ["-"]);
    }
}

#[test]
fn a_writer_who_was_answered_by_a_retry_overwrites_a_write_that_was_sent_again() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    let (context, _) = written(cluster.ask(0, again(put(1, "a", None))));
    written(cluster.ask(0, put(2, "b", Some(&context))));
    let record = cluster.record(0);
    assert!(record.overwritten().iter().any(|write| write.request.is_again()));
}

#[test]
fn a_writer_replaces_its_own_write_whichever_try_of_it_was_kept() {
    for first_to_answer in [0, 1] {
        let mut cluster = Cluster::new(3);
        [(0, 1), (0, 2), (1, 0), (1, 2)]
            .into_iter()
            .for_each(|(a, b)| cluster.hold(a, b));
        let tries = [
            cluster.begin(0, put(1, "a", None)),
            cluster.begin(1, again(put(1, "a", None))),
        ];
        [(0, 1), (0, 2), (1, 0), (1, 2)]
            .into_iter()
            .for_each(|(a, b)| cluster.release(a, b));
        let (context, _) = written(cluster.reply(tries[first_to_answer]).unwrap());
        written(cluster.ask(2, put(2, "b", Some(&context))));
        assert_eq!(read(cluster.ask(2, get())).0, ["b"]);
    }
}

#[test]
fn a_try_that_was_under_way_when_its_write_was_replaced_does_not_come_back() {
    for first_to_answer in [0, 1] {
        let mut cluster = Cluster::new(3);
        let other = 1 - first_to_answer;
        cluster.hold(other, first_to_answer);
        cluster.hold(other, 2);
        cluster.begin(other, put(1, "a", None));
        cluster.hold(first_to_answer, other);
        let (context, _) = written(cluster.ask(first_to_answer, again(put(1, "a", None))));
        cluster.hold(2, other);
        written(cluster.ask(2, put(2, "b", Some(&context))));
        for (from, to) in [
            (other, 2),
            (other, first_to_answer),
            (2, other),
            (first_to_answer, other),
        ] {
            cluster.release(from, to);
        }
        for node in 0..3 {
            assert_eq!(read(cluster.ask(node, get())).0, ["b"]);
        }
    }
}

#[test]
fn a_retried_delete_is_one_delete() {
    let mut cluster = Cluster::new(3);
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    written(cluster.ask(0, delete(2, Some(&context))));
    written(cluster.ask(1, again(delete(2, Some(&context)))));
    assert_eq!(read(cluster.ask(2, get())).0, ["-"]);
    written(cluster.ask(0, put(3, "b", None)));
    written(cluster.ask(1, again(delete(2, Some(&context)))));
    assert_eq!(read(cluster.ask(2, get())).0, ["b"]);
}

#[test]
fn a_request_id_with_another_payload_or_context_is_refused() {
    let mut cluster = Cluster::new(3);
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    let others = [
        put(1, "b", None),
        delete(1, Some(&context)),
        // The same value with another context may replace what the first try did not.
        put(1, "a", Some(&context)),
    ];
    for operation in others {
        let failure = failed(cluster.ask(1, operation));
        assert_eq!(
            (failure.code, failure.outcome),
            (Code::IdempotencyReuse, Outcome::NotApplied)
        );
    }
    // Also after the first one was overwritten.
    written(cluster.ask(0, put(2, "c", Some(&context))));
    assert_eq!(failed(cluster.ask(1, put(1, "b", None))).code, Code::IdempotencyReuse);
    assert_eq!(read(cluster.ask(2, get())).0, ["c"]);
}
