//! When operations are meant to start: the heart of an open loop, as plain arithmetic.
//!
//! Operation i is meant to start i / rate after the beginning, whatever happened to those before it. Latency is counted
//! from there. If the system stalls for a second, every operation that was meant to start in that second waits, and its
//! wait is in the figures; a generator that waits for answers would have sent one request and recorded one slow answer
//! ("coordinated omission").
//!
//! There is no queue of operations that are due: those that are due and those that were taken are two counters, so a
//! backlog of millions costs nothing. Rejected: intervals drawn at random (a Poisson process), which are closer to many
//! independent users but make two runs differ; a fixed schedule is repeatable and, as bursts go, kinder to the system.
//! The report says which it was.

use std::time::Duration;

/// A fixed rate from a beginning to an end. Times are since the beginning.
#[derive(Clone, Debug)]
pub struct Schedule {
    rate: f64,
    total: u64,
    taken: u64,
}

impl Schedule {
    /// `rate` operations per second for so long.
    pub fn new(rate: f64, length: Duration) -> Schedule {
        Schedule {
            rate,
            total: (length.as_secs_f64() * rate).ceil() as u64,
            taken: 0,
        }
    }

    /// The intended start of operation `at`.
    pub fn intended(&self, at: u64) -> Duration {
        Duration::from_secs_f64(at as f64 / self.rate)
    }

    /// How many operations are meant to have started by `now`, this very moment included.
    pub fn due(&self, now: Duration) -> u64 {
        let mut due = ((now.as_secs_f64() * self.rate) as u64)
            .saturating_add(1)
            .min(self.total);
        // Rounding may be off by one; what `intended` says is the truth.
        while due > 0 && self.intended(due - 1) > now {
            due -= 1;
        }
        while due < self.total && self.intended(due) <= now {
            due += 1;
        }
        due
    }

    /// Takes the next operation if it is due: its intended start.
    pub fn take(&mut self, now: Duration) -> Option<Duration> {
        if self.taken >= self.due(now) {
            return None;
        }
        self.taken += 1;
        Some(self.intended(self.taken - 1))
    }

    /// The intended start of operation `at`, if there is one.
    pub fn start_of(&self, at: u64) -> Option<Duration> {
        (at < self.total).then(|| self.intended(at))
    }

    /// The intended start of the next operation that nobody has taken; `None` at the end.
    pub fn next(&self) -> Option<Duration> {
        self.start_of(self.taken)
    }

    /// How many operations are due and not taken.
    pub fn waiting(&self, now: Duration) -> u64 {
        self.due(now) - self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn operations_are_due_on_the_beat() {
        let mut schedule = Schedule::new(1000.0, ms(3));
        assert_eq!(schedule.take(ms(0)), Some(ms(0)));
        assert_eq!(schedule.take(ms(0)), None);
        assert_eq!(schedule.next(), Some(ms(1)));
        assert_eq!(schedule.take(Duration::from_micros(999)), None);
        assert_eq!(schedule.take(ms(1)), Some(ms(1)));
        assert_eq!(schedule.take(ms(2)), Some(ms(2)));
        assert_eq!(schedule.take(ms(100)), None, "three in all");
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_stall_does_not_move_the_intended_starts() {
        let mut schedule = Schedule::new(100.0, ms(1000));
        assert_eq!(schedule.take(ms(0)), Some(ms(0)));
        // Nothing is taken for half a second. Then all that was missed is due, each from its own intended start.
        assert_eq!(schedule.waiting(ms(500)), 50);
        let late: Vec<Duration> = (0..50)
            .filter_map(|_| schedule.take(ms(500)))
            .map(|start| ms(500) - start)
            .collect();
        assert_eq!(late.len(), 50);
        assert_eq!((late[0], late[49]), (ms(490), ms(0)));
        assert_eq!(schedule.next(), Some(ms(510)));
    }

    #[test]
    fn counting_agrees_with_the_intended_starts_at_odd_rates() {
        for rate in [0.3, 7.0, 333.3, 12_345.6, 1e6] {
            let schedule = Schedule::new(rate, ms(1000));
            for at in 0..schedule.total.min(2000) {
                assert_eq!(
                    schedule.due(schedule.intended(at)),
                    at + 1,
                    "operation {at} at rate {rate}"
                );
            }
        }
    }
}
