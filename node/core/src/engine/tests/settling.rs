//! Deletes that are settled, and what must not be dropped.

use super::asks::{delete, get, get_with, key, put, put_under, read, request, texts, with_options, written};
use super::cluster::{Cluster, TIMEOUT, index};
use crate::engine::{Engine, Input};
use crate::key::Key;
use crate::message::{Candidate, Handoff, Objection, PeerMessage, Reap, Replicate, StoreHint};
use crate::place::Place;
use crate::record::Record;
use crate::request::{Operation, ReadOptions, WriteOptions};
use bytes::Bytes;
use std::time::Duration;

/// Longer than a proof takes, with the pauses before and after.
const PROOF: Duration = Duration::from_secs(12);

/// A cluster in which proofs begin at once, and in which who misses something goes on missing it.
fn cluster(nodes: usize) -> Cluster {
    Cluster::with(nodes, |config| {
        config.limits.settle_age = Duration::ZERO;
        config.limits.hints = false;
    })
}

/// Writes the test's key and deletes it. Returns the value's record, as a node that missed the delete would have it.
fn deleted(cluster: &mut Cluster, owner: usize) -> Bytes {
    let (context, _) = written(cluster.ask(owner, put(1, "a", None)));
    let old = cluster.record(owner).encode();
    written(cluster.ask(owner, delete(2, Some(&context))));
    old
}

fn is_queued(cluster: &Cluster, node: usize) -> bool {
    cluster.disks[node].applied.contains_key(&Place::Settle(key()))
}

fn is_gone(cluster: &Cluster, node: usize) -> bool {
    !cluster.disks[node].applied.contains_key(&Place::Record(key()))
}

fn reaped(cluster: &Cluster) -> u64 {
    cluster.engines.iter().map(|engine| engine.counters().reaped).sum()
}

/// The owners of the test's key, with the one first that leads its settling.
fn owners(cluster: &Cluster) -> Vec<usize> {
    let ring = &cluster.engines[0].config().ring;
    let owners = ring.owners(ring.partition_of(key().token()), 3);
    owners.iter().map(|node| usize::from(node.0)).collect()
}

fn stranger(cluster: &Cluster) -> usize {
    let owners = owners(cluster);
    (0..cluster.engines.len()).find(|node| !owners.contains(node)).unwrap()
}

fn objection(cluster: &Cluster, node: usize) -> Option<(usize, Objection)> {
    let last = cluster.engines[node].settling().last_objection;
    last.map(|(node, why)| (usize::from(node.0), why))
}

/// Until the first round has been answered.
fn first_round(cluster: &mut Cluster) {
    cluster.advance(Duration::from_secs(2));
    let lead = owners(cluster)[0];
    assert_eq!(cluster.engines[lead].settling().rounds, 1);
    assert!(cluster.engines.iter().all(|engine| engine.settling().watched == 1));
}

fn message(cluster: &mut Cluster, from: usize, to: usize, message: PeerMessage) {
    let from = index(from);
    cluster.input(to, Input::Message { from, message });
    cluster.run();
}

#[test]
fn a_tombstone_is_reaped_everywhere_when_all_members_are_there() {
    let mut cluster = cluster(5);
    let owners = owners(&cluster);
    deleted(&mut cluster, owners[1]);
    assert!(owners.iter().all(|&node| is_queued(&cluster, node)));
    cluster.advance(PROOF);
    for node in 0..5 {
        assert!(is_gone(&cluster, node) && !is_queued(&cluster, node), "node {node}");
        let trees = cluster.engines[node].trees();
        assert!(trees.ids().into_iter().all(|tree| trees.root(tree) == 0));
        assert_eq!(cluster.engines[node].settling().queued, 0);
    }
    assert!(cluster.is_empty());
    assert_eq!(reaped(&cluster), 3);
    assert!(read(cluster.ask(owners[0], get())).0.is_empty());
    cluster.advance(PROOF);
    cluster.assert_idle();
}

#[test]
fn a_deleted_key_that_is_reaped_can_be_written_again_and_no_dot_is_minted_twice() {
    let mut cluster = cluster(3);
    for n in 0..3 {
        // The harness checks that no dot stands for two writes.
        let (context, _) = written(cluster.ask(0, put(10 * n, "a", None)));
        written(cluster.ask(0, delete(10 * n + 1, Some(&context))));
        cluster.advance(PROOF);
        assert!((0..3).all(|node| is_gone(&cluster, node)));
    }
    written(cluster.ask(0, put(99, "b", None)));
    assert_eq!(read(cluster.ask(1, get())).0, ["b"]);
    assert_eq!(reaped(&cluster), 9);
}

