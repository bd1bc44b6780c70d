//! Time as the core sees it: a number that the shell hands in with every input.
//!
//! The core never asks what time it is. The node passes microseconds since its process started, the simulator passes virtual
//! microseconds; so the same inputs give the same effects. Wall-clock time appears in one place only, the
//! [stamp of a request id](crate::request::RequestId), where it orders a bounded list and decides nothing else.

use std::ops::Add;
use std::time::Duration;

/// A moment, in microseconds since an origin that the shell chose. Monotonic within one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, rhs: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}
