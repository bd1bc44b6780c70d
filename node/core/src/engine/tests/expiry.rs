//! Values that expire.

use super::asks::{again, delete, found, get, key, put, read, texts, with_options, written};
use super::cluster::Cluster;
use crate::bucket::BlindWrites;
use crate::place::Place;
use std::time::Duration;

const TTL: Duration = Duration::from_secs(100);
/// By how much clocks may differ, and a proof.
const REST: Duration = Duration::from_secs(60 + 12);

/// A cluster in which values live for [`TTL`].
fn cluster(blind_writes: BlindWrites) -> Cluster {
    Cluster::with(3, |config| {
        config.limits.settle_age = Duration::ZERO;
        config.limits.hints = false;
        config.buckets.defaults.ttl_seconds = Some(100);
        config.buckets.defaults.blind_writes = blind_writes;
    })
}

fn before_it_ends() -> Duration {
    TTL - Duration::from_millis(1)
}

#[test]
fn a_value_reads_as_deleted_from_its_time_on_and_nothing_is_stored_for_that() {
    let mut cluster = cluster(BlindWrites::Siblings);
    written(cluster.ask(0, put(1, "a", None)));
    let (bytes, stores) = (cluster.record(0).encode(), cluster.disks[0].stores);
    cluster.advance(before_it_ends());
    assert_eq!(read(cluster.ask(1, get())).0, ["a"]);
    let hash = found(cluster.ask(1, get())).live_hash;
    cluster.advance(Duration::from_millis(1));
    for node in 0..3 {
        let view = found(cluster.ask(node, get()));
        assert_eq!((view.siblings, view.live_hash), (vec![None], hash));
    }
    assert_eq!((cluster.record(0).encode(), cluster.disks[0].stores), (bytes, stores));
}

#[test]
fn what_has_expired_is_settled_after_the_time_by_which_clocks_may_differ() {
    let mut cluster = cluster(BlindWrites::Siblings);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.advance(TTL + Duration::from_secs(59));
    assert_eq!(texts(&cluster.record(0)), ["a"]);
    assert!(cluster.engines.iter().all(|engine| engine.settling().rounds == 0));
    cluster.advance(REST);
    assert!(cluster.is_empty());
    assert!(read(cluster.ask(0, get())).0.is_empty());
    cluster.advance(REST);
    cluster.assert_idle();
}

#[test]
fn an_owner_whose_clock_is_behind_has_the_last_word() {
    let mut slow = Cluster::with(3, |config| {
        config.limits.settle_age = Duration::ZERO;
        config.buckets.defaults.ttl_seconds = Some(100);
        if config.seed == [2; 32] {
            config.wall_ms -= 120_000;
        }
    });
    written(slow.ask(0, put(1, "a", None)));
    slow.advance(TTL + REST + Duration::from_secs(20));
    assert_eq!(texts(&slow.record(0)), ["a"], "the third node shows it still");
    slow.advance(3 * REST);
    assert!(slow.is_empty());
}

#[test]
fn a_newer_value_lives_as_long_as_if_it_were_the_first() {
    let mut cluster = cluster(BlindWrites::Siblings);
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    cluster.advance(before_it_ends());
    written(cluster.ask(1, put(2, "b", Some(&context))));
    cluster.advance(before_it_ends());
    assert_eq!(read(cluster.ask(2, get())).0, ["b"]);
    cluster.advance(REST);
    cluster.advance(REST);
    assert!(cluster.is_empty());
}

#[test]
fn a_delete_in_such_a_bucket_does_not_wait_for_anything_to_expire() {
    let mut cluster = cluster(BlindWrites::Siblings);
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    assert!(cluster.disks[0].applied.contains_key(&Place::Settle(key())));
    written(cluster.ask(1, delete(2, Some(&context))));
    cluster.advance(Duration::from_secs(12));
    assert!(cluster.is_empty());
}

#[test]
fn a_blind_write_replaces_what_has_surely_expired_and_stands_beside_what_may_be_live_elsewhere() {
    let mut cluster = cluster(BlindWrites::Require);
    cluster.isolate(2);
    written(cluster.ask(0, put(1, "a", None)));
    cluster.advance(TTL);
    written(cluster.ask(1, put(2, "b", None)));
    assert_eq!(texts(&cluster.record(1)), ["a", "b"]);
    assert_eq!(read(cluster.ask(1, get())).0, ["-", "b"]);
    cluster.advance(TTL + Duration::from_secs(60));
    written(cluster.ask(1, put(3, "c", None)));
    assert_eq!(texts(&cluster.record(1)), ["c"]);
}

#[test]
fn a_retry_elsewhere_that_expires_at_another_time_is_the_same_write() {
    let mut cluster = cluster(BlindWrites::Siblings);
    cluster.isolate(0);
    cluster.begin(0, with_options(put(1, "a", None), |options| options.w = Some(1)));
    cluster.advance(Duration::from_secs(5));
    written(cluster.ask(1, again(put(1, "a", None))));
    (1..3).for_each(|node| cluster.connect(0, node));
    let expires = |node: usize| cluster.record(node).siblings()[0].expires_ms;
    assert_ne!(expires(0), expires(1));
    let view = found(cluster.ask(0, get()));
    assert_eq!(view.values().count(), 1);
    // The next write brings them together.
    written(cluster.ask(0, put(2, "b", view.context.as_ref())));
    assert_eq!(texts(&cluster.record(1)), ["b"]);
    assert_eq!(cluster.record(0).encode(), cluster.record(1).encode());
}
