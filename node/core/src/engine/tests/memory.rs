//! Nodes that come back over another memory than they had: greetings, restored disks and new directories.

use super::asks::{failed, get, put, put_under, read, texts, with_options, written};
use super::cluster::{Cluster, index};
use crate::engine::{Boot, Input, PeerState};
use crate::key::Key;
use crate::message::{Fetch, Greeting, Met, PeerMessage};
use crate::place::Place;
use crate::request::{Code, Outcome};
use std::collections::BTreeMap;
use std::time::Duration;

fn greeting(generation: u64, start: u64, remembers: Option<Met>) -> PeerMessage {
    PeerMessage::Greeting(Greeting {
        me: Met { generation, start },
        remembers,
        accepts: true,
        rebuilding: false,
        asks: false,
    })
}

fn say(cluster: &mut Cluster, from: usize, to: usize, message: PeerMessage) {
    let from = index(from);
    cluster.input(to, Input::Message { from, message });
    cluster.run();
}

#[test]
fn peers_are_up_only_when_both_have_noted_each_other_durably() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(0);
    // A restart makes it a new process to the others, and they are new to it.
    cluster.disks[1].holds_syncs = true;
    cluster.crash(0, 50);
    let state = |cluster: &Cluster, a: usize, b| cluster.engines[a].peer_state(index(b));
    assert_eq!(state(&cluster, 1, 0), PeerState::Greeting);
    assert_eq!(state(&cluster, 0, 1), PeerState::Greeting);
    assert_eq!(state(&cluster, 0, 2), PeerState::Up);
    cluster.release_syncs(1);
    assert_eq!(state(&cluster, 1, 0), PeerState::Up);
    assert_eq!(state(&cluster, 0, 1), PeerState::Up);
    cluster.assert_idle();
}

#[test]
fn what_a_peer_says_before_its_greeting_is_dropped() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(0);
    cluster.input(0, Input::PeerUp(index(1)));
    let key = super::asks::key();
    let fetch = |id| {
        PeerMessage::Fetch(Fetch {
            id,
            key: key.clone(),
            have: None,
        })
    };
    say(&mut cluster, 1, 0, fetch(1));
    assert_eq!(cluster.engines[0].counters().fetched, 0);
    say(&mut cluster, 1, 0, greeting(2, 7, None));
    say(&mut cluster, 1, 0, fetch(2));
    assert_eq!(cluster.engines[0].counters().fetched, 1);
}

#[test]
fn greetings_that_are_lost_are_repeated_until_both_sides_are_up() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut cluster = Cluster::new(3);
        cluster.disconnect(0, 1);
        cluster.hold(from, to);
        cluster.connect(0, 1);
        cluster.disconnect(0, 1);
        // What was held is gone with the connection; this time all of it gets lost.
        cluster.hold(from, to);
        cluster.connect(0, 1);
        cluster.lose(from, to);
        cluster.advance(Duration::from_secs(1));
        assert_eq!(cluster.engines[0].peer_state(index(1)), PeerState::Up);
        assert_eq!(cluster.engines[1].peer_state(index(0)), PeerState::Up);
        cluster.assert_idle();
    }
}

#[test]
fn a_node_that_reconnects_or_restarts_is_let_up_again() {
    let mut cluster = Cluster::new(3);
    for seed in 50..53 {
        cluster.disconnect(0, 1);
        cluster.connect(0, 1);
        cluster.crash(0, seed);
        cluster.crash(1, seed);
    }
    written(cluster.ask(0, with_options(put(1, "a", None), |options| options.w = Some(3))));
    assert!(cluster.rebuilds.is_empty());
    cluster.assert_idle();
}