#[test]
fn a_record_with_a_value_is_never_queued_and_leaves_the_queue_when_it_gets_one() {
    let mut cluster = cluster(3);
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    assert!((0..3).all(|node| !is_queued(&cluster, node)));
    written(cluster.ask(1, delete(2, Some(&context))));
    assert!((0..3).all(|node| is_queued(&cluster, node)));
    written(cluster.ask(2, put(3, "b", None)));
    assert!((0..3).all(|node| !is_queued(&cluster, node)));
    cluster.advance(PROOF);
    assert_eq!(read(cluster.ask(0, get())).0, ["b"]);
    assert_eq!(reaped(&cluster), 0);
    cluster.assert_idle();
}

#[test]
fn a_hint_is_gone_when_its_removal_is_durable_and_that_is_asked_for() {
    let mut cluster = Cluster::with(4, |config| {
        config.limits.settle_age = Duration::ZERO;
        config.buckets.defaults.w = Some(3);
    });
    let (owners, fallback) = (owners(&cluster), stranger(&cluster));
    cluster.isolate(owners[2]);
    let (context, _) = written(cluster.ask(owners[0], put(1, "a", None)));
    assert_eq!(cluster.engines[fallback].hints().len(), 1);
    cluster.disks[fallback].holds_syncs = true;
    (0..4)
        .filter(|&node| node != owners[2])
        .for_each(|node| cluster.connect(node, owners[2]));
    cluster.advance(Duration::from_secs(5));
    assert_eq!(cluster.engines[fallback].hints(), [], "it went home");
    let wanted = cluster.engines[fallback].sync_wanted().soon;
    written(cluster.ask(owners[0], delete(2, Some(&context))));
    cluster.advance(2 * PROOF);
    assert_eq!(reaped(&cluster), 0, "a power cut would bring the hint back");
    assert_eq!(objection(&cluster, owners[0]), Some((fallback, Objection::Hint)));
    assert!(cluster.engines[fallback].sync_wanted().soon > wanted);
    cluster.release_syncs(fallback);
    cluster.advance(4 * PROOF);
    assert_eq!(reaped(&cluster), 3);
    assert!(cluster.is_empty());
}

#[test]
fn nothing_is_reaped_while_an_owner_or_any_other_member_is_away() {
    let away = |pick: fn(&Cluster) -> usize| {
        let mut cluster = cluster(5);
        let node = pick(&cluster);
        let lead = owners(&cluster)[0];
        cluster.isolate(node);
        deleted(&mut cluster, lead);
        cluster.advance(10 * PROOF);
        assert_eq!(reaped(&cluster), 0);
        assert_eq!(cluster.engines[lead].settling().away, [index(node)]);
        assert!(is_queued(&cluster, lead));
        (cluster, node)
    };
    let (mut cluster, node) = away(stranger);
    (0..5)
        .filter(|&other| other != node)
        .for_each(|other| cluster.connect(node, other));
    cluster.advance(PROOF);
    assert_eq!(reaped(&cluster), 3);
    // An owner that missed the delete still holds what it deleted, or nothing.
    let (mut cluster, node) = away(|cluster| owners(cluster)[2]);
    (0..5)
        .filter(|&other| other != node)
        .for_each(|other| cluster.connect(node, other));
    cluster.advance(PROOF);
    assert_eq!(reaped(&cluster), 0);
    let lead = owners(&cluster)[0];
    assert_eq!(objection(&cluster, lead), Some((node, Objection::Differs)));
    // What it missed comes, and then it agrees.
    let (id, key, record, sync) = (1, key(), cluster.record(lead).encode(), true);
    message(
        &mut cluster,
        lead,
        node,
        PeerMessage::Replicate(Replicate { id, key, record, sync }),
    );
    cluster.advance(10 * PROOF);
    assert_eq!(reaped(&cluster), 3);
}

