//! Nodes with a damaged file, until it is safe to start over.

use super::asks::{key, put, texts, with_options, written};
use super::cluster::Cluster;
use crate::engine::Input;
use std::time::Duration;

/// Between the turns of two nodes.
const TURN: Duration = Duration::from_secs(15);

fn note_damage(cluster: &mut Cluster, node: usize) {
    let now = cluster.now;
    cluster.engines[node].note_damage(now);
    cluster.input(node, Input::Tick);
    cluster.run();
}

/// A write that just one node has: what it sent to the others is lost, and their connections live.
fn kept_by(cluster: &mut Cluster, node: usize, n: u64) {
    let others: Vec<usize> = (0..cluster.engines.len()).filter(|&other| other != node).collect();
    others.iter().for_each(|&other| cluster.hold(node, other));
    written(cluster.ask(
        node,
        with_options(put(n, &n.to_string(), None), |options| options.w = Some(1)),
    ));
    others.iter().for_each(|&other| cluster.lose(node, other));
}

#[test]
fn what_only_a_node_with_damage_has_is_given_to_others_before_it_starts_over() {
    let mut cluster = Cluster::without_hints(3);
    note_damage(&mut cluster, 0);
    kept_by(&mut cluster, 0, 1);
    cluster.advance(TURN - Duration::from_millis(1));
    kept_by(&mut cluster, 0, 2);
    assert!(cluster.rebuilds.is_empty());
    cluster.advance(Duration::from_secs(20));
    assert!(cluster.rebuilds.contains_key(&0));
    for other in 1..3 {
        assert_eq!(texts(&cluster.record(other)), ["1", "2"]);
    }
}

#[test]
fn a_node_that_is_leaving_takes_no_more_writes_and_serves_reads() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.hold(0, 1);
    note_damage(&mut cluster, 0);
    cluster.advance(TURN + Duration::from_millis(10));
    assert!(cluster.engines[0].start_over.is_leaving());
    assert_eq!(super::asks::read(cluster.wait(2, super::asks::get())).0, ["a"]);
    written(cluster.wait(2, put(2, "b", None)));
    cluster.release(0, 1);
    cluster.advance(Duration::from_secs(20));
    assert!(cluster.rebuilds.contains_key(&0));
    assert_eq!(texts(&cluster.record(1)), ["a", "b"]);
    assert_eq!(texts(&cluster.record(2)), ["a", "b"]);
}

#[test]
fn of_two_that_would_leave_at_the_same_moment_one_stays() {
    for nodes in 2..4 {
        let mut cluster = Cluster::new(nodes);
        kept_by(&mut cluster, 0, 1);
        kept_by(&mut cluster, 1, 2);
        note_damage(&mut cluster, 1);
        cluster.advance(TURN);
        note_damage(&mut cluster, 0);
        cluster.advance(Duration::from_secs(25));
        assert_eq!(cluster.rebuilds.keys().collect::<Vec<_>>(), [&0]);
        assert_eq!(texts(&cluster.record(1)), ["1", "2"]);
        // The connections of the one that is gone end some time later.
        cluster.advance(Duration::from_secs(4));
        cluster.isolate(0);
        cluster.advance(Duration::from_secs(100));
        assert_eq!(cluster.rebuilds.keys().collect::<Vec<_>>(), [&0]);
    }
}

#[test]
fn a_node_that_holds_what_nobody_else_owns_stays() {
    let mut cluster = Cluster::with_bucket(2, |bucket| bucket.n = 1);
    let ring = cluster.engines[0].config().ring.clone();
    let node = usize::from(ring.owners(ring.partition_of(key().token()), 1)[0].0);
    let once = with_options(put(1, "a", None), |options| options.w = Some(1));
    written(cluster.ask(node, once));
    note_damage(&mut cluster, node);
    cluster.advance(Duration::from_secs(300));
    assert!(cluster.rebuilds.is_empty());
}

#[test]
fn a_node_whose_new_directory_is_damaged_before_all_is_read_starts_over_too() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(1, put(1, "a", None)));
    cluster.restart(0, 60, std::collections::BTreeMap::new());
    note_damage(&mut cluster, 0);
    assert_eq!(cluster.engines[0].rebuilding(), (0, 16));
    cluster.advance(TURN + Duration::from_secs(10));
    assert!(cluster.rebuilds.contains_key(&0));
}
