//! Reading all records again.

use super::asks::{delete, key, put, put_under, texts, with_options, written};
use super::cluster::Cluster;
use crate::engine::Input;
use crate::key::Key;
use crate::place::Place;
use crate::tree::{LeafId, TreeId};
use std::time::Duration;

/// Three nodes that scrub, and begin a pass every minute.
fn scrubbing() -> Cluster {
    Cluster::with(3, |config| {
        config.limits.scrub_per_second = 1000;
        config.limits.scrub_every = Duration::from_secs(60);
    })
}

fn everywhere(cluster: &mut Cluster, n: u64, key: Key) {
    let operation = with_options(put_under(key, n, &n.to_string(), None), |options| options.w = Some(3));
    written(cluster.ask(0, operation));
}

fn numbered(n: u64) -> Key {
    Key::new(b"bucket", format!("key {n}").as_bytes(), None).unwrap()
}

fn tree(cluster: &Cluster) -> TreeId {
    let partition = cluster.engines[0].config().ring.partition_of(key().token());
    TreeId { partition, n: 3 }
}

#[test]
fn a_pass_over_sound_records_reads_all_of_them_and_corrects_nothing() {
    let mut cluster = scrubbing();
    (0..500).for_each(|n| everywhere(&mut cluster, n, numbered(n)));
    cluster.advance(Duration::from_secs(40));
    let progress = cluster.engines[0].scrub_progress();
    assert_eq!((progress.passes, progress.records, progress.suspects), (1, 500, 0));
    assert_eq!(cluster.engines[0].counters().leaves_corrected, 0);
    cluster.advance(Duration::from_secs(60));
    assert_eq!(cluster.engines[0].scrub_progress().passes, 2);
}

#[test]
fn a_pass_that_takes_longer_than_the_time_between_passes_is_followed_by_the_next_one() {
    let mut cluster = Cluster::with(3, |config| {
        config.limits.scrub_per_second = 100;
        config.limits.scrub_every = Duration::from_secs(2);
    });
    (0..500).for_each(|n| everywhere(&mut cluster, n, numbered(n)));
    cluster.advance(Duration::from_secs(60));
    let passes = cluster.engines.iter().map(|engine| engine.scrub_progress().passes);
    assert!(passes.min() >= Some(5), "each takes some seven seconds");
}

#[test]
fn a_record_that_goes_from_the_disk_by_itself_changes_its_leaf_with_the_next_pass() {
    let mut cluster = scrubbing();
    (0..20).for_each(|n| everywhere(&mut cluster, n, numbered(n)));
    everywhere(&mut cluster, 100, key());
    cluster.disks[0].applied.remove(&Place::Record(key()));
    let id = tree(&cluster);
    let roots = |cluster: &Cluster| [0, 1].map(|node: usize| cluster.engines[node].trees().root(id));
    assert_eq!(roots(&cluster)[0], roots(&cluster)[1]);
    cluster.advance(Duration::from_secs(10));
    assert_ne!(roots(&cluster)[0], roots(&cluster)[1], "now an exchange sees it");
    assert_eq!(cluster.engines[0].counters().leaves_corrected, 1);
    assert_eq!(cluster.engines[1].counters().leaves_corrected, 0);
}

#[test]
fn a_delete_that_nobody_queued_is_queued_by_the_scrub_and_settled() {
    let mut cluster = Cluster::with(3, |config| {
        config.limits.scrub_per_second = 1000;
        config.limits.scrub_every = Duration::from_secs(60);
        config.limits.settle_age = Duration::ZERO;
    });
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    written(cluster.ask(0, delete(2, Some(&context))));
    for disk in &mut cluster.disks {
        disk.applied.remove(&Place::Settle(key())).expect("it was queued");
    }
    cluster.advance(Duration::from_secs(200));
    for (node, disk) in cluster.disks.iter().enumerate() {
        let left = [Place::Record(key()), Place::Settle(key())];
        assert!(
            !left.iter().any(|place| disk.applied.contains_key(place)),
            "node {node}"
        );
    }
    assert!(cluster.engines.iter().all(|engine| engine.settling().queued == 0));
}

