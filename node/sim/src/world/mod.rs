//! The simulated world: nodes, disks, connections and clients on one event queue.
//!
//! ```text
//! faults and operations of the plan ──► heal ──► settle ──► look at all disks ──► every key must be readable and writable
//! ```
//!
//! Nothing in here decides what is right. It carries out what the engines ask for, notes what clients were told ([`History`]), and sees
//! what goes to disk ([`Truth`]). What does not need the end of the run is checked on the way; the rest is in [`crate::check`].
//!
//! Rejected: threads or an async runtime under a virtual clock. One queue and plain calls give two hundred thousand events a second, a
//! trace that is the same on every machine, and a debugger that can stop the world.

mod bounds;
mod causal;
mod clients;
mod converge;
mod disk;
mod event;
mod faults;
mod links;
mod liveness;
pub(crate) mod log;
mod node;
mod replies;
mod requests;
mod rows;
mod shell;
pub(crate) mod truth;

use crate::check::{Facts, State};
use crate::history::{Fate, History};
use crate::plan::{DiskRates, NetworkRates, Plan};
use crate::probes::{Probe, Probes};
use crate::rng::{Purpose, Stream};
use crate::violation::{Promise, Violation};
use bytes::BytesMut;
use clients::Client;
use event::{Event, Queue};
use links::Links;
use node::Node;
use quorate_core::bucket::{BlindWrites, BucketTable};
use quorate_core::engine::Limits;
use quorate_core::key::Key;
use quorate_core::record::Record;
use quorate_core::seal::{ContextKey, ContextKeys};
use quorate_ring::Ring;
use requests::Pending;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use truth::{Identity, Truth, identity};
use twox_hash::XxHash3_64;

/// How a run is to be observed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    /// Keep a line for each event.
    pub log: bool,
    /// Take a timeout for a failure: planted bug 19, in the checker itself.
    pub timeouts_fail: bool,
}

/// How a run ended.
#[derive(Debug, Default)]
pub struct RunReport {
    /// Every promise that was broken.
    pub violations: Vec<Violation>,
    /// Which situations it was in.
    pub probes: Probes,
    /// The numbers of the values that each key holds in the end, in order. The puts of a run are numbered from 1.
    pub live: Vec<Vec<u64>>,
    /// Hash over everything that happened, in order.
    pub trace: u64,
    /// Number of events.
    pub events: u64,
    /// What happened, in words, if that was asked for.
    pub log: Vec<String>,
}

/// Everything there is.
pub(crate) struct World {
    plan: Arc<Plan>,
    watch: Watch,
    now: u64,
    queue: Queue,
    nodes: Vec<Node>,
    links: Links,
    clients: Vec<Client>,
    pending: Vec<Pending>,
    next_value: u64,
    history: History,
    truth: Truth,
    probes: Probes,
    violations: Vec<Violation>,
    trace: Trace,
    events: u64,
    log: Option<Vec<String>>,
    ring: Arc<Ring>,
    keys: BTreeMap<Key, usize>,
    key_names: Vec<Key>,
    buckets: BucketTable,
    limits: Limits,
    context_keys: ContextKeys,
    network: NetworkRates,
    disk_rates: DiskRates,
    lost_replies_pm: u16,
    healed: bool,
    /// When a node went away that does not come back.
    left_at: Option<u64>,
    /// Set while a power cut waits for an acknowledgement.
    cut_at_ack: Option<u32>,
    frame: BytesMut,
    net: Stream,
    disk: Stream,
    clocks: Stream,
    client_rng: Stream,
}

/// Far more events than any run needs.
const EVENTS_MAX: u64 = 1_000_000;

/// How a line in the log begins that tells of a broken promise, behind its time.
pub(crate) const BROKEN: &str = "BROKEN";
/// The line in the log behind which no fault happens.
pub(crate) const HEALED: &str = "healed";

/// A running hash.
#[derive(Default)]
struct Trace(u64);

impl Trace {
    fn add(&mut self, bytes: &[u8]) {
        self.0 = XxHash3_64::oneshot_with_seed(self.0, bytes);
    }
}

/// The numbers of a record's values, in order.
fn values_of(record: &Record) -> Vec<u64> {
    let mut numbers: Vec<u64> = record.values().map(|value| log::number(&value.body)).collect();
    numbers.sort_unstable();
    numbers
}

/// From milliseconds.
fn micros(ms: u64) -> u64 {
    ms * 1000
}

/// Runs a plan.
pub fn run(plan: &Arc<Plan>, watch: Watch) -> RunReport {
    let mut world = World::new(plan.clone(), watch);
    world.boot();
    world.run_until(micros(plan.options.horizon_ms.into()));
    world.heal();
    world.converge();
    let first = world.state();
    world.check_liveness();
    world.delete_some();
    world.converge();
    let last = world.state();
    world.check_nothing_reaped();
    world.finish(&first, &last)
}

impl World {
    fn new(plan: Arc<Plan>, watch: Watch) -> World {
        let options = &plan.options;
        let ring = options.ring();
        let key_names = options.key_names();
        let owners = crate::plan::owners(options, &ring, &key_names);
        let nodes = usize::from(options.nodes);
        let replaces = |key| options.properties(key).blind_writes == BlindWrites::Replace;
        let replaces = (0..key_names.len()).map(replaces).collect();
        let stream = |purpose| Stream::new(plan.seed, purpose);
        World {
            watch,
            now: 0,
            queue: Queue::default(),
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            links: Links::new(nodes),
            clients: options.clients.iter().map(|_| Client::default()).collect(),
            pending: Vec::new(),
            next_value: 0,
            history: History::default(),
            truth: Truth::new(nodes, owners, replaces),
            probes: Probes::default(),
            violations: Vec::new(),
            trace: Trace::default(),
            events: 0,
            log: watch.log.then(Vec::new),
            keys: key_names.iter().cloned().zip(0..).collect(),
            key_names,
            ring,
            buckets: options.bucket_table(),
            limits: options.limits(),
            context_keys: ContextKeys::new(ContextKey { id: 1, secret: [7; 32] }, Vec::new()),
            network: options.network.clone(),
            disk_rates: options.disk.clone(),
            lost_replies_pm: options.lost_replies_pm,
            healed: false,
            left_at: None,
            cut_at_ack: None,
            frame: BytesMut::new(),
            net: stream(Purpose::Network),
            disk: stream(Purpose::Disk),
            clocks: stream(Purpose::Clocks),
            client_rng: stream(Purpose::Clients),
            plan,
        }
    }

