//! Exchanges that are refused, broken off, or known to be needed.

use super::super::asks::{key, put, written};
use super::super::cluster::{Cluster, index};
use super::{SOON, assert_equal, away, numbered, on, quiet, records, settle, status, write};
use crate::engine::Input;
use crate::message::{PeerMessage, Refusal, TreeAsk, TreeQuestion, TreeReply};
use crate::place::Place;
use crate::record::Record;
use crate::time::Instant;
use std::time::Duration;

#[test]
fn a_peer_that_is_gone_in_the_middle_is_caught_up_with_when_it_is_back() {
    let mut cluster = quiet(3);
    cluster.isolate(2);
    write(&mut cluster, 0, 0..100, "a");
    cluster.advance(Duration::from_secs(5));
    // It answers questions, but what is asked after records does not come through.
    cluster.connect(2, 0);
    cluster.hold(2, 0);
    cluster.advance(Duration::from_millis(700));
    cluster.disconnect(2, 0);
    let idle = |cluster: &Cluster, node: usize| status(cluster, node).running.is_empty();
    assert!(idle(&cluster, 0) && idle(&cluster, 2));
    assert!((0..100).all(|n| !cluster.engines[0].exchange_pending(&numbered(n))));
    [0, 1].iter().for_each(|&other| cluster.connect(2, other));
    cluster.run();
    cluster.advance(SOON);
    assert_equal(&cluster);
}

#[test]
fn a_question_that_is_not_answered_costs_one_session_and_is_asked_again() {
    let mut cluster = quiet(2);
    away(&mut cluster, 1, |_| {});
    cluster.hold(1, 0);
    cluster.advance(Duration::from_secs(4));
    assert_eq!(status(&cluster, 0).running.len(), 4, "no more at once");
    cluster.advance(Duration::from_secs(20));
    cluster.release(1, 0);
    cluster.advance(Duration::from_secs(60));
    let status = status(&cluster, 0);
    assert_eq!((status.running.len(), status.trees_in_sync), (0, 16));
}

#[test]
fn a_record_that_was_sent_is_pending_until_it_is_answered() {
    let mut cluster = Cluster::with(2, |config| {
        on(config);
        config.buckets.defaults.w = Some(1);
    });
    settle(&mut cluster);
    cluster.disconnect(0, 1);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.advance(Duration::from_secs(5));
    cluster.disks[1].holds_syncs = true;
    cluster.connect(0, 1);
    cluster.run();
    cluster.advance(Duration::from_secs(20));
    assert!(
        cluster.engines[0].exchange_pending(&key()),
        "whatever became of the exchange"
    );
    cluster.release_syncs(1);
    cluster.advance(SOON);
    assert!(!cluster.engines[0].exchange_pending(&key()));
    assert_equal(&cluster);
}

#[test]
fn a_node_that_makes_as_many_lists_for_a_peer_as_it_does_says_so() {
    let mut cluster = quiet(2);
    let ring = cluster.engines[0].config().ring.clone();
    for (id, partition) in ring.partition_ids().enumerate().take(5) {
        let question = TreeQuestion::Keys {
            leaves: vec![0, 7],
            after: None,
        };
        let ask = TreeAsk {
            id: id as u64,
            partition,
            n: 3,
            question,
        };
        let from = index(1);
        let message = PeerMessage::TreeAsk(ask);
        cluster.input(0, Input::Message { from, message });
    }
    cluster.run();
    cluster.advance(Duration::from_millis(5));
    let refused = |m: &PeerMessage| match m {
        PeerMessage::TreeReply(TreeReply { id, result }) => (*id, result.as_ref().err().copied()),
        other => panic!("{other:?}"),
    };
    let mut replies: Vec<_> = cluster.sent.iter().map(|sent| refused(&sent.2)).collect();
    replies.sort_by_key(|reply| reply.0);
    let expected = [None, None, None, None, Some(Refusal::Overloaded)];
    assert_eq!(replies.iter().map(|reply| reply.1).collect::<Vec<_>>(), expected);
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let mut cluster = quiet(3);
    let partition = quorate_ring::PartitionId(0);
    let keys = |leaves: Vec<u16>| TreeQuestion::Keys { leaves, after: None };
    for (partition, n, question, refusal) in [
        (
            quorate_ring::PartitionId(99),
            3,
            TreeQuestion::Root(1),
            Refusal::NotOwner,
        ),
        (partition, 0, TreeQuestion::Root(1), Refusal::NotOwner),
        (partition, 3, TreeQuestion::Leaves(vec![64]), Refusal::Malformed),
        (partition, 3, keys(vec![]), Refusal::Malformed),
        (partition, 3, keys(vec![7, 7]), Refusal::Malformed),
        (partition, 3, keys(vec![4096]), Refusal::Malformed),
    ] {
        let id = 1;
        let ask = TreeAsk {
            id,
            partition,
            n,
            question,
        };
        let (from, message) = (index(1), PeerMessage::TreeAsk(ask));
        cluster.input(0, Input::Message { from, message });
        cluster.run();
        let result = Err(refusal);
        let (_, _, last) = cluster.sent.last().unwrap();
        assert_eq!(*last, PeerMessage::TreeReply(TreeReply { id, result }));
    }
}

