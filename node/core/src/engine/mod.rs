//! The engine: one shard of a node, as a pure state machine.
//!
//! It coordinates requests for keys that this node owns, answers other coordinators as a replica, and forwards once what it does
//! not own. Contract, after quinn-proto's `Connection` and foca:
//!
//! ```text
//! handle(now, input)      for everything that happens          (io.rs: Input)
//! poll_effect()           until it returns None                (io.rs: Effect)
//! poll_timeout()          when to hand in Input::Tick next
//! ```
//!
//! One file an operation: `put` and `get` coordinate, `replica` answers coordinators, `forward` passes on. They share three
//! things: `keys` does what there is to do with one key, in order and on top of `slots`, `tally` counts answers towards a quorum,
//! and this file owns the table of operations and the timers.
//!
//! The engine assumes that time does not run backwards and that [`Input::PeerUp`] and [`Input::PeerDown`] alternate for each peer.

mod background;
mod dirty;
mod exchange;
mod forward;
mod gate;
mod get;
mod handoff;
mod handoff_receive;
mod heal;
mod hints;
mod io;
mod keys;
mod memory;
mod ops;
mod peers;
mod pending;
mod put;
mod rebuild;
mod repair;
mod replica;
mod restore;
mod rules;
mod scrub;
mod settle;
mod sizes;
mod slots;
mod start_over;
mod stored;
mod tally;
mod vnodes;

#[cfg(test)]
mod tests;

pub use exchange::{ExchangePhase, ExchangeStatus, LastExchange, RunningExchange};
pub use hints::HintsFor;
pub use io::{
    Effect, Input, LoadFailed, LoadId, RequestHandle, Scan, ScanId, ScanPage, ScanRows, StoreTicket, SyncWanted,
};
pub use memory::{Boot, MalformedNote, PeerState};
pub use peers::PeerHealth;
pub use scrub::ScrubProgress;
pub use settle::SettleStatus;

use crate::bucket::{BucketTable, Durability};
use crate::key::Key;
use crate::message::{ForwardReply, PeerMessage, Refusal};
use crate::place::Place;
use crate::request::{Code, Failure, Operation, Outcome, QuorumKind, ReplicaState, Response};
use crate::seal::ContextKeys;
use crate::time::Instant;
use crate::tree::{LeafRow, LeavesLost, Trees};
use background::Background;
use dirty::Dirty;
use exchange::Exchange;
use gate::Gate;
use handoff::Handoffs;
use heal::Heals;
use hints::Hints;
use memory::Memory;
use ops::{Op, OpId, Ops};
use peers::{Kind, Peers};
use pending::Pending;
use quorate_ring::{NodeId, NodeIndex, Ring};
use rebuild::Rebuild;
use repair::Repairs;
use scrub::Scrub;
use settle::Settling;
use slots::{Change, Slots, Work};
use start_over::StartOver;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use vnodes::Vnodes;

/// What an engine needs to know.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// This node; a member of the ring.
    pub me: NodeId,
    /// The ring.
    pub ring: Arc<Ring>,
    /// Seed of the engine's own randomness. Fresh entropy at every start: lives are drawn from it, and a life drawn twice could
    /// mint a dot twice.
    pub seed: [u8; 32],
    /// Keys that seal contexts.
    pub context_keys: ContextKeys,
    /// Properties of buckets.
    pub buckets: BucketTable,
    /// Bounds.
    pub limits: Limits,
    /// The wall clock at [`Instant`] 0 of this engine, in milliseconds since 1970. For ages that people read and for values that expire.
    pub wall_ms: u64,
    /// The directory is a new one in place of another, whose data were set aside. Then "nothing" is no answer that this node takes from nodes that
    /// do not know more.
    pub is_replaced: bool,
    /// This start of the data directory.
    pub boot: Boot,
}

