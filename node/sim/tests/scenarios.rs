//! Named scenarios: histories that broke real stores, or that were found on paper. Every checker watches each of them; the tests
//! say what must be there in the end.
//!
//! Values are numbered from 1 in the order of the plan's puts.

#![allow(clippy::unwrap_used)]

use quorate_core::bucket::{BlindWrites, BucketProperties, Durability};
use quorate_core::request::QuorumKind;
use quorate_sim::plan::{Action, ContextChoice, Fault, FaultKind, Options, Plan, Rotten, Step, Target};
use quorate_sim::probes::Probe;
use quorate_sim::{RunReport, Watch, run};
use std::sync::Arc;

/// A plan that is written down step by step, a quarter of a second apart.
struct Scenario {
    plan: Plan,
    at_us: u64,
}

impl Scenario {
    /// Three nodes, all of them owners of the one key.
    fn new(clients: u8, properties: BucketProperties) -> Scenario {
        Scenario::of(3, clients, properties)
    }

    fn of(nodes: u8, clients: u8, properties: BucketProperties) -> Scenario {
        let options = Options::calm(nodes, 1, clients, properties);
        Scenario {
            plan: Plan {
                seed: 1,
                options,
                steps: Vec::new(),
                faults: Vec::new(),
            },
            at_us: 100_000,
        }
    }

    fn step(&mut self, client: u8, owner: u8, action: Action) {
        self.at_us += 250_000;
        let step = Step {
            at_us: self.at_us,
            client,
            target: Target::Owner(owner),
            timeout_ms: 200,
            action,
        };
        self.plan.steps.push(step);
    }

    fn put(&mut self, client: u8, owner: u8, context: ContextChoice) {
        self.step(
            client,
            owner,
            Action::Put {
                key: 0,
                context,
                w: None,
                pw: None,
                dw: None,
                quorum: None,
                bytes: 16,
                representation: false,
            },
        );
    }

    fn get(&mut self, client: u8, owner: u8) {
        self.step(
            client,
            owner,
            Action::Get {
                key: 0,
                r: None,
                pr: None,
                quorum: None,
                minimum: false,
            },
        );
    }

    fn fault(&mut self, kind: FaultKind) {
        self.at_us += 250_000;
        self.plan.faults.push(Fault {
            at_us: self.at_us,
            kind,
        });
    }

    /// The node that is this owner of the key.
    fn owner(&self, rank: usize) -> u8 {
        let (options, ring) = (&self.plan.options, self.plan.options.ring());
        let key = options.key_names().remove(0);
        ring.owners(ring.partition_of(key.token()), options.properties(0).n)[rank].0 as u8
    }

    /// A node that does not own the key.
    fn fallback(&self, rank: usize) -> u8 {
        let owners: Vec<u8> = (0..usize::from(self.plan.options.properties(0).n))
            .map(|rank| self.owner(rank))
            .collect();
        let mut others = (0..self.plan.options.nodes).filter(|node| !owners.contains(node));
        others.nth(rank).unwrap()
    }

    /// Asks a node, owner or not.
    fn ask(&mut self, client: u8, node: u8, action: Action) {
        self.step(client, 0, action);
        self.plan.steps.last_mut().unwrap().target = Target::Node(node);
    }

    fn delete(&mut self, client: u8, owner: u8) {
        self.step(
            client,
            owner,
            Action::Delete {
                key: 0,
                context: ContextChoice::Last,
                w: None,
                pw: None,
                quorum: None,
            },
        );
    }

    /// Cuts nodes off from all others, and waits until everybody has noticed.
    fn isolate(&mut self, nodes: &[u8], for_ms: u32) {
        let to = (0..self.plan.options.nodes)
            .filter(|node| !nodes.contains(node))
            .collect();
        self.fault(FaultKind::Partition {
            from: nodes.to_vec(),
            to,
            both_ways: true,
            for_ms,
        });
        self.wait(7_000);
    }