#[test]
fn an_old_copy_that_comes_between_the_rounds_ends_the_proof() {
    let mut cluster = cluster(5);
    let (owners, stranger) = (owners(&cluster), stranger(&cluster));
    let old = deleted(&mut cluster, owners[0]);
    first_round(&mut cluster);
    let (id, record, target) = (1, old, cluster.engines[owners[1]].config().me);
    let hint = StoreHint {
        id,
        target,
        key: key(),
        record,
    };
    message(&mut cluster, owners[0], stranger, PeerMessage::StoreHint(hint));
    cluster.advance(Duration::from_secs(8));
    assert_eq!(reaped(&cluster), 0);
    assert_eq!(objection(&cluster, owners[0]), Some((stranger, Objection::NotWatched)));
}

#[test]
fn a_record_that_is_written_again_between_the_rounds_stays() {
    let mut cluster = cluster(3);
    let owners = owners(&cluster);
    deleted(&mut cluster, owners[0]);
    first_round(&mut cluster);
    written(cluster.ask(owners[2], put(3, "b", None)));
    cluster.advance(10 * PROOF);
    assert_eq!(texts(&cluster.record(owners[1])), ["b"]);
    assert_eq!(reaped(&cluster), 0);
    cluster.assert_idle();
}

#[test]
fn a_record_that_is_written_again_as_the_proof_ends_stays() {
    let mut cluster = cluster(3);
    let owners = owners(&cluster);
    deleted(&mut cluster, owners[0]);
    cluster.hold(owners[0], owners[1]);
    cluster.hold(owners[0], owners[2]);
    // Lets both rounds through, but not what they prove.
    for _ in 0..20 {
        cluster.advance(Duration::from_millis(500));
        if is_gone(&cluster, owners[0]) {
            break;
        }
        for to in [owners[1], owners[2]] {
            cluster.release(owners[0], to);
            cluster.hold(owners[0], to);
        }
    }
    assert!(is_gone(&cluster, owners[0]) && !is_gone(&cluster, owners[1]));
    cluster.isolate(owners[0]);
    written(cluster.ask(owners[1], put(3, "b", None)));
    (1..3).for_each(|at| cluster.connect(owners[0], owners[at]));
    let (id, key, record, sync) = (1, key(), cluster.record(owners[1]).encode(), true);
    message(
        &mut cluster,
        owners[1],
        owners[0],
        PeerMessage::Handoff(Handoff {
            id,
            key: key.clone(),
            record: record.clone(),
        }),
    );
    message(
        &mut cluster,
        owners[1],
        owners[0],
        PeerMessage::Replicate(Replicate { id, key, record, sync }),
    );
    assert_eq!(texts(&cluster.record(owners[0])), ["b"]);
    cluster.advance(PROOF);
    assert_eq!(read(cluster.ask(owners[0], get())).0, ["b"]);
}

#[test]
fn a_request_for_the_key_stands_against_it_while_it_is_under_way() {
    let mut cluster = cluster(3);
    let owners = owners(&cluster);
    deleted(&mut cluster, owners[0]);
    cluster.hold(owners[1], owners[2]);
    let all = ReadOptions {
        r: Some(3),
        ..ReadOptions::default()
    };
    cluster.begin(owners[1], get_with(all));
    cluster.advance(Duration::from_millis(500));
    assert_eq!(objection(&cluster, owners[0]), Some((owners[1], Objection::UnderWay)));
    assert!(cluster.engines.iter().all(|engine| engine.settling().watched < 2));
    cluster.advance(TIMEOUT);
    cluster.release(owners[1], owners[2]);
    cluster.advance(PROOF);
    assert_eq!(reaped(&cluster), 3);
}

#[test]
fn a_suspended_member_postpones_it_and_what_it_sends_when_it_wakes_finds_the_tombstone() {
    let mut cluster = cluster(4);
    let (owners, stranger) = (owners(&cluster), stranger(&cluster));
    let old = deleted(&mut cluster, owners[0]);
    // It answers nothing, and its connections are still alive.
    (0..3).for_each(|at| cluster.hold(stranger, owners[at]));
    cluster.advance(PROOF);
    assert_eq!(reaped(&cluster), 0);
    assert_eq!(objection(&cluster, owners[0]), Some((stranger, Objection::Away)));
    // The first thing that it does when it wakes is to flush an old write.
    let (id, record) = (7, old);
    message(
        &mut cluster,
        stranger,
        owners[1],
        PeerMessage::Replicate(Replicate {
            id,
            key: key(),
            record,
            sync: true,
        }),
    );
    assert_eq!(texts(&cluster.record(owners[1])), ["-"]);
    (0..3).for_each(|at| cluster.release(stranger, owners[at]));
    cluster.advance(10 * PROOF);
    assert_eq!(reaped(&cluster), 3);
}