/// Bounds of an engine's queues and patience. Each has a documented answer when it is reached.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests coordinated or forwarded at once. Beyond: [`Code::Overloaded`], not applied.
    pub operations_max: usize,
    /// Bytes of values held by requests that are coordinated. Beyond: the same.
    pub operation_bytes_max: usize,
    /// Keys loading or not yet synced at once, and as many things that wait for them. Beyond: requests end with
    /// [`Code::Overloaded`], not applied, and other coordinators are refused with
    /// [`Refusal::Overloaded`].
    pub slots_max: usize,
    /// Longest timeout that a request gets, whatever it asked for.
    pub timeout_max: Duration,
    /// A read that has no verdict after this long asks the owners that it has not asked yet.
    pub hedge_after: Duration,
    /// Largest sealed context accepted from a client, in bytes.
    pub context_bytes_max: usize,
    /// A node that keeps a request waiting for this long is routed round.
    pub slow_after: Duration,
    /// Whether hints are kept for owners that are away. Without them they are left to anti-entropy.
    pub hints: bool,
    /// Bytes of hints that this node keeps. Beyond: fallbacks refuse with [`Refusal::HintsFull`], and what this node owes itself is noted by
    /// partition and left to anti-entropy.
    pub hint_bytes_max: u64,
    /// Handoffs and pulls under way to one node at once.
    pub handoff_window: u16,
    /// Read repairs that nobody waits for, a second.
    pub repairs_per_second: u32,
    /// Whether owners compare their trees.
    pub exchange: bool,
    /// Whether trees are kept at all. For measuring what that costs: without them nothing is compared, not even to rebuild, and the shell has to
    /// hand in trees made of all records at the next start that keeps them.
    pub trees: bool,
    /// Leaves in a half of the log of leaves at least.
    pub leaf_log: usize,
    /// Every pair of owners compares every tree that they share about this often.
    pub exchange_every: Duration,
    /// Between the two rounds of the proof that a record can be settled. Three quarters of it are longer than a connection's idle timeout, so
    /// that what a process that ended had sent has arrived or never will.
    pub settle_after: Duration,
    /// How long a record waits before that proof begins, by the wall clock. Its overwritten writes are recognised when they are sent again until
    /// it is settled, so for at least this long.
    pub settle_age: Duration,
    /// Records that the scrub reads a second; 0: none.
    pub scrub_per_second: u32,
    /// From the beginning of one pass of the scrub to that of the next. The first begins after a sixtieth of this.
    pub scrub_every: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            operations_max: 16_384,
            operation_bytes_max: 256 << 20,
            slots_max: 65_536,
            timeout_max: Duration::from_secs(60),
            hedge_after: Duration::from_millis(20),
            context_bytes_max: 16 << 10,
            slow_after: Duration::from_millis(100),
            hints: true,
            hint_bytes_max: 1 << 30,
            handoff_window: 64,
            repairs_per_second: 1000,
            exchange: true,
            trees: true,
            leaf_log: 65_536,
            exchange_every: Duration::from_secs(300),
            settle_after: Duration::from_secs(8),
            settle_age: Duration::from_secs(60),
            scrub_per_second: 1000,
            scrub_every: Duration::from_secs(3600),
        }
    }
}