    fn wait(&mut self, ms: u64) {
        self.at_us += ms * 1000;
    }

    /// Runs it; every promise must hold.
    fn run(mut self) -> RunReport {
        self.plan.options.horizon_ms = (self.at_us / 1000) as u32 + 3_000;
        let report = run(
            &Arc::new(self.plan),
            Watch {
                log: true,
                ..Watch::default()
            },
        );
        assert!(
            report.violations.is_empty(),
            "{:#?}\n{}",
            report.violations,
            report.log.join("\n")
        );
        report
    }
}

fn defaults() -> BucketProperties {
    BucketProperties {
        quorum: QuorumKind::Strict,
        ..BucketProperties::default()
    }
}

#[test]
fn a_coordinator_that_forgot_the_record_loses_nothing() {
    let mut s = Scenario::new(2, defaults());
    s.plan.options.forgets = true;
    s.put(0, 0, ContextChoice::None);
    s.put(1, 0, ContextChoice::None);
    s.fault(FaultKind::Forget { key: 0 });
    s.put(0, 0, ContextChoice::None);
    s.put(1, 0, ContextChoice::None);
    let report = s.run();
    assert_eq!(report.live, [[1, 2, 3, 4]]);
    assert!(report.probes.count(Probe::ForgottenRecordWritten) > 0);
}

#[test]
fn a_write_with_the_context_of_the_last_write_keeps_a_sibling_it_never_saw() {
    let mut s = Scenario::new(2, defaults());
    s.put(0, 0, ContextChoice::None);
    s.put(1, 1, ContextChoice::None);
    s.put(0, 2, ContextChoice::Last);
    assert_eq!(s.run().live, [[2, 3]]);
}

#[test]
fn two_writers_who_interleave_a_hundred_and_one_writes_leave_two_siblings() {
    let mut s = Scenario::new(2, defaults());
    for write in 0..101 {
        s.put(write % 2, write % 3, ContextChoice::Last);
    }
    assert_eq!(s.run().live, [[100, 101]]);
}

#[test]
fn reading_and_writing_back_resolves_siblings() {
    let mut s = Scenario::new(3, defaults());
    for client in 0..3 {
        s.put(client, client, ContextChoice::None);
    }
    s.get(0, 0);
    s.put(0, 1, ContextChoice::Last);
    assert_eq!(s.run().live, [[4]]);
}

#[test]
fn a_coordinator_that_cannot_read_its_disk_passes_writes_on_and_hides_nothing() {
    let mut s = Scenario::new(2, defaults());
    s.put(0, 0, ContextChoice::None);
    let node = s.owner(0);
    s.fault(FaultKind::Unreadable { node, for_ms: 900 });
    s.put(1, 0, ContextChoice::None);
    s.get(1, 0);
    s.get(1, 1);
    let report = s.run();
    assert_eq!(report.live, [[1, 2]]);
    assert_eq!(report.probes.count(Probe::NotApplied), 0);
}

#[test]
fn a_write_that_was_retried_at_another_coordinator_is_there_once() {
    let mut s = Scenario::new(2, defaults());
    s.plan.options.lost_replies_pm = 1000;
    s.put(0, 0, ContextChoice::None);
    s.step(0, 1, Action::Again { back: 0, retry: true });
    s.step(0, 2, Action::Again { back: 0, retry: true });
    let report = s.run();
    assert_eq!(report.live, [[1]]);
    assert_eq!(report.probes.count(Probe::DuplicateMetLive), 2);
}

#[test]
fn two_coordinators_that_got_the_same_write_at_once_leave_it_once_and_its_writer_replaces_it() {
    let mut s = Scenario::new(1, defaults());
    s.put(0, 0, ContextChoice::None);
    s.step(0, 1, Action::Again { back: 0, retry: true });
    s.plan.steps[1].at_us = s.plan.steps[0].at_us + 1;
    s.put(0, 2, ContextChoice::Last);
    assert_eq!(s.run().live, [[2]]);
}