#[test]
fn what_is_known_to_be_missed_is_compared_at_once_and_then_forgotten() {
    let mut cluster = quiet(3);
    let id = |cluster: &Cluster, node: usize| cluster.engines[node].config().me;
    let target = id(&cluster, 2);
    cluster.hold(0, 2);
    written(cluster.ask(0, put(1, "a", None)));
    let partition = cluster.engines[0].config().ring.partition_of(key().token());
    // The write to the third is lost with its connection, and the note is made when it is there again.
    cluster.disconnect(0, 2);
    cluster.connect(0, 2);
    cluster.engines[0].mark_dirty(target, partition);
    cluster.engines[0].mark_dirty(target, partition);
    cluster.input(0, Input::Tick);
    cluster.run();
    assert_eq!(status(&cluster, 0).pending_dirty, 1);
    let note = Place::Dirty(target, partition);
    assert!(cluster.disks[0].applied.contains_key(&note));
    cluster.advance(Duration::from_secs(2));
    assert_equal(&cluster);
    assert_eq!(status(&cluster, 0).pending_dirty, 0);
    assert!(!cluster.disks[0].applied.contains_key(&note));
}

#[test]
fn a_note_made_while_its_owner_is_away_waits_for_it() {
    let mut cluster = quiet(3);
    let target = cluster.engines[2].config().me;
    let partition = cluster.engines[1].config().ring.partition_of(key().token());
    away(&mut cluster, 2, |cluster| {
        written(cluster.ask(1, put(1, "a", None)));
        cluster.engines[1].mark_dirty(target, partition);
        cluster.input(1, Input::Tick);
        cluster.run();
        cluster.advance(Duration::from_secs(100));
        assert_eq!(status(cluster, 1).pending_dirty, 1);
    });
    cluster.advance(Duration::from_millis(900));
    assert_equal(&cluster);
    assert_eq!(status(&cluster, 1).pending_dirty, 0);
}

#[test]
fn a_disk_that_refuses_is_not_sent_the_same_again_and_again() {
    let mut cluster = quiet(3);
    cluster.disks[2].refuses_stores = true;
    let before = cluster.now;
    away(&mut cluster, 2, |cluster| write(cluster, 0, 0..200, "a"));
    cluster.advance(Duration::from_secs(100));
    assert!(cluster.disks[2].stores < 16 * 20 * 12, "{}", cluster.disks[2].stores);
    cluster.disks[2].refuses_stores = false;
    cluster.advance(Duration::from_secs(200));
    assert_equal(&cluster);
    assert!(cluster.now > before);
}

#[test]
fn records_that_are_not_synced_are_not_shipped() {
    let mut cluster = Cluster::with(2, |config| {
        on(config);
        config.buckets.defaults.w = Some(1);
    });
    settle(&mut cluster);
    cluster.disconnect(0, 1);
    cluster.disks[0].holds_syncs = true;
    cluster.begin(0, put(1, "a", None));
    cluster.advance(Duration::from_secs(3));
    cluster.connect(0, 1);
    cluster.run();
    cluster.advance(Duration::from_secs(4));
    assert!(records(&cluster, 1).is_empty());
    cluster.release_syncs(0);
    cluster.advance(SOON);
    assert_equal(&cluster);
    assert_eq!(Record::decode(&records(&cluster, 1)[0].1).unwrap().siblings().len(), 1);
}

#[test]
fn times_of_exchanges_do_not_run_away() {
    let mut cluster = quiet(3);
    let now = cluster.now;
    for _ in 0..20 {
        let next = cluster.engines[0].poll_timeout().unwrap();
        assert!(next > cluster.now, "it does not wake again and again");
        cluster.advance(next.since(cluster.now));
    }
    assert!(cluster.now.since(now) > Duration::from_secs(100));
    assert!(cluster.now > Instant(0));
}
