//! The model against the conformance suite, and the faults that only it has.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::conformance::{ALL, Subject, conformance_suite, get, put, scan};

struct Memory(MemStorage);

impl Subject for Memory {
    type Store = MemStorage;

    fn new() -> Self {
        Memory(MemStorage::new())
    }

    fn store(&self) -> &MemStorage {
        &self.0
    }

    fn crash(self) -> Self {
        self.0.crash(0);
        self
    }

    fn restart(self) -> Self {
        self.0.sync().unwrap();
        self.crash()
    }

    fn rot(&self, column: Column, token: u64, key: &[u8], bit: usize) {
        assert!(self.0.rot(column, token, key, bit));
    }
}

conformance_suite!(Memory);

#[test]
fn a_crash_keeps_the_chosen_prefix_of_unsynced_batches() {
    for survive in 0..=6 {
        let store = MemStorage::new();
        put(&store, 1, b"k", &[0]);
        store.sync().unwrap();
        for i in 1..=5u8 {
            put(&store, 1, b"k", &[i]);
            put_or_delete(&store, i);
        }
        assert_eq!(store.unsynced(), 10);
        store.crash(survive);
        assert_eq!(store.unsynced(), 0);
        assert_eq!(get(&store, 1, b"k").unwrap(), [survive.div_ceil(2) as u8]);
        let present = matches!(survive, 2..4 | 6..8);
        assert_eq!(get(&store, 2, b"toggled").is_some(), present, "{survive}");
    }
}

/// Odd: there; even: gone.
fn put_or_delete(store: &MemStorage, i: u8) {
    let mut batch = Batch::new();
    match i % 2 {
        1 => batch.put_record(2, b"toggled", &[i]),
        _ => batch.delete_record(2, b"toggled"),
    }
    store.apply(&mut batch).unwrap();
}

#[test]
fn a_sync_covers_what_was_applied_when_it_began_and_no_more() {
    let store = MemStorage::new();
    put(&store, 1, b"before", b"");
    let point = store.begin_sync();
    put(&store, 1, b"after", b"");
    store.finish_sync(point).unwrap();
    store.crash(0);
    assert!(get(&store, 1, b"before").is_some());
    assert!(get(&store, 1, b"after").is_none());
}

#[test]
fn a_sync_begun_before_a_crash_makes_nothing_durable_that_came_after() {
    let store = MemStorage::new();
    put(&store, 1, b"before", b"");
    let point = store.begin_sync();
    store.crash(0);
    put(&store, 1, b"after", b"");
    store.finish_sync(point).unwrap();
    store.crash(0);
    assert_eq!(scan(&store, ALL, 9), []);
}

#[test]
fn a_failed_sync_stops_the_store_until_it_is_crashed() {
    let store = MemStorage::new();
    put(&store, 1, b"k", b"v");
    store.fail_next_sync();
    for _ in 0..2 {
        assert!(matches!(store.sync(), Err(StorageError::SyncFailed { .. })));
    }
    let mut batch = Batch::new();
    batch.put_record(1, b"k2", b"v");
    assert!(matches!(store.apply(&mut batch), Err(StorageError::SyncFailed { .. })));
    assert_eq!(get(&store, 1, b"k").unwrap(), b"v", "reads go on");
    store.crash(1);
    assert_eq!(
        get(&store, 1, b"k").unwrap(),
        b"v",
        "what the failed sync wrote may be there all the same"
    );
    store.apply(&mut batch).unwrap();
}

#[test]
fn a_refused_batch_changes_nothing_and_can_be_tried_again() {
    let store = MemStorage::new();
    let mut batch = Batch::new();
    batch.put_record(1, b"k", b"v");
    for fault in [ApplyFault::Full, ApplyFault::Stalled] {
        store.fail_next_apply(fault);
        let error = store.apply(&mut batch).unwrap_err();
        assert!(error.is_certainly_not_applied(), "{error}");
        assert_eq!((get(&store, 1, b"k"), batch.len()), (None, 1));
    }
    store.apply(&mut batch).unwrap();
    assert_eq!(get(&store, 1, b"k").unwrap(), b"v");
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    let store = MemStorage::new();
    put(&store, 1, b"k", b"v");
    store.set_full(true);
    let mut batch = Batch::new();
    batch.put_record(1, b"k", b"v2");
    for _ in 0..3 {
        assert!(matches!(
            store.apply(&mut batch),
            Err(StorageError::Full { refused: true, .. })
        ));
    }
    assert_eq!(get(&store, 1, b"k").unwrap(), b"v");
    store.set_full(false);
    store.apply(&mut batch).unwrap();
}

