//! What the real node's shell does around an engine, here around a simulated one.
//!
//! The shell's rules are kept to the letter. An input is handed in, then effects are taken until there are none, and carried out in order. All
//! stores among them are one batch, with the leaves of Merkle trees that they change; it is applied before anything is read, or refused as a whole and
//! reported before the next input. Loads and scans are answered at once or later and in any order. A sync takes in all batches that were applied
//! before it began; it begins when somebody waits for one of them, or after the flush interval. What a node sends is encoded, and decoded
//! where it arrives, so that the wire is in the loop.

use super::disk::{LoadResult, ScanResult};
use super::event::{Event, NodeNo};
use super::node::WALL_MS;
use super::rows::{Change, Row};
use super::{World, micros};
use crate::probes::Probe;
use crate::violation::{Promise, Violation};
use bytes::{Bytes, BytesMut};
use quorate_core::engine::{Effect, Engine, Input, LoadId, Scan, ScanId, StoreTicket};
use quorate_core::message::{Message, PEER_FRAME_BYTES_MAX, PeerMessage};
use quorate_core::place::Place;
use quorate_core::time::Instant;

/// How long healing waits for a sync that it shares with a client's write.
const SHARE_MS: u64 = 4;

/// What one input caused, until it is all carried out.
#[derive(Default)]
struct Burst {
    /// Stores of the batch that is being made up.
    tickets: Vec<StoreTicket>,
    changes: Vec<(StoreTicket, Change)>,
    mints: bool,
    /// Reads to be served when the batch is applied.
    reads: Vec<Read>,
    /// A hint may be loaded to be removed. Otherwise an owner loads one only when it is to be kept.
    removes: bool,
    /// The directory is not to be used any more, and why.
    rebuild: Option<String>,
    /// Effects, but for those that answer other nodes.
    effects: usize,
}

/// Something to be read.
#[derive(Clone, Debug)]
pub(super) enum Read {
    Load(LoadId, Place),
    Scan(ScanId, Scan),
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Load(LoadResult),
    Scan(ScanResult),
}

