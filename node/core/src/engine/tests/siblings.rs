//! Which values live side by side, and who may replace them.

use super::asks::{again, delete, failed, get, key, put, put_under, read, texts, with_options, written};
use super::cluster::Cluster;
use crate::bucket::BlindWrites;
use crate::key::Key;
use crate::request::{Code, Operation, Outcome, Reply};
use bytes::Bytes;

#[test]
fn two_writes_with_one_stale_context_are_siblings_until_somebody_resolves_them() {
    let mut cluster = Cluster::new(3);
    let (first, _) = written(cluster.ask(0, put(1, "a", None)));
    written(cluster.ask(1, put(2, "b", Some(&first))));
    written(cluster.ask(2, put(3, "c", Some(&first))));
    let (values, context) = read(cluster.ask(0, get()));
    assert_eq!(values, ["b", "c"]);
    written(cluster.ask(1, put(4, "d", context.as_ref())));
    assert_eq!(read(cluster.ask(2, get())).0, ["d"]);
}

#[test]
fn a_write_returns_its_writers_context_and_not_the_records() {
    let mut cluster = Cluster::new(3);
    let (mine, _) = written(cluster.ask(0, put(1, "mine 1", None)));
    written(cluster.ask(0, put(2, "theirs", None)));
    // The writer was never shown the other value, so its next write must not replace it.
    let (mine, _) = written(cluster.ask(0, put(3, "mine 2", Some(&mine))));
    written(cluster.ask(0, put(4, "mine 3", Some(&mine))));
    assert_eq!(read(cluster.ask(0, get())).0, ["mine 3", "theirs"]);
}

#[test]
fn the_whole_record_comes_back_if_it_is_asked_for() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    let operation = with_options(put(2, "b", None), |options| options.return_representation = true);
    let Ok(Reply::Written { view: Some(view), .. }) = cluster.ask(0, operation) else {
        panic!("no view");
    };
    assert_eq!(view.values().count(), 2);
    // Having been shown both, the writer may replace both.
    written(cluster.ask(1, put(3, "c", view.context.as_ref())));
    assert_eq!(read(cluster.ask(0, get())).0, ["c"]);
}

#[test]
fn a_delete_needs_a_context() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    let failure = failed(cluster.ask(0, delete(2, None)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::ContextRequired, Outcome::NotApplied)
    );
    assert_eq!(read(cluster.ask(0, get())).0, ["a"]);
}

#[test]
fn a_delete_leaves_a_tombstone_that_the_next_put_replaces_without_a_context() {
    let mut cluster = Cluster::new(3);
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    written(cluster.ask(1, delete(2, Some(&context))));
    assert_eq!(read(cluster.ask(2, get())).0, ["-"]);
    written(cluster.ask(2, put(3, "b", None)));
    assert_eq!(read(cluster.ask(0, get())).0, ["b"]);
}

#[test]
fn a_value_and_a_delete_that_did_not_see_it_live_side_by_side() {
    let mut cluster = Cluster::new(3);
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    written(cluster.ask(0, put(2, "b", Some(&context))));
    written(cluster.ask(1, delete(3, Some(&context))));
    assert_eq!(read(cluster.ask(2, get())).0, ["-", "b"]);
}

#[test]
fn a_bucket_that_requires_contexts_refuses_blind_writes_over_values_only() {
    let mut cluster = Cluster::with_bucket(3, |bucket| bucket.blind_writes = BlindWrites::Require);
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    let failure = failed(cluster.ask(1, put(2, "b", None)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::ContextRequired, Outcome::NotApplied)
    );
    written(cluster.ask(0, delete(3, Some(&context))));
    written(cluster.ask(1, put(4, "c", None)));
    assert_eq!(read(cluster.ask(2, get())).0, ["c"]);
}

#[test]
fn a_bucket_that_replaces_blindly_keeps_what_a_retry_was_not_shown() {
    let mut cluster = Cluster::with_bucket(3, |bucket| bucket.blind_writes = BlindWrites::Replace);
    written(cluster.ask(0, put(1, "a", None)));
    written(cluster.ask(1, put(2, "b", None)));
    assert_eq!(read(cluster.ask(0, get())).0, ["b"]);
    // Its first try was lost. Since then somebody else may have written.
    written(cluster.ask(2, again(put(3, "c", None))));
    assert_eq!(read(cluster.ask(0, get())).0, ["b", "c"]);
}

