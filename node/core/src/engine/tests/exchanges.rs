//! Owners compare their trees, and ship what differs.

use super::asks::{delete, get, put, put_under, read, texts, written};
use super::cluster::{Cluster, index};
use crate::bucket::BucketProperties;
use crate::engine::{EngineConfig, ExchangeStatus, stored::Stored};
use crate::key::Key;
use crate::message::{Handoff, PeerMessage, Pull, TreeReply};
use crate::place::Place;
use bytes::Bytes;
use std::time::Duration;

mod trouble;

/// Long enough for first exchanges, what they find, and the look whether it was all.
const SOON: Duration = Duration::from_secs(15);

fn on(config: &mut EngineConfig) {
    config.limits.exchange = true;
    config.limits.hints = false;
}

/// Connected nodes that have compared everything, and sent nothing since.
fn quiet(nodes: usize) -> Cluster {
    let mut cluster = Cluster::with(nodes, on);
    settle(&mut cluster);
    cluster
}

fn settle(cluster: &mut Cluster) {
    cluster.advance(SOON);
    cluster.sent.clear();
}

fn numbered(n: u64) -> Key {
    Key::new(b"bucket", format!("key {n}").as_bytes(), None).unwrap()
}

/// Writes keys by their numbers at a node.
fn write(cluster: &mut Cluster, node: usize, numbers: impl IntoIterator<Item = u64>, value: &str) {
    let first = 100_000 * u64::from(value.as_bytes()[0]);
    for n in numbers {
        written(cluster.ask(node, put_under(numbered(n), first + n, value, None)));
    }
}

/// Lets a node miss what happens.
fn away(cluster: &mut Cluster, node: usize, happens: impl FnOnce(&mut Cluster)) {
    cluster.isolate(node);
    happens(cluster);
    cluster.advance(Duration::from_secs(5));
    cluster.sent.clear();
    let others = (0..cluster.engines.len()).filter(|&other| other != node);
    others.for_each(|other| cluster.connect(node, other));
    cluster.run();
}

/// The keys of all that was shipped from a node, sorted.
fn shipped(cluster: &Cluster, from: usize) -> Vec<Key> {
    let key_of = |message: &PeerMessage| match message {
        PeerMessage::Handoff(Handoff { key, .. }) => Some(key.clone()),
        _ => None,
    };
    let sent = cluster.sent.iter().filter(|sent| sent.0 == from);
    let mut keys: Vec<Key> = sent.filter_map(|sent| key_of(&sent.2)).collect();
    keys.sort();
    keys
}

/// The keys of all that was pulled to a node, sorted.
fn pulled(cluster: &Cluster, to: usize) -> Vec<Key> {
    let key_of = |message: &PeerMessage| match message {
        PeerMessage::Pull(Pull { key, .. }) => Some(key.clone()),
        _ => None,
    };
    let sent = cluster.sent.iter().filter(|sent| sent.0 == to);
    let mut keys: Vec<Key> = sent.filter_map(|sent| key_of(&sent.2)).collect();
    keys.sort();
    keys
}

/// Everything that brought a record to a node.
fn brought(cluster: &Cluster, to: usize) -> Vec<Key> {
    let mut keys = pulled(cluster, to);
    for (_, at, message) in &cluster.sent {
        if let (true, PeerMessage::Handoff(Handoff { key, .. })) = (*at == to, message) {
            keys.push(key.clone());
        }
    }
    keys.sort();
    keys
}

fn sorted(numbers: impl IntoIterator<Item = u64>) -> Vec<Key> {
    let mut keys: Vec<Key> = numbers.into_iter().map(numbered).collect();
    keys.sort();
    keys
}

fn records(cluster: &Cluster, node: usize) -> Vec<(Key, Bytes)> {
    let rows = cluster.disks[node].applied.iter();
    let record = |payload: &Bytes| Stored::parse(Some(payload.clone())).unwrap().encoded().clone();
    rows.filter_map(|(place, payload)| match place {
        Place::Record(key) => Some((key.clone(), record(payload))),
        _ => None,
    })
    .collect()
}

