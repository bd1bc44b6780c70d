//! Hints going home.

use super::asks::{is_handoff, key, put, put_under, texts, with_options, written};
use super::cluster::{Cluster, config, index};
use crate::engine::Input;
use crate::key::Key;
use crate::message::{FetchHint, Objection, PeerMessage};
use crate::place::Place;
use crate::request::Operation;
use std::time::Duration;

fn numbered(n: u64) -> Key {
    Key::new(b"bucket", format!("key {n}").as_bytes(), None).unwrap()
}

fn all(operation: Operation) -> Operation {
    with_options(operation, |options| options.w = Some(3))
}

/// Connects a node to all others.
fn come_back(cluster: &mut Cluster, node: usize) {
    (0..cluster.engines.len())
        .filter(|&other| other != node)
        .for_each(|other| cluster.connect(node, other));
    cluster.advance(Duration::ZERO);
}

#[test]
fn an_owner_that_comes_back_gets_what_others_kept_for_it() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    let away = owners[1];
    cluster.isolate(away);
    written(cluster.ask(owners[0], all(put(1, "a", None))));
    written(cluster.ask(owners[2], all(put(2, "b", None))));
    assert!(cluster.record(away).is_empty());
    come_back(&mut cluster, away);
    assert_eq!(texts(&cluster.record(away)), ["a", "b"]);
    assert!((0..5).all(|node| cluster.hints(node).is_empty()));
    assert_eq!(cluster.engines[fallbacks[0]].counters().hints_delivered, 1);
    assert!((0..5).all(|node| cluster.counted(node) == 0));
    cluster.advance(Duration::from_secs(1));
    cluster.assert_idle();
}

#[test]
fn an_owner_delivers_its_own_record_as_it_is_by_then() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    written(cluster.ask(0, put(1, "a", None)));
    written(cluster.ask(1, put(2, "b", None)));
    let (hints_0, hints_1) = (cluster.hinted(0), cluster.hinted(1));
    assert_eq!((&hints_0[..], &hints_1[..]), (&[2][..], &[2][..]));
    cluster.connect(0, 2);
    cluster.advance(Duration::ZERO);
    assert_eq!(texts(&cluster.record(2)), ["a", "b"]);
    assert_eq!(cluster.hinted(1), [2], "that one is another node's to deliver");
    assert_eq!(cluster.record(2), cluster.record(0));
}

#[test]
fn a_hint_stays_until_its_owner_has_synced_it() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[2].holds_syncs = true;
    come_back(&mut cluster, 2);
    assert_eq!(cluster.sent_to(0, is_handoff), [2]);
    cluster.advance(Duration::from_secs(5));
    assert_eq!(cluster.hinted(0), [2]);
    cluster.release_syncs(2);
    cluster.advance(Duration::ZERO);
    assert!(cluster.hinted(0).is_empty());
}

#[test]
fn what_was_under_way_when_the_connection_went_is_delivered_on_the_next_one() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[2].holds_loads = true;
    come_back(&mut cluster, 2);
    assert_eq!(cluster.sent_to(0, is_handoff).len(), 1);
    cluster.isolate(2);
    cluster.release_loads(2);
    assert_eq!(cluster.hinted(0), [2]);
    come_back(&mut cluster, 2);
    assert_eq!(cluster.sent_to(0, is_handoff).len(), 2);
    assert_eq!(texts(&cluster.record(2)), ["a"]);
    assert!(cluster.hinted(0).is_empty());
    cluster.advance(Duration::from_secs(1));
    cluster.assert_idle();
}

#[test]
fn hints_are_found_again_after_a_restart() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    let away = owners[1];
    cluster.isolate(away);
    written(cluster.ask(owners[0], all(put(1, "a", None))));
    let rows = cluster.copy_of(fallbacks[0]);
    cluster.restart_alone(fallbacks[0], 99, rows);
    assert_eq!(cluster.hinted(fallbacks[0]), [away]);
    come_back(&mut cluster, away);
    assert_eq!(texts(&cluster.record(away)), ["a"]);
    assert!(cluster.hinted(fallbacks[0]).is_empty());
}

