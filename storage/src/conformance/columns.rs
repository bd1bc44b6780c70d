//! What is claimed about columns: each is a space of its own, and all of them share batches.
#![allow(clippy::unwrap_used)]

use super::{ALL, Subject};
use crate::{Batch, Column, ScanLimit, Storage, StorageError};

/// All that hold rows with a checksum of their own.
const COLUMNS: [Column; 5] = [Column::Meta, Column::Record, Column::Hint, Column::Leaf, Column::Settle];

fn in_every_column<S: Subject>(token: u64, key: &[u8]) -> S {
    let subject = S::new();
    let mut batch = Batch::new();
    for column in COLUMNS {
        batch.put(column, token, key, &[column as u8; 9]);
    }
    subject.store().apply(&mut batch).unwrap();
    subject
}

/// Column and token of everything in the store, by scans.
fn listed<S: Subject>(subject: &S) -> Vec<(Column, u64)> {
    let page = |column| subject.store().scan(column, ALL, None, ScanLimit::rows(9)).unwrap();
    COLUMNS
        .into_iter()
        .chain([Column::Aside])
        .flat_map(|column| page(column).rows.into_iter().map(move |row| (column, row.token)))
        .collect()
}

pub(crate) fn rows_of_one_name_in_different_columns_are_different_rows<S: Subject>() {
    for (token, key) in [(0, &b""[..]), (7, b"k"), (u64::MAX, b"\xff\xff")] {
        let subject: S = in_every_column(token, key);
        for gone in COLUMNS {
            for column in COLUMNS {
                let found = subject.store().get_row(column, token, key).unwrap();
                let expected = (column >= gone).then(|| vec![column as u8; 9]);
                assert_eq!(
                    found.map(|f| f.to_vec()),
                    expected,
                    "{column} without those up to {gone}"
                );
            }
            let mut batch = Batch::new();
            batch.delete(gone, token, key);
            subject.store().apply(&mut batch).unwrap();
        }
    }
}

pub(crate) fn a_scan_keeps_to_its_column<S: Subject>() {
    for token in [0, 7, u64::MAX] {
        let subject: S = in_every_column(token, b"\xff\xff");
        assert_eq!(listed(&subject), COLUMNS.map(|column| (column, token)));
        for column in COLUMNS {
            let page = subject
                .store()
                .scan(column, ALL, Some((token, b"\xff\xff")), ScanLimit::rows(9))
                .unwrap();
            assert!(page.rows.is_empty() && page.done, "{column}");
        }
    }
}

pub(crate) fn a_count_is_of_one_column_and_range_in_keys_and_payloads<S: Subject>() {
    let subject: S = in_every_column(7, b"key");
    let mut batch = Batch::new();
    batch.put(Column::Hint, 7, b"longer key", b"");
    batch.put(Column::Hint, 8, b"", &[0; 1000]);
    batch.put(Column::Hint, u64::MAX, b"\xff", b"x");
    subject.store().apply(&mut batch).unwrap();
    let count = |column, tokens| {
        let count = subject.store().count(column, tokens).unwrap();
        (count.rows, count.bytes)
    };
    assert_eq!(count(Column::Record, ALL), (1, 12));
    assert_eq!(count(Column::Hint, ALL), (4, 12 + 10 + 1000 + 2));
    assert_eq!(count(Column::Hint, 7..=7), (2, 22));
    assert_eq!(count(Column::Hint, 9..=100), (0, 0));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = 9..=1;
    assert_eq!(count(Column::Hint, reversed), (0, 0));
    subject.rot(Column::Hint, 7, b"key", 60);
    assert_eq!(count(Column::Hint, 7..=7), (2, 22), "a corrupt row is a row");
}

pub(crate) fn a_corrupt_row_of_any_column_is_an_error_that_names_it<S: Subject>() {
    let subject: S = in_every_column(7, b"k");
    for rotten in COLUMNS {
        subject.rot(rotten, 7, b"k", 77);
        let error = subject.store().get_row(rotten, 7, b"k").unwrap_err();
        assert!(
            matches!(&error, StorageError::Corrupt { column, token: 7, key, .. } if *column == rotten && key == "k"),
            "{error}"
        );
        let rows = subject
            .store()
            .scan(rotten, ALL, None, ScanLimit::rows(9))
            .unwrap()
            .rows;
        assert_eq!(rows[0].payload, Err(error));
        for column in COLUMNS.into_iter().filter(|column| *column > rotten) {
            assert!(subject.store().get_row(column, 7, b"k").is_ok());
        }
    }
}

pub(crate) fn a_corrupt_row_of_any_column_can_be_overwritten_or_deleted<S: Subject>() {
    let subject: S = in_every_column(7, b"k");
    for column in COLUMNS {
        let mut batch = Batch::new();
        subject.rot(column, 7, b"k", 50);
        batch.put(column, 7, b"k", b"anew");
        subject.store().apply(&mut batch).unwrap();
        assert_eq!(subject.store().get_row(column, 7, b"k").unwrap().unwrap(), "anew");
        subject.rot(column, 7, b"k", 50);
        batch.delete(column, 7, b"k");
        subject.store().apply(&mut batch).unwrap();
        assert_eq!(subject.store().get_row(column, 7, b"k").unwrap(), None);
    }
    assert_eq!(listed(&subject), []);
}

pub(crate) fn a_record_set_aside_is_listed_as_corrupt_and_can_be_deleted<S: Subject>() {
    let subject: S = in_every_column(7, b"k");
    let mut batch = Batch::new();
    batch.set_aside(7, b"k");
    subject.store().apply(&mut batch).unwrap();
    let column = Column::Aside;
    let rows = subject
        .store()
        .scan(column, ALL, None, ScanLimit::rows(9))
        .unwrap()
        .rows;
    assert_eq!((rows.len(), rows[0].token), (1, 7));
    assert!(matches!(
        rows[0].payload,
        Err(StorageError::Corrupt {
            column: Column::Aside,
            ..
        })
    ));
    assert!(subject.store().get_row(column, 7, b"k").is_err());
    batch.delete(column, 7, b"k");
    subject.store().apply(&mut batch).unwrap();
    assert_eq!(subject.store().get_aside(7, b"k").unwrap(), None);
}

pub(crate) fn metadata_can_be_read_as_rows<S: Subject>() {
    let subject = S::new();
    let mut batch = Batch::new();
    batch.put_meta("by name", b"1");
    batch.put(Column::Meta, 0, b"as a row", b"2");
    subject.store().apply(&mut batch).unwrap();
    let by_row = subject.store().get_row(Column::Meta, 0, b"by name").unwrap();
    assert_eq!(by_row.unwrap(), "1");
    assert_eq!(subject.store().get_meta("as a row").unwrap().unwrap(), "2");
    subject.rot(Column::Meta, 0, b"by name", 1);
    let error = subject.store().get_meta("by name").unwrap_err();
    assert!(matches!(error, StorageError::CorruptMeta { name, .. } if name == "by name"));
}

pub(crate) fn a_crash_keeps_a_batch_across_columns_whole_or_not_at_all<S: Subject>() {
    let subject: S = in_every_column(7, b"k");
    subject.store().sync().unwrap();
    let mut batch = Batch::new();
    for column in COLUMNS {
        batch.delete(column, 7, b"k");
        batch.put(column, 8, b"k", b"moved");
    }
    subject.store().apply(&mut batch).unwrap();
    let found = listed(&subject.crash());
    assert!(
        found == COLUMNS.map(|column| (column, 7)) || found == COLUMNS.map(|column| (column, 8)),
        "{found:?}"
    );
}