/// All nodes hold the same, their trees agree, and what the trees say is what there is.
#[track_caller]
fn assert_equal(cluster: &Cluster) {
    for node in 1..cluster.engines.len() {
        assert_eq!(records(cluster, 0), records(cluster, node), "node {node}");
        for tree in cluster.engines[0].trees().ids() {
            let root = |node: usize| cluster.engines[node].trees().root(tree);
            assert_eq!(root(0), root(node), "node {node}, {tree:?}");
        }
    }
}

fn status(cluster: &Cluster, node: usize) -> ExchangeStatus {
    cluster.engines[node].exchanges(cluster.now)
}

fn tree_messages(cluster: &Cluster) -> usize {
    let is_tree = |m: &PeerMessage| matches!(m, PeerMessage::TreeAsk(_) | PeerMessage::TreeReply(_));
    cluster.sent.iter().filter(|sent| is_tree(&sent.2)).count()
}

#[test]
fn trees_that_agree_cost_two_messages_each_and_then_nothing_until_the_next_round() {
    let mut cluster = Cluster::with(2, on);
    write(&mut cluster, 0, 0..20, "a");
    settle(&mut cluster);
    let status = status(&cluster, 0);
    assert_eq!((status.trees_in_sync, status.trees_total), (16, 16));
    assert_eq!(status.last[0].differing, 0);
    cluster.advance(Duration::from_secs(180));
    assert_eq!(cluster.sent.len(), 0);
    cluster.advance(Duration::from_secs(200));
    // Sixteen partitions, asked for by one of the two.
    assert_eq!((tree_messages(&cluster), cluster.sent.len()), (32, 32));
    assert!(cluster.sent.iter().filter(|sent| sent.0 == 0).count() == 16);
    assert_eq!(cluster.engines[0].counters().exchanges_differed, 0);
}

#[test]
fn first_exchanges_come_at_once_and_from_both_sides() {
    let mut cluster = Cluster::with(2, on);
    cluster.advance(Duration::from_secs(2));
    for node in 0..2 {
        assert_eq!(cluster.engines[node].counters().exchanges, 16, "node {node}");
    }
}

#[test]
fn without_exchange_nothing_is_sent_and_nobody_waits() {
    let mut cluster = Cluster::new(3);
    write(&mut cluster, 0, 0..5, "a");
    away(&mut cluster, 2, |cluster| write(cluster, 0, 5..9, "b"));
    cluster.advance(Duration::from_secs(1_000));
    assert_eq!(tree_messages(&cluster), 0);
    cluster.assert_idle();
    // But who asks is answered, and may be asked to do it all the same.
    let now = cluster.now;
    cluster.engines[0].exchange_now(now);
    cluster.advance(SOON);
    assert_eq!(shipped(&cluster, 0), sorted(5..9));
    cluster.advance(SOON);
    cluster.assert_idle();
}

#[test]
fn exactly_what_a_node_has_missed_comes_to_it() {
    let mut cluster = quiet(3);
    write(&mut cluster, 0, 0..200, "a");
    settle(&mut cluster);
    away(&mut cluster, 2, |cluster| {
        write(cluster, 0, 190..230, "b");
        write(cluster, 1, 230..240, "c");
    });
    cluster.advance(SOON);
    assert_equal(&cluster);
    assert_eq!(brought(&cluster, 2), sorted(190..240), "each once");
    assert!(brought(&cluster, 0).is_empty() && brought(&cluster, 1).is_empty());
}

#[test]
fn a_node_that_comes_back_from_a_crash_pulls_what_it_has_missed() {
    let mut cluster = quiet(3);
    write(&mut cluster, 0, 0..100, "a");
    settle(&mut cluster);
    cluster.isolate(2);
    write(&mut cluster, 0, 90..120, "b");
    cluster.advance(SOON);
    cluster.sent.clear();
    cluster.crash(2, 77);
    cluster.run();
    cluster.advance(SOON);
    assert_equal(&cluster);
    assert_eq!(brought(&cluster, 2), sorted(90..120));
    let counters = cluster.engines[2].counters();
    assert!(counters.exchange_received > 0);
}