#[test]
fn no_more_hints_are_under_way_than_the_window_and_all_of_them_go_home() {
    let mut cluster = Cluster::with(3, |config| config.limits.handoff_window = 4);
    cluster.isolate(2);
    (0..300).for_each(|n| drop(written(cluster.ask(0, put_under(numbered(n), n, "a", None)))));
    assert_eq!(cluster.counted(0), 300);
    cluster.disks[2].holds_syncs = true;
    come_back(&mut cluster, 2);
    assert_eq!(cluster.sent_to(0, is_handoff).len(), 4);
    cluster.disks[2].holds_syncs = false;
    cluster.release_syncs(2);
    cluster.advance(Duration::ZERO);
    assert_eq!(cluster.sent_to(0, is_handoff).len(), 300);
    assert_eq!(cluster.counted(0), 0);
    assert_eq!(cluster.engines[0].counters().hints_delivered, 300);
    cluster.advance(Duration::from_secs(1));
    cluster.assert_idle();
}

#[test]
fn few_large_records_are_under_way_at_once_and_all_of_them_go_home() {
    for fallback in [false, true] {
        let mut cluster = Cluster::new(if fallback { 5 } else { 3 });
        let (owners, fallbacks) = match fallback {
            true => cluster.owners_and_fallbacks(),
            false => (vec![0, 2], vec![]),
        };
        let (keeper, away) = (*fallbacks.first().unwrap_or(&0), owners[1]);
        cluster.isolate(away);
        let value = "v".repeat(1 << 20);
        let owned = |n: &u64| cluster.engines[0].config().ring.partition_of(numbered(*n).token());
        let same = cluster.engines[0].config().ring.partition_of(key().token());
        let keys: Vec<u64> = (0..1000).filter(|n| !fallback || owned(n) == same).take(40).collect();
        for &n in &keys {
            written(cluster.ask(owners[0], all_if(fallback, put_under(numbered(n), n, &value, None))));
        }
        cluster.disks[away].holds_syncs = true;
        cluster.sent.clear();
        cluster.connect(keeper, away);
        cluster.advance(Duration::ZERO);
        let sent = cluster.sent_to(keeper, is_handoff).len();
        assert!((2..=17).contains(&sent), "{sent} MiB");
        cluster.release_syncs(away);
        cluster.advance(Duration::ZERO);
        assert_eq!(cluster.sent_to(keeper, is_handoff).len(), keys.len());
        assert_eq!(cluster.counted(keeper), 0);
    }
}

fn all_if(all_of_them: bool, operation: Operation) -> Operation {
    match all_of_them {
        true => all(operation),
        false => operation,
    }
}

#[test]
fn a_node_that_serves_many_requests_gives_less_credit() {
    let credit_with = |busy: u64| {
        let mut cluster = Cluster::new(3);
        cluster.isolate(2);
        (0..3).for_each(|n| drop(written(cluster.ask(0, put_under(numbered(n), n, "a", None)))));
        cluster.disks[2].holds_loads = true;
        for n in 100..100 + busy {
            cluster.begin(2, get_under(n));
        }
        cluster.disks[2].holds_loads = false;
        come_back(&mut cluster, 2);
        let credit = cluster.sent.iter().find_map(|(_, _, message)| match message {
            PeerMessage::HandoffReply(reply) => Some(reply.credit),
            _ => None,
        });
        credit.unwrap()
    };
    assert!(credit_with(0) > 50);
    assert!(credit_with(200) < 10);
}

fn get_under(n: u64) -> Operation {
    Operation::Get {
        key: numbered(n),
        minimum: None,
        options: crate::request::ReadOptions {
            r: Some(1),
            ..Default::default()
        },
    }
}