#[test]
fn a_retry_of_an_overwritten_write_does_not_bring_it_back() {
    let mut s = Scenario::new(2, defaults());
    s.put(0, 0, ContextChoice::None);
    s.get(1, 1);
    s.put(1, 1, ContextChoice::Last);
    s.step(0, 2, Action::Again { back: 0, retry: true });
    let report = s.run();
    assert_eq!(report.live, [[2]]);
    assert_eq!(report.probes.count(Probe::DuplicateMetOverwritten), 1);
}

/// A write is tried at an owner that was cut off a moment ago, and at once at another one. It is overwritten `overwrites` times and deleted before
/// the cut heals.
fn overwritten_while_its_first_try_is_cut_off(has_keys: bool, overwrites: usize) -> RunReport {
    let mut s = Scenario::new(1, sloppy());
    s.plan.options.clients[0].has_keys = has_keys;
    s.put(0, 1, ContextChoice::None);
    let node = s.owner(0);
    s.fault(FaultKind::Partition {
        from: vec![node],
        to: vec![s.owner(1), s.owner(2)],
        both_ways: true,
        for_ms: 30_000,
    });
    s.put(0, 0, ContextChoice::Last);
    s.step(0, 1, Action::Again { back: 0, retry: true });
    for _ in 0..overwrites {
        s.put(0, 1, ContextChoice::Last);
    }
    s.delete(0, 1);
    s.wait(30_000);
    let report = s.run();
    let stores = format!("node {node} -> store");
    let is_its_own = |line: &&String| line.contains(&stores) && line.contains("=2]");
    assert_eq!(
        report.log.iter().filter(is_its_own).count(),
        1,
        "the first try is there"
    );
    report
}

#[test]
fn a_first_try_from_behind_a_cut_stays_away_however_often_its_retry_was_overwritten() {
    for has_keys in [false, true] {
        for overwrites in [0, 7, 8, 30, 60] {
            let report = overwritten_while_its_first_try_is_cut_off(has_keys, overwrites);
            assert_eq!(report.live, [[0; 0]], "with keys: {has_keys}, {overwrites} overwrites");
        }
    }
}

#[test]
fn a_retry_replaces_nothing_that_was_written_in_between() {
    let mut s = Scenario::new(
        2,
        BucketProperties {
            blind_writes: BlindWrites::Replace,
            ..defaults()
        },
    );
    // Nobody can coordinate the first try.
    let owners = [0, 1, 2].map(|rank| s.owner(rank));
    s.fault(FaultKind::Unreadable {
        node: owners[0],
        for_ms: 400,
    });
    for node in owners[1..].iter().copied() {
        s.at_us -= 250_000;
        s.fault(FaultKind::Unreadable { node, for_ms: 400 });
    }
    s.put(0, 0, ContextChoice::None);
    s.put(1, 1, ContextChoice::None);
    s.step(0, 0, Action::Again { back: 0, retry: true });
    assert_eq!(s.run().live, [[1, 2]]);
}

#[test]
fn messages_that_arrive_twice_change_nothing() {
    let mut s = Scenario::new(3, defaults());
    s.plan.options.network.reliable = false;
    s.plan.options.network.duplicate_pm = 1000;
    for write in 0..30 {
        s.put(write % 3, write % 2, ContextChoice::Last);
    }
    let report = s.run();
    assert_eq!(report.live, [[28, 29, 30]]);
    assert!(report.probes.count(Probe::DuplicateFrame) > 100);
}

#[test]
fn a_coordinator_killed_at_any_effect_loses_no_acknowledged_write() {
    for effects in 1..40 {
        let mut s = Scenario::new(2, defaults());
        let node = s.owner(0);
        s.put(0, 0, ContextChoice::None);
        s.fault(FaultKind::CrashAtEffect {
            node,
            effects,
            down_ms: 400,
        });
        for write in 0..8 {
            s.put(write % 2, 0, ContextChoice::Last);
            s.step(write % 2, 1, Action::Again { back: 0, retry: true });
        }
        s.get(0, 2);
        assert_eq!(
            s.run().probes.count(Probe::CrashedBetweenEffects),
            1,
            "after {effects} effects"
        );
    }
}