#[test]
fn a_member_that_starts_anew_between_the_rounds_ends_the_proof() {
    for pick in [|cluster: &Cluster| owners(cluster)[1], stranger] {
        let mut cluster = cluster(4);
        let (lead, node) = (owners(&cluster)[0], pick(&cluster));
        deleted(&mut cluster, lead);
        first_round(&mut cluster);
        cluster.crash(node, 77);
        cluster.advance(Duration::from_secs(8));
        assert_eq!(reaped(&cluster), 0);
        cluster.advance(PROOF);
        assert!(is_gone(&cluster, lead));
    }
}

#[test]
fn an_owner_that_missed_that_it_was_proved_brings_the_tombstone_back_and_it_is_reaped_again() {
    let mut cluster = cluster(3);
    let owners = owners(&cluster);
    deleted(&mut cluster, owners[0]);
    first_round(&mut cluster);
    let tombstone = cluster.record(owners[0]).encode();
    cluster.advance(Duration::from_millis(7_900));
    while !is_gone(&cluster, owners[0]) {
        cluster.advance(Duration::from_millis(1));
    }
    assert!((0..3).all(|node| is_gone(&cluster, node)));
    // As an exchange with one that still had it would.
    for (at, &to) in owners.iter().enumerate() {
        let (id, key, record, sync) = (1, key(), tombstone.clone(), true);
        message(
            &mut cluster,
            owners[(at + 1) % 3],
            to,
            PeerMessage::Replicate(Replicate { id, key, record, sync }),
        );
        assert!(is_queued(&cluster, to) && !is_gone(&cluster, to));
    }
    cluster.advance(PROOF);
    assert!((0..3).all(|node| is_gone(&cluster, node)));
    assert_eq!(reaped(&cluster), 6);
}

#[test]
fn an_owner_drops_nothing_that_was_not_asked_for_twice() {
    let mut cluster = cluster(3);
    let owners = owners(&cluster);
    cluster.isolate(owners[0]);
    deleted(&mut cluster, owners[1]);
    let record = cluster.record(owners[1]);
    let candidate = Candidate {
        key: key(),
        hash: Record::hash_encoded(&record.encode()),
        retire: vec![],
    };
    let candidates = vec![candidate];
    message(
        &mut cluster,
        owners[0],
        owners[1],
        PeerMessage::Reap(Reap { id: 1, candidates }),
    );
    assert!(!is_gone(&cluster, owners[1]));
}

#[test]
fn records_wait_for_their_age_before_the_proof_begins() {
    let mut cluster = Cluster::with(3, |config| config.limits.settle_age = Duration::from_secs(60));
    deleted(&mut cluster, 0);
    cluster.advance(Duration::from_secs(59));
    assert!(cluster.engines.iter().all(|engine| engine.settling().rounds == 0));
    cluster.advance(PROOF);
    assert_eq!(reaped(&cluster), 3);
}

#[test]
fn the_queue_is_found_again_after_all_processes_have_ended() {
    let mut cluster = cluster(3);
    deleted(&mut cluster, 0);
    for node in 0..3 {
        cluster.crash(node, 50 + node as u8);
    }
    cluster.advance(PROOF);
    assert_eq!(reaped(&cluster), 3);
    cluster.advance(6 * PROOF);
    cluster.assert_idle();
}

#[test]
fn many_tombstones_go_in_batches() {
    let mut cluster = cluster(3);
    let name = |n: u64| Key::new(b"bucket", format!("key {n}").as_bytes(), None).unwrap();
    for n in 0..600 {
        let (context, _) = written(cluster.ask(0, put_under(name(n), n, "a", None)));
        let operation = Operation::Delete {
            key: name(n),
            context: Some(context),
            request: request(10_000 + n),
            retry: false,
            options: WriteOptions::default(),
        };
        written(cluster.ask(1, operation));
    }
    let queued: u64 = cluster.engines.iter().map(|engine| engine.settling().queued).sum();
    assert_eq!(queued, 600);
    cluster.advance(Duration::from_secs(60));
    assert_eq!(reaped(&cluster), 1800);
    assert!(cluster.is_empty());
    cluster.assert_idle();
    let rounds: u64 = cluster
        .engines
        .iter()
        .map(|engine: &Engine| engine.settling().rounds)
        .sum();
    assert!(rounds < 100, "{rounds} rounds");
}

