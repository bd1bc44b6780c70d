//! How fast healing goes, handoffs and exchanges alike: as fast as the other side takes it, and slower the more there is to do for clients.
//!
//! The window is what may be on its way to one node at once. It is cut by the rate at which this node coordinates requests and answers other
//! coordinators, so an idle cluster heals at full speed, and a busy one gives a small share of its disks to healing. The steps are measured: at a
//! third of what three nodes can do at most, a window of 4 brings 4,000 records a second home, and leaves the 99th percentile within 1.5 times
//! what it was; one of 64 brings 20,000 and triples it.
//!
//! Also here: what was written a moment ago. Such a write is on its way to all owners anyway, so a difference in it is none that has to be
//! healed, and shipping it would make every busy cluster look ill.

use crate::time::Instant;
use quorate_ring::Token;
use std::collections::BTreeSet;
use std::time::Duration;

/// Requests a second, and by how much the window is divided from there.
const BUSY: [(u64, u16); 3] = [(200, 4), (1_000, 10), (8_000, 20)];
/// How often the rate is looked at.
const PERIOD: Duration = Duration::from_millis(100);
/// For this long at least, and for twice as long at most, a write counts as new.
const NEW: Duration = Duration::from_millis(500);
/// Tokens that are remembered in one such time. Beyond, everything counts as new: who writes that much does not wait for healing.
const NEW_MAX: usize = 65_536;

/// The rate of requests here.
#[derive(Debug, Default)]
pub(super) struct Pace {
    looked: Instant,
    counted: u64,
    rate: u64,
}

impl Pace {
    /// Takes in how many requests there have been.
    pub(super) fn look(&mut self, now: Instant, counted: u64) {
        let passed = now.since(self.looked);
        if passed < PERIOD {
            return;
        }
        let rate = (counted - self.counted) * 1_000_000 / u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        // What was long ago says nothing.
        self.rate = match passed < 10 * PERIOD {
            true => (3 * self.rate + rate) / 4,
            false => rate,
        };
        (self.looked, self.counted) = (now, counted);
    }

    /// The part of `full` that is used now; at least one, or nothing would ever move.
    pub(super) fn window(&self, full: u16) -> usize {
        let step = BUSY.iter().rfind(|&&(rate, _)| self.rate >= rate);
        usize::from(full / step.map_or(1, |&(_, part)| part)).max(1)
    }
}

/// Tokens of keys that were changed here a moment ago.
#[derive(Debug, Default)]
pub(super) struct Recent {
    since: Instant,
    now: BTreeSet<Token>,
    before: BTreeSet<Token>,
}

impl Recent {
    /// A key with this token is being changed.
    pub(super) fn note(&mut self, now: Instant, token: Token) {
        self.turn(now);
        if self.now.len() < NEW_MAX {
            self.now.insert(token);
        }
    }

    /// Forgets what is not new any more.
    pub(super) fn turn(&mut self, now: Instant) {
        let passed = now.since(self.since);
        if passed >= NEW {
            let last = std::mem::take(&mut self.now);
            self.before = match passed < 2 * NEW {
                true => last,
                false => BTreeSet::new(),
            };
            self.since = now;
        }
    }

    /// Whether such a key was changed a moment ago. Call [`Recent::turn`] first.
    pub(super) fn has(&self, token: Token) -> bool {
        let is_full = self.now.len() >= NEW_MAX || self.before.len() >= NEW_MAX;
        is_full || self.now.contains(&token) || self.before.contains(&token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_full_when_idle_and_small_when_busy() {
        let (mut pace, mut now, mut counted) = (Pace::default(), Instant(0), 0);
        assert_eq!(pace.window(64), 64);
        for (per_second, window) in [(500, 16), (2_000, 6), (20_000, 3)] {
            for _ in 0..40 {
                now = now + PERIOD;
                counted += per_second / 10;
                pace.look(now, counted);
            }
            assert_eq!((pace.window(64), pace.window(1)), (window, 1), "{per_second} a second");
        }
        now = now + Duration::from_secs(5);
        pace.look(now, counted);
        assert_eq!(pace.window(64), 64);
    }

    #[test]
    fn a_write_is_new_for_a_moment() {
        let (mut recent, start) = (Recent::default(), Instant(1_000_000));
        recent.note(start, Token(7));
        for (ms, is_new) in [(0, true), (400, true), (600, true), (1_200, false)] {
            recent.turn(start + Duration::from_millis(ms));
            assert_eq!(recent.has(Token(7)), is_new, "after {ms} ms");
        }
        assert!(!recent.has(Token(8)));
    }
}
