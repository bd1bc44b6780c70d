//! Pinging a member for another one that gets no answer from it.
//!
//! What is asked is remembered for a moment, so that the answer finds its way back. Rejected: answering "it does not answer me" as Lifeguard
//! does. Who asks knows by its own patience.

use super::{Gossip, Saying};
use crate::time::Instant;
use quorate_ring::NodeId;
use std::collections::VecDeque;
use std::time::Duration;

/// Pings for others that are remembered, and for how long. Beyond that others are not helped.
const RELAYS_MAX: usize = 1024;
const RELAY_AGE_MAX: Duration = Duration::from_secs(2);

/// Pings that were sent for others, oldest first.
#[derive(Debug, Default)]
pub(super) struct Relays(VecDeque<Relay>);

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Relay {
    at: Instant,
    /// Number of the ping that was sent.
    number: u64,
    target: NodeId,
    /// Who wants to know, and under which number.
    asker: NodeId,
    asked: u64,
}

impl Gossip {
    /// Another member wants to know whether one is there.
    pub(super) fn relay(&mut self, asker: NodeId, asked: u64, target: NodeId) {
        if target == self.me {
            return self.send(asker, Saying::Ack(asked));
        }
        if !self.members.contains_key(&target) {
            return;
        }
        let (now, relays) = (self.now, &mut self.relays.0);
        while relays.front().is_some_and(|relay| now.since(relay.at) >= RELAY_AGE_MAX) {
            relays.pop_front();
        }
        if relays.len() >= RELAYS_MAX {
            return;
        }
        let number = self.new_number();
        self.relays.0.push_back(Relay {
            at: now,
            number,
            target,
            asker,
            asked,
        });
        self.send(target, Saying::Ping(number));
    }

    /// A member has answered a ping: this node's own, or one that it sent for another.
    pub(super) fn acked(&mut self, from: NodeId, number: u64) {
        self.trial_answered(from, number);
        let relays = &mut self.relays.0;
        let at = relays
            .iter()
            .position(|relay| relay.number == number && relay.target == from);
        if let Some(Relay {
            asker, asked, target, ..
        }) = at.and_then(|at| relays.remove(at))
        {
            self.send(asker, Saying::AckFor(asked, target));
        }
    }
}
