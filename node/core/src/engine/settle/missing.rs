//! Rows that should be there and are not.
//!
//! A record gets its row when it begins to wait. One that was there before rows were kept (an earlier version made the directory) has none, nor has
//! one whose row was damaged. The first get theirs when such a directory is taken over; and what the [scrub](crate::engine::scrub) meets is looked for,
//! a page at a time, and queued if it is missing. If the record has changed meanwhile, the row outlives its reason and goes as others do that have.
//!
//! Rejected: writing the row of each record that the scrub meets. That is a write for each tombstone an hour, and none of them would ever be counted right.

use super::row::Row;
use crate::engine::background::Reader;
use crate::engine::stored::Stored;
use crate::engine::{Engine, LoadFailed, Scan, ScanPage, ScanRows};
use crate::key::Key;
use crate::time::Instant;
use bytes::Bytes;
use std::collections::BTreeSet;

/// Rows read at once: those of a page of the scrub, and some that have outlived their reason.
const ROWS_MAX: usize = 2048;

impl Engine {
    /// What is to be stored at [`Place::Settle`](crate::place::Place::Settle) of a key whose record is this; `None` if it does not wait to be settled. For
    /// the start of a node, before the first input.
    pub fn settle_row(&self, payload: Bytes) -> Option<Bytes> {
        let mut stored = Stored::parse(Some(payload)).ok()?;
        let ends_ms = stored.wants().1.waits_until()?;
        let since_ms = self.wall_ms;
        Some(Row { since_ms, ends_ms }.encode())
    }

    /// The scrub has met these records, in their order, that wait to be settled: are their rows there?
    pub(in crate::engine) fn settle_look(&mut self, now: Instant, waiting: Vec<(Key, u64)>) {
        let (Some((first, _)), Some((last, _))) = (waiting.first(), waiting.last()) else {
            return;
        };
        // What is left out for one of these is met again in the next pass.
        if self.background.is_read_by(&Reader::SettleLook) || self.gate.is_closed(now) {
            return;
        }
        let scan = Scan {
            rows: ScanRows::Settle(first.token().0..=last.token().0),
            after: None,
            rows_max: ROWS_MAX,
            bytes_max: usize::MAX,
        };
        self.settling.looked_for = waiting;
        self.begin_scan(Reader::SettleLook, scan);
    }

    /// These rows are there.
    pub(in crate::engine) fn settle_looked(&mut self, now: Instant, result: Result<ScanPage, LoadFailed>) {
        let waiting = std::mem::take(&mut self.settling.looked_for);
        let Ok(page) = result else { return };
        if self.gate.is_closed(now) {
            return;
        }
        let there: BTreeSet<&Key> = page.rows.iter().map(|(key, _)| key).collect();
        let position = |key: &Key| (key.token(), key.encoded().to_vec());
        let last = page.rows.last().map(|(key, _)| position(key));
        let is_seen = |key: &Key| page.done || last.as_ref().is_some_and(|last| position(key) <= *last);
        for (key, ends_ms) in waiting.iter().filter(|(key, _)| is_seen(key) && !there.contains(key)) {
            self.settle_queue(key, *ends_ms, true);
        }
    }
}