#[test]
fn an_owner_that_lost_everything_gets_everything_back() {
    let mut cluster = quiet(3);
    write(&mut cluster, 0, 0..500, "a");
    settle(&mut cluster);
    cluster.restart(1, 99, Default::default());
    cluster.run();
    cluster.advance(SOON);
    assert_equal(&cluster);
    assert_eq!(brought(&cluster, 1), sorted(0..500));
}

#[test]
fn writes_on_both_sides_of_a_split_become_siblings_on_both() {
    let mut cluster = Cluster::with(2, |config| {
        on(config);
        config.buckets.defaults.w = Some(1);
        config.buckets.defaults.r = Some(1);
    });
    settle(&mut cluster);
    written(cluster.ask(0, put(1, "old", None)));
    cluster.disconnect(0, 1);
    written(cluster.ask(0, put(2, "left", None)));
    written(cluster.ask(1, put(3, "right", None)));
    cluster.advance(Duration::from_secs(5));
    cluster.sent.clear();
    cluster.connect(0, 1);
    cluster.run();
    cluster.advance(SOON);
    assert_equal(&cluster);
    assert_eq!(texts(&cluster.record(1)), ["left", "old", "right"]);
    let records = pulled(&cluster, 0).len() + pulled(&cluster, 1).len();
    let sent = shipped(&cluster, 0).len() + shipped(&cluster, 1).len();
    assert_eq!((records, sent), (1, 1), "one pull, and the outcome sent back");
}

#[test]
fn a_delete_that_was_missed_arrives() {
    let mut cluster = quiet(3);
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    away(&mut cluster, 2, |cluster| {
        written(cluster.ask(0, delete(2, Some(&context))));
    });
    cluster.advance(SOON);
    assert_equal(&cluster);
    assert_eq!(texts(&cluster.record(2)), ["-"]);
    assert_eq!(read(cluster.ask(2, get())).0, ["-"]);
}

#[test]
fn buckets_with_other_copies_have_trees_of_their_own() {
    let mut cluster = Cluster::with(3, |config| {
        on(config);
        let two = BucketProperties {
            n: 2,
            w: Some(1),
            ..BucketProperties::default()
        };
        config.buckets.named.insert(b"two".to_vec(), two);
    });
    settle(&mut cluster);
    let two = |n: u64| Key::new(b"two", format!("key {n}").as_bytes(), None).unwrap();
    away(&mut cluster, 2, |cluster| {
        write(cluster, 0, 0..40, "three");
        for n in 0..40 {
            let key = two(n);
            let ring = &cluster.engines[0].config().ring;
            let owners = ring.owners(ring.partition_of(key.token()), 2).to_vec();
            let node = usize::from(owners.iter().find(|node| node.0 != 2).unwrap().0);
            written(cluster.ask(node, put_under(key, 5_000 + n, "two", None)));
        }
    });
    cluster.advance(SOON);
    for n in 0..40 {
        let ring = cluster.engines[0].config().ring.clone();
        for node in 0..3 {
            let owns = ring.owns(index(node), ring.partition_of(two(n).token()), 2);
            let holds = cluster.disks[node].applied.contains_key(&Place::Record(two(n)));
            assert_eq!(holds, owns, "key {n}, node {node}");
            assert!(cluster.disks[node].applied.contains_key(&Place::Record(numbered(n))));
        }
    }
    let in_sync = |node: usize| status(&cluster, node).trees_in_sync == status(&cluster, node).trees_total;
    assert!((0..3).all(in_sync));
}

#[test]
fn one_partition_key_with_more_items_than_an_answer_holds_is_listed_in_parts() {
    let mut cluster = quiet(3);
    let item = |n: u64| Key::new(b"bucket", b"one", Some(format!("{n:0>200}").as_bytes())).unwrap();
    away(&mut cluster, 0, |cluster| {
        for n in 0..600 {
            written(cluster.ask(1, put_under(item(n), 10 + n, "a", None)));
        }
    });
    cluster.advance(SOON);
    assert_equal(&cluster);
    assert_eq!(brought(&cluster, 0).len(), 600, "each once");
    let biggest = cluster.sent.iter().map(|sent| match &sent.2 {
        PeerMessage::TreeReply(TreeReply { result: Ok(answer), .. }) => postcard::to_stdvec(answer).unwrap().len(),
        _ => 0,
    });
    let biggest = biggest.max().unwrap();
    assert!((40 << 10..64 << 10).contains(&biggest), "{biggest} bytes");
}

