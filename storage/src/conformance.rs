//! The contract of [`Storage`](crate::Storage) as tests, the same for every store.
//!
//! A store takes part by implementing [`Subject`] and by one line, `conformance_suite!(TheSubject);`, in its tests. That
//! is what allows the simulator to stand for the disk: whatever it relies on must be claimed here.
#![allow(clippy::unwrap_used)]

mod columns;

use std::ops::RangeInclusive;

use crate::{Batch, Column, Page, ScanLimit, Storage, StorageError};

pub(crate) use columns::*;

/// A store under test, with the hands that break it.
pub(crate) trait Subject: Sized {
    type Store: Storage;
    fn new() -> Self;
    fn store(&self) -> &Self::Store;
    /// The process dies; whatever was not synced may be gone.
    fn crash(self) -> Self;
    /// The process syncs, ends and starts again.
    fn restart(self) -> Self;
    /// Flips a bit of a row as it is stored.
    fn rot(&self, column: Column, token: u64, key: &[u8], bit: usize);
}

pub(crate) const ALL: RangeInclusive<u64> = 0..=u64::MAX;
/// Names that a careless row format gets wrong, in order.
pub(crate) const AWKWARD: [(u64, &[u8]); 10] = [
    (0, b""),
    (0, b"\0"),
    (1, b""),
    (1, b"a"),
    (1, b"a\0"),
    (1, b"a\0\0"),
    (1, b"ab"),
    (255, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    (256, b""),
    (
        u64::MAX,
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ),
];

pub(crate) fn put(store: &impl Storage, token: u64, key: &[u8], payload: &[u8]) {
    let mut batch = Batch::new();
    batch.put_record(token, key, payload);
    store.apply(&mut batch).unwrap();
}

pub(crate) fn get(store: &impl Storage, token: u64, key: &[u8]) -> Option<Vec<u8>> {
    store.get(token, key).unwrap().map(|payload| payload.to_vec())
}

/// Token, key and payload; `None` for a corrupt one.
pub(crate) type Scanned = (u64, Vec<u8>, Option<Vec<u8>>);

/// A whole scan in pages of `rows`.
pub(crate) fn scan(store: &impl Storage, tokens: RangeInclusive<u64>, rows: usize) -> Vec<Scanned> {
    let mut found = Vec::new();
    let mut page = Page::default();
    while !page.done {
        page = store
            .scan(Column::Record, tokens.clone(), page.last(), ScanLimit::rows(rows))
            .unwrap();
        assert!(page.rows.len() <= rows);
        found.extend(
            page.rows
                .iter()
                .map(|r| (r.token, r.key.to_vec(), r.payload.as_ref().ok().map(|p| p.to_vec()))),
        );
    }
    found
}

fn names<S: Subject>(subject: &S, tokens: RangeInclusive<u64>, rows: usize) -> Vec<(u64, Vec<u8>)> {
    scan(subject.store(), tokens, rows)
        .into_iter()
        .map(|(token, key, _)| (token, key))
        .collect()
}

fn with_awkward_names<S: Subject>() -> S {
    let subject = S::new();
    for (token, key) in AWKWARD.iter().rev() {
        put(subject.store(), *token, key, &[b"of ", *key].concat());
    }
    subject
}

pub(crate) fn a_get_sees_what_was_applied_before_it_is_synced<S: Subject>() {
    let subject = S::new();
    assert_eq!(get(subject.store(), 7, b"k"), None);
    put(subject.store(), 7, b"k", b"v");
    assert_eq!(get(subject.store(), 7, b"k").unwrap(), b"v");
    assert_eq!(get(subject.store(), 8, b"k"), None);
    assert_eq!(get(subject.store(), 7, b"k2"), None);
}

pub(crate) fn the_last_write_of_a_key_wins_within_a_batch_and_across<S: Subject>() {
    let subject = S::new();
    put(subject.store(), 1, b"k", b"first");
    let mut batch = Batch::new();
    batch.put_record(1, b"k", b"second");
    batch.delete_record(1, b"k");
    batch.put_record(1, b"k", b"third");
    batch.put_record(1, b"gone", b"x");
    batch.delete_record(1, b"gone");
    subject.store().apply(&mut batch).unwrap();
    assert_eq!(get(subject.store(), 1, b"k").unwrap(), b"third");
    assert_eq!(get(subject.store(), 1, b"gone"), None);
}

pub(crate) fn an_applied_batch_is_empty_and_can_be_used_again<S: Subject>() {
    let subject = S::new();
    let mut batch = Batch::new();
    batch.put_record(1, b"a", b"1");
    subject.store().apply(&mut batch).unwrap();
    assert!(batch.is_empty());
    subject.store().apply(&mut batch).unwrap();
    batch.put_record(1, b"b", b"2");
    subject.store().apply(&mut batch).unwrap();
    assert_eq!(names(&subject, ALL, 9), [(1, b"a".to_vec()), (1, b"b".to_vec())]);
}

pub(crate) fn a_deleted_record_is_gone_and_deleting_it_again_is_no_error<S: Subject>() {
    let subject = S::new();
    put(subject.store(), 1, b"k", b"v");
    for _ in 0..2 {
        let mut batch = Batch::new();
        batch.delete_record(1, b"k");
        subject.store().apply(&mut batch).unwrap();
        assert_eq!(get(subject.store(), 1, b"k"), None);
        assert_eq!(names(&subject, ALL, 9), []);
    }
}

pub(crate) fn empty_and_large_payloads_come_back_as_they_were<S: Subject>() {
    let subject = S::new();
    let large: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    put(subject.store(), 1, b"empty", b"");
    put(subject.store(), 1, b"large", &large);
    subject.store().sync().unwrap();
    assert_eq!(get(subject.store(), 1, b"empty").unwrap(), b"");
    assert!(get(subject.store(), 1, b"large").unwrap() == large);
}

pub(crate) fn records_are_scanned_by_token_then_key_whatever_their_bytes<S: Subject>() {
    let subject = with_awkward_names::<S>();
    let expected: Vec<_> = AWKWARD.iter().map(|(token, key)| (*token, key.to_vec())).collect();
    assert_eq!(names(&subject, ALL, usize::MAX), expected);
    for (token, key) in AWKWARD {
        assert_eq!(get(subject.store(), token, key).unwrap(), [b"of ", key].concat());
    }
}

pub(crate) fn pages_of_any_size_give_every_record_once<S: Subject>() {
    let subject = with_awkward_names::<S>();
    for rows in 1..=AWKWARD.len() + 1 {
        assert_eq!(names(&subject, ALL, rows).len(), AWKWARD.len());
    }
    let full = subject
        .store()
        .scan(Column::Record, ALL, None, ScanLimit::rows(AWKWARD.len()))
        .unwrap();
    assert!(full.done, "a page that ends with the last row knows it");
}

pub(crate) fn a_page_ends_with_the_row_that_reaches_the_byte_limit<S: Subject>() {
    let subject = S::new();
    for key in [b"a", b"b", b"c"] {
        put(subject.store(), 1, key, &[0; 100]);
    }
    let page = |bytes| {
        subject
            .store()
            .scan(Column::Record, ALL, None, ScanLimit { rows: 9, bytes })
            .unwrap()
    };
    assert_eq!((page(0).rows.len(), page(0).done), (1, false));
    assert_eq!((page(150).rows.len(), page(150).done), (2, false));
    assert_eq!((page(9999).rows.len(), page(9999).done), (3, true));
}

pub(crate) fn a_scan_keeps_to_its_tokens<S: Subject>() {
    let subject = with_awkward_names::<S>();
    let count = |tokens| names(&subject, tokens, 3).len();
    assert_eq!(
        (count(0..=0), count(1..=1), count(1..=255), count(256..=u64::MAX)),
        (2, 5, 6, 2)
    );
    assert_eq!((count(2..=254), count(u64::MAX..=u64::MAX)), (0, 1));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = 9..=1;
    assert_eq!(count(reversed), 0);
}

pub(crate) fn a_scan_goes_on_behind_a_key_that_is_gone_or_outside_the_range<S: Subject>() {
    let subject = with_awkward_names::<S>();
    let first = |tokens, after| {
        let page = subject
            .store()
            .scan(Column::Record, tokens, Some(after), ScanLimit::rows(1))
            .unwrap();
        page.last().map(|(token, key)| (token, key.to_vec()))
    };
    assert_eq!(first(ALL, (1, b"a\0")).unwrap(), (1, b"a\0\0".to_vec()));
    assert_eq!(first(ALL, (1, b"aa")).unwrap(), (1, b"ab".to_vec()));
    assert_eq!(first(255..=300, (0, b"zzz")).unwrap().0, 255);
    assert_eq!(first(0..=1, (255, b"")), None);
    assert_eq!(first(ALL, AWKWARD[9]), None);
}

pub(crate) fn metadata_is_kept_by_name_and_is_no_record<S: Subject>() {
    let subject = S::new();
    let mut batch = Batch::new();
    batch.put_meta("node", b"uuid");
    batch.put_meta("", b"nameless");
    subject.store().apply(&mut batch).unwrap();
    assert_eq!(subject.store().get_meta("node").unwrap().unwrap(), "uuid");
    assert_eq!(subject.store().get_meta("").unwrap().unwrap(), "nameless");
    assert_eq!(subject.store().get_meta("other").unwrap(), None);
    assert_eq!(names(&subject, ALL, 9), []);
    assert_eq!(get(subject.store(), 0, b"node"), None);
    batch.delete_meta("node");
    subject.store().apply(&mut batch).unwrap();
    assert_eq!(subject.store().get_meta("node").unwrap(), None);
}

pub(crate) fn a_corrupt_record_is_an_error_and_the_scan_goes_on<S: Subject>() {
    let subject = S::new();
    for (token, key) in [(1, b"a"), (1, b"b"), (2, b"c")] {
        put(subject.store(), token, key, b"payload");
    }
    for bit in [0, 9, 40, 95] {
        subject.rot(Column::Record, 1, b"b", bit);
        let error = subject.store().get(1, b"b").unwrap_err();
        assert!(
            matches!(&error, StorageError::Corrupt { token: 1, key, .. } if key == "b"),
            "{error}"
        );
        let rows = subject
            .store()
            .scan(Column::Record, ALL, None, ScanLimit::rows(9))
            .unwrap()
            .rows;
        assert_eq!(
            rows.iter().map(|r| r.payload.is_ok()).collect::<Vec<_>>(),
            [true, false, true]
        );
        assert_eq!(rows[1].payload, Err(error));
        subject.rot(Column::Record, 1, b"b", bit); // back
        assert_eq!(get(subject.store(), 1, b"b").unwrap(), b"payload");
    }
}

pub(crate) fn a_corrupt_record_can_be_set_aside_and_written_again_in_one_batch<S: Subject>() {
    let subject = S::new();
    put(subject.store(), 1, b"k", b"payload");
    subject.rot(Column::Record, 1, b"k", 50);
    let mut batch = Batch::new();
    batch.set_aside(1, b"k");
    batch.set_aside(1, b"absent");
    subject.store().apply(&mut batch).unwrap();
    assert_eq!(get(subject.store(), 1, b"k"), None);
    assert_eq!(names(&subject, ALL, 9), []);
    let aside = subject.store().get_aside(1, b"k").unwrap().unwrap();
    assert_eq!((aside[0], aside.len()), (1, 5 + 7));
    assert_ne!(aside[5..], b"payload"[..]);
    assert_eq!(subject.store().get_aside(1, b"absent").unwrap(), None);

    put(subject.store(), 1, b"k", b"payload");
    subject.rot(Column::Record, 1, b"k", 51);
    batch.set_aside(1, b"k");
    batch.put_record(1, b"k", b"repaired");
    subject.store().apply(&mut batch).unwrap();
    assert_eq!(get(subject.store(), 1, b"k").unwrap(), b"repaired");
    assert_ne!(subject.store().get_aside(1, b"k").unwrap().unwrap(), aside);
}

pub(crate) fn a_crash_keeps_what_was_synced<S: Subject>() {
    let subject = S::new();
    let mut batch = Batch::new();
    for i in 0..100u64 {
        batch.put_record(i, b"k", &i.to_le_bytes());
    }
    batch.put_meta("m", b"meta");
    subject.store().apply(&mut batch).unwrap();
    subject.store().sync().unwrap();
    put(subject.store(), 1000, b"unsynced", b"maybe");
    let subject = subject.crash();
    for i in 0..100u64 {
        assert_eq!(get(subject.store(), i, b"k").unwrap(), i.to_le_bytes());
    }
    assert_eq!(subject.store().get_meta("m").unwrap().unwrap(), "meta");
    put(subject.store(), 1001, b"after", b"the crash");
    subject.store().sync().unwrap();
    let subject = subject.crash();
    assert_eq!(get(subject.store(), 1001, b"after").unwrap(), b"the crash");
    assert_eq!(get(subject.store(), 99, b"k").unwrap(), 99u64.to_le_bytes());
}

pub(crate) fn a_crash_keeps_a_batch_whole_or_not_at_all<S: Subject>() {
    let subject = S::new();
    put(subject.store(), 1, b"a", b"old");
    subject.store().sync().unwrap();
    for i in 0..50u8 {
        let mut batch = Batch::new();
        batch.put_record(1, b"a", &[i]);
        batch.put_record(2, b"b", &[i]);
        batch.delete_record(3, b"c");
        subject.store().apply(&mut batch).unwrap();
    }
    let subject = subject.crash();
    let (a, b) = (get(subject.store(), 1, b"a").unwrap(), get(subject.store(), 2, b"b"));
    assert!(b.as_ref() == Some(&a) || (a == b"old" && b.is_none()), "{a:?} {b:?}");
}

pub(crate) fn a_restart_keeps_everything<S: Subject>() {
    let subject = with_awkward_names::<S>();
    let before = scan(subject.store(), ALL, 4);
    let subject = subject.restart();
    assert_eq!(scan(subject.store(), ALL, 4), before);
}

/// Makes one `#[test]` of each claim above.
macro_rules! conformance_suite {
    ($subject:ty) => {
        $crate::conformance::conformance_suite! { $subject:
            a_get_sees_what_was_applied_before_it_is_synced
            the_last_write_of_a_key_wins_within_a_batch_and_across
            an_applied_batch_is_empty_and_can_be_used_again
            a_deleted_record_is_gone_and_deleting_it_again_is_no_error
            empty_and_large_payloads_come_back_as_they_were
            records_are_scanned_by_token_then_key_whatever_their_bytes
            pages_of_any_size_give_every_record_once
            a_page_ends_with_the_row_that_reaches_the_byte_limit
            a_scan_keeps_to_its_tokens
            a_scan_goes_on_behind_a_key_that_is_gone_or_outside_the_range
            metadata_is_kept_by_name_and_is_no_record
            a_corrupt_record_is_an_error_and_the_scan_goes_on
            a_corrupt_record_can_be_set_aside_and_written_again_in_one_batch
            a_crash_keeps_what_was_synced
            a_crash_keeps_a_batch_whole_or_not_at_all
            a_restart_keeps_everything
            rows_of_one_name_in_different_columns_are_different_rows
            a_scan_keeps_to_its_column
            a_count_is_of_one_column_and_range_in_keys_and_payloads
            a_corrupt_row_of_any_column_is_an_error_that_names_it
            a_corrupt_row_of_any_column_can_be_overwritten_or_deleted
            a_record_set_aside_is_listed_as_corrupt_and_can_be_deleted
            metadata_can_be_read_as_rows
            a_crash_keeps_a_batch_across_columns_whole_or_not_at_all
        }
    };
    ($subject:ty: $($claim:ident)*) => {
        mod conformance {
            use super::*;
            $(#[test] fn $claim() { $crate::conformance::$claim::<$subject>(); })*
        }
    };
}
pub(crate) use conformance_suite;