#[test]
fn a_power_cut_at_the_moment_of_the_ack_keeps_what_was_acknowledged() {
    let mut s = Scenario::new(1, defaults());
    for write in 0..4 {
        s.fault(FaultKind::CutAtAck { down_ms: 50 });
        s.put(0, write, ContextChoice::None);
        s.at_us += 500_000;
    }
    let report = s.run();
    assert_eq!(report.live, [[1, 2, 3, 4]]);
    assert_eq!(report.probes.count(Probe::CutAtAck), 4);
}

#[test]
fn a_power_cut_takes_what_a_relaxed_bucket_acknowledged_early_and_killed_processes_take_nothing() {
    for (survive_pm, left) in [(0, &[][..]), (1000, &[1])] {
        let relaxed = BucketProperties {
            durability: Durability::Relaxed,
            ..defaults()
        };
        let mut s = Scenario::new(1, relaxed);
        s.plan.options.disk.sync_us = 200_000;
        s.put(0, 0, ContextChoice::None);
        // Five milliseconds later, of which the ack takes one.
        s.at_us -= 245_000;
        s.fault(FaultKind::PowerCut {
            survive_pm,
            down_ms: 50,
        });
        s.at_us += 1_000_000;
        s.get(0, 1);
        let report = s.run();
        assert_eq!(report.live, [left], "{survive_pm}");
        assert!(report.probes.count(Probe::RelaxedAck) > 0);
        assert_eq!(report.probes.count(Probe::RelaxedLost), u64::from(left.is_empty()));
    }
}

#[test]
fn one_node_that_comes_back_alone_after_a_power_cut_takes_writes_in_the_end() {
    let mut s = Scenario::new(1, defaults());
    s.put(0, 0, ContextChoice::None);
    s.at_us += 100_000;
    for (rank, down_ms) in [(1, 20_000), (2, 20_000), (0, 50)] {
        let node = s.owner(rank);
        s.fault(FaultKind::Crash {
            node,
            survive_pm: 0,
            down_ms,
            wipe: false,
        });
    }
    let put = Action::Put {
        key: 0,
        context: ContextChoice::None,
        w: Some(1),
        pw: None,
        dw: None,
        quorum: None,
        bytes: 16,
        representation: false,
    };
    // Its directory may be an older copy, as far as it knows.
    s.at_us += 8_000_000;
    s.step(0, 0, put.clone());
    s.at_us += 4_000_000;
    s.step(0, 0, put);
    let report = s.run();
    assert_eq!(report.live, [[1, 3]]);
    assert_eq!(report.probes.count(Probe::NotApplied), 1);
}

#[test]
fn partition_isolating_the_coordinator_keeps_acknowledged_writes() {
    let mut s = Scenario::new(2, defaults());
    let (alone, others) = (s.owner(0), vec![s.owner(1), s.owner(2)]);
    s.put(0, 0, ContextChoice::None);
    s.fault(FaultKind::Partition {
        from: vec![alone],
        to: others,
        both_ways: true,
        for_ms: 9_000,
    });
    s.put(0, 0, ContextChoice::Last);
    s.put(1, 1, ContextChoice::None);
    s.get(1, 2);
    s.put(1, 2, ContextChoice::Last);
    s.at_us += 9_000_000;
    s.step(0, 0, Action::Again { back: 0, retry: true });
    let report = s.run();
    assert!(report.probes.count(Probe::PartitionBeyondPatience) > 0);
    assert_eq!(report.live, [[2, 4]]);
}

