//! Where exchanges meet the rest of healing: nodes that have lost their memory, and records that are found corrupt.

use crate::engine::Engine;
use crate::place::Place;
use crate::time::Instant;

impl Engine {
    /// A row is damaged.
    pub(in crate::engine) fn found_corrupt(&mut self, _now: Instant, _place: Place) {}
}
