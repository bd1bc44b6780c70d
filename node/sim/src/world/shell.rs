//! What the real node's shell does around an engine, here around a simulated one.
//!
//! The shell's rules are kept to the letter. An input is handed in, then effects are taken until there are none, and carried out in order: a
//! store is applied before anything later is read, loads are answered at once or later and in any order, a refused store is
//! reported before the next input, a sync takes in all stores that were applied before it began. What a node sends is encoded, and decoded
//! where it arrives, so that the wire is in the loop.

use super::disk::LoadResult;
use super::event::{Event, NodeNo};
use super::{World, micros};
use crate::probes::Probe;
use crate::violation::{Promise, Violation};
use bytes::{Bytes, BytesMut};
use quorate_core::engine::{Effect, Engine, Input, LoadId, StoreTicket};
use quorate_core::key::Key;
use quorate_core::message::{Message, PEER_FRAME_BYTES_MAX, PeerMessage};
use quorate_core::place::{Place, Shelf};
use quorate_core::time::Instant;
use std::collections::VecDeque;

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
        engine.handle(Instant(now + node.origin), input);
        self.drain(at, before);
    }

    /// Takes effects until there are none. Refused stores are reported as soon as the burst is over.
    fn drain(&mut self, at: NodeNo, before: (usize, usize)) {
        let mut refused: VecDeque<StoreTicket> = VecDeque::new();
        let mut count = 0;
        loop {
            while let Some(effect) = self.nodes[at].engine.as_mut().and_then(Engine::poll_effect) {
                count += usize::from(!is_answer(&effect));
                self.carry_out(at, effect, &mut refused);
                if self.crash_is_due(at) {
                    return;
                }
            }
            let Some(ticket) = refused.pop_front() else { break };
            let node = &mut self.nodes[at];
            let Some(engine) = &mut node.engine else { return };
            engine.handle(Instant(self.now + node.origin), Input::StoreFailed(ticket));
        }
        self.check_bounds(at, before, count);
        self.count_probes(at);
        self.begin_sync(at);
        self.arm(at);
    }

    fn carry_out(&mut self, at: NodeNo, effect: Effect, refused: &mut VecDeque<StoreTicket>) {
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
                let Place::Record(key) = place else { return };
                self.trace.add(key.encoded());
                let rates = &self.disk_rates;
                let slow = self.disk.chance(rates.slow_read_pm);
                let delay = if slow { self.disk.below(rates.read_us.into()) } else { 0 };
                let early = (slow && self.disk.chance(500)).then(|| self.nodes[at].disk.load(&key, false));
                let life = self.nodes[at].life();
                self.queue.push(
                    self.now + delay,
                    Event::Load {
                        node: at,
                        life,
                        load,
                        key,
                        early,
                    },
                );
            }
            Effect::Scan { .. } => {}
            Effect::Rebuild { .. } => {
                let life = self.nodes[at].life();
                self.queue.push(self.now, Event::SetAside { node: at, life });
            }
            Effect::Store { ticket, place, payload } if place.row().shelf == Shelf::Note => {
                let refuse = self.disk.chance(self.disk_rates.refused_pm);
                if !self.nodes[at].disk.store_note(ticket, &place, payload.as_ref(), refuse) {
                    refused.push_back(ticket);
                }
            }
            Effect::Store { ticket, place, payload } => {
                let (Place::Record(key), Some(payload)) = (place, payload) else {
                    return;
                };
                self.trace.add(&payload);
                let Some(&number) = self.keys.get(&key) else {
                    return self.violated(Promise::P3, || {
                        format!("node {at} stores the key {key}, which nobody wrote")
                    });
                };
                self.carry_out_store(at, ticket, (number, &key), &payload, refused);
            }
        }
    }

    fn carry_out_store(
        &mut self,
        at: NodeNo,
        ticket: StoreTicket,
        (number, key): (usize, &Key),
        payload: &Bytes,
        refused: &mut VecDeque<StoreTicket>,
    ) {
        let refuse = self.disk.chance(self.disk_rates.refused_pm);
        let mints = self.truth.see(&self.history, at, number, payload);
        if self.nodes[at].disk.store(ticket, key, payload, refuse) {
            self.truth.stored(at, number, ticket);
        } else {
            self.probes.hit_if(mints, Probe::StoreFailedAfterMint);
            refused.push_back(ticket);
        }
        for Violation { promise, detail } in std::mem::take(&mut self.truth.violations) {
            self.violated(promise, || detail);
        }
    }

    pub(super) fn load(&mut self, at: NodeNo, load: LoadId, key: &Key, early: Option<LoadResult>) {
        let fail = self.disk.chance(self.disk_rates.read_error_pm);
        let late = self.nodes[at].disk.load(key, fail);
        self.probes
            .hit_if(early.as_ref().is_some_and(|early| *early != late), Probe::SlowLoad);
        let result = match early {
            Some(early) if !fail => early,
            _ => late,
        };
        self.probes.hit_if(result.is_err(), Probe::ReadFailed);
        self.feed(at, Input::Loaded { load, result });
    }

    fn begin_sync(&mut self, at: NodeNo) {
        let node = &mut self.nodes[at];
        let batches = node.disk.begin_sync();
        if batches > 0 {
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

    /// A crash between two effects. Nothing of what was not synced survives it.
    fn crash_is_due(&mut self, at: NodeNo) -> bool {
        let node = &mut self.nodes[at];
        let Some((left, down_ms)) = node.crash_after else {
            return false;
        };
        if left > 1 {
            node.crash_after = Some((left - 1, down_ms));
            return false;
        }
        self.probes.hit(Probe::CrashedBetweenEffects);
        self.crash(at, 0);
        self.start_later(at, micros(down_ms.into()));
        true
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
    use PeerMessage::{FetchReply, ForwardReply, ReplicateReply};
    matches!(
        effect,
        Effect::Send {
            message: ReplicateReply(_) | FetchReply(_) | ForwardReply(_),
            ..
        }
    )
}