#[test]
fn a_node_over_an_older_copy_of_its_directory_falls_silent_and_asks_to_be_rebuilt() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    let copy = cluster.copy_of(0);
    cluster.crash(0, 50);
    written(cluster.ask(0, put(2, "b", None)));
    cluster.restart(0, 51, copy);
    assert!(cluster.rebuilds[&0].contains("older copy"), "{:?}", cluster.rebuilds);
    assert!(cluster.engines[0].silent().is_some());
    for other in [1, 2] {
        assert_ne!(cluster.engines[other].peer_state(index(0)), PeerState::Up);
    }
    let failure = failed(cluster.ask(0, put(3, "c", None)));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    assert!(failure.detail.contains("older copy"), "{failure}");
    assert_eq!(failed(cluster.ask(0, get())).code, Code::Unavailable);
    assert_eq!(read(cluster.ask(1, get())).0, ["a", "b"], "the others serve on");
    assert_eq!(texts(&cluster.record(0)), ["a"], "and nothing is merged into the copy");
    assert_eq!(cluster.engines[0].poll_timeout(), None);
}

#[test]
fn a_peer_that_greets_with_an_older_generation_is_refused_and_told() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(0);
    cluster.input(0, Input::PeerUp(index(1)));
    say(&mut cluster, 1, 0, greeting(7, 1, None));
    cluster.input(0, Input::PeerDown(index(1)));
    for (generation, start) in [(6, 2), (7, 2)] {
        cluster.input(0, Input::PeerUp(index(1)));
        say(&mut cluster, 1, 0, greeting(generation, start, None));
        assert_eq!(cluster.engines[0].peer_state(index(1)), PeerState::Refused);
        let heard = cluster.greetings.last().cloned().unwrap();
        assert_eq!((heard.0, heard.1), (0, 1));
        assert_eq!(
            heard.2.remembers,
            Some(Met {
                generation: 7,
                start: 1
            })
        );
        assert!(!heard.2.accepts);
        cluster.input(0, Input::PeerDown(index(1)));
    }
    assert_eq!(cluster.engines[0].counters().peers_refused, 2);
    cluster.input(0, Input::PeerUp(index(1)));
    say(&mut cluster, 1, 0, greeting(7, 1, None));
    assert_eq!(cluster.engines[0].peer_state(index(1)), PeerState::Up);
}

#[test]
fn a_directory_that_was_just_made_goes_on_above_what_peers_remember() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    (50..55).for_each(|seed| cluster.crash(0, seed));
    cluster.restart(0, 60, BTreeMap::new());
    assert!(cluster.rebuilds.is_empty(), "{:?}", cluster.rebuilds);
    let generation = cluster.engines[0].generation();
    assert!(generation > 6);
    for other in [1, 2] {
        assert_eq!(cluster.engines[other].peer_state(index(0)), PeerState::Up);
    }
    let own = Boot::next(Some(&cluster.disks[0].applied[&Place::Own])).unwrap();
    assert_eq!(own.generation, generation + 1, "and it is durable");
    cluster.crash(0, 61);
    assert!(cluster.rebuilds.is_empty());
    assert_eq!(cluster.engines[1].peer_state(index(0)), PeerState::Up);
}

#[test]
fn a_new_directory_acknowledges_nothing_before_a_peer_has_met_it() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(1);
    cluster.isolate(2);
    cluster.restart_alone(0, 60, BTreeMap::new());
    let once = with_options(put(1, "a", None), |options| options.w = Some(1));
    let failure = failed(cluster.ask(0, once.clone()));
    assert_eq!(
        (failure.code, failure.outcome),
        (Code::Unavailable, Outcome::NotApplied)
    );
    assert!(failure.detail.contains("has not met another node"), "{failure}");
    cluster.connect(0, 1);
    written(cluster.ask(0, once));
}

#[test]
fn a_write_under_way_when_the_node_falls_silent_is_not_acknowledged_by_its_own_disk() {
    let mut cluster = Cluster::new(3);
    cluster.disks[0].holds_syncs = true;
    let other = Key::new(b"bucket", b"other", None).unwrap();
    let once = with_options(put_under(other, 1, "a", None), |options| options.w = Some(1));
    (1..3).for_each(|node| cluster.hold(0, node));
    let handle = cluster.begin(0, once);
    assert_eq!(cluster.reply(handle), None);
    let newer = Met {
        generation: 9,
        start: 9,
    };
    say(&mut cluster, 1, 0, greeting(1, 1, Some(newer)));
    let failure = failed(cluster.reply(handle).unwrap());
    assert_eq!(failure.outcome, Outcome::Unknown);
    cluster.release_syncs(0);
    assert_eq!(cluster.engines[0].in_flight().0, 0);
}