#[test]
fn a_tree_takes_part_in_one_exchange_at_a_time() {
    let mut cluster = quiet(3);
    away(&mut cluster, 2, |cluster| write(cluster, 0, 0..50, "a"));
    // The node that comes back and both others find it behind; still nothing comes twice.
    let now = cluster.now;
    (0..3).for_each(|node| cluster.engines[node].exchange_now(now));
    cluster.run();
    cluster.advance(SOON);
    assert_equal(&cluster);
    assert_eq!(brought(&cluster, 2), sorted(0..50));
}

#[test]
fn a_write_on_its_way_is_left_to_arrive() {
    let mut cluster = quiet(2);
    cluster.hold(0, 1);
    let put = cluster.begin(0, put(1, "a", None));
    assert!(cluster.reply(put).is_none());
    let now = cluster.now;
    cluster.engines[1].exchange_now(now);
    cluster.run();
    cluster.release(0, 1);
    cluster.advance(SOON);
    written(cluster.reply(put).unwrap());
    assert_equal(&cluster);
    assert!(brought(&cluster, 0).is_empty() && brought(&cluster, 1).is_empty());
    let differed: u64 = (0..2).map(|n| cluster.engines[n].counters().exchanges_differed).sum();
    assert_eq!(differed, 0);
}

#[test]
fn a_write_in_between_does_no_harm() {
    let mut cluster = quiet(3);
    write(&mut cluster, 0, 0..50, "a");
    away(&mut cluster, 2, |cluster| write(cluster, 0, 0..50, "b"));
    for n in 0..50 {
        cluster.advance(Duration::from_millis(37));
        let node = (n % 3) as usize;
        written(cluster.ask(node, put_under(numbered(n), 9_000 + n, "c", None)));
    }
    cluster.advance(2 * SOON);
    assert_equal(&cluster);
}

#[test]
fn a_clean_restart_of_all_nodes_repairs_nothing() {
    let mut cluster = quiet(3);
    write(&mut cluster, 0, 0..100, "a");
    settle(&mut cluster);
    (0..3).for_each(|node| cluster.crash(node, 100 + node as u8));
    cluster.run();
    cluster.advance(Duration::from_secs(700));
    for node in 0..3 {
        let counters = cluster.engines[node].counters();
        let repairs = (
            counters.exchanges_differed,
            counters.exchange_sent,
            counters.exchange_received,
        );
        assert_eq!(repairs, (0, 0, 0), "node {node}");
        assert!(counters.exchanges > 0);
    }
}

/// Writes many keys at once, each of a kilobyte.
fn write_many(cluster: &mut Cluster, numbers: std::ops::Range<u64>) {
    let value = "x".repeat(1024);
    (0..3).for_each(|node| cluster.disks[node].holds_syncs = true);
    let put = |n| put_under(numbered(n), 1_000_000 + n, &value, None);
    let writes: Vec<_> = numbers.map(|n| cluster.begin(0, put(n))).collect();
    (0..3).for_each(|node| cluster.release_syncs(node));
    for write in writes {
        written(cluster.reply(write).unwrap());
    }
}

