//! A promise that was broken, and how it showed.

use std::fmt;

/// What was promised. The numbers are those of `docs/consistency.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// Dots are unique.
    P0,
    /// No acknowledged write is lost.
    P1,
    /// Siblings are exact.
    P2,
    /// No invented values.
    P3,
    /// What a delete covered does not come back.
    P4,
    /// Replicas converge.
    P5,
    /// Contexts grow.
    P6,
    /// Strict quorums are regular.
    P7,
    /// Strict reads are monotone.
    P8,
    /// A read covers the minimum that it was given.
    P9,
    /// Hints go home.
    P10,
    /// One effect per request id.
    P11,
    /// A reply says what happened.
    P12,
    /// Everything is bounded.
    P13,
    /// Only owners hold a key.
    P14,
    /// In a healed cluster every request succeeds in time.
    Liveness,
    /// The same seed gives the same run.
    Determinism,
    /// Nothing panics.
    Panic,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// What was seen, in one sentence.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.detail)
    }
}