#[test]
fn a_context_that_the_cluster_did_not_issue_for_this_key_is_refused() {
    let mut cluster = Cluster::new(3);
    let (context, _) = written(cluster.ask(0, put(1, "a", None)));
    let mut forged = context.to_vec();
    forged[4] ^= 1;
    let other = Key::new(b"bucket", b"other", None).unwrap();
    let requests = [
        put(2, "b", Some(&forged.into())),
        put(2, "b", Some(&Bytes::new())),
        put_under(other, 2, "b", Some(&context)),
        delete(2, Some(&Bytes::from_static(b"x"))),
        super::asks::get_at_least(&Bytes::from_static(b"x")),
    ];
    for request in requests {
        let failure = failed(cluster.ask(0, request));
        assert_eq!(
            (failure.code, failure.outcome),
            (Code::ForgedContext, Outcome::NotApplied)
        );
    }
    let long = vec![0; (16 << 10) + 1].into();
    let failure = failed(cluster.ask(0, put(2, "b", Some(&long))));
    assert_eq!((failure.code, failure.outcome), (Code::BadRequest, Outcome::NotApplied));
    assert_eq!(texts(&cluster.record(0)), ["a"]);
}

#[test]
fn a_value_over_the_limit_is_refused() {
    let mut cluster = Cluster::with_bucket(3, |bucket| bucket.value_bytes_max = 4);
    written(cluster.ask(0, put(1, "abcd", None)));
    let failure = failed(cluster.ask(0, put(2, "abcde", None)));
    assert_eq!((failure.code, failure.outcome), (Code::TooLarge, Outcome::NotApplied));
    let mut operation = put(3, "a", None);
    if let Operation::Put { value, .. } = &mut operation {
        value.content_type = "x".repeat(256);
    }
    assert_eq!(failed(cluster.ask(0, operation)).code, Code::BadRequest);
}

#[test]
fn at_the_sibling_cap_only_writes_that_resolve_go_through() {
    let mut cluster = Cluster::with_bucket(3, |bucket| bucket.siblings_max = 3);
    let (first, _) = written(cluster.ask(0, put(1, "a", None)));
    (2..=3).for_each(|n| drop(written(cluster.ask(0, put(n, "b", None)))));
    let failure = failed(cluster.ask(0, put(4, "c", None)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::TooManySiblings, Outcome::NotApplied)
    );
    // One for one leaves as many as there were.
    written(cluster.ask(0, put(5, "d", Some(&first))));
    let (values, context) = read(cluster.ask(0, get()));
    assert_eq!(values.len(), 3);
    written(cluster.ask(0, put(6, "e", context.as_ref())));
    assert_eq!(read(cluster.ask(0, get())).0, ["e"]);
}

#[test]
fn more_siblings_than_the_cap_from_concurrent_coordinators_are_all_kept() {
    let mut cluster = Cluster::with_bucket(3, |bucket| bucket.siblings_max = 2);
    for (node, n) in [(0, 1), (1, 2), (2, 3)] {
        cluster.disks[node].holds_loads = true;
        cluster.begin(node, put(n, &n.to_string(), None));
    }
    (0..3).for_each(|node| cluster.release_loads(node));
    let (values, context) = read(cluster.ask(0, get()));
    assert_eq!(values, ["1", "2", "3"]);
    written(cluster.ask(0, put(4, "4", context.as_ref())));
}

#[test]
fn a_record_at_its_byte_limit_takes_no_write_that_makes_it_larger() {
    let mut cluster = Cluster::with_bucket(3, |bucket| bucket.record_bytes_max = 100);
    let (mine, _) = written(cluster.ask(0, put(1, "small", None)));
    written(cluster.ask(0, put(2, &"x".repeat(60), None)));
    let refused = |response| assert_eq!(failed(response).code, Code::TooManySiblings);
    refused(cluster.ask(0, put(3, &"y".repeat(60), None)));
    // One sibling for another, but a larger one.
    refused(cluster.ask(0, put(4, &"y".repeat(60), Some(&mine))));
    written(cluster.ask(0, put(5, "tiny", Some(&mine))));
    let (_, all) = read(cluster.ask(0, get()));
    written(cluster.ask(0, put(6, &"z".repeat(200), all.as_ref())));
    assert_eq!(read(cluster.ask(0, get())).0, ["z".repeat(200)]);
}

#[test]
fn replicas_that_took_the_same_writes_hold_equal_bytes() {
    let mut cluster = Cluster::new(3);
    let mut context = None;
    for n in 1..30 {
        let node = n as usize % 3;
        let seen = if n % 4 == 0 { None } else { context.as_ref() };
        context = Some(written(cluster.ask(node, put(n, &n.to_string(), seen))).0);
    }
    assert_eq!(cluster.record(0).encode(), cluster.record(1).encode());
    assert_eq!(cluster.record(0).encode(), cluster.record(2).encode());
    assert_eq!(key().to_string(), "bucket/key");
}
