//! A scan that goes on behind damage: [`ScanAround`].
//!
//! A damaged block of a file ends every scan that comes to it, and nobody can say which rows it held, or where the next
//! block begins. But a scan that starts behind the block works again. So the place is felt for: from where the scan
//! failed, ahead in steps that double until a token is found from which it reads, then back by halving to the first such
//! token. That is at most 128 tries for one damaged place, and places are limited too, so a store that is damaged all
//! over is given up early and not at leisure.
//!
//! Between two damaged places that lie close together (nearer than the first is wide) the doubling step may jump over rows
//! that could be read. They count as unreadable then: too much is named, never too little.
//!
//! Rejected: splitting the range in two until each half can be read. Inside a damaged block every half fails again, down
//! to single tokens, and a block spans more of those than can be tried.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::{Column, Page, ScanLimit, Storage, StorageError};

/// Damaged places that one scan goes around; what follows the last of them counts as unreadable.
const PLACES_MAX: usize = 256;

/// A scan in pages that goes around damaged places and remembers where they were. Borrows nothing between pages.
///
/// ```
/// # use quorate_storage::{Batch, Column, MemStorage, ScanAround, ScanLimit, Storage};
/// # let store = MemStorage::new();
/// # let mut batch = Batch::new();
/// # (0..9).for_each(|token| batch.put_record(token, b"k", b"v"));
/// # store.apply(&mut batch)?;
/// store.damage(Column::Record, 3..=4);
/// let mut scan = ScanAround::new(Column::Record, 0..=8);
/// let mut seen = Vec::new();
/// while !scan.is_done() {
///     seen.extend(scan.next_page(&store, ScanLimit::rows(100))?.rows);
/// }
/// assert_eq!(seen.len(), 7);
/// assert_eq!(scan.unreadable(), [3..=4]);
/// # Ok::<(), quorate_storage::StorageError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ScanAround {
    column: Column,
    /// What is still to be read; `None` when done.
    rest: Option<RangeInclusive<u64>>,
    /// The last row given out, if it lies in the rest.
    after: Option<(u64, Bytes)>,
    unreadable: Vec<RangeInclusive<u64>>,
}

impl ScanAround {
    /// A scan of all rows of the column in these tokens.
    #[must_use]
    pub fn new(column: Column, tokens: RangeInclusive<u64>) -> Self {
        ScanAround {
            column,
            rest: (!tokens.is_empty()).then_some(tokens),
            after: None,
            unreadable: Vec::new(),
        }
    }

    /// The next rows. Blocks for one page, and for some hundred single reads more when it comes to a damaged place. A page
    /// may be empty although the scan is not done: then it has gone around something.
    ///
    /// # Errors
    /// As [`Storage::scan`], but never [`Damaged`](StorageError::Damaged). The call can be repeated.
    pub fn next_page(&mut self, store: &impl Storage, limit: ScanLimit) -> Result<Page, StorageError> {
        let Some(tokens) = self.rest.clone() else {
            return Ok(Page {
                rows: Vec::new(),
                done: true,
            });
        };
        let after = self.after.as_ref().map(|(token, key)| (*token, &key[..]));
        let mut page = match store.scan(self.column, tokens.clone(), after, limit) {
            Ok(page) => page,
            Err(StorageError::Damaged { .. }) => {
                self.go_around(store, tokens)?;
                Page::default()
            }
            Err(error) => return Err(error),
        };
        if let Some(last) = page.rows.last() {
            self.after = Some((last.token, last.key.clone()));
        }
        if page.done {
            self.rest = None;
        }
        page.done = self.is_done();
        Ok(page)
    }

