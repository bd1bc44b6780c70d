//! Time as the core sees it: a number that the shell hands in with every input.
//!
//! The core never asks what time it is. The node passes microseconds since its process started, the simulator passes virtual
//! microseconds; so the same inputs give the same effects.
//!
//! The time of day appears in four places. It orders a bounded list (the [stamp of a request id](crate::request::RequestId)), says when a value
//! expires, says since when a record waits to be settled, and tells people how old a hint is. No promise but that of expiry rests on it: a
//! record is settled on proof, and the age that is waited for before is there for the sake of retries.

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
