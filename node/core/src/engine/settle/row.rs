//! What a record asks for, and the row that is kept of one that waits to be settled.

use crate::planted;
use crate::record::Record;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Lives without a live sibling from which a record's context is worth trimming. Those of the owners' present processes may be among them, and stay.
const IDLE_LIVES: usize = 8;
/// By how much the owners' clocks may differ: a value that has expired is settled this much later.
pub(in crate::engine) const SKEW_MS: u64 = 60_000;

/// What a record asks for, by its bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Want {
    /// To be left alone.
    Nothing,
    /// A shorter context.
    Trim,
    /// To be dropped: nothing in it is live, from this time of day on (milliseconds since 1970; 0 if all of it is deleted).
    Drop {
        /// When.
        ends_ms: u64,
    },
}

impl Want {
    /// Until when a record that wants this waits at least (milliseconds since 1970; 0: no longer); `None` if it does not wait.
    pub(in crate::engine) fn waits_until(self) -> Option<u64> {
        match self {
            Want::Nothing => None,
            Want::Trim => Some(0),
            Want::Drop { ends_ms } => Some(ends_ms),
        }
    }

    pub(in crate::engine) fn of(record: &Record) -> Want {
        match record.ends_ms() {
            _ if record.is_empty() => Want::Nothing,
            Some(ends_ms) => Want::Drop { ends_ms },
            None if record.context().actors() >= IDLE_LIVES && record.idle_lives().len() >= IDLE_LIVES => Want::Trim,
            None => Want::Nothing,
        }
    }
}

/// What the row of a record that waits says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Since when it waits.
    pub(super) since_ms: u64,
    /// When its last value expires; 0 if it has none.
    pub(super) ends_ms: u64,
}

impl Row {
    /// What is stored.
    pub(super) fn encode(&self) -> Bytes {
        postcard::to_stdvec(self)
            .expect("a vector grows, and numbers serialize")
            .into()
    }

    /// When the proof may begin. A row from the future was written before the time of day was put right.
    pub(super) fn ready_ms(&self, wall_ms: u64, age_ms: u64) -> u64 {
        let aged = if self.since_ms > wall_ms || planted::is(12) {
            0
        } else {
            self.since_ms.saturating_add(age_ms)
        };
        match self.ends_ms {
            0 => aged,
            ends_ms => aged.max(ends_ms.saturating_add(SKEW_MS)),
        }
    }
}