#[test]
fn a_full_disk_refuses_writes_and_loses_none() {
    let mut s = Scenario::new(1, defaults());
    let node = s.owner(0);
    s.put(0, 0, ContextChoice::None);
    s.fault(FaultKind::DiskFull { node, for_ms: 1_500 });
    s.put(0, 0, ContextChoice::Last);
    s.put(0, 1, ContextChoice::Last);
    s.get(0, 0);
    s.at_us += 2_000_000;
    s.put(0, 0, ContextChoice::Last);
    let report = s.run();
    assert!(report.probes.count(Probe::StoreFailedAfterMint) > 0);
    assert_eq!(report.live[0].last(), Some(&4));
}

fn sloppy() -> BucketProperties {
    BucketProperties {
        quorum: QuorumKind::Sloppy,
        ..defaults()
    }
}

/// A put that waits for just one ack.
fn put_one(context: ContextChoice) -> Action {
    Action::Put {
        key: 0,
        context,
        w: Some(1),
        pw: None,
        dw: None,
        quorum: None,
        bytes: 16,
        representation: false,
    }
}

#[test]
fn a_record_that_was_forgotten_and_came_back_through_a_fallback_loses_nothing() {
    let mut s = Scenario::of(5, 2, sloppy());
    s.plan.options.loses = true;
    let (p1, p3) = (s.owner(0), s.owner(2));
    s.isolate(&[p3], 9_000);
    s.put(0, 0, ContextChoice::None);
    s.wait(3_000);
    s.isolate(&[p1], 9_000);
    s.put(1, 2, ContextChoice::None);
    s.wait(3_000);
    s.isolate(&[p3], 9_000);
    s.put(0, 0, ContextChoice::None);
    s.put(1, 0, ContextChoice::Last);
    s.fault(FaultKind::Crash {
        node: p1,
        survive_pm: 1000,
        down_ms: 300,
        wipe: true,
    });
    s.wait(12_000);
    s.put(0, 0, ContextChoice::None);
    let report = s.run();
    assert_eq!(report.live, [[1, 3, 4, 5]]);
    assert!(report.probes.count(Probe::WipedNodeReturned) > 0);
}

/// p3 is away while the key is deleted; what is kept for it is kept by a fallback that then goes away itself, and the key is made again.
fn reaped_while_a_fallback_holds_it(deletes: usize) -> RunReport {
    let mut s = Scenario::of(4, 2, sloppy());
    let (p3, fallback) = (s.owner(2), s.fallback(0));
    s.put(0, 0, ContextChoice::None);
    s.isolate(&[p3], 12_000);
    for _ in 0..deletes {
        s.get(1, 1);
        s.delete(1, 0);
    }
    s.isolate(&[fallback], 40_000);
    s.wait(20_000);
    s.put(0, 1, ContextChoice::None);
    s.wait(20_000);
    s.run()
}

#[test]
fn a_tombstone_that_a_fallback_still_holds_does_not_return_when_the_key_is_made_again() {
    let report = reaped_while_a_fallback_holds_it(1);
    assert_eq!(report.live, [[2]]);
}

#[test]
fn nor_when_the_delete_was_repeated() {
    let report = reaped_while_a_fallback_holds_it(2);
    assert_eq!(report.live, [[2]]);
}

#[test]
fn owners_are_counted_on_their_replies() {
    let mut s = Scenario::of(5, 1, sloppy());
    let others = [s.owner(1), s.owner(2)];
    // Just cut off: nobody has noticed yet, and fallbacks answer for them.
    s.fault(FaultKind::Partition {
        from: vec![s.owner(0)],
        to: others.to_vec(),
        both_ways: true,
        for_ms: 2_500,
    });
    let action = |pw| Action::Put {
        key: 0,
        context: ContextChoice::None,
        w: Some(2),
        pw,
        dw: None,
        quorum: None,
        bytes: 16,
        representation: false,
    };
    s.step(0, 0, action(Some(2)));
    s.step(0, 0, action(None));
    let report = s.run();
    assert!(report.probes.count(Probe::QuorumNotMet) > 0);
    assert!(report.probes.count(Probe::FallbackCounted) > 0);
    assert_eq!(report.live, [[1, 2]]);
}

