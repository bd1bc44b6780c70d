//! What happens when a bound is reached; and that the same inputs give the same effects.

use super::asks::{failed, get, key, put, put_under, written};
use super::cluster::{Cluster, config, index, let_up};
use crate::engine::{Effect, Engine, Input, LoadFailed, RequestHandle};
use crate::key::Key;
use crate::message::{Fetch, PeerMessage, Refusal, Replicate};
use crate::record::Record;
use crate::request::{Code, Outcome};
use crate::time::Instant;
use std::time::Duration;

fn numbered(n: u64) -> Key {
    Key::new(b"bucket", &n.to_be_bytes(), None).unwrap()
}

#[test]
fn more_requests_than_a_node_takes_are_refused_and_not_applied() {
    let mut cluster = Cluster::with(3, |config| config.limits.operations_max = 2);
    cluster.disks[0].holds_loads = true;
    cluster.begin(0, put(1, "a", None));
    cluster.begin(0, get());
    for operation in [put(2, "b", None), get()] {
        let failure = failed(cluster.ask(0, operation));
        assert_eq!((failure.code, failure.outcome), (Code::Overloaded, Outcome::NotApplied));
    }
    assert_eq!(cluster.engines[0].counters().overloaded, 2);
    cluster.release_loads(0);
    written(cluster.ask(0, put(2, "b", None)));
    cluster.assert_idle();
}

#[test]
fn requests_that_hold_too_many_bytes_together_are_refused_until_some_have_ended() {
    let mut cluster = Cluster::with(3, |config| config.limits.operation_bytes_max = 1000);
    cluster.disks[0].holds_loads = true;
    let large = "v".repeat(1000);
    let first = cluster.begin(0, put_under(numbered(1), 1, &large, None));
    let failure = failed(cluster.ask(0, put_under(numbered(2), 2, &large, None)));
    assert_eq!((failure.code, failure.outcome), (Code::Overloaded, Outcome::NotApplied));
    cluster.release_loads(0);
    assert!(cluster.reply(first).is_some());
    written(cluster.ask(0, put_under(numbered(2), 2, &large, None)));
    cluster.assert_idle();
}

#[test]
fn a_disk_that_hangs_fills_a_bounded_number_of_slots() {
    let mut cluster = Cluster::with(3, |config| config.limits.slots_max = 10);
    cluster.disks[0].holds_loads = true;
    for n in 0..20 {
        let handle = cluster.begin(0, put_under(numbered(n), n, "a", None));
        assert_eq!(cluster.reply(handle).is_some(), n >= 10, "request {n}");
        cluster.advance(Duration::from_secs(2));
    }
    assert_eq!(cluster.engines[0].in_flight(), (0, 10));
    let from = index(1);
    let messages = [
        PeerMessage::Fetch(Fetch {
            id: 1,
            key: numbered(99),
            have: None,
        }),
        PeerMessage::Replicate(Replicate {
            id: 2,
            key: numbered(99),
            record: Record::default().encode(),
            sync: false,
        }),
    ];
    for message in messages {
        cluster.input(0, Input::Message { from, message });
    }
    cluster.run();
    let refusals = cluster.sent.iter().filter(|(_, _, message)| {
        matches!(message, PeerMessage::FetchReply(m) if m.result == Err(Refusal::Overloaded))
            || matches!(message, PeerMessage::ReplicateReply(m) if m.result == Err(Refusal::Overloaded))
    });
    assert_eq!(refusals.count(), 2);
    cluster.release_loads(0);
    cluster.assert_idle();
}

#[test]
fn work_that_waits_for_one_key_is_bounded_too() {
    let mut cluster = Cluster::with(3, |config| config.limits.slots_max = 10);
    cluster.disks[0].holds_loads = true;
    let from = index(1);
    for id in 0..30 {
        let (key, have) = (key(), None);
        let message = PeerMessage::Fetch(Fetch { id, key, have });
        cluster.input(0, Input::Message { from, message });
    }
    cluster.run();
    assert_eq!(cluster.sent.len(), 20, "these were refused at once");
    cluster.release_loads(0);
    assert_eq!(cluster.sent.len(), 30);
    cluster.assert_idle();
}

#[test]
fn a_request_gets_no_longer_timeout_than_the_limit() {
    let mut engine = Engine::new(config(3, 0, 1));
    (1..3).for_each(|node| let_up(&mut engine, node));
    let (handle, timeout) = (RequestHandle(1), Duration::MAX);
    let operation = put(1, "a", None);
    engine.handle(
        Instant(0),
        Input::Request {
            handle,
            operation,
            timeout,
        },
    );
    let limit = engine.config().limits.timeout_max;
    assert!(engine.poll_timeout().unwrap() < Instant(0) + limit);
    engine.handle(Instant(0) + limit, Input::Tick);
    assert_eq!((engine.in_flight().0, engine.poll_timeout()), (0, None));
}

#[test]
fn a_request_without_any_time_is_answered_all_the_same() {
    let mut engine = Engine::new(config(3, 0, 1));
    (1..3).for_each(|node| let_up(&mut engine, node));
    for (n, operation) in [put(1, "a", None), get()].into_iter().enumerate() {
        let (handle, timeout) = (RequestHandle(n as u64), Duration::ZERO);
        engine.handle(
            Instant(5),
            Input::Request {
                handle,
                operation,
                timeout,
            },
        );
    }
    let replies = std::iter::from_fn(|| engine.poll_effect()).filter(|e| matches!(e, Effect::Reply { .. }));
    assert_eq!(replies.count(), 2);
}

/// All effects of one engine that is fed a mix of everything.
fn effects_of_a_run(seed: u8) -> Vec<Effect> {
    let mut engine = Engine::new(config(4, 0, seed));
    let mut effects = Vec::new();
    (1..4).for_each(|node| let_up(&mut engine, node));
    for n in 0..60 {
        let now = Instant(n * 7_000);
        let operation = match n % 3 {
            0 => put_under(numbered(n % 5), n, "a", None),
            1 => get(),
            _ => put(n, "b", None),
        };
        let (handle, timeout) = (RequestHandle(n), Duration::from_millis(50));
        engine.handle(
            now,
            Input::Request {
                handle,
                operation,
                timeout,
            },
        );
        let new: Vec<Effect> = std::iter::from_fn(|| engine.poll_effect()).collect();
        for effect in &new {
            match effect {
                Effect::Load { load, .. } => {
                    let result = if n % 7 == 0 {
                        Err(LoadFailed::Unreadable)
                    } else {
                        Ok(None)
                    };
                    engine.handle(now, Input::Loaded { load: *load, result });
                }
                Effect::Store { ticket, .. } if n % 11 == 0 => engine.handle(now, Input::StoreFailed(*ticket)),
                Effect::Store { ticket, .. } => engine.handle(now, Input::Durable(*ticket)),
                _ => {}
            }
        }
        effects.extend(new);
    }
    effects.extend(std::iter::from_fn(|| engine.poll_effect()));
    effects
}

#[test]
fn the_same_inputs_and_the_same_seed_give_the_same_effects() {
    let first = effects_of_a_run(1);
    assert!(first.len() > 100, "{}", first.len());
    assert_eq!(first, effects_of_a_run(1));
    assert_ne!(first, effects_of_a_run(2), "lives come from the seed");
}