/// Counters of an engine, for metrics. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads that met their quorum.
    pub gets: u64,
    /// Writes that met their quorum.
    pub puts: u64,
    /// Deletes that met their quorum.
    pub deletes: u64,
    /// Requests that ended without their quorum.
    pub quorum_failures: u64,
    /// Requests refused for what they asked.
    pub refused: u64,
    /// Requests refused because a queue was full.
    pub overloaded: u64,
    /// Requests passed on to an owner.
    pub forwarded: u64,
    /// Records merged for other coordinators.
    pub replicated: u64,
    /// Records read for other coordinators.
    pub fetched: u64,
    /// Reads that found more than one value.
    pub siblings_returned: u64,
    /// Reads in which replicas differed.
    pub replicas_differed: u64,
    /// Reads that asked more owners because the first ones were slow.
    pub hedged: u64,
    /// Loads that failed.
    pub load_failures: u64,
    /// Stores that were refused.
    pub store_failures: u64,
    /// Hints that were stored here.
    pub hints_stored: u64,
    /// Hints that their owner has merged, durably.
    pub hints_delivered: u64,
    /// Hints that were not stored because there were too many; the partition was noted instead.
    pub hints_overflowed: u64,
    /// Writes that this node was to keep for an owner and refused, because it keeps as many hints as it takes, or none at all.
    pub hints_refused: u64,
    /// Acks of fallbacks among those that writes were answered with.
    pub fallback_acks: u64,
    /// Owners that were behind and were sent what a read had found.
    pub read_repairs: u64,
    /// Such repairs that were left to anti-entropy: there were too many, or the record was too large.
    pub read_repairs_skipped: u64,
    /// Exchanges that came to their end.
    pub exchanges: u64,
    /// Exchanges that found a difference.
    pub exchanges_differed: u64,
    /// Records that exchanges sent.
    pub exchange_sent: u64,
    /// Records that exchanges received and that changed something here.
    pub exchange_received: u64,
    /// Bytes of records and lists of keys that exchanges sent.
    pub exchange_bytes_sent: u64,
    /// Records that exchanges left out because they are too large to be sent.
    pub exchange_too_large: u64,
    /// Records that were dropped because their deletes are settled.
    pub reaped: u64,
    /// Actors that were dropped from contexts.
    pub trimmed: u64,
    /// Records that something stood against when they were to be settled.
    pub settle_refused: u64,
    /// Records that were found corrupt and set aside.
    pub corrupt_records: u64,
    /// Records that were read again from other owners after they were lost here.
    pub healed_records: u64,
    /// Leaves of Merkle trees that the scrub had to correct.
    pub leaves_corrected: u64,
    /// Connections to peers that stand over an older copy of their data directory; they were not let up.
    pub peers_refused: u64,
    /// Times that a peer was found slow and routed round.
    pub peers_slowed: u64,
}

/// Who gets the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A client of this node.
    Client(RequestHandle),
    /// Another node, which forwarded a request under this number.
    Peer(NodeIndex, u64),
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The request has to be answered now.
    Deadline,
    /// A read asks more owners, or a request that was forwarded goes to another.
    Hedge,
    /// A read that has not met its minimum asks again.
    Again,
}

/// One shard of a node. See the module's documentation for its contract.
pub struct Engine {
    config: EngineConfig,
    me: NodeIndex,
    peers: Peers,
    memory: Memory,
    rebuild: Rebuild,
    heals: Heals,
    scrub: Scrub,
    start_over: StartOver,
    vnodes: Vnodes,
    gate: Gate,
    slots: Slots,
    trees: Trees,
    dirty: Dirty,
    background: Background,
    settling: Settling,
    /// The time of day at the present input, in milliseconds since 1970.
    wall_ms: u64,
    hints: Hints,
    handoffs: Handoffs,
    pending: Pending,
    repairs: Repairs,
    exchange: Exchange,
    ops: Ops,
    timers: BTreeSet<(Instant, OpId, Timer)>,
    /// When each write that was sent becomes slow, in order.
    slow: VecDeque<(Instant, OpId)>,
    next_op: OpId,
    effects: VecDeque<Effect>,
    counters: Counters,
}