#[test]
fn a_corrupt_record_that_nobody_asks_for_is_healed() {
    let mut cluster = scrubbing();
    everywhere(&mut cluster, 1, key());
    cluster.disks[0].corrupt.insert(Place::Record(key()));
    cluster.advance(Duration::from_secs(30));
    assert_eq!(texts(&cluster.record(0)), ["1"]);
    assert_eq!(cluster.engines[0].counters().healed_records, 1);
    let id = tree(&cluster);
    let roots = [0, 1, 2].map(|node: usize| cluster.engines[node].trees().root(id));
    assert_eq!(roots, [roots[0]; 3], "and its leaf is right again");
    assert_eq!(cluster.engines[0].scrub_progress().suspects, 0);
}

#[test]
fn a_leaf_that_is_written_to_while_it_is_read_is_left_alone_and_read_again() {
    let mut cluster = scrubbing();
    everywhere(&mut cluster, 1, key());
    cluster.disks[0].holds_scans = true;
    // The page that the scrub reads is from before the next write, and comes after it.
    while cluster.disks[0].scans_held() == 0 {
        cluster.advance(Duration::from_millis(10));
    }
    for partition in 0..16 {
        written(cluster.ask(0, put(2 + partition, "b", None)));
        cluster.release_scans(0);
        cluster.disks[0].holds_scans = true;
        while cluster.disks[0].scans_held() == 0 && cluster.engines[0].scrub_progress().passes == 0 {
            cluster.advance(Duration::from_millis(10));
        }
    }
    cluster.release_scans(0);
    cluster.advance(Duration::from_secs(5));
    assert_eq!(cluster.engines[0].counters().leaves_corrected, 0);
    let id = tree(&cluster);
    assert_eq!(cluster.engines[0].trees().root(id), cluster.engines[1].trees().root(id));
}

#[test]
fn a_damaged_file_is_read_round_and_the_node_starts_over_when_all_others_are_whole() {
    let mut cluster = scrubbing();
    (0..50).for_each(|n| everywhere(&mut cluster, n, numbered(n)));
    let token = numbered(7).token().0;
    cluster.disks[0].damaged = Some(token..=token);
    cluster.disconnect(0, 2);
    cluster.advance(Duration::from_secs(50));
    let progress = cluster.engines[0].scrub_progress();
    assert_eq!((progress.passes, progress.damaged), (1, 1));
    assert_eq!(progress.records, 49, "all others were read");
    assert!(cluster.rebuilds.is_empty(), "one of them is away");
    cluster.connect(0, 2);
    cluster.advance(Duration::from_secs(60));
    assert!(cluster.rebuilds[&0].contains("damaged"), "{:?}", cluster.rebuilds);
    assert!(cluster.engines[0].silent().is_some());
}

