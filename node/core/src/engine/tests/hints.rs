//! Hints that this node keeps itself: when they are made, what they cost, and what happens when there is no room.

use super::asks::{failed, key, put, put_under, with_options, written};
use super::cluster::{Cluster, index};
use crate::engine::Limits;
use crate::key::Key;
use crate::place::Place;
use std::time::Duration;

const SLOW: Duration = Duration::from_millis(100);

/// A key of the same partition as the test's.
fn sibling_key(n: u8) -> Key {
    Key::new(b"bucket", b"key", Some(&[n])).unwrap()
}

fn limited(hint_bytes_max: u64) -> Cluster {
    Cluster::with(3, |config| {
        config.limits = Limits {
            hint_bytes_max,
            ..Limits::default()
        }
    })
}

fn dirty(cluster: &Cluster, node: usize) -> Vec<usize> {
    let places = cluster.disks[node].applied.keys();
    let peer = |place: &Place| match place {
        Place::Dirty(peer, _) => Some(usize::from(peer.0[0] - 1)),
        _ => None,
    };
    places.filter_map(peer).collect()
}

#[test]
fn an_owner_that_has_not_acknowledged_when_it_counts_as_slow_gets_a_hint_after_the_reply() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.advance(SLOW - Duration::from_millis(1));
    assert!(cluster.hinted(0).is_empty());
    cluster.advance(Duration::from_millis(1));
    assert_eq!(cluster.hinted(0), [2]);
    assert_eq!(
        cluster.engines[0].in_flight(),
        (0, 0),
        "nothing else is left of the write"
    );
}

#[test]
fn an_owner_that_acknowledges_after_the_reply_gets_no_hint() {
    let mut cluster = Cluster::new(3);
    cluster.hold(2, 0);
    written(cluster.ask(0, put(1, "a", None)));
    assert_eq!(cluster.engines[0].in_flight().0, 1);
    cluster.release(2, 0);
    cluster.assert_idle();
    assert!(cluster.hints(0).is_empty());
}

#[test]
fn an_owner_that_is_lost_or_refuses_after_the_reply_gets_a_hint_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disconnect(0, 2);
    assert_eq!(cluster.hinted(0), [2]);
    let mut cluster = Cluster::new(3);
    cluster.disks[2].refuses_stores = true;
    written(cluster.ask(0, put(1, "a", None)));
    assert_eq!(cluster.hinted(0), [2]);
}

#[test]
fn a_write_that_failed_leaves_hints_since_it_may_be_somewhere() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 1);
    cluster.hold(0, 2);
    failed(cluster.wait(0, put(1, "a", None)));
    assert_eq!(cluster.hinted(0), [1, 2]);
}

#[test]
fn many_writes_of_a_key_are_one_hint() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    (1..10).for_each(|n| drop(written(cluster.ask(0, put(n, "a", None)))));
    assert_eq!(cluster.hinted(0), [2]);
    let [hints] = &cluster.engines[0].hints()[..] else {
        panic!("one target")
    };
    assert_eq!((hints.count, hints.oldest_ms), (1, Some(1_800_000_001_000)));
    assert!(hints.bytes < 150, "{hints:?}");
    assert_eq!(cluster.engines[0].counters().hints_stored, 1);
}

#[test]
fn a_hint_that_finds_no_room_is_left_to_anti_entropy_by_a_durable_note() {
    let mut cluster = limited(200);
    cluster.isolate(2);
    for n in 0..5 {
        written(cluster.ask(0, put_under(sibling_key(n), n.into(), "a", None)));
    }
    let counters = cluster.engines[0].counters();
    assert_eq!((counters.hints_stored, counters.hints_overflowed), (2, 3));
    assert_eq!(dirty(&cluster, 0), [2]);
    assert!(cluster.engines[0].hints()[0].bytes <= 200);
}