impl Engine {
    /// An engine with nothing under way and no peer connected. `config.me` must be a member of `config.ring`.
    pub fn new(config: EngineConfig) -> Engine {
        let me = config
            .ring
            .index_of(config.me)
            .expect("an engine's node is a member of its ring");
        let mut vnodes = Vnodes::new(config.me, config.seed);
        let next_op = OpId(vnodes.first_op());
        let rebuild = match config.boot.is_new {
            true => Rebuild::all(me, &config.ring, &config.buckets),
            false => Rebuild::default(),
        };
        let mut engine = Engine {
            me,
            peers: Peers::new(config.ring.members().len(), config.limits.slow_after),
            rebuild,
            heals: Heals::default(),
            scrub: Scrub::default(),
            start_over: StartOver::default(),
            memory: Memory::new(config.boot, config.seed, config.ring.members().len()),
            vnodes,
            gate: Gate::default(),
            slots: Slots::default(),
            trees: Trees::of_start(
                config.ring.partition_bits(),
                config.boot.generation,
                config.limits.leaf_log,
            ),
            dirty: Dirty::default(),
            background: Background::default(),
            settling: Settling::default(),
            wall_ms: config.wall_ms,
            hints: Hints::default(),
            handoffs: Handoffs::default(),
            pending: Pending::default(),
            repairs: Repairs::default(),
            exchange: Exchange::new(config.seed),
            ops: Ops::default(),
            timers: BTreeSet::new(),
            slow: VecDeque::new(),
            next_op,
            effects: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        engine.note_rebuilt();
        engine.begin_scrub();
        engine.begin_settling();
        engine
    }

    /// Tells the engine the time of day, in milliseconds since 1970: at the start it has it from its configuration, and after that it goes by
    /// `now`, which knows nothing of a clock that is put right, or of a machine that slept. To be told every second or so.
    pub fn set_wall_clock(&mut self, now: Instant, wall_ms: u64) {
        self.config.wall_ms = wall_ms.saturating_sub(now.0 / 1000);
    }

    /// Takes in one thing that happened at `now`.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.wall_ms = self.config.wall_ms.saturating_add(now.0 / 1000);
        self.peers.tick(now);
        self.memory.tick(now);
        match input {
            Input::Request {
                handle,
                operation,
                timeout,
            } => {
                self.start(now, Origin::Client(handle), operation, timeout);
            }
            Input::Message { from, message } => self.message(now, from, message),
            Input::PeerUp(node) => self.peer_connected(now, node),
            Input::PeerDown(node) => self.peer_disconnected(now, node),
            Input::Loaded { load, result } => {
                if let Some(place) = self.slots.end_load(load) {
                    self.loaded(now, place, result);
                }
            }
            Input::Scanned { scan, result } => self.scanned(now, scan, result),
            Input::Applied(upto) => self.applied(now, upto),
            Input::Durable(upto) => {
                self.gate.durable(upto);
                self.note_unmarked(now);
                while let Some(done) = self.slots.next_durable(upto) {
                    if let Some(Change::Hint(change)) = done.change() {
                        self.hints.removal_ends(change);
                    }
                    self.tell(now, done.waiters, Ok(Durability::Durable));
                }
            }
            Input::StoreFailed(ticket) => {
                self.trees.refused();
                self.store_failed(now, ticket);
            }
            Input::Damaged => self.store_is_damaged(now),
            Input::Tick => {}
        }
        self.fire(now);
        self.fire_slow(now);
        self.run_tasks(now);
        self.settle_go_on(now);
    }