#[test]
fn a_hint_that_was_made_again_while_it_was_under_way_is_delivered_again() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[2].holds_loads = true;
    come_back(&mut cluster, 2);
    // It is under way. Another write is not acknowledged in time, so the hint is made once more.
    written(cluster.ask(0, put(2, "b", None)));
    cluster.advance(Duration::from_millis(100));
    cluster.sent.clear();
    cluster.release_loads(2);
    assert_eq!(cluster.hinted(0), [2]);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.sent_to(0, is_handoff), [2]);
    assert!(cluster.hinted(0).is_empty());
    cluster.assert_idle();
}

#[test]
fn a_hint_that_is_to_be_made_again_stays_though_an_older_delivery_is_answered_before_its_row_is_loaded() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[2].holds_loads = true;
    come_back(&mut cluster, 2);
    assert_eq!(cluster.sent_to(0, is_handoff), [2]);
    // Another write does not get through, and the row is being loaded when the delivery is answered.
    cluster.hold(0, 2);
    written(cluster.ask(0, put(2, "b", None)));
    cluster.disks[0].holds_loads = true;
    cluster.advance(Duration::from_millis(100));
    cluster.release_loads(2);
    cluster.release_loads(0);
    assert_eq!(texts(&cluster.record(2)), ["a"]);
    assert_eq!(cluster.hinted(0), [2]);
    cluster.lose(0, 2);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(texts(&cluster.record(2)), ["a", "b"]);
    assert!(cluster.hinted(0).is_empty());
}

#[test]
fn a_hint_that_grew_while_it_was_under_way_is_delivered_again() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    let away = owners[1];
    cluster.isolate(away);
    written(cluster.ask(owners[0], all(put(1, "a", None))));
    cluster.disks[away].holds_loads = true;
    cluster.connect(away, fallbacks[0]);
    cluster.advance(Duration::ZERO);
    assert_eq!(cluster.sent_to(fallbacks[0], is_handoff).len(), 1);
    // Only the fallback is connected to the owner; the coordinator is not, and sends another write to the fallback.
    written(cluster.ask(owners[0], all(put(2, "b", None))));
    cluster.release_loads(away);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.sent_to(fallbacks[0], is_handoff).len(), 2);
    assert_eq!(texts(&cluster.record(away)), ["a", "b"]);
    assert!(cluster.hinted(fallbacks[0]).is_empty());
}

#[test]
fn an_owner_that_refuses_is_asked_ever_less_often() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[2].refuses_stores = true;
    come_back(&mut cluster, 2);
    cluster.advance(Duration::from_secs(300));
    let tries = cluster.sent_to(0, is_handoff).len();
    assert!((14..40).contains(&tries), "{tries}");
    cluster.disks[2].refuses_stores = false;
    cluster.advance(Duration::from_secs(31));
    assert_eq!(texts(&cluster.record(2)), ["a"]);
    assert!(cluster.hinted(0).is_empty());
    cluster.assert_idle();
}

#[test]
fn a_removal_that_the_disk_refuses_is_tried_again_and_not_without_a_pause() {
    for fallback in [false, true] {
        let mut cluster = Cluster::new(if fallback { 5 } else { 3 });
        let (keeper, away) = match fallback {
            true => {
                let (owners, fallbacks) = cluster.owners_and_fallbacks();
                cluster.isolate(owners[1]);
                written(cluster.ask(owners[0], all(put(1, "a", None))));
                (fallbacks[0], owners[1])
            }
            false => {
                cluster.isolate(2);
                written(cluster.ask(0, put(1, "a", None)));
                (0, 2)
            }
        };
        cluster.disks[away].holds_loads = true;
        cluster.connect(keeper, away);
        cluster.advance(Duration::ZERO);
        cluster.disks[keeper].refuses_stores = true;
        cluster.release_loads(away);
        cluster.advance(Duration::from_secs(300));
        assert_eq!(texts(&cluster.record(away)), ["a"]);
        assert_eq!(cluster.hinted(keeper), [away]);
        let tries = cluster.sent_to(keeper, is_handoff).len();
        assert!((10..60).contains(&tries), "{tries}");
        cluster.disks[keeper].refuses_stores = false;
        cluster.advance(Duration::from_secs(31));
        assert!(cluster.hinted(keeper).is_empty());
        cluster.advance(Duration::from_secs(1));
        assert_eq!(cluster.engines[keeper].poll_timeout(), None);
    }
}