    /// Nothing is left to read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.rest.is_none()
    }

    /// Ranges of tokens of which not every row could be read, so far, in order. Some rows of the first token of a range may
    /// have been given out.
    #[must_use]
    pub fn unreadable(&self) -> &[RangeInclusive<u64>] {
        &self.unreadable
    }

    /// Leaves out what cannot be read from here on.
    fn go_around(&mut self, store: &impl Storage, tokens: RangeInclusive<u64>) -> Result<(), StorageError> {
        let end = *tokens.end();
        let Some(from) = self.damaged_from(store, *tokens.start())?.filter(|from| *from <= end) else {
            self.rest = None;
            return Ok(());
        };
        let next = match self.unreadable.len() + 1 < PLACES_MAX {
            true => self.next_readable(store, from, end)?,
            false => None,
        };
        match next {
            Some(next) => {
                self.unreadable.push(from..=next - 1);
                self.rest = Some(next..=end);
            }
            None => {
                self.unreadable.push(from..=end);
                self.rest = None;
            }
        }
        self.after = None;
        Ok(())
    }

    /// The first token with rows that may not be readable; `None` if that would be behind the last of all tokens.
    fn damaged_from(&self, store: &impl Storage, start: u64) -> Result<Option<u64>, StorageError> {
        let Some((token, key)) = &self.after else {
            return Ok(Some(start));
        };
        match store.scan(self.column, *token..=*token, Some((*token, key)), ScanLimit::rows(1)) {
            // The token of the last row has no others.
            Ok(page) if page.done && page.rows.is_empty() => Ok(token.checked_add(1)),
            Ok(_) | Err(StorageError::Damaged { .. }) => Ok(Some(*token)),
            Err(error) => Err(error),
        }
    }

    /// A token behind `from` that reads, as small as can be found; `None` if there is none up to `end`.
    fn next_readable(&self, store: &impl Storage, from: u64, end: u64) -> Result<Option<u64>, StorageError> {
        let (mut bad, mut step) = (from, 1);
        let mut good = loop {
            if bad == end {
                return Ok(None);
            }
            let ahead = bad.saturating_add(step).min(end);
            if self.is_readable(store, ahead..=end)? {
                break ahead;
            }
            bad = ahead;
            step = step.saturating_mul(2);
        };
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            match self.is_readable(store, middle..=end)? {
                true => good = middle,
                false => bad = middle,
            }
        }
        Ok(Some(good))
    }

    /// Whether a scan of these tokens gives a row, or ends as it should.
    fn is_readable(&self, store: &impl Storage, tokens: RangeInclusive<u64>) -> Result<bool, StorageError> {
        match store.scan(self.column, tokens, None, ScanLimit::rows(1)) {
            Ok(_) => Ok(true),
            Err(StorageError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{Batch, MemStorage};

    /// Rows at 0, step, 2 * step ...: 100 of them.
    fn store(step: u64) -> MemStorage {
        let store = MemStorage::new();
        let mut batch = Batch::new();
        (0..100).for_each(|i| batch.put_record(i * step, b"k", b"v"));
        store.apply(&mut batch).unwrap();
        store
    }

    fn read(store: &MemStorage, tokens: RangeInclusive<u64>) -> (Vec<u64>, Vec<RangeInclusive<u64>>) {
        let mut scan = ScanAround::new(Column::Record, tokens);
        let mut seen = Vec::new();
        for _ in 0..1000 {
            let page = scan.next_page(store, ScanLimit::rows(7)).unwrap();
            seen.extend(page.rows.iter().map(|row| row.token));
            assert_eq!(page.done, scan.is_done());
            if page.done {
                return (seen, scan.unreadable().to_vec());
            }
        }
        panic!("a scan must end");
    }

    #[test]
    fn without_damage_it_is_a_scan() {
        let store = store(10);
        assert_eq!(read(&store, 0..=u64::MAX), ((0..100).map(|i| i * 10).collect(), vec![]));
        assert_eq!(read(&store, 15..=30), (vec![20, 30], vec![]));
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 9..=1;
        assert_eq!(read(&store, reversed), (vec![], vec![]));
    }

    #[test]
    fn damage_at_either_end_or_everywhere_ends_the_scan_all_the_same() {
        let step = u64::MAX / 99;
        for (hit, left) in [(0..=0, 99), (99..=99, 99), (98..=99, 98), (0..=99, 0), (40..=60, 79)] {
            let store = store(step);
            store.damage_block(Column::Record, hit.start() * step..=hit.end() * step);
            let (seen, unreadable) = read(&store, 0..=u64::MAX);
            assert_eq!((seen.len(), unreadable.len()), (left, 1), "{hit:?}");
            assert!(unreadable[0].contains(&(hit.start() * step)) && unreadable[0].contains(&(hit.end() * step)));
        }
    }

    #[test]
    fn damage_within_a_token_names_only_that_token() {
        let store = store(10);
        let mut batch = Batch::new();
        batch.put_record(500, b"more", b"v");
        store.apply(&mut batch).unwrap();
        store.damage(Column::Record, 500..=500);
        batch.put_record(500, b"k", b"v");
        store.apply(&mut batch).unwrap();
        let (seen, unreadable) = read(&store, 0..=u64::MAX);
        assert_eq!((seen.len(), unreadable), (100, vec![500..=500]));
    }

    #[test]
    fn a_store_damaged_all_over_is_given_up() {
        let store = MemStorage::new();
        let mut batch = Batch::new();
        (0..2000).for_each(|i| batch.put_record(i * 1000, b"k", b"v"));
        store.apply(&mut batch).unwrap();
        for i in 0..1000 {
            store.damage(Column::Record, i * 2000..=i * 2000);
        }
        let (seen, unreadable) = read(&store, 0..=u64::MAX);
        assert_eq!((seen.len(), unreadable.len()), (PLACES_MAX - 1, PLACES_MAX));
        assert_eq!(*unreadable[PLACES_MAX - 1].end(), u64::MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_row_is_given_or_lies_in_a_range_that_is_named(
            step in prop_oneof![Just(1), Just(3), Just(u64::MAX / 99)],
            blocks in vec((0..100u64, 0..10u64), 0..8),
            rows in 1..30usize,
        ) {
            let store = store(step);
            for (from, len) in &blocks {
                store.damage_block(Column::Record, from * step..=(from + len).min(99) * step);
            }
            let lost = |i: u64| blocks.iter().any(|(from, len)| (*from..=from + len).contains(&i));
            let mut scan = ScanAround::new(Column::Record, 0..=u64::MAX);
            let mut seen = Vec::new();
            while !scan.is_done() {
                seen.extend(scan.next_page(&store, ScanLimit::rows(rows)).unwrap().rows.into_iter().map(|row| row.token));
            }
            prop_assert!(seen.is_sorted() && scan.unreadable().is_sorted_by_key(|range| *range.start()));
            for i in 0..100 {
                let named = scan.unreadable().iter().any(|range| range.contains(&(i * step)));
                let given = seen.contains(&(i * step));
                prop_assert!(given != named && (named || !lost(i)), "row {}", i);
            }
        }
    }

    #[test]
    fn another_error_is_passed_on_and_the_call_can_be_repeated() {
        let store = store(10);
        store.damage(Column::Record, 0..=5);
        let mut scan = ScanAround::new(Column::Record, 0..=u64::MAX);
        for reads in [1, 1, 1] {
            store.fail_reads(reads);
            let error = scan.next_page(&store, ScanLimit::rows(7)).unwrap_err();
            assert!(matches!(error, StorageError::Io { .. }), "{error}");
        }
        assert!(scan.next_page(&store, ScanLimit::rows(7)).unwrap().rows.is_empty());
        assert_eq!(scan.next_page(&store, ScanLimit::rows(7)).unwrap().rows[0].token, 10);
    }
}
