//! Contexts that lose what no copy names any more.

use super::asks::{delete, get, key, put, read, texts, written};
use super::cluster::{Cluster, index};
use crate::engine::Input;
use crate::message::{PeerMessage, Replicate};
use crate::place::Place;
use crate::record::Record;
use std::time::Duration;

/// Longer than a proof takes, with the pauses before and after.
const PROOF: Duration = Duration::from_secs(12);

fn actors(cluster: &Cluster) -> Vec<usize> {
    (0..3).map(|node| cluster.record(node).context().actors()).collect()
}

/// A record that has seen `lives` lives of its first node, and whose last one goes on.
fn long_context(lives: u64) -> Cluster {
    let mut cluster = Cluster::with(3, |config| config.limits.settle_age = Duration::ZERO);
    let mut context = None;
    for n in 1..=lives {
        context = Some(written(cluster.ask(0, put(n, &n.to_string(), context.as_ref()))).0);
        if n < lives {
            cluster.crash(0, 100 + n as u8);
        }
    }
    cluster
}

#[test]
fn lives_that_have_ended_leave_a_long_context_on_all_owners() {
    let mut cluster = long_context(9);
    assert_eq!(actors(&cluster), [9, 9, 9]);
    assert!((0..3).all(|node| cluster.disks[node].applied.contains_key(&Place::Settle(key()))));
    cluster.advance(PROOF);
    assert_eq!(actors(&cluster), [1, 1, 1]);
    assert!((0..3).all(|node| !cluster.disks[node].applied.contains_key(&Place::Settle(key()))));
    assert!((1..3).all(|node| cluster.record(node).encode() == cluster.record(0).encode()));
    let trimmed: u64 = cluster.engines.iter().map(|engine| engine.counters().trimmed).sum();
    assert_eq!(trimmed, 24);
    // The living one counts on.
    written(cluster.ask(0, put(50, "next", None)));
    assert_eq!(read(cluster.ask(1, get())).0, ["9", "next"]);
    assert_eq!(actors(&cluster), [1, 1, 1]);
    cluster.advance(PROOF);
    cluster.assert_idle();
}

#[test]
fn short_contexts_are_left_alone() {
    let mut cluster = long_context(8);
    cluster.advance(PROOF);
    assert_eq!(actors(&cluster), [8, 8, 8]);
    cluster.assert_idle();
}

#[test]
fn a_life_that_goes_on_or_has_a_live_sibling_stays() {
    let mut cluster = long_context(8);
    // A sibling of the second node's present life, and one of the third's, which ends.
    let (second, _) = written(cluster.ask(1, put(60, "second", None)));
    written(cluster.ask(2, put(61, "third", None)));
    cluster.crash(2, 99);
    written(cluster.ask(0, put(62, "over the second", Some(&second))));
    cluster.advance(PROOF);
    // Of the first and second node, which go on, and of the third, whose value is live.
    assert_eq!(actors(&cluster), [3, 3, 3]);
    assert_eq!(texts(&cluster.record(1)), ["8", "over the second", "third"]);
    // The harness checks that no dot stands for two writes.
    for node in 0..3 {
        written(cluster.ask(node, put(70 + node as u64, "again", None)));
    }
}

#[test]
fn an_owner_that_brings_the_long_context_back_is_trimmed_again() {
    let mut cluster = long_context(9);
    let long = cluster.record(1).encode();
    cluster.advance(PROOF);
    let trimmed = cluster.record(0).encode();
    for to in 0..3 {
        let message = Replicate {
            id: 1,
            key: key(),
            record: long.clone(),
            sync: true,
        };
        let from = index((to + 1) % 3);
        let message = PeerMessage::Replicate(message);
        cluster.input(to, Input::Message { from, message });
        cluster.run();
    }
    assert_eq!(actors(&cluster), [9, 9, 9]);
    cluster.advance(PROOF);
    assert!((0..3).all(|node| cluster.record(node).encode() == trimmed));
    cluster.advance(PROOF);
    cluster.assert_idle();
}

#[test]
fn a_client_with_a_context_from_before_replaces_what_it_has_seen() {
    let mut cluster = long_context(9);
    let (_, context) = read(cluster.ask(0, get()));
    cluster.advance(PROOF);
    assert_eq!(actors(&cluster), [1, 1, 1]);
    written(cluster.ask(1, put(80, "mine", context.as_ref())));
    assert_eq!(read(cluster.ask(2, get())).0, ["mine"]);
}

#[test]
fn a_deleted_record_with_a_long_context_goes_as_a_whole() {
    let mut cluster = long_context(9);
    let (_, context) = read(cluster.ask(0, get()));
    written(cluster.ask(1, delete(90, context.as_ref())));
    cluster.advance(2 * PROOF);
    assert!((0..3).all(|node| cluster.record(node) == Record::default()));
}