#[test]
fn a_store_that_takes_no_writes_any_more_is_given_up_only_when_all_others_are_whole_and_have_their_hints() {
    let mut cluster = scrubbing();
    let damage = |cluster: &mut Cluster| {
        cluster.disks[0].refuses_stores = true;
        cluster.input(0, Input::Damaged);
        cluster.run();
    };
    cluster.disconnect(0, 2);
    damage(&mut cluster);
    cluster.advance(Duration::from_secs(300));
    assert!(cluster.rebuilds.is_empty(), "one of them is away");
    cluster.connect(0, 2);
    cluster.advance(Duration::from_secs(60));
    assert!(cluster.rebuilds[&0].contains("damaged"), "{:?}", cluster.rebuilds);

    let mut cluster = Cluster::new(3);
    cluster.isolate(2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.disks[0].refuses_stores = true;
    cluster.connect(0, 2);
    cluster.connect(1, 2);
    damage(&mut cluster);
    cluster.advance(Duration::from_secs(300));
    assert!(cluster.rebuilds.is_empty(), "it has a hint, as far as it knows");
}

#[test]
fn of_two_nodes_with_damage_one_starts_over_and_the_other_waits_for_it() {
    let mut cluster = scrubbing();
    everywhere(&mut cluster, 1, key());
    let token = key().token().0;
    (0..2).for_each(|node| cluster.disks[node].damaged = Some(token..=token));
    while cluster.rebuilds.is_empty() {
        cluster.advance(Duration::from_secs(1));
    }
    // Its process ends.
    cluster.isolate(0);
    cluster.advance(Duration::from_secs(300));
    assert_eq!(cluster.rebuilds.keys().collect::<Vec<_>>(), [&0]);
}

#[test]
fn a_disk_that_cannot_be_read_now_is_read_in_the_next_pass() {
    let mut cluster = scrubbing();
    everywhere(&mut cluster, 1, key());
    cluster.disks[0].fails_loads = true;
    cluster.advance(Duration::from_secs(1200));
    let progress = cluster.engines[0].scrub_progress();
    assert_eq!((progress.records, progress.damaged), (0, 0));
    cluster.disks[0].fails_loads = false;
    cluster.advance(Duration::from_secs(1200));
    assert!(cluster.engines[0].scrub_progress().records >= 1);
    assert_eq!(cluster.engines[0].counters().leaves_corrected, 0);
}

#[test]
fn a_branch_that_could_not_be_read_at_the_start_is_read_in_one_go() {
    let mut cluster = scrubbing();
    everywhere(&mut cluster, 1, key());
    let id = tree(&cluster);
    let leaf = cluster.engines[0].trees().leaf_of(id.partition, key().token(), 3);
    cluster.engines[0].trees.correct(leaf, 0);
    let first = leaf.at / 64 * 64;
    for at in first..first + 64 {
        cluster.engines[0].restore_suspect(LeafId { tree: id, at });
    }
    assert_eq!(cluster.engines[0].scrub_progress().suspects, 64);
    cluster.advance(Duration::from_millis(10));
    assert!(!cluster.engines[0].is_suspected(id.partition));
    let roots = [0, 1].map(|node: usize| cluster.engines[node].trees().root(id));
    assert_eq!(roots[0], roots[1]);
}

#[test]
fn a_disk_that_cannot_read_a_branch_of_suspects_now_tries_each_of_them() {
    let mut cluster = scrubbing();
    everywhere(&mut cluster, 1, key());
    let id = tree(&cluster);
    (0..64).for_each(|at| cluster.engines[0].restore_suspect(LeafId { tree: id, at }));
    cluster.disks[0].fails_loads = true;
    let mut left = 64;
    while left > 0 {
        cluster.advance(Duration::from_secs(10));
        let suspects = cluster.engines[0].scrub_progress().suspects;
        assert!(suspects < left, "{suspects} of {left} are left");
        left = suspects;
    }
}

#[test]
fn a_leaf_that_could_not_be_read_at_the_start_is_read_at_once_and_before_that_nobody_rebuilds_from_it() {
    let mut cluster = scrubbing();
    everywhere(&mut cluster, 1, key());
    let id = tree(&cluster);
    let leaf = cluster.engines[0].trees().leaf_of(id.partition, key().token(), 3);
    cluster.engines[0].trees.correct(leaf, 0);
    cluster.engines[0].restore_suspect(leaf);
    assert!(cluster.engines[0].is_suspected(id.partition));
    cluster.advance(Duration::from_millis(10));
    assert!(!cluster.engines[0].is_suspected(id.partition));
    let roots = [0, 1].map(|node: usize| cluster.engines[node].trees().root(id));
    assert_eq!(roots[0], roots[1]);
    assert_eq!(
        cluster.engines[0].scrub_progress().passes,
        0,
        "long before it is its turn"
    );
}