    fn boot(&mut self) {
        for at in 0..self.nodes.len() {
            if !self.plan.options.healing.is_new_cluster {
                self.nodes[at].disk.found();
            }
            self.start(at);
        }
        let plan = self.plan.clone();
        for (index, step) in plan.steps.iter().enumerate() {
            self.queue.push(step.at_us, Event::Step(index));
        }
        for (index, fault) in plan.faults.iter().enumerate() {
            self.queue.push(fault.at_us, Event::Fault(index));
        }
    }

    fn run_until(&mut self, until: u64) {
        while let Some((at, event)) = self.queue.pop(until) {
            self.now = at;
            self.events += 1;
            if self.events == EVENTS_MAX {
                self.violated(Promise::P13, || format!("{EVENTS_MAX} events, and no end"));
            }
            if self.events >= EVENTS_MAX {
                continue;
            }
            self.trace.add(&at.to_le_bytes());
            self.happen(event);
        }
        self.now = until;
    }

    /// One event. Those of a process that has ended since are dropped here.
    fn happen(&mut self, event: Event) {
        match event {
            Event::Step(index) => self.step(index),
            Event::Fault(index) => self.begin_fault(index),
            Event::End(index) => self.end_fault(index),
            Event::PowerFails { down_ms } => self.power_cut(0, down_ms),
            Event::Request(handle) => self.request(handle),
            Event::Reply(handle, bytes) => self.client_reply(handle, bytes),
            Event::GiveUp(handle) => self.give_up(handle),
            Event::Frame { from, to, epoch, bytes } => self.frame(from, to, epoch, bytes),
            Event::Dial { from, to } => self.dial(from, to),
            Event::Connected {
                node,
                life,
                peer,
                epoch,
            } => self.connected(node, life, peer, epoch),
            Event::Lost { node, peer, epoch } => self.lost(node, peer, epoch),
            Event::Cut { from, to, since } => self.cut_too_long(from, to, since),
            Event::Tick { node, life } if self.lives(node, life) => self.tick(node),
            Event::Read { node, life, read } if self.lives(node, life) => {
                let (read, early) = *read;
                self.read(node, read, early);
            }
            Event::Synced { node, life } if self.lives(node, life) => self.synced(node),
            Event::Flush { node, life } if self.lives(node, life) => self.flush(node),
            Event::Resume { node, life, pause } if self.pause_lasts(node, life, pause) => self.resume(node),
            Event::Silent { node, life, pause } if self.pause_lasts(node, life, pause) => self.silent(node),
            Event::Start { node, life } if !self.nodes[node].is_running() && self.nodes[node].life() == life => {
                self.start(node);
            }
            _ => {}
        }
    }

    fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].is_running() && self.nodes[node].life() == life
    }

    /// What all keys hold now.
    fn state(&self) -> State {
        State {
            at: self.now,
            finals: (0..self.key_names.len()).map(|key| self.truth.merged(key)).collect(),
            judged: self.history.writes.len(),
            resent: self.truth.resent(),
        }
    }

    fn finish(mut self, first: &State, last: &State) -> RunReport {
        self.check_replies();
        self.probes.add(&self.truth.probes);
        let settled = (0..self.key_names.len())
            .map(|key| self.truth.was_settled(key))
            .collect();
        self.count_cut(first);
        let taken_away = self.truth.unknown_without(|at| self.nodes[at].has_left);
        let mut facts = Facts {
            options: &self.plan.options,
            history: &self.history,
            state: first,
            converged_at: first.at,
            settled,
            stored: &self.truth.stored,
            cut: &self.truth.cut,
            cut_keys: &self.truth.cut_keys,
            taken_away: &taken_away,
        };
        self.violations.extend(crate::check::all(&facts));
        facts.state = last;
        self.violations.extend(crate::check::of_state(&facts));
        RunReport {
            violations: self.violations,
            live: first.finals.iter().map(values_of).collect(),
            probes: self.probes,
            trace: self.trace.0,
            events: self.events,
            log: self.log.unwrap_or_default(),
        }
    }

    /// Counts writes that were acknowledged before they were on disk, and are nowhere since a power cut.
    fn count_cut(&mut self, state: &State) {
        let siblings = state.finals.iter().flat_map(Record::siblings);
        let live: BTreeSet<Identity> = siblings.map(identity).collect();
        for write in &self.history.writes {
            let made = (write.request.unique, write.payload);
            let is_lost = write.fate() == Fate::Acked && self.truth.cut.contains(&made) && !live.contains(&made);
            self.probes.hit_if(is_lost, Probe::RelaxedLost);
        }
    }

    /// Notes a broken promise.
    fn violated(&mut self, promise: Promise, detail: impl FnOnce() -> String) {
        let violation = Violation {
            promise,
            detail: detail(),
        };
        self.note(|| format!("{BROKEN} {violation}"));
        self.violations.push(violation);
    }

    /// Adds a line to the log, if one is kept.
    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>10} {}", self.now, line()));
        }
    }
}
