//! Whom a read asks.
//!
//! First as many owners as it needs, those that answer quickly before those that do not. When they keep it waiting for longer than they usually
//! do, the other owners too. In a sloppy quorum the next connected nodes of the preference list stand in for owners that are down, that refuse, or that
//! are slow with nobody left to ask instead: such a fallback answers with what it keeps as a hint for that owner, mostly nothing. That
//! counts towards R, as the client asked for an answer now rather than for the newest one, and never towards the owners that it may ask
//! for (`pr`).
//!
//! A slow node whose time for a probe has come is asked beside those that are needed. Nobody waits for it, and if it is quick it counts.

use crate::engine::{Effect, Engine, Op, OpId, Timer};
use crate::key::Key;
use crate::message::{Fetch, FetchHint, PeerMessage};
use crate::request::ReplicaState;
use crate::time::Instant;
use quorate_ring::NodeIndex;
use std::time::Duration;

/// How many a read asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// As many as are missing.
    Needed,
    /// All owners, and fallbacks for those that are away.
    All,
    /// The same, and fallbacks for those that have not answered.
    AllButLate,
}

impl Engine {
    /// Asks those who are needed, or more.
    pub(super) fn get_ask(&mut self, now: Instant, id: OpId, whom: Whom) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let missing = match whom {
            Whom::Needed => usize::from(op.tally.need()).saturating_sub(op.tally.promised()),
            Whom::All | Whom::AllButLate => usize::MAX,
        };
        if missing == 0 {
            return;
        }
        let mut ranked = self.peers.rank(op.tally.unasked());
        // They have nothing to say until they have read everything again.
        ranked.sort_by_key(|&node| self.memory.says_rebuilding(node));
        let probe = self.peers.to_probe(ranked.iter().skip(missing).copied());
        let has_enough = ranked.len() >= missing;
        let mut quick = 0;
        for to in ranked.into_iter().take(missing).chain(probe) {
            quick += usize::from(!self.peers.is_slow(to));
            op.tally.ask(to);
            let message = PeerMessage::Fetch(Fetch {
                id: id.0,
                key: op.key.clone(),
                have: op.told,
            });
            self.effects.push_back(Effect::Send { to, message });
        }
        if !has_enough {
            // Nobody else is connected: those who are left give no answer.
            let down: Vec<NodeIndex> = op.tally.unasked().collect();
            for node in down {
                op.tally.settle(now, node, ReplicaState::Down);
            }
        }
        if quick < missing {
            self.ask_fallbacks_for_read(id, whom, missing - quick);
        }
    }

    /// Lets up to `count` fallbacks stand in for owners that are away.
    fn ask_fallbacks_for_read(&mut self, id: OpId, whom: Whom, count: usize) {
        let Some(Op::Get(op)) = self.ops.get(&id) else { return };
        if !op.tally.quorum().takes_fallbacks() || !self.config.limits.hints {
            return;
        }
        let mut away: Vec<NodeIndex> = op.tally.unattended(whom == Whom::AllButLate).collect();
        let slow = op.tally.unattended(true).filter(|&node| self.peers.is_slow(node));
        away.extend(slow.filter(|node| {
            !op.tally
                .unattended(whom == Whom::AllButLate)
                .any(|other| other == *node)
        }));
        let can_ask = |node: &&NodeIndex| {
            **node != self.me && self.peers.is_up(**node) && !self.peers.is_slow(**node) && !op.tally.has(**node)
        };
        let fallbacks = self.fallbacks(&op.key).iter().filter(can_ask).copied();
        let pairs: Vec<(NodeIndex, NodeIndex)> = away.into_iter().zip(fallbacks).take(count).collect();
        for (owner, fallback) in pairs {
            let target = self.config.ring.member(owner).id;
            let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
                return;
            };
            op.tally.stand_in(fallback, owner);
            let message = PeerMessage::FetchHint(FetchHint {
                id: id.0,
                target,
                key: op.key.clone(),
                have: op.told,
            });
            self.send(fallback, message);
        }
    }

    /// Those who were asked first are slow: asks the others. In a sloppy quorum, later, those who stand in for them.
    pub(in crate::engine) fn get_hedge(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        op.timer = None;
        if op.write_back.is_some() {
            return self.write_back_hedge(now, id);
        }
        if std::mem::replace(&mut op.hedged, true) {
            self.get_ask(now, id, Whom::AllButLate);
        } else {
            op.tally.owing().for_each(|node| self.peers.is_late(node));
            self.counters.hedged += 1;
            self.get_ask(now, id, Whom::All);
            self.hedge_once_more(now, id);
        }
        self.get_decide(now, id);
    }

    fn hedge_once_more(&mut self, now: Instant, id: OpId) {
        let limits = &self.config.limits;
        let at = now + limits.slow_after.saturating_sub(limits.hedge_after);
        if let Some(Op::Get(mut op)) = self.ops.remove(&id) {
            if op.tally.quorum().takes_fallbacks() {
                self.set_timer(id, &mut op, at, Timer::Hedge);
            }
            self.ops.insert(id, Op::Get(op));
        }
    }

    /// How long a read of the key waits for those it asks first.
    pub(super) fn patience(&self, key: &Key) -> Duration {
        self.peers.patience(self.owners(key), self.config.limits.hedge_after)
    }
}
