//! Whether this node's disk takes writes, and so whether this node coordinates any.
//!
//! A write that is coordinated here goes to the other owners while it is being stored here. If the store is then refused (the disk
//! is full, or behind with its work), its dot is out, the vnode's life has to end, and the next write is under a new actor. Going on
//! like that for an hour would leave thousands of dead actors in the contexts of busy keys. So after a refusal this node
//! leaves coordinating to others for a pause, which doubles up to a bound; a later store that succeeds ends it. Merges
//! for other coordinators mint nothing and are always tried.
//!
//! Rejected: sending to the other owners only after the local store was accepted. It costs each write a step in its normal case.

use super::StoreTicket;
use crate::time::Instant;
use std::time::Duration;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Open until a store is refused.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// When coordinating is tried again; `None` while the gate is open.
    closed_until: Option<Instant>,
    pause: Duration,
    last_refused: StoreTicket,
}

impl Gate {
    pub(super) fn is_closed(&self, now: Instant) -> bool {
        self.closed_until.is_some_and(|until| now < until)
    }

    /// When coordinating is tried again: `now` if the gate is open.
    pub(super) fn opens_at(&self, now: Instant) -> Instant {
        self.closed_until.map_or(now, |until| until.max(now))
    }

    /// A store was refused. A whole burst that is refused together counts once.
    pub(super) fn refused(&mut self, now: Instant, ticket: StoreTicket) {
        self.last_refused = self.last_refused.max(ticket);
        if !self.is_closed(now) {
            self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            self.closed_until = Some(now + self.pause);
        }
    }

    /// All stores up to this one are on disk, but for those that were refused.
    pub(super) fn durable(&mut self, upto: StoreTicket) {
        if upto > self.last_refused {
            (self.closed_until, self.pause) = (None, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_bound_and_a_store_that_succeeds_ends_it() {
        let mut gate = Gate::default();
        let mut now = Instant(0);
        for ms in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            gate.refused(now, StoreTicket(1));
            gate.refused(now, StoreTicket(2));
            assert!(gate.is_closed(now + Duration::from_millis(ms - 1)));
            now = now + Duration::from_millis(ms);
            assert!(!gate.is_closed(now));
        }
        gate.refused(now, StoreTicket(7));
        gate.durable(StoreTicket(7));
        assert!(gate.is_closed(now), "the store that was refused proves nothing");
        gate.durable(StoreTicket(8));
        assert!(!gate.is_closed(now));
    }
}
