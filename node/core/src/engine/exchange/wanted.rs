//! Where exchanges meet corruption: records that are found damaged while they are listed.

use crate::engine::Engine;
use crate::place::Place;
use crate::time::Instant;

impl Engine {
    /// A row is damaged.
    pub(in crate::engine) fn found_corrupt(&mut self, _now: Instant, _place: Place) {}
}