#[test]
fn hints_go_home_while_writes_go_on() {
    let mut s = Scenario::of(5, 2, sloppy());
    let p3 = s.owner(2);
    s.isolate(&[p3], 9_000);
    for write in 0..30 {
        s.put(write % 2, write % 2, ContextChoice::Last);
    }
    for write in 0..10 {
        s.put(write % 2, write % 3, ContextChoice::Last);
    }
    let report = s.run();
    assert_eq!(report.live, [[39, 40]]);
    assert!(report.probes.count(Probe::HintWentHome) > 0);
}

#[test]
fn both_sides_of_a_partition_are_there_when_it_is_repaired() {
    let mut s = Scenario::of(5, 2, sloppy());
    let alone = [s.owner(0), s.fallback(0)];
    s.isolate(&alone, 20_000);
    s.put(0, 0, ContextChoice::None);
    s.put(1, 1, ContextChoice::None);
    s.put(0, 0, ContextChoice::Last);
    s.put(1, 2, ContextChoice::Last);
    s.wait(12_000);
    assert_eq!(s.run().live, [[3, 4]]);
}

#[test]
fn a_corrupt_record_is_kept_from_readers_and_healed() {
    let mut s = Scenario::new(2, defaults());
    s.plan.options.loses = true;
    s.put(0, 0, ContextChoice::None);
    let node = s.owner(0);
    s.fault(FaultKind::Rot {
        node,
        what: Rotten::Record,
        row: 0,
        bit: 77,
    });
    s.get(1, 0);
    s.get(1, 1);
    s.put(1, 1, ContextChoice::Last);
    s.wait(5_000);
    let report = s.run();
    assert_eq!(report.live, [[2]]);
    assert!(report.probes.count(Probe::RottenRecord) > 0);
}

#[test]
fn a_coordinator_killed_at_any_effect_of_a_sloppy_write_loses_nothing() {
    for effects in 1..40 {
        let mut s = Scenario::of(5, 2, sloppy());
        let (node, away) = (s.owner(0), s.owner(2));
        s.isolate(&[away], 14_000);
        s.put(0, 0, ContextChoice::None);
        s.fault(FaultKind::CrashAtEffect {
            node,
            effects,
            down_ms: 400,
        });
        for write in 0..6 {
            s.put(write % 2, 0, ContextChoice::Last);
            s.step(write % 2, 1, Action::Again { back: 0, retry: true });
        }
        s.get(0, 1);
        let report = s.run();
        assert_eq!(
            report.probes.count(Probe::CrashedBetweenEffects),
            1,
            "after {effects} effects"
        );
    }
}

#[test]
fn a_fallback_that_coordinated_and_handed_its_hint_over_coordinates_again_under_another_dot() {
    let mut s = Scenario::of(5, 1, sloppy());
    let owners = [s.owner(0), s.owner(1), s.owner(2)];
    let fallback = s.fallback(0);
    s.isolate(&owners, 9_000);
    s.ask(0, fallback, put_one(ContextChoice::None));
    s.wait(6_000);
    s.isolate(&owners, 9_000);
    s.ask(0, fallback, put_one(ContextChoice::None));
    s.wait(6_000);
    let report = s.run();
    assert_eq!(report.live, [[1, 2]]);
    assert!(report.probes.count(Probe::FallbackCoordinated) > 0);
}

#[test]
fn a_node_suspended_with_a_write_under_way_keeps_it_while_others_settle_a_delete() {
    let mut s = Scenario::new(2, defaults());
    let p1 = s.owner(0);
    s.put(0, 0, ContextChoice::None);
    s.get(1, 1);
    s.fault(FaultKind::Partition {
        from: vec![p1],
        to: vec![s.owner(1), s.owner(2)],
        both_ways: true,
        for_ms: 40_000,
    });
    s.put(0, 0, ContextChoice::Last);
    s.fault(FaultKind::Pause {
        node: p1,
        for_ms: 30_000,
    });
    s.delete(1, 1);
    s.wait(45_000);
    assert_eq!(s.run().live, [[2]]);
}