#[test]
fn a_greeting_that_arrives_behind_a_later_one_of_the_same_process_changes_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(0);
    cluster.input(0, Input::PeerUp(index(1)));
    say(&mut cluster, 1, 0, greeting(700, 9, None));
    say(&mut cluster, 1, 0, greeting(2, 9, None));
    assert_eq!(cluster.engines[0].peer_state(index(1)), PeerState::Up);
    assert_eq!(cluster.engines[0].counters().peers_refused, 0);
}

#[test]
fn a_copy_that_was_started_several_times_before_it_met_anybody_is_found_out() {
    let mut cluster = Cluster::new(3);
    written(cluster.ask(0, put(1, "a", None)));
    let copy = cluster.copy_of(0);
    cluster.crash(0, 50);
    cluster.restart_alone(0, 51, copy);
    for seed in 52..55 {
        cluster.run();
        let rows = cluster.copy_of(0);
        cluster.restart_alone(0, seed, rows);
    }
    cluster.connect(0, 1);
    assert!(cluster.engines[0].generation() > 2);
    assert!(cluster.rebuilds[&0].contains("older copy"), "{:?}", cluster.rebuilds);
    assert_ne!(cluster.engines[1].peer_state(index(0)), PeerState::Up);
}

#[test]
fn a_restarted_node_acknowledges_nothing_before_a_peer_has_met_it() {
    let mut cluster = Cluster::new(3);
    let rows = cluster.copy_of(0);
    cluster.restart_alone(0, 50, rows);
    let once = with_options(put(1, "a", None), |options| options.w = Some(1));
    assert_eq!(failed(cluster.ask(0, once.clone())).outcome, Outcome::NotApplied);
    cluster.connect(0, 2);
    written(cluster.ask(0, once));
}

#[test]
fn one_that_is_alone_for_long_takes_writes_if_its_directory_was_known_once() {
    let mut cluster = Cluster::new(3);
    let rows = cluster.copy_of(0);
    cluster.isolate(1);
    cluster.isolate(2);
    let once = with_options(put(1, "a", None), |options| options.w = Some(1));
    for (rows, was_known) in [(rows, true), (BTreeMap::new(), false)] {
        cluster.restart_alone(0, 50, rows);
        cluster.advance(Duration::ZERO);
        cluster.advance(Duration::from_millis(9_999));
        assert_eq!(failed(cluster.ask(0, once.clone())).outcome, Outcome::NotApplied);
        cluster.advance(Duration::from_millis(1));
        assert_eq!(cluster.ask(0, once.clone()).is_ok(), was_known);
    }
}

#[test]
fn a_directory_without_anything_to_read_again_is_new_until_a_peer_has_met_it() {
    let mut cluster = Cluster::with_bucket(3, |bucket| bucket.n = 1);
    let owner = cluster.owners_and_fallbacks().0[0];
    cluster.isolate(owner);
    cluster.restart_alone(owner, 50, BTreeMap::new());
    cluster.run();
    let rows = cluster.copy_of(owner);
    cluster.restart_alone(owner, 51, rows);
    cluster.advance(Duration::ZERO);
    cluster.advance(Duration::from_secs(60));
    assert_eq!(
        failed(cluster.ask(owner, put(1, "a", None))).outcome,
        Outcome::NotApplied
    );
    let mut cluster = Cluster::with_bucket(3, |bucket| bucket.n = 1);
    cluster.isolate(owner);
    cluster.crash(owner, 52);
    let rows = cluster.copy_of(owner);
    cluster.restart_alone(owner, 53, rows);
    cluster.advance(Duration::ZERO);
    cluster.advance(Duration::from_secs(10));
    written(cluster.ask(owner, put(1, "a", None)));
}

