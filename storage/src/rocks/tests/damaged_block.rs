//! A data file with a flipped bit in the middle: what can still be read of it, and what is left when it is written over.

use super::*;
use crate::ScanAround;

const ROWS: u64 = 20_000;

fn payload(i: u64) -> Vec<u8> {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().repeat(8)
}

/// Tokens as far apart as those of hashed keys.
fn token(i: u64) -> u64 {
    i * (u64::MAX / ROWS)
}

/// One data file of records; bits are flipped at these places in it (of a thousand).
fn damaged_at(places: &[usize]) -> (TempDir, RocksStorage) {
    let home = empty_dir();
    let store = open(home.path());
    let mut batch = Batch::new();
    for i in 0..ROWS {
        batch.put_record(token(i), b"key", &payload(i));
    }
    store.apply(&mut batch).unwrap();
    store.db.flush().unwrap();
    drop(store);
    let file = largest(home.path(), "sst");
    let len = fs::metadata(&file).unwrap().len() as usize;
    places.iter().for_each(|place| flip(&file, len / 1000 * place * 8));
    let store = open(home.path());
    (home, store)
}

fn unreadable(store: &RocksStorage) -> Vec<u64> {
    (0..ROWS).filter(|i| store.get(token(*i), b"key").is_err()).collect()
}

#[test]
fn a_flipped_bit_in_a_data_file_is_an_error_of_get_and_scan() {
    let (_home, store) = damaged_at(&[500]);
    let (mut seen, mut after) = (0, None::<(u64, Bytes)>);
    let error = loop {
        let position = after.as_ref().map(|(token, key)| (*token, &key[..]));
        match store.scan(Column::Record, ALL, position, ScanLimit::rows(1000)) {
            Ok(page) => {
                assert!(!page.done, "the scan ended after {seen} rows without an error");
                seen += page.rows.len();
                after = page.rows.last().map(|row| (row.token, row.key.clone()));
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("rebuild it from the replicas"));
    let unreadable = unreadable(&store);
    assert_eq!(
        unreadable[0], seen as u64,
        "the scan gave everything in front of the damage"
    );
    assert!(unreadable.len() < 1000, "one block: {}", unreadable.len());
    let error = store.get(token(unreadable[0]), b"key").unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    let error = store.count(Column::Record, ALL).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
}

#[test]
fn a_scan_around_damage_gives_every_row_of_every_other_block() {
    for places in [&[0][..], &[500], &[100, 101, 700], &[300, 310, 320, 600]] {
        let (_home, store) = damaged_at(places);
        let mut scan = ScanAround::new(Column::Record, ALL);
        let mut seen = Vec::new();
        while !scan.is_done() {
            seen.extend(scan.next_page(&store, ScanLimit::rows(700)).unwrap().rows);
        }
        let expected: Vec<u64> = (0..ROWS).filter(|i| store.get(token(*i), b"key").is_ok()).collect();
        assert!((1..1000).contains(&(ROWS as usize - expected.len())), "{places:?}");
        assert!(
            seen.iter().map(|row| row.token).eq(expected.iter().map(|i| token(*i))),
            "{places:?}: {} of {} rows",
            seen.len(),
            expected.len()
        );
        // Blocks side by side are one place.
        assert!((1..=places.len()).contains(&scan.unreadable().len()), "{places:?}");
        for i in unreadable(&store) {
            assert!(scan.unreadable().iter().any(|range| range.contains(&token(i))));
        }
        assert!(
            scan.unreadable()
                .iter()
                .all(|range| range.end() - range.start() < token(300))
        );
    }
}

#[test]
fn what_is_written_over_a_damaged_block_is_read_again_and_stays() {
    let (home, store) = damaged_at(&[500]);
    let lost = unreadable(&store);
    let mut batch = Batch::new();
    for i in &lost[1..] {
        batch.put_record(token(*i), b"key", b"anew");
    }
    batch.delete_record(token(lost[0]), b"key");
    store.apply(&mut batch).unwrap();
    store.sync().unwrap();
    let check = |store: &RocksStorage, then| {
        assert_eq!(get(store, token(lost[0]), b"key"), None, "{then}");
        assert!(
            lost[1..]
                .iter()
                .all(|i| get(store, token(*i), b"key").unwrap() == b"anew"),
            "{then}"
        );
        // The block is still under it, and a scan has to look.
        let tokens = token(lost[0])..=token(lost[0]);
        let error = store
            .scan(Column::Record, tokens, None, ScanLimit::rows(9))
            .unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{then}: {error}");
    };
    check(&store, "in memory");
    store.db.flush().unwrap();
    check(&store, "in a newer file");
    drop(store);
    check(&open(home.path()), "after a restart");
}

#[test]
fn a_damaged_record_cannot_be_set_aside() {
    let (_home, store) = damaged_at(&[500]);
    let lost = unreadable(&store)[0];
    let mut batch = Batch::new();
    batch.put_record(1, b"beside", b"v");
    batch.set_aside(token(lost), b"key");
    let error = store.apply(&mut batch).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    assert_eq!((get(&store, 1, b"beside"), batch.len()), (None, 2));
}

#[test]
fn background_work_that_meets_a_damaged_block_ends_all_writes_as_damage() {
    let (home, store) = damaged_at(&[500]);
    put(&store, 1, b"beside", b"v");
    store.sync().unwrap();
    store.db.compact_range(None::<&[u8]>, None::<&[u8]>);
    let mut batch = Batch::new();
    batch.put_record(2, b"beside", b"v");
    for _ in 0..2 {
        let error = store.apply(&mut batch).unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
        assert!(!error.is_certainly_not_applied());
        let error = store.sync().unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    }
    assert_eq!(get(&store, 1, b"beside").unwrap(), b"v", "reads go on");
    assert_eq!(get(&store, 2, b"beside"), None);
    drop(store);
    open(home.path());
}