#[test]
fn hints_are_counted_again_after_a_restart() {
    let mut cluster = Cluster::new(4);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    cluster.isolate(owners[2]);
    let all = with_options(put(1, "a", None), |options| options.w = Some(3));
    written(cluster.ask(owners[0], all));
    let before = cluster.engines[fallbacks[0]].hints();
    assert_eq!(before[0].count, 1);
    let mut config = cluster.engines[fallbacks[0]].config().clone();
    config.seed = [77; 32];
    let mut engine = crate::engine::Engine::new(config);
    for (place, payload) in &cluster.disks[fallbacks[0]].applied {
        if let Place::Hint(target, key) = place {
            engine.restore_hint(*target, key, payload);
        }
    }
    assert_eq!(engine.hints(), before);
}

#[test]
fn a_hint_that_the_disk_refuses_is_noted_as_soon_as_it_takes_something_again() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[0].refuses_stores = true;
    cluster.advance(SLOW);
    assert!(cluster.hinted(0).is_empty() && dirty(&cluster, 0).is_empty());
    cluster.disks[0].refuses_stores = false;
    cluster.advance(Duration::from_secs(1));
    written(cluster.ask(1, put(2, "b", None)));
    assert_eq!(dirty(&cluster, 0), [2]);
}

#[test]
fn a_hint_that_the_disk_refuses_is_noted_though_nothing_else_is_stored_any_more() {
    let mut cluster = Cluster::new(3);
    cluster.hold(0, 2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[0].refuses_stores = true;
    cluster.advance(SLOW);
    assert!(cluster.hinted(0).is_empty() && dirty(&cluster, 0).is_empty());
    cluster.advance(Duration::from_secs(60));
    cluster.disks[0].refuses_stores = false;
    cluster.advance(Duration::from_secs(11));
    assert_eq!(dirty(&cluster, 0), [2]);
}

#[test]
fn a_partition_with_hints_and_a_key_with_an_unanswered_write_must_not_be_settled() {
    let mut cluster = Cluster::new(3);
    assert!(cluster.engines[0].stands_against(&key()).is_none());
    cluster.hold(0, 2);
    written(cluster.ask(0, put(1, "a", None)));
    assert!(cluster.engines[0].stands_against(&key()).is_some(), "an ack is owed");
    assert!(cluster.engines[0].stands_against(&sibling_key(1)).is_none());
    cluster.advance(SLOW);
    assert!(
        cluster.engines[0].stands_against(&sibling_key(1)).is_some(),
        "there is a hint in the partition"
    );
    cluster.advance(Duration::from_secs(60));
    assert_eq!(cluster.hinted(0), [2]);
    assert!(cluster.engines[0].stands_against(&key()).is_some());
    cluster.release(0, 2);
    cluster.advance(Duration::from_secs(1));
    assert!(cluster.hinted(0).is_empty());
    assert!(cluster.engines[0].stands_against(&key()).is_none());
}

#[test]
fn a_write_stays_pending_after_its_operation_until_it_is_answered_or_its_connection_is_gone() {
    for loses in [true, false] {
        let mut cluster = Cluster::without_hints(3);
        cluster.hold(0, 2);
        written(cluster.ask(0, put(1, "a", None)));
        cluster.advance(Duration::from_secs(100));
        assert!(cluster.engines[0].stands_against(&key()).is_some());
        match loses {
            true => cluster.disconnect(0, 2),
            false => cluster.release(0, 2),
        }
        assert!(cluster.engines[0].stands_against(&key()).is_none(), "loses: {loses}");
        cluster.assert_idle();
    }
}

#[test]
fn a_hint_for_a_node_that_is_no_owner_or_at_a_node_that_is_no_fallback_is_refused() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    let store = |target: usize| {
        crate::message::PeerMessage::StoreHint(crate::message::StoreHint {
            id: 5,
            target: crate::engine::tests::cluster::config(5, target, 0).me,
            key: key(),
            record: crate::record::Record::default().encode(),
        })
    };
    let message = store(fallbacks[1]);
    let from = index(owners[0]);
    cluster.input(fallbacks[0], crate::engine::Input::Message { from, message });
    cluster.run();
    let refused = cluster.sent.iter().any(|(_, _, message)| {
        matches!(message, crate::message::PeerMessage::ReplicateReply(m) if m.result == Err(crate::message::Refusal::NotOwner))
    });
    assert!(refused);
    assert_eq!(cluster.counted(fallbacks[0]), 0);
}