/// Deletes keys of these numbers.
fn delete_all(cluster: &mut Cluster, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let name = Key::new(b"bucket", format!("key {n}").as_bytes(), None).unwrap();
        let (context, _) = written(cluster.ask(0, put_under(name.clone(), n, "a", None)));
        let operation = Operation::Delete {
            key: name,
            context: Some(context),
            request: request(10_000 + n),
            retry: false,
            options: WriteOptions::default(),
        };
        written(cluster.ask(1, operation));
    }
}

/// How many records wait, by what nodes say and by the rows on the disks of first owners.
fn waiting(cluster: &Cluster) -> (u64, u64) {
    let said = cluster.engines.iter().map(|engine| engine.settling().queued).sum();
    let ring = &cluster.engines[0].config().ring;
    let led = |node: usize, place: &Place| match place {
        Place::Settle(key) => ring.owners(ring.partition_of(key.token()), 1) == [index(node)],
        _ => false,
    };
    let disks = cluster.disks.iter().enumerate();
    let rows = disks.map(|(node, disk)| disk.applied.keys().filter(|place| led(node, place)).count() as u64);
    (said, rows.sum())
}

#[test]
fn what_waits_is_counted_exactly_also_while_batches_are_under_way_and_more_comes() {
    let mut cluster = cluster(3);
    delete_all(&mut cluster, 0..100);
    for step in 0..1200 {
        cluster.advance(Duration::from_millis(50));
        match step {
            60 => delete_all(&mut cluster, 100..200),
            150 => delete_all(&mut cluster, 200..250),
            _ => {}
        }
        let (said, rows) = waiting(&cluster);
        assert_eq!(said, rows, "step {step}");
    }
    assert_eq!((waiting(&cluster), reaped(&cluster)), ((0, 0), 750));
    cluster.assert_idle();
}

#[test]
fn what_waits_is_counted_after_a_restart_and_where_rows_could_not_be_removed() {
    let mut cluster = Cluster::with(3, |config| {
        config.limits.settle_age = Duration::ZERO;
        config.limits.exchange = true;
    });
    delete_all(&mut cluster, 0..100);
    cluster.crash(0, 9);
    cluster.advance(Duration::from_secs(1));
    assert!(waiting(&cluster).0 > 0);
    cluster.advance(Duration::from_secs(7));
    cluster.disks[1].refuses_stores = true;
    cluster.advance(Duration::from_secs(3));
    let (said, rows) = waiting(&cluster);
    assert!(rows > 0 && said > 0, "{said} of {rows}");
    cluster.disks[1].refuses_stores = false;
    // Until owners have compared what one of them could not drop.
    cluster.advance(Duration::from_secs(1000));
    assert!(cluster.is_empty());
    assert_eq!(waiting(&cluster), (0, 0));
}

#[test]
fn a_row_whose_record_was_lost_goes_at_every_owner() {
    let mut cluster = cluster(3);
    let owners = owners(&cluster);
    cluster.isolate(owners[0]);
    cluster.ask(owners[1], put(1, "a", None)).unwrap();
    let (_, context) = read(cluster.ask(owners[1], get()));
    written(cluster.ask(owners[1], delete(2, context.as_ref())));
    for &node in &owners[1..] {
        cluster.disks[node].applied.remove(&Place::Record(key()));
    }
    (1..3).for_each(|at| cluster.connect(owners[0], owners[at]));
    cluster.advance(Duration::from_secs(200));
    assert!(cluster.is_empty());
    cluster.advance(Duration::from_secs(200));
    cluster.assert_idle();
}

#[test]
fn a_node_that_is_alone_settles_what_it_finds_at_its_start() {
    let mut cluster = Cluster::with(1, |config| {
        config.limits.settle_age = Duration::ZERO;
        config.buckets.defaults.n = 1;
    });
    let one = |operation| with_options(operation, |options| options.w = Some(1));
    let (context, _) = written(cluster.ask(0, one(put(1, "a", None))));
    written(cluster.ask(0, one(delete(2, Some(&context)))));
    cluster.crash(0, 9);
    cluster.advance(PROOF);
    assert!(cluster.is_empty());
    assert_eq!(reaped(&cluster), 1);
}