#[test]
fn a_delivery_merges_and_takes_nothing_from_its_owner() {
    let mut cluster = Cluster::new(5);
    let (owners, _) = cluster.owners_and_fallbacks();
    let away = owners[1];
    cluster.isolate(away);
    written(cluster.ask(owners[0], all(put(1, "a", None))));
    // The owner is cut off from whoever keeps the hint, but reaches another owner, and takes a write.
    cluster.connect(away, owners[2]);
    cluster.advance(Duration::ZERO);
    written(cluster.ask(away, put(2, "b", None)));
    come_back_but(&mut cluster, away, owners[2]);
    assert_eq!(texts(&cluster.record(away)), ["a", "b"]);
}

fn come_back_but(cluster: &mut Cluster, node: usize, connected: usize) {
    (0..cluster.engines.len())
        .filter(|&other| other != node && other != connected)
        .for_each(|other| cluster.connect(node, other));
    cluster.advance(Duration::ZERO);
}

#[test]
fn a_record_that_cannot_be_read_keeps_its_hint_and_does_not_keep_the_others() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    (0..3).for_each(|n| drop(written(cluster.ask(0, put_under(numbered(n), n, "a", None)))));
    cluster.disks[0].fails_loads_of = Some(numbered(1));
    come_back(&mut cluster, 2);
    let left: Vec<Key> = cluster.hints(0).into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(left, [numbered(1)]);
    cluster.disks[0].fails_loads_of = None;
    cluster.advance(Duration::from_secs(30));
    assert!(cluster.hints(0).is_empty());
    cluster.assert_idle();
}

#[test]
fn the_tests_key_is_among_those_that_are_handed_over_in_the_order_of_tokens() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    written(cluster.ask(0, put(100, "a", None)));
    (0..20).for_each(|n| drop(written(cluster.ask(0, put_under(numbered(n), n, "a", None)))));
    come_back(&mut cluster, 2);
    let tokens: Vec<u64> = cluster
        .sent
        .iter()
        .filter_map(|(from, _, message)| match message {
            PeerMessage::Handoff(m) if *from == 0 => Some(m.key.token().0),
            _ => None,
        })
        .collect();
    assert!(tokens.is_sorted() && tokens.contains(&key().token().0), "{tokens:?}");
    assert_eq!(tokens.len(), 21);
}

#[test]
fn a_damaged_hint_of_an_owner_is_delivered_all_the_same_and_that_of_a_fallback_is_dropped() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    let away = owners[1];
    cluster.isolate(away);
    written(cluster.ask(owners[0], all(put(1, "a", None))));
    cluster.disks[fallbacks[0]].corrupts_hints = true;
    cluster.connect(fallbacks[0], away);
    cluster.advance(Duration::from_secs(1));
    assert!(cluster.sent_to(fallbacks[0], is_handoff).is_empty() && cluster.hinted(fallbacks[0]).is_empty());
    assert_eq!(cluster.engines[fallbacks[0]].counters().corrupt_records, 1);
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[0].corrupts_hints = true;
    come_back(&mut cluster, 2);
    assert_eq!(texts(&cluster.record(2)), ["a"]);
    assert!(cluster.hinted(0).is_empty());
    cluster.advance(Duration::from_secs(1));
    cluster.assert_idle();
}

#[test]
fn a_hint_that_is_skipped_while_its_owner_is_left_alone_does_not_end_the_pass_for_good() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    (0..2).for_each(|n| drop(written(cluster.ask(0, put_under(numbered(n), n, "a", None)))));
    cluster.disks[0].holds_loads = true;
    cluster.disks[2].refuses_stores = true;
    come_back(&mut cluster, 2);
    cluster.release_load(0);
    assert_eq!(cluster.sent_to(0, is_handoff), [2], "the first one is refused");
    cluster.disks[0].fails_loads = true;
    cluster.release_loads(0);
    cluster.disks[0].fails_loads = false;
    cluster.disks[2].refuses_stores = false;
    cluster.advance(Duration::from_secs(31));
    assert!(cluster.hints(0).is_empty());
    cluster.assert_idle();
}