impl World {
    /// Hands an input in and carries out what follows.
    pub(super) fn feed(&mut self, at: NodeNo, input: Input) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let Some(engine) = &mut node.engine else { return };
        if node.paused {
            node.inbox.push_back(input);
            return;
        }
        if let Some(log) = &mut self.log {
            log.push(format!("{now:>10} node {at} <- {}", super::log::input(&input)));
        }
        let before = engine.in_flight();
        let removes = matches!(
            &input,
            Input::Message {
                message: PeerMessage::HandoffReply(_),
                ..
            }
        );
        engine.handle(Instant(now + node.origin), input);
        self.drain(at, before, removes);
    }

    /// Takes effects until there are none, the stores among them as one batch. A refused batch is reported as soon as the burst is over.
    fn drain(&mut self, at: NodeNo, before: (usize, usize), removes: bool) {
        let mut burst = Burst {
            removes,
            ..Burst::default()
        };
        loop {
            while let Some(effect) = self.nodes[at].engine.as_mut().and_then(Engine::poll_effect) {
                burst.effects += usize::from(!is_answer(&effect));
                self.carry_out(at, effect, &mut burst);
                if self.crash_is_due(at, &mut burst) {
                    return;
                }
            }
            if burst.tickets.is_empty() {
                break;
            }
            self.commit(at, &mut burst);
        }
        if let Some(reason) = burst.rebuild {
            return self.set_aside(at, &reason);
        }
        for read in std::mem::take(&mut burst.reads) {
            self.begin_read(at, read);
        }
        self.check_bounds(at, before, burst.effects);
        self.count_probes(at);
        self.begin_sync(at);
        self.arm(at);
    }

    fn carry_out(&mut self, at: NodeNo, effect: Effect, burst: &mut Burst) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>10} node {at} -> {}", self.now, super::log::effect(&effect)));
        }
        match effect {
            Effect::Send { to, message } => {
                let bytes = self.encode(Message::Peer(message));
                self.send(at, to.get(), bytes);
            }
            Effect::Reply { handle, response } => {
                self.nodes[at].puts.remove(&handle.0);
                self.reply(at, handle.0, response);
            }
            Effect::Load { load, place } => {
                if let Some(Row::Hint(target, key)) = Row::at(&place, &self.keys).filter(|_| !burst.removes) {
                    self.truth.refer(at, target, key);
                }
                burst.reads.push(Read::Load(load, place));
            }
            Effect::Scan { scan, what } => burst.reads.push(Read::Scan(scan, what)),
            Effect::SetAside { place } => {
                self.probes.hit(Probe::SetAside);
                self.nodes[at].disk.stage_aside(&place);
            }
            Effect::Rebuild { reason } => burst.rebuild = Some(reason),
            Effect::Store { ticket, place, payload } => self.stage(at, ticket, &place, payload.as_ref(), burst),
        }
    }

    /// The process ends, its data is set aside, and it starts again with nothing.
    fn set_aside(&mut self, at: NodeNo, reason: &str) {
        self.note(|| format!("node {at} sets its data aside: {reason}"));
        let node = &self.nodes[at];
        let (is_damaged, is_rolled_back) = (node.is_damaged, node.is_rolled_back);
        self.probes.hit(match is_damaged {
            true => Probe::StartedOver,
            false => Probe::RollbackRecognised,
        });
        if is_damaged && self.truth.holds_last_copy(&self.history, self.now, at, None) {
            self.violated(Promise::P1, || {
                format!("node {at} starts over, and no other node holds all that it has: {reason}")
            });
        }
        if !is_damaged && !is_rolled_back {
            self.violated(Promise::P1, || {
                format!("node {at} takes its disk for an older copy, and it is none: {reason}")
            });
        }
        self.crash(at, 1000);
        self.empty(at);
        // In a cluster that has never been whole a person has to accept that (docs/failures.md), and does.
        let is_born = (0..self.nodes.len()).all(|other| other == at || self.nodes[other].disk.is_whole());
        self.nodes[at].is_replaced = is_born;
        self.start_later(at, micros(20));
    }

    /// Puts a store into the batch.
    fn stage(&mut self, at: NodeNo, ticket: StoreTicket, place: &Place, payload: Option<&Bytes>, burst: &mut Burst) {
        self.trace.add(payload.map_or(&[], |payload| &payload[..]));
        self.nodes[at].disk.stage(place, payload);
        burst.tickets.push(ticket);
        if let Some(row) = Row::at(place, &self.keys) {
            let wall_ms = WALL_MS as u64 + (self.now + self.plan.options.skew_us()) / 1000;
            if let Some((change, mints)) = self.truth.see((&self.history, wall_ms), at, row, payload) {
                let is_hint = matches!(row, Row::Hint(..)) && payload.is_some();
                self.probes.hit_if(is_hint, Probe::HintStored);
                self.probes.hit_if(is_hint && mints, Probe::FallbackCoordinated);
                burst.changes.push((ticket, change));
                burst.mints |= mints;
            }
        } else if place.key().is_some_and(|key| !self.keys.contains_key(key)) {
            self.violated(Promise::P3, || {
                format!("node {at} stores {place:?}, and nobody wrote that key")
            });
        }
        self.take_truths();
    }

    /// Applies the batch, with the leaves that it changes. If it is refused, all its stores are.
    fn commit(&mut self, at: NodeNo, burst: &mut Burst) {
        let node = &mut self.nodes[at];
        if let Some(engine) = &mut node.engine {
            engine.write_leaves(|token, key, payload| node.disk.stage_leaf(token, key, payload));
        }
        let tickets = std::mem::take(&mut burst.tickets);
        let newest = *tickets.last().expect("a batch has stores");
        let refuse = self.disk.chance(self.disk_rates.refused_pm);
        let mut changes = std::mem::take(&mut burst.changes);
        // A hint may refer to a record of the same batch.
        changes.sort_by_key(|(_, change)| matches!(change.row, Row::Hint(..)));
        if node.disk.commit(newest, refuse) {
            for (ticket, change) in changes {
                if let Row::Record(key) = change.row
                    && change.is_whole
                {
                    node.rotten.remove(&key);
                }
                self.truth.stored(self.now, at, ticket, change);
            }
            self.take_truths();
            let relaxes = self.relaxes();
            let node = &mut self.nodes[at];
            if let Some(engine) = node.engine.as_mut().filter(|_| relaxes) {
                engine.handle(Instant(self.now + node.origin), Input::Applied(newest));
            }
        } else {
            self.probes.hit_if(burst.mints, Probe::StoreFailedAfterMint);
            self.note(|| format!("node {at} cannot store {tickets:?}"));
            let node = &mut self.nodes[at];
            let Some(engine) = &mut node.engine else { return };
            // What was refused is loaded again.
            burst.removes = true;
            for ticket in tickets {
                engine.handle(Instant(self.now + node.origin), Input::StoreFailed(ticket));
            }
        }
        burst.mints = false;
    }

    fn take_truths(&mut self) {
        for Violation { promise, detail } in std::mem::take(&mut self.truth.violations) {
            self.violated(promise, || detail);
        }
    }

    /// Serves a read at once, or late; a late one may see the disk as it was when it was asked for.
    fn begin_read(&mut self, at: NodeNo, mut read: Read) {
        match &mut read {
            Read::Load(_, place) => self.trace.add(&place.row().key),
            // A page may be shorter than it was asked to be.
            Read::Scan(_, what) if self.disk.chance(self.disk_rates.slow_read_pm) => {
                what.rows_max = what.rows_max.min(self.disk.range(1, 4) as usize);
            }
            Read::Scan(..) => {}
        }
        let rates = &self.disk_rates;
        let slow = self.disk.chance(rates.slow_read_pm);
        let delay = if slow { self.disk.below(rates.read_us.into()) } else { 0 };
        let early = (slow && self.disk.chance(500)).then(|| self.nodes[at].disk.read(&read, false));
        let life = self.nodes[at].life();
        let event = Event::Read {
            node: at,
            life,
            read: Box::new((read, early)),
        };
        self.queue.push(self.now + delay, event);
    }

    pub(super) fn read(&mut self, at: NodeNo, read: Read, early: Option<Found>) {
        let fail = self.disk.chance(self.disk_rates.read_error_pm);
        let late = self.nodes[at].disk.read(&read, fail);
        self.probes
            .hit_if(early.as_ref().is_some_and(|early| *early != late), Probe::SlowLoad);
        let found = match early {
            Some(early) if !fail => early,
            _ => late,
        };
        let input = match (read, found) {
            (Read::Load(load, _), Found::Load(result)) => {
                self.probes.hit_if(result.is_err(), Probe::ReadFailed);
                Input::Loaded { load, result }
            }
            (Read::Scan(scan, _), Found::Scan(result)) => {
                self.probes.hit_if(result.is_err(), Probe::ScanFailed);
                Input::Scanned { scan, result }
            }
            _ => unreachable!("a load finds a row and a scan finds rows"),
        };
        self.feed(at, input);
    }

    /// Begins a sync if a client waits for one. What healing waits for is synced with it or a little later, the rest after the flush interval.
    fn begin_sync(&mut self, at: NodeNo) {
        let node = &mut self.nodes[at];
        let wanted = node.engine.as_ref().map(Engine::sync_wanted).unwrap_or_default();
        let flush_ms = u64::from(self.plan.options.disk.flush_ms);
        if flush_ms == 0 || node.disk.lacks(wanted.now) {
            return self.sync_now(at);
        }
        let wait_ms = match node.disk.lacks(wanted.soon) {
            true => SHARE_MS.min(flush_ms),
            false => flush_ms,
        };
        let flush_at = self.now + micros(wait_ms);
        if node.disk.is_dirty() && node.flush_at.is_none_or(|at| flush_at < at) {
            node.flush_at = Some(flush_at);
            let life = node.life();
            self.queue.push(flush_at, Event::Flush { node: at, life });
        }
    }

    /// The flush interval has passed, unless a sync came before.
    pub(super) fn flush(&mut self, at: NodeNo) {
        let flush_at = &mut self.nodes[at].flush_at;
        if *flush_at == Some(self.now) {
            *flush_at = None;
            self.probes.hit(Probe::LazySync);
            self.sync_now(at);
        }
    }

    fn sync_now(&mut self, at: NodeNo) {
        let node = &mut self.nodes[at];
        let batches = node.disk.begin_sync();
        if batches > 0 {
            node.flush_at = None;
            self.probes.hit_if(batches > 1, Probe::SharedSync);
            let rates = &self.disk_rates;
            let factor = if self.disk.chance(rates.slow_sync_pm) { 20 } else { 1 };
            let delay = factor * self.disk.range(50, rates.sync_us.into());
            self.queue.push(
                self.now + delay,
                Event::Synced {
                    node: at,
                    life: node.life(),
                },
            );
        }
    }

    pub(super) fn synced(&mut self, at: NodeNo) {
        if self.nodes[at].disk.sync_fails {
            // The process stops at once; what of it is on disk is anybody's guess.
            self.probes.hit(Probe::SyncFailed);
            let survive_pm = self.disk.range(0, 1000) as u16;
            self.crash(at, survive_pm);
            return self.start_later(at, micros(50));
        }
        if let Some(ticket) = self.nodes[at].disk.finish_sync() {
            self.truth.synced(at, ticket);
            self.feed(at, Input::Durable(ticket));
            self.begin_sync(at);
        }
    }

    /// Sees to it that the engine's next timer is in the queue.
    fn arm(&mut self, at: NodeNo) {
        let node = &mut self.nodes[at];
        let Some(due) = node.engine.as_ref().and_then(Engine::poll_timeout) else {
            return;
        };
        let due = due.0.saturating_sub(node.origin).max(self.now);
        if node.tick_at.is_none_or(|at| due < at || at < self.now) {
            node.tick_at = Some(due);
            self.queue.push(
                due,
                Event::Tick {
                    node: at,
                    life: node.life(),
                },
            );
        }
    }

    /// A crash between two effects. The batch of the burst is lost as a whole, or kept as a whole.
    fn crash_is_due(&mut self, at: NodeNo, burst: &mut Burst) -> bool {
        let node = &mut self.nodes[at];
        let Some((left, down_ms)) = node.crash_after else {
            return false;
        };
        if left > 1 {
            node.crash_after = Some((left - 1, down_ms));
            return false;
        }
        self.probes.hit(Probe::CrashedBetweenEffects);
        let keeps = self.disk.chance(300);
        if keeps {
            self.keep_batch(at, burst);
        }
        // In which case a process that is killed leaves what it had stored before, though it is not synced. Only relaxed durability could tell.
        let is_killed = keeps || (self.relaxes() && self.disk.chance(500));
        self.crash(at, if is_killed { 1000 } else { 0 });
        self.start_later(at, micros(down_ms.into()));
        true
    }

    /// Whether any bucket is of relaxed durability.
    fn relaxes(&self) -> bool {
        (0..self.key_names.len()).any(|key| self.plan.options.is_relaxed(key))
    }

    /// Applies what is left of a burst's batch, and nothing else of the burst.
    fn keep_batch(&mut self, at: NodeNo, burst: &mut Burst) {
        while let Some(effect) = self.nodes[at].engine.as_mut().and_then(Engine::poll_effect) {
            if let Effect::Store { ticket, place, payload } = effect {
                self.stage(at, ticket, &place, payload.as_ref(), burst);
            }
        }
        if !burst.tickets.is_empty() {
            self.commit(at, burst);
        }
    }

    pub(super) fn start_later(&mut self, at: NodeNo, after_us: u64) {
        let life = self.nodes[at].life();
        self.queue.push(self.now + after_us, Event::Start { node: at, life });
    }

    /// A frame's bytes; they also go into the trace.
    pub(super) fn encode(&mut self, message: Message) -> Bytes {
        self.frame.clear();
        message.encode(&mut self.frame);
        self.trace.add(&self.frame);
        self.frame.split().freeze()
    }

    pub(super) fn decode_peer(&mut self, bytes: Bytes) -> Option<PeerMessage> {
        match self.decode(bytes) {
            Some(Message::Peer(message)) => Some(message),
            _ => None,
        }
    }

    pub(super) fn decode(&mut self, bytes: Bytes) -> Option<Message> {
        let mut buffer = BytesMut::from(bytes);
        match Message::decode(&mut buffer, PEER_FRAME_BYTES_MAX) {
            Ok(Some(message)) if buffer.is_empty() => Some(message),
            other => {
                self.violated(Promise::P3, || {
                    format!("a frame does not decode to what was encoded: {other:?}")
                });
                None
            }
        }
    }
}

/// Whether this is what another node waits for. One sync may set any number of them free.
fn is_answer(effect: &Effect) -> bool {
    use PeerMessage::*;
    matches!(
        effect,
        Effect::Send {
            message: ReplicateReply(_)
                | FetchReply(_)
                | ForwardReply(_)
                | HandoffReply(_)
                | TreeReply(_)
                | PullReply(_)
                | SettleReply(_),
            ..
        }
    )
}