    /// The next thing to do, if there is one.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        loop {
            let effect = self.effects.pop_front()?;
            if let Effect::Send { to, message } = &effect {
                if self.memory.is_silent() {
                    continue;
                }
                self.peers.sent(*to, message);
            }
            return Some(effect);
        }
    }

    /// When to hand in [`Input::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|&(at, _, _)| at);
        let slow = self.slow.front().map(|&(at, _)| at);
        timer.into_iter().chain(slow).chain(self.background.next()).min()
    }

    /// Takes in the rows of the Merkle trees' leaves. For the start of a node, before the first input.
    ///
    /// # Errors
    /// They do not tell what the leaves are: the shell has to drop them, and hand in all records instead.
    pub fn restore_leaves(&mut self, rows: impl IntoIterator<Item = LeafRow>) -> Result<(), LeavesLost> {
        let unreadable = self.trees.restore(rows)?;
        unreadable.into_iter().for_each(|leaf| self.restore_suspect(leaf));
        Ok(())
    }

    /// The newest stores that something waits to be durable. Others may be synced at leisure.
    pub fn sync_wanted(&self) -> SyncWanted {
        self.slots.wanted(self.config.limits.slots_max)
    }

    /// Hands out the rows of leaves that have changed since this was last asked: token, key and payload. They belong into the batch of the stores
    /// that came out since then; if that batch is refused, what they say is handed out again, corrected, with a later one.
    pub fn write_leaves(&mut self, put: impl FnMut(u64, &[u8], &[u8])) {
        self.trees.write(put);
    }

    /// The Merkle trees of what this node holds.
    pub fn trees(&self) -> &Trees {
        &self.trees
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        Counters {
            peers_slowed: self.peers.opened(),
            ..self.counters
        }
    }

    /// How another node is doing, as seen from here.
    pub fn peer_health(&self, node: NodeIndex) -> PeerHealth {
        self.peers.health(node)
    }

    /// Requests under way and keys held in memory, for metrics: `(operations, slots)`.
    pub fn in_flight(&self) -> (usize, usize) {
        (self.ops.len(), self.slots.len())
    }

    /// The configuration.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// A peer has read everything again: from now on it can be read from.
    fn source_comes(&mut self, now: Instant) {
        self.exchange_wanted(now);
    }

    /// A peer is connected, and both remember each other: from now on it is sent to, and counted.
    fn come_up(&mut self, now: Instant, node: NodeIndex) {
        self.peers.up(node);
        self.wake_handoff(now, node);
        self.exchange_peer_up(now, node);
        self.heal_more(now);
    }

    fn message(&mut self, now: Instant, from: NodeIndex, message: PeerMessage) {
        if let PeerMessage::Greeting(greeting) = message {
            return self.greeted(now, from, greeting);
        }
        if !self.memory.accepts(from) {
            return;
        }
        self.peers.heard(from);
        self.settle_overhear(&message);
        match message {
            PeerMessage::Replicate(m) => self.replicate(now, from, m),
            PeerMessage::Fetch(m) => self.fetch(now, from, m),
            PeerMessage::ReplicateReply(m) => {
                self.peers.answered(from, Kind::Write, m.id);
                self.replicate_answer(now, OpId(m.id), from, m.result);
            }
            PeerMessage::FetchReply(m) => {
                self.peers.answered(from, Kind::Read, m.id);
                match self.ops.get(&OpId(m.id)) {
                    Some(Op::Look(_)) => self.look_answer(now, OpId(m.id), from, m.result),
                    _ => self.get_answer(now, OpId(m.id), from, m.result),
                }
            }
            PeerMessage::Forward(m) => {
                self.start(
                    now,
                    Origin::Peer(from, m.id),
                    m.operation,
                    Duration::from_micros(m.timeout_us.into()),
                );
            }
            PeerMessage::ForwardReply(m) => {
                self.peers.heard_of(from);
                self.pending.answered(from, m.id);
                self.forward_answer(from, OpId(m.id), m.response);
            }
            PeerMessage::SettleAsk(m) => self.settle_asked(now, from, m),
            PeerMessage::SettleReply(m) => self.settle_answer(now, from, m),
            PeerMessage::Reap(m) => self.settle_proved(now, from, m),
            PeerMessage::StoreHint(m) => self.store_hint(now, from, m),
            PeerMessage::FetchHint(m) => self.fetch_hint(now, from, m),
            PeerMessage::Handoff(m) => self.handoff(now, from, m),
            PeerMessage::HandoffReply(m) => {
                self.exchange_delivered(now, from, &m);
                self.handoff_answer(now, from, &m);
            }
            PeerMessage::TreeAsk(m) => self.tree_ask(now, from, m),
            PeerMessage::TreeReply(m) => self.tree_reply(now, from, m),
            PeerMessage::Pull(m) => self.pull(now, from, m),
            PeerMessage::PullReply(m) => {
                if !self.heal_answer(now, from, &m) {
                    self.pull_reply(now, from, m);
                }
            }
            // It was taken in above.
            PeerMessage::Greeting(_) => {}
        }
    }

    /// A replica, which may be this node, has answered a [`Replicate`](crate::message::Replicate), or a fallback a
    /// [`StoreHint`](crate::message::StoreHint).
    fn replicate_answer(&mut self, now: Instant, id: OpId, from: NodeIndex, result: Result<Durability, Refusal>) {
        let state = result.map_or_else(refused, acked);
        match self.ops.get(&id) {
            Some(Op::Put(_) | Op::Tail(_)) => self.put_answer(now, id, from, state),
            Some(Op::Get(_)) => self.write_back_answer(now, id, from, state),
            Some(Op::Forward(_) | Op::Look(_)) => {}
            None => self.pending.answered(from, id.0),
        }
    }

    /// Begins a request: here if this node owns the key, else at an owner.
    fn start(&mut self, now: Instant, origin: Origin, operation: Operation, timeout: Duration) {
        if let Some(reason) = self.silent() {
            let failure = rules::is_silent(reason);
            return self.refuse(origin, failure);
        }
        let limits = &self.config.limits;
        let is_full = self.ops.len() >= limits.operations_max
            || self.ops.bytes() >= limits.operation_bytes_max
            || self.slots.are_full(limits.slots_max);
        if is_full {
            self.counters.overloaded += 1;
            let detail = "this node has as many requests under way as it takes; try again, or ask another node";
            return self.reply(origin, Err(Failure::not_applied(Code::Overloaded, detail)));
        }
        let timeout = timeout.min(limits.timeout_max);
        // The reply leaves a little before the client stops waiting.
        let deadline = now + (timeout - (timeout / 8).min(Duration::from_millis(20)));
        let owns = self.owners(operation.key()).contains(&self.me);
        let leaves_it = operation.is_write() && self.leaves_writes(now);
        let is_ours = matches!(origin, Origin::Client(_));
        let passes_on = is_ours && operation.is_write() && self.leaves_to_sources(operation.key());
        match origin {
            _ if owns && !leaves_it && !passes_on => self.start_here(now, origin, operation, deadline, None),
            Origin::Client(handle) => match self.home_of(&operation).filter(|_| !leaves_it) {
                Some(home) => self.start_here(now, origin, operation, deadline, Some(home)),
                None => self.start_forward(now, handle, operation, deadline),
            },
            Origin::Peer(..) if owns => {
                let detail = self.why_writes_are_left(now);
                self.refuse(origin, Failure::not_applied(Code::Unavailable, detail));
            }
            Origin::Peer(..) => {
                let detail = "the request was forwarded to a node that does not own the key; the nodes' rings differ";
                self.refuse(origin, Failure::not_applied(Code::NotOwner, detail));
            }
        }
    }

    /// Coordinates a request here: as an owner of the key, or as a fallback for the owner `home`.
    fn start_here(
        &mut self,
        now: Instant,
        origin: Origin,
        operation: Operation,
        deadline: Instant,
        home: Option<NodeIndex>,
    ) {
        match operation {
            Operation::Get { .. } => self.start_get(now, origin, operation, deadline, home),
            _ => self.start_put(now, origin, operation, deadline, home),
        }
    }

    /// For which owner this node, which owns the key not, coordinates a request: none unless no owner is connected, fallbacks count, and this node
    /// is one.
    fn home_of(&self, operation: &Operation) -> Option<NodeIndex> {
        let key = operation.key();
        let kind = operation
            .quorum()
            .unwrap_or(self.config.buckets.of(key.bucket()).quorum);
        let owners = self.owners(key);
        let may = kind == QuorumKind::Sloppy
            && self.config.limits.hints
            && !owners.iter().any(|&owner| owner == self.me || self.peers.is_up(owner))
            && self.fallbacks(key).contains(&self.me);
        owners.first().copied().filter(|_| may)
    }

    /// The row in which this node keeps the key: its own record, or what it keeps for the owner `home`.
    fn place_of(&self, key: &Key, home: Option<NodeIndex>) -> Place {
        match home {
            Some(home) => Place::Hint(self.config.ring.member(home).id, key.clone()),
            None => Place::Record(key.clone()),
        }
    }

    /// All members but this node.
    fn others(&self) -> impl Iterator<Item = NodeIndex> + use<> {
        let (members, me) = (self.config.ring.members().len() as u16, self.me);
        (0..members).map(NodeIndex).filter(move |&node| node != me)
    }

    /// The nodes that keep the key.
    fn owners(&self, key: &Key) -> &[NodeIndex] {
        let ring = &self.config.ring;
        ring.owners(ring.partition_of(key.token()), self.config.buckets.of(key.bucket()).n)
    }

    /// The nodes that stand in for owners of the key, in order.
    fn fallbacks(&self, key: &Key) -> &[NodeIndex] {
        let ring = &self.config.ring;
        let list = ring.preference_list(ring.partition_of(key.token()));
        &list[usize::from(self.config.buckets.of(key.bucket()).n).min(list.len())..]
    }

    /// The connection to a node is gone: it owes nothing any more.
    fn lose(&mut self, now: Instant, node: NodeIndex) {
        self.pending.lost(node);
        self.handoffs.lost(node);
        let waiting: Vec<OpId> = self
            .ops
            .iter()
            .filter(|(_, op)| op.waits_for(node))
            .map(|(&id, _)| id)
            .collect();
        for id in waiting {
            match self.ops.get(&id) {
                Some(Op::Put(_) | Op::Tail(_)) => self.put_answer(now, id, node, ReplicaState::Lost),
                Some(Op::Get(_)) => self.get_lost(now, id, node),
                Some(Op::Forward(_)) => self.forward_lost(now, id, node),
                Some(Op::Look(_)) => self.look_answer(now, id, node, Err(Refusal::ReadFailed)),
                None => {}
            }
        }
    }

    /// Ends all operations as if their time were up.
    fn end_operations(&mut self, now: Instant) {
        let ids: Vec<OpId> = self.ops.iter().map(|(&id, _)| id).collect();
        ids.into_iter().for_each(|id| self.deadline(now, id));
    }

    fn deadline(&mut self, now: Instant, id: OpId) {
        match self.ops.get(&id) {
            Some(Op::Put(_)) => self.put_deadline(now, id),
            Some(Op::Get(_)) => self.get_deadline(now, id),
            Some(Op::Forward(_)) => self.forward_deadline(id),
            Some(Op::Tail(_)) => self.end_tail(now, id),
            Some(Op::Look(_)) => drop(self.ops.remove(&id)),
            None => {}
        }
    }

    /// Runs the timers that are due.
    fn fire(&mut self, now: Instant) {
        while let Some(&(at, id, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Deadline => self.deadline(now, id),
                Timer::Hedge => match self.ops.get(&id) {
                    Some(Op::Forward(_)) => self.forward_hedge(now, id),
                    _ => self.get_hedge(now, id),
                },
                Timer::Again => self.get_again(now, id),
            }
        }
    }

    fn new_op(&mut self) -> OpId {
        let id = self.next_op;
        self.next_op = OpId(id.0.wrapping_add(1));
        id
    }

    fn send(&mut self, to: NodeIndex, message: PeerMessage) {
        self.effects.push_back(Effect::Send { to, message });
    }

    fn reply(&mut self, origin: Origin, response: Response) {
        match origin {
            Origin::Client(handle) => self.effects.push_back(Effect::Reply { handle, response }),
            Origin::Peer(to, id) => self.send(to, PeerMessage::ForwardReply(ForwardReply { id, response })),
        }
    }

    /// Replies that nothing was done, because of what was asked or because too few owners are up.
    fn refuse(&mut self, origin: Origin, failure: Failure) {
        debug_assert_eq!(failure.outcome, Outcome::NotApplied);
        match failure.code {
            Code::Unavailable => self.counters.quorum_failures += 1,
            _ => self.counters.refused += 1,
        }
        self.reply(origin, Err(failure));
    }
}

/// A replica's ack, as its line in the tally.
fn acked(durability: Durability) -> ReplicaState {
    match durability {
        Durability::Durable => ReplicaState::Acked,
        Durability::Relaxed => ReplicaState::Accepted,
    }
}

/// A replica's refusal, as its line in the tally.
fn refused(refusal: Refusal) -> ReplicaState {
    match refusal {
        Refusal::ReadFailed | Refusal::Malformed => ReplicaState::ReadFailed,
        Refusal::WriteFailed => ReplicaState::WriteFailed,
        Refusal::Overloaded => ReplicaState::Overloaded,
        Refusal::NotOwner => ReplicaState::NotOwner,
        Refusal::Rebuilding => ReplicaState::Rebuilding,
        Refusal::HintsFull => ReplicaState::HintsFull,
    }
}