#[test]
fn a_failed_write_to_the_log_is_of_unknown_outcome() {
    let store = MemStorage::new();
    let mut batch = Batch::new();
    batch.put_record(1, b"k", b"v");
    store.fail_next_apply(ApplyFault::Io);
    assert!(!store.apply(&mut batch).unwrap_err().is_certainly_not_applied());
    assert!(store.apply(&mut batch).is_err());
}

#[test]
fn a_read_error_is_not_an_absent_record() {
    let store = MemStorage::new();
    store.fail_reads(2);
    assert!(matches!(
        store.get(1, b"k"),
        Err(StorageError::Io { operation: "get", .. })
    ));
    assert!(store.scan(Column::Record, ALL, None, ScanLimit::rows(1)).is_err());
    assert_eq!(store.get(1, b"k"), Ok(None));
}

#[test]
fn a_scan_that_meets_an_unreadable_row_ends_early_and_then_fails() {
    let store = MemStorage::new();
    for key in [b"a", b"b", b"c"] {
        put(&store, 1, key, b"v");
    }
    store.fail_reads_if(|_, key| key == b"b");
    assert!(store.get(1, b"a").is_ok() && store.get(1, b"b").is_err());
    let page = store.scan(Column::Record, ALL, None, ScanLimit::rows(9)).unwrap();
    assert_eq!((page.rows.len(), page.done), (1, false));
    assert!(
        store
            .scan(Column::Record, ALL, page.last(), ScanLimit::rows(9))
            .is_err()
    );
}

#[test]
fn a_wiped_key_does_not_come_back_with_a_crash() {
    let store = MemStorage::new();
    put(&store, 1, b"k", b"v");
    store.sync().unwrap();
    put(&store, 1, b"k", b"v2");
    assert!(store.wipe_key(1, b"k"));
    assert!(!store.wipe_key(1, b"k"));
    store.crash(0);
    assert_eq!(get(&store, 1, b"k"), None);
}

#[test]
fn a_wiped_store_is_empty_and_goes_on_working() {
    let store = MemStorage::new();
    let mut batch = Batch::new();
    batch.put_meta("m", b"x");
    batch.put_record(1, b"k", b"v");
    store.apply(&mut batch).unwrap();
    store.wipe();
    store.crash(0);
    assert_eq!((store.get_meta("m").unwrap(), store.records()), (None, vec![]));
    put(&store, 1, b"k", b"v");
    assert_eq!(store.records().len(), 1);
}

#[test]
fn corrupt_metadata_is_an_error_by_name() {
    let store = MemStorage::new();
    assert!(!store.corrupt_meta("m", 0));
    let mut batch = Batch::new();
    batch.put_meta("m", b"x");
    store.apply(&mut batch).unwrap();
    assert!(store.corrupt_meta("m", 17));
    assert!(matches!(store.get_meta("m"), Err(StorageError::CorruptMeta { name, .. }) if name == "m"));
}

#[test]
fn a_damaged_row_is_unreadable_until_it_is_overwritten_or_deleted() {
    let store = MemStorage::new();
    for key in [b"a", b"b", b"c"] {
        put(&store, 5, key, b"v");
    }
    put(&store, 6, b"d", b"v");
    assert_eq!(store.damage(Column::Record, 5..=5), 3);
    assert!(matches!(store.get(5, b"a"), Err(StorageError::Damaged { .. })));
    assert_eq!(get(&store, 6, b"d").unwrap(), b"v");
    assert!(matches!(
        store.scan(Column::Record, ALL, None, ScanLimit::rows(9)),
        Err(StorageError::Damaged { .. })
    ));
    assert!(store.count(Column::Record, ALL).is_err() && store.count(Column::Record, 6..=6).is_ok());
    put(&store, 5, b"a", b"anew");
    let page = store.scan(Column::Record, ALL, None, ScanLimit::rows(9)).unwrap();
    assert_eq!((page.rows.len(), page.done), (1, false));
    let mut batch = Batch::new();
    batch.delete_record(5, b"b");
    batch.delete_record(5, b"c");
    store.apply(&mut batch).unwrap();
    assert_eq!(scan(&store, ALL, 9).len(), 2);
}

