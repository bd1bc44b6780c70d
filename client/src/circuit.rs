//! A circuit breaker for one node: after a failure it gets no requests for a while, then one, and if that one is
//! answered, all again.
//!
//! A dead node's port does not say so over UDP: until the connection's idle timeout, requests to it only vanish.
//! Without a breaker each of them would wait for its timeout; with it, those that were under way do, and then one now
//! and again. The pause doubles with each failure in a row, up to eight times, and any answer ends it.
//!
//! Only advice: when every other owner is worse, the node is asked all the same. Rejected: counting error rates in a
//! window, which needs many failures to notice what one silent node shows at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const DOUBLINGS_MAX: u32 = 3;

/// What the breaker says about a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// The node is well.
    Go,
    /// The pause is over: one request may try, whoever [claims](Circuit::claim) it.
    Probe,
    /// Not now.
    Avoid,
}

/// Times are microseconds since an origin of the caller's.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    failures: AtomicU32,
    pause_ends_us: AtomicU64,
}

impl Circuit {
    pub(crate) fn advice(&self, now_us: u64) -> Advice {
        if self.failures.load(Ordering::Relaxed) == 0 {
            Advice::Go
        } else if now_us < self.pause_ends_us.load(Ordering::Relaxed) {
            Advice::Avoid
        } else {
            Advice::Probe
        }
    }

    /// Takes the one probe of this pause; false if another request was faster.
    pub(crate) fn claim(&self, now_us: u64, cooling: Duration) -> bool {
        let ends = self.pause_ends_us.load(Ordering::Relaxed);
        let next = now_us.saturating_add(micros(cooling));
        now_us >= ends
            && self
                .pause_ends_us
                .compare_exchange(ends, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// The node did not answer. Failures within one pause count once: they are requests that were under way together.
    pub(crate) fn failed(&self, now_us: u64, cooling: Duration) {
        let failures = self.failures.load(Ordering::Relaxed);
        if failures > 0 && now_us < self.pause_ends_us.load(Ordering::Relaxed) {
            return;
        }
        let pause = micros(cooling) << failures.min(DOUBLINGS_MAX);
        self.pause_ends_us
            .store(now_us.saturating_add(pause), Ordering::Relaxed);
        self.failures.store(failures.saturating_add(1), Ordering::Relaxed);
    }

    /// The node answered.
    pub(crate) fn succeeded(&self) {
        // Reading first keeps the cache line shared between threads on the way that almost every request takes.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros())
        .unwrap_or(u64::MAX >> DOUBLINGS_MAX)
        .min(u64::MAX >> DOUBLINGS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLING: Duration = Duration::from_micros(100);

    #[test]
    fn a_failure_pauses_and_one_probe_decides() {
        let circuit = Circuit::default();
        assert_eq!(circuit.advice(0), Advice::Go);
        circuit.failed(1000, COOLING);
        assert_eq!(circuit.advice(1099), Advice::Avoid);
        assert_eq!(circuit.advice(1100), Advice::Probe);
        assert!(circuit.claim(1100, COOLING));
        assert!(!circuit.claim(1100, COOLING));
        assert_eq!(circuit.advice(1101), Advice::Avoid);
        circuit.succeeded();
        assert_eq!(circuit.advice(1101), Advice::Go);
    }

    #[test]
    fn pauses_double_up_to_eight_times() {
        let circuit = Circuit::default();
        let mut now = 0;
        for pause in [100, 200, 400, 800, 800, 800] {
            circuit.failed(now, COOLING);
            assert_eq!(circuit.advice(now + pause - 1), Advice::Avoid);
            now += pause;
            assert_eq!(circuit.advice(now), Advice::Probe);
        }
    }

    #[test]
    fn requests_that_fail_together_count_once() {
        let circuit = Circuit::default();
        (0..64).for_each(|_| circuit.failed(0, COOLING));
        assert_eq!(circuit.advice(100), Advice::Probe);
    }
}