/// As many keys to a leaf as a million keys in 64 partitions have, and one in ten missed.
#[test]
fn what_is_shipped_stays_near_what_differs() {
    let mut cluster = Cluster::with(3, |config| {
        on(config);
        let (version, members) = (config.ring.version(), config.ring.members().to_vec());
        config.ring = std::sync::Arc::new(quorate_ring::Ring::new(version, 0, members).unwrap());
    });
    write_many(&mut cluster, 0..14_400);
    settle(&mut cluster);
    away(&mut cluster, 2, |cluster| write_many(cluster, 14_400..16_000));
    let before: u64 = bytes_sent(&cluster);
    cluster.advance(SOON);
    assert_equal(&cluster);
    let missed = sorted(14_400..16_000);
    assert_eq!(brought(&cluster, 2), missed);
    let held = records(&cluster, 2).into_iter();
    let differs = held.filter(|(key, _)| missed.binary_search(key).is_ok());
    let differs: usize = differs.map(|(key, record)| key.encoded().len() + record.len()).sum();
    let shipped = bytes_sent(&cluster) - before;
    assert!(shipped * 2 <= 3 * differs as u64, "{shipped} bytes for {differs}");
    println!("{shipped} bytes for {differs} in {} messages", cluster.sent.len());
}

fn bytes_sent(cluster: &Cluster) -> u64 {
    let counters = cluster.engines.iter().map(|engine| engine.counters());
    counters.map(|counters| counters.exchange_bytes_sent).sum()
}

#[test]
fn what_hints_bring_is_not_brought_by_exchanges_as_well() {
    let mut cluster = Cluster::with(3, |config| {
        config.limits.exchange = true;
        config.limits.hints = true;
    });
    settle(&mut cluster);
    away(&mut cluster, 2, |cluster| write(cluster, 0, 0..300, "a"));
    let now = cluster.now;
    (0..3).for_each(|node| cluster.engines[node].exchange_now(now));
    cluster.run();
    cluster.advance(2 * SOON);
    assert_equal(&cluster);
    let mut keys = brought(&cluster, 2);
    keys.dedup();
    assert_eq!(keys, sorted(0..300));
    let exchanged: u64 = (0..3).map(|n| cluster.engines[n].counters().exchange_sent).sum();
    assert_eq!(exchanged, 0);
    let in_sync = |node: usize| status(&cluster, node).trees_in_sync == status(&cluster, node).trees_total;
    assert!((0..3).all(in_sync));
}

#[test]
fn a_node_that_holds_one_row_at_a_time_ships_all_the_same() {
    let mut cluster = Cluster::with(3, |config| {
        on(config);
        config.limits.slots_max = 1;
    });
    settle(&mut cluster);
    away(&mut cluster, 2, |cluster| write(cluster, 0, 0..5, "a"));
    cluster.advance(SOON * 20);
    assert_equal(&cluster);
}

#[test]
fn few_large_records_are_shipped_at_once_and_all_of_them_arrive() {
    let mut cluster = quiet(3);
    let value = "v".repeat(1 << 20);
    cluster.disks[2].holds_loads = true;
    away(&mut cluster, 2, |cluster| write(cluster, 0, 0..40, &value));
    cluster.advance(Duration::from_secs(2));
    let sent = [0, 1].map(|from| cluster.sent_to(from, |m| matches!(m, PeerMessage::Handoff(_))).len());
    assert!(sent.iter().all(|&sent| sent <= 17) && sent != [0, 0], "{sent:?} MiB");
    cluster.release_loads(2);
    cluster.advance(SOON * 20);
    assert_equal(&cluster);
}

#[test]
fn a_node_without_trees_compares_nothing_and_is_not_taken_for_one_that_has_nothing() {
    let mut cluster = Cluster::with(2, |config| {
        on(config);
        config.limits.trees = config.me.0[0] == 1;
        config.limits.scrub_per_second = 1000;
        config.buckets.defaults.n = 2;
    });
    write(&mut cluster, 0, 0..20, "a");
    cluster.advance(Duration::from_secs(200));
    assert_eq!(cluster.engines[1].trees().ids().len(), 0, "nor does the scrub make any");
    cluster.engines[1].write_leaves(|_, _, _| panic!("nor has it any to be written"));
    assert_eq!((shipped(&cluster, 0), pulled(&cluster, 0)), (vec![], vec![]));
    assert_eq!(cluster.engines[0].exchanges(cluster.now).trees_in_sync, 0);
    cluster.restart(0, 60, Default::default());
    cluster.advance(Duration::from_secs(200));
    assert_eq!(cluster.engines[0].rebuilding(), (0, 16));
}