#[test]
fn a_crash_that_takes_a_write_back_brings_the_damage_under_it_back() {
    let store = MemStorage::new();
    put(&store, 5, b"k", b"v");
    store.sync().unwrap();
    put(&store, 5, b"k", b"unsynced");
    store.damage(Column::Record, 5..=5);
    put(&store, 5, b"k", b"over it");
    assert_eq!(get(&store, 5, b"k").unwrap(), b"over it");
    store.crash(0);
    assert!(matches!(store.get(5, b"k"), Err(StorageError::Damaged { .. })));
}

#[test]
fn a_damaged_block_stops_scans_whatever_is_written_over_it() {
    let store = MemStorage::new();
    for token in 0..10 {
        put(&store, token, b"k", b"v");
    }
    store.damage_block(Column::Record, 4..=5);
    store.crash(100);
    put(&store, 4, b"k", b"anew");
    put(&store, 5, b"k", b"anew");
    assert_eq!(get(&store, 5, b"k").unwrap(), b"anew");
    let page = store.scan(Column::Record, ALL, None, ScanLimit::rows(99)).unwrap();
    assert_eq!((page.rows.len(), page.done), (4, false));
    for tokens in [4..=4, 5..=9] {
        let error = store
            .scan(Column::Record, tokens, None, ScanLimit::rows(9))
            .unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }));
    }
    assert_eq!(store.count(Column::Record, 6..=9).unwrap().rows, 4);
    assert_eq!(scan(&store, 0..=3, 9).len(), 4);
    store.wipe();
    assert_eq!(scan(&store, ALL, 9), []);
}

#[test]
fn a_damaged_row_cannot_be_set_aside_and_nothing_of_that_batch_happens() {
    let store = MemStorage::new();
    put(&store, 5, b"k", b"v");
    store.damage(Column::Record, ALL);
    let mut batch = Batch::new();
    batch.put_record(1, b"beside", b"v");
    batch.set_aside(5, b"k");
    assert!(matches!(store.apply(&mut batch), Err(StorageError::Damaged { .. })));
    assert_eq!((get(&store, 1, b"beside"), batch.len()), (None, 2));
}

#[test]
fn background_damage_stops_the_store_and_every_later_error_says_so() {
    let store = MemStorage::new();
    store.fail_next_apply(ApplyFault::Damaged);
    let mut batch = Batch::new();
    batch.put_record(1, b"k", b"v");
    for _ in 0..2 {
        let error = store.apply(&mut batch).unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }) && !error.is_certainly_not_applied());
        assert!(matches!(store.sync(), Err(StorageError::Damaged { .. })));
    }
    store.crash(0);
    store.apply(&mut batch).unwrap();
}

#[test]
fn an_old_copy_of_the_disk_holds_what_was_durable_and_nothing_since() {
    let store = MemStorage::new();
    put(&store, 1, b"k", b"old");
    put(&store, 2, b"gone later", b"v");
    store.sync().unwrap();
    put(&store, 1, b"k", b"unsynced");
    put(&store, 3, b"unsynced", b"v");
    let copy = store.snapshot();
    assert_eq!(get(&store, 1, b"k").unwrap(), b"unsynced", "a copy changes nothing");
    store.sync().unwrap();
    let mut batch = Batch::new();
    batch.delete_record(2, b"gone later");
    batch.put(Column::Hint, 9, b"h", b"v");
    store.apply(&mut batch).unwrap();
    let point = store.begin_sync();
    for _ in 0..2 {
        store.restore(&copy);
        assert_eq!(store.unsynced(), 0);
        assert_eq!(scan(&store, ALL, 9).len(), 2);
        assert_eq!(get(&store, 1, b"k").unwrap(), b"old");
        assert!(store.rows(Column::Hint).is_empty());
        put(&store, 4, b"since", b"v");
        store.finish_sync(point).unwrap();
        store.crash(0);
        assert_eq!(get(&store, 4, b"since"), None, "an older sync does not cover it");
    }
}