#[test]
fn an_owner_that_read_again_from_a_lagging_one_does_not_vote() {
    let mut s = Scenario::new(2, defaults());
    s.plan.options.loses = true;
    let (p1, p2, p3) = (s.owner(0), s.owner(1), s.owner(2));
    s.isolate(&[p3], 8_000);
    s.put(0, 0, ContextChoice::None);
    s.fault(FaultKind::Partition {
        from: vec![p2],
        to: vec![p1, p3],
        both_ways: true,
        for_ms: 20_000,
    });
    s.fault(FaultKind::Crash {
        node: p1,
        survive_pm: 1000,
        down_ms: 100,
        wipe: true,
    });
    for _ in 0..30 {
        s.get(1, 0);
        s.get(1, 2);
    }
    s.wait(15_000);
    s.get(1, 0);
    assert_eq!(s.run().live, [[1]]);
}

#[test]
fn a_read_that_sees_as_many_equal_answers_of_a_half_done_write_as_it_asked_for_makes_it_whole() {
    for r in 1..=3 {
        let properties = BucketProperties {
            n: 5,
            r: Some(r),
            ..defaults()
        };
        let mut s = Scenario::of(5, 2, properties);
        let (p1, p2) = (s.owner(0), s.owner(1));
        s.fault(FaultKind::Partition {
            from: vec![p1],
            to: vec![s.owner(2), s.owner(3), s.owner(4)],
            both_ways: true,
            for_ms: 2_000,
        });
        s.put(0, 0, ContextChoice::None);
        s.fault(FaultKind::Crash {
            node: p1,
            survive_pm: 1000,
            down_ms: 4_000,
            wipe: false,
        });
        s.ask(
            1,
            p2,
            Action::Get {
                key: 0,
                r: None,
                pr: None,
                quorum: None,
                minimum: false,
            },
        );
        for owner in 2..5 {
            s.get(0, owner);
        }
        s.run();
    }
}

/// A file is damaged under the node's only record.
fn damage(node: u8) -> FaultKind {
    FaultKind::Damage {
        node,
        what: Rotten::Record,
        row: 0,
        more: 0,
    }
}

#[test]
fn a_disk_that_was_lost_and_a_damaged_file_on_another_one_both_end_whole() {
    for damaged in 1..3 {
        let mut s = Scenario::new(2, defaults());
        s.plan.options.loses = true;
        s.put(0, 0, ContextChoice::None);
        s.wait(3_000);
        let wiped = s.owner(0);
        for rank in 1..=damaged {
            s.fault(damage(s.owner(rank)));
        }
        s.fault(FaultKind::Crash {
            node: wiped,
            survive_pm: 1000,
            down_ms: 100,
            wipe: true,
        });
        s.wait(5_000);
        s.put(1, 1, ContextChoice::Last);
        let report = s.run();
        assert_eq!(report.probes.count(Probe::Damaged), damaged as u64);
        assert_eq!(report.probes.count(Probe::StartedOver), damaged as u64);
    }
}

#[test]
fn a_file_damaged_under_hints_and_records_ends_whole() {
    let mut s = Scenario::new(2, defaults());
    s.plan.options.loses = true;
    let (node, away) = (s.owner(0), s.owner(2));
    s.isolate(&[away], 12_000);
    s.put(0, 0, ContextChoice::None);
    s.put(1, 1, ContextChoice::Last);
    s.fault(FaultKind::Damage {
        node,
        what: Rotten::Hint,
        row: 0,
        more: 0,
    });
    s.wait(10_000);
    s.put(0, 2, ContextChoice::Last);
    let report = s.run();
    assert_eq!(report.probes.count(Probe::Damaged), 1);
    assert_eq!(report.probes.count(Probe::StartedOver), 1);
}
