//! What is said of a store as soon as it is applied, though it is not synced: acks and reads of relaxed durability.
//!
//! They speak of what the system has, so they must not leave before it has it: a process that is killed in between would take back what was acknowledged,
//! and a disk that is full refuses the whole burst. The stores of a burst are applied when [`Engine::poll_effect`] has come to its end, and what was refused of them is
//! handed in before it is called again. So what waits for them comes out then.
//!
//! Rejected: an input that says so. Every burst would need one, and the shell says it already by coming back.

use super::slots::Waiter;
use super::{Engine, StoreTicket};
use crate::bucket::Durability;
use crate::message::Refusal;
use crate::time::Instant;

/// What waits for stores to be applied.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// All stores up to this one were applied, or refused.
    upto: StoreTicket,
    /// Those behind it up to this one are being applied.
    issued: StoreTicket,
    /// For stores of this burst.
    waiting: Vec<(StoreTicket, Vec<Waiter>)>,
    /// For stores that are being applied.
    applying: Vec<(StoreTicket, Vec<Waiter>)>,
    /// When the last input came.
    pub(super) now: Instant,
}

impl Applied {
    fn refused(&mut self, ticket: StoreTicket) -> Vec<Waiter> {
        let both = [&mut self.applying, &mut self.waiting];
        let found = both
            .into_iter()
            .flat_map(|waiting| waiting.extract_if(.., |(other, _)| *other == ticket));
        found.flat_map(|(_, waiters)| waiters).collect()
    }
}

impl Engine {
    /// Lets waiters wait until a store is applied. If it is, they are told at once.
    pub(super) fn when_applied(&mut self, now: Instant, ticket: StoreTicket, waiters: Vec<Waiter>) {
        match ticket <= self.applied.upto {
            true => self.tell(now, waiters, Ok(Durability::Relaxed)),
            false => self.applied.waiting.push((ticket, waiters)),
        }
    }

    /// All effects are taken. Returns whether more have come of it: the burst before was applied, and what waited for that is told.
    pub(super) fn burst_is_over(&mut self) -> bool {
        let applied = std::mem::take(&mut self.applied.applying);
        if applied.is_empty() {
            self.applied.upto = std::mem::replace(&mut self.applied.issued, self.slots.last());
            self.applied.applying = std::mem::take(&mut self.applied.waiting);
            return false;
        }
        let now = self.applied.now;
        for (_, waiters) in applied {
            self.tell(now, waiters, Ok(Durability::Relaxed));
        }
        true
    }

    /// A store was refused: what waited for it is told so.
    pub(super) fn is_not_applied(&mut self, now: Instant, ticket: StoreTicket) {
        let waiters = self.applied.refused(ticket);
        self.tell(now, waiters, Err(Refusal::WriteFailed));
    }
}