#[test]
fn a_pass_whose_last_hint_goes_with_its_record_does_not_keep_the_next_hint_from_going_home() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    cluster.hold(0, 1);
    let handle = cluster.begin(0, put(1, "a", None));
    // The record is on disk when the hint is made; then it is lost.
    cluster.disks[0].holds_syncs = true;
    cluster.release(0, 1);
    written(cluster.reply(handle).unwrap());
    cluster.disks[0].applied.remove(&Place::Record(key()));
    cluster.connect(0, 2);
    assert!(cluster.hinted(0).is_empty() && cluster.sent_to(0, is_handoff).is_empty());
    cluster.release_syncs(0);
    cluster.disks[2].holds_loads = true;
    written(cluster.ask(0, put(2, "b", None)));
    cluster.advance(Duration::from_millis(100));
    assert_eq!(cluster.hinted(0), [2]);
    cluster.release_loads(2);
    cluster.advance(Duration::from_secs(1));
    assert!(cluster.hinted(0).is_empty());
}

#[test]
fn a_hint_that_is_under_way_stands_against_settling_though_its_row_was_damaged_and_is_gone() {
    let mut cluster = Cluster::new(5);
    let (owners, fallbacks) = cluster.owners_and_fallbacks();
    let away = owners[1];
    cluster.isolate(away);
    written(cluster.ask(owners[0], all(put(1, "a", None))));
    cluster.disks[away].holds_loads = true;
    cluster.connect(fallbacks[0], away);
    cluster.advance(Duration::ZERO);
    assert_eq!(cluster.sent_to(fallbacks[0], is_handoff), [away]);
    // A read finds the row damaged.
    cluster.disks[fallbacks[0]].corrupts_hints = true;
    let message = PeerMessage::FetchHint(FetchHint {
        id: 1,
        target: config(5, away, 0).me,
        key: key(),
        have: None,
    });
    let from = index(owners[0]);
    cluster.input(fallbacks[0], Input::Message { from, message });
    cluster.run();
    assert_eq!(cluster.hinted(fallbacks[0]), [] as [usize; 0]);
    let engine = &mut cluster.engines[fallbacks[0]];
    assert_eq!(engine.stands_against(&key()), Some(Objection::UnderWay));
    cluster.release_loads(away);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.engines[fallbacks[0]].stands_against(&key()), None);
}

#[test]
fn a_pass_goes_round_damaged_hints_and_brings_home_what_lies_behind_and_what_comes_later() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    let mut keys: Vec<Key> = (0..40).map(numbered).collect();
    keys.sort_by_key(Key::token);
    for (n, key) in keys.iter().enumerate() {
        written(cluster.ask(0, put_under(key.clone(), n as u64, "a", None)));
    }
    cluster.disks[0].damaged_hints = Some(keys[10].token().0..=keys[12].token().0);
    come_back(&mut cluster, 2);
    cluster.advance(Duration::from_secs(5));
    let left = |cluster: &Cluster| {
        let keys: Vec<_> = cluster.disks[0]
            .applied
            .keys()
            .filter(|place| matches!(place, Place::Hint(..)))
            .collect();
        keys.len()
    };
    assert!((3..10).contains(&left(&cluster)), "{} are left", left(&cluster));
    assert!(cluster.engines[0].hints_are_home());
    cluster.isolate(2);
    written(cluster.ask(0, put_under(keys[0].clone(), 100, "b", None)));
    assert!(!cluster.engines[0].hints_are_home());
    come_back(&mut cluster, 2);
    cluster.advance(Duration::from_secs(60));
    assert_eq!(cluster.counted(0), left(&cluster) as u64);
    assert!(cluster.engines[0].hints_are_home());
}
