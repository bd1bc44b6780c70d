//! Named scenarios: histories that broke real stores, or that were found on paper. Every checker watches each of them; the tests
//! say what must be there in the end.
//!
//! Values are numbered from 1 in the order of the plan's puts.

#![allow(clippy::unwrap_used)]

use quorate_core::bucket::{BlindWrites, BucketProperties};
use quorate_sim::plan::{Action, ContextChoice, Fault, FaultKind, Options, Plan, Step, Target};
use quorate_sim::probes::Probe;
use quorate_sim::{RunReport, Watch, run};
use std::sync::Arc;

/// A plan that is written down step by step, a quarter of a second apart.
struct Scenario {
    plan: Plan,
    at_us: u64,
}

impl Scenario {
    fn new(clients: u8, properties: BucketProperties) -> Scenario {
        let options = Options::calm(3, 1, clients, properties);
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
                dw: None,
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
    BucketProperties::default()
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