#[test]
fn a_node_tells_nobody_of_a_start_that_is_not_noted() {
    let mut cluster = Cluster::new(3);
    let rows = cluster.copy_of(0);
    cluster.restart_alone(0, 50, rows);
    cluster.disks[0].refuses_stores = true;
    cluster.greetings.clear();
    cluster.connect(0, 1);
    assert!(cluster.greetings.iter().all(|&(from, ..)| from != 0));
    cluster.disks[0].refuses_stores = false;
    cluster.advance(Duration::from_secs(5));
    assert_eq!(cluster.engines[1].peer_state(index(0)), PeerState::Up);
    cluster.assert_idle();
}

/// Node 0 has a directory that was made while node 1, which knows the former one, was away, and that node 2 let up, which does not. It
/// has acknowledged a write, and was started again since.
fn replaced_unseen() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.isolate(0);
    let mut rows = cluster.copy_of(2);
    let id = cluster.engines[0].config().me;
    assert!(rows.remove(&Place::Peer(id)).is_some());
    cluster.restart_alone(2, 50, rows);
    cluster.restart_alone(0, 51, BTreeMap::new());
    cluster.connect(0, 2);
    written(cluster.ask(0, put(1, "a", None)));
    let rows = cluster.copy_of(0);
    cluster.restart_alone(0, 52, rows);
    cluster
}

#[test]
fn a_new_directory_whose_peers_never_met_the_former_one_is_no_older_copy_to_one_that_did() {
    let mut cluster = replaced_unseen();
    assert_eq!(cluster.engines[0].generation(), 2);
    cluster.connect(0, 1);
    assert!(cluster.rebuilds.is_empty(), "{:?}", cluster.rebuilds);
    assert_eq!(texts(&cluster.record(0)), ["a"]);
    assert_eq!(cluster.engines[0].peer_state(index(1)), PeerState::Up);
    assert_eq!(cluster.engines[1].peer_state(index(0)), PeerState::Up);
    assert!(cluster.engines[0].generation() > 1 << 20);
    // And which of the two is older was not to be known.
    assert_eq!(cluster.engines[0].rebuilding(), (0, 16));
    assert!(cluster.engines[1].is_rebuilding(index(0)));
    let own = Boot::next(Some(&cluster.disks[0].applied[&Place::Own])).unwrap();
    assert!(own.is_new && own.generation > 1 << 20, "{own:?}");
}

#[test]
fn a_node_that_finds_a_former_directory_of_its_own_tells_who_let_it_up_that_it_does_not_know_all() {
    let mut cluster = replaced_unseen();
    let mut rows = cluster.copy_of(0);
    let own = Boot::next(Some(&rows[&Place::Own])).unwrap();
    rows.insert(Place::Own, Boot { is_new: false, ..own }.note());
    cluster.restart_alone(0, 53, rows);
    cluster.connect(0, 2);
    assert!(!cluster.engines[2].is_rebuilding(index(0)));
    cluster.connect(0, 1);
    assert!(cluster.rebuilds.is_empty(), "{:?}", cluster.rebuilds);
    assert_eq!(cluster.engines[0].rebuilding(), (0, 16));
    assert!(cluster.engines[2].is_rebuilding(index(0)));
    assert_eq!(cluster.engines[2].peer_state(index(0)), PeerState::Up);
}

#[test]
fn a_directory_that_is_put_back_after_it_was_replaced_is_an_older_copy() {
    for starts in [0, 3] {
        let mut cluster = Cluster::new(3);
        let copy = cluster.copy_of(0);
        cluster.restart(0, 50, BTreeMap::new());
        written(cluster.ask(0, put(1, "a", None)));
        cluster.restart_alone(0, 51, copy);
        for seed in 52..52 + starts {
            cluster.run();
            let rows = cluster.copy_of(0);
            cluster.restart_alone(0, seed, rows);
        }
        cluster.connect(0, 1);
        assert!(cluster.rebuilds[&0].contains("older copy"), "{:?}", cluster.rebuilds);
        assert_ne!(cluster.engines[1].peer_state(index(0)), PeerState::Up);
    }
}
