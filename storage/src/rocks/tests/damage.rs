//! Flipped bits and torn tails in RocksDB's files, before it opens them. Damage that is met later: `damaged_block`.

use super::*;
use crate::conformance::Scanned;

/// Two hundred synced batches in the log of a store that is no longer open.
fn logged() -> TempDir {
    let home = empty_dir();
    let store = open(home.path());
    for i in 0..200u64 {
        put(&store, i, b"k", &[i as u8; 1000]);
        store.sync().unwrap();
    }
    home
}

fn listing(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = ["", "db"]
        .iter()
        .flat_map(|sub| fs::read_dir(data.join(sub)).unwrap().map(|e| e.unwrap().path()))
        .filter(|path| path.is_file() && !path.ends_with("LOCK"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_flipped_bit_in_mid_log_is_refused_and_the_message_says_what_to_do() {
    for bit in [0, 4 * 8, 5 * 8 + 6, 6 * 8 + 2, 100_000 * 8 + 3, 150_001 * 8] {
        let home = logged();
        let log = largest(home.path(), "log");
        flip(&log, bit);
        let before = listing(home.path());
        let error = RocksStorage::open(home.path(), &small()).unwrap_err();
        assert!(matches!(error, OpenError::WalCorrupt { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            error.is_damage() && text.contains("rebuilt from the other replicas"),
            "{text}"
        );
        assert!(listing(home.path()) == before, "nothing is deleted or changed");
    }
}

/// Lets the last record of a log claim 32 KiB more than it has.
fn lengthen_last_record(log: &Path) {
    let bytes = fs::read(log).unwrap();
    let ends_the_file =
        |at: &usize| at + 7 + usize::from(bytes[at + 4]) + 256 * usize::from(bytes[at + 5]) == bytes.len();
    let header = (0..bytes.len() - 7).rev().find(ends_the_file).unwrap();
    flip(log, (header + 5) * 8 + 7);
}

/// The engine alone opens such a log, without its end: the reason for `log_check`.
#[test]
fn a_flipped_length_in_the_last_block_is_not_taken_for_a_torn_tail() {
    let home = logged();
    lengthen_last_record(&largest(home.path(), "log"));
    assert!(matches!(
        RocksStorage::open(home.path(), &small()),
        Err(OpenError::WalCorrupt { .. })
    ));
}

/// As above; the engine would open without the last data file, and without an error.
#[test]
fn a_flipped_length_in_the_manifest_does_not_drop_data_files() {
    let home = empty_dir();
    let store = open(home.path());
    put(&store, 1, b"k", b"v");
    store.db.flush().unwrap();
    drop(store);
    let current = fs::read_to_string(home.path().join("db/CURRENT")).unwrap();
    lengthen_last_record(&home.path().join("db").join(current.trim_end()));
    let error = RocksStorage::open(home.path(), &small()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_torn_tail_opens_with_everything_before_it() {
    for torn in [1, 500, 1500] {
        let home = logged();
        let log = fs::OpenOptions::new()
            .write(true)
            .open(largest(home.path(), "log"))
            .unwrap();
        log.set_len(log.metadata().unwrap().len() - torn).unwrap();
        let store = open(home.path());
        let kept = scan(&store, ALL, 50);
        assert_eq!(kept.len() as u64, 199 - torn / 1000);
        assert!(kept.iter().enumerate().all(|(i, row)| row.0 == i as u64));
    }
}

#[test]
fn what_lies_behind_the_last_synced_batch_costs_nothing_of_it_or_is_refused() {
    use std::io::Write;
    // Zeros are a file that was extended and not filled. 0xa5 reads as a record longer than the file: torn off. 0x01 reads
    // as a whole record that is wrong, which is not what a crash leaves.
    for (garbage, opens) in [(0x00, true), (0xa5, true), (0x01, false)] {
        let home = logged();
        let mut log = fs::OpenOptions::new()
            .append(true)
            .open(largest(home.path(), "log"))
            .unwrap();
        log.write_all(&[garbage; 4000]).unwrap();
        match RocksStorage::open(home.path(), &small()) {
            Ok(store) => assert!(opens && scan(&store, ALL, 50).len() == 200),
            Err(error) => assert!(!opens && matches!(error, OpenError::WalCorrupt { .. }), "{error}"),
        }
    }
}

#[test]
fn a_missing_log_is_refused() {
    let home = empty_dir();
    drop(open(home.path()));
    // Two full buffers wait for a third before they are written out, so two closed logs are still needed.
    let mut engine = RocksOptions {
        write_buffer_bytes: 64 << 10,
        ..small()
    }
    .engine();
    engine.set_min_write_buffer_number_to_merge(3);
    let db = DB::open(&engine, home.path().join("db")).unwrap();
    let mut i = 0u64;
    while logs(home.path()).len() < 3 {
        db.put(row::encode(Column::Record, i, b"k"), [0; 1000]).unwrap();
        db.flush_wal(true).unwrap();
        i += 1;
    }
    let crashed = empty_dir();
    copy(home.path(), crashed.path());
    fs::remove_file(&logs(crashed.path())[0]).unwrap();
    let error = RocksStorage::open(crashed.path(), &small()).unwrap_err();
    assert!(matches!(error, OpenError::WalCorrupt { .. }), "{error:?}");

    copy(home.path(), crashed.path());
    assert_eq!(
        open(crashed.path()).fresh_stats().keys_estimate,
        i,
        "with the log back it opens"
    );
}

fn logs(data: &Path) -> Vec<PathBuf> {
    let files = listing(data).into_iter().map(|(path, _)| path);
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect()
}

/// Records in two data files and in the log, for the test below.
fn mixed(path: &Path) -> usize {
    let store = open(path);
    for i in 0..300u64 {
        put(
            &store,
            i,
            b"k",
            &i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().repeat(10),
        );
        if i % 100 == 99 && i < 250 {
            store.db.flush().unwrap();
        }
    }
    store.sync().unwrap();
    300
}

#[test]
fn no_flipped_bit_anywhere_loses_or_changes_a_record_silently() {
    let home = empty_dir();
    let sound = home.path().join("sound");
    let rows = mixed(&sound);
    let expected = scan(&open(&sound), ALL, rows);
    fs::remove_dir_all(&sound).unwrap();
    mixed(&sound);
    // What RocksDB does not read back: its own log, its options, its name.
    let unread = |name: &str| {
        ["LOG", "LOCK", "OPTIONS", "IDENTITY"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let files: Vec<_> = listing(&sound)
        .into_iter()
        .map(|(path, bytes)| (path, bytes.len() * 8))
        .collect();
    let mut draw = 0x2545_f491_4f6c_dd1du64;
    let mut noticed = 0;
    for (path, bits) in files
        .iter()
        .filter(|(path, bits)| *bits > 0 && !unread(path.file_name().unwrap().to_str().unwrap()))
    {
        for _ in 0..40 {
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17;
            let bit = draw as usize % bits;
            let data = home.path().join("copy");
            let _ = fs::remove_dir_all(&data);
            copy(&sound, &data);
            flip(&data.join(path.strip_prefix(&sound).unwrap()), bit);
            noticed += usize::from(is_noticed(&data, &expected, &format!("{} bit {bit}", path.display())));
        }
    }
    assert!(noticed > 100, "{noticed}");
}

/// False if the store works as if nothing had happened, which is fine where the bit does not matter. Panics if it
/// misses or invents something without an error.
fn is_noticed(data: &Path, expected: &[Scanned], what: &str) -> bool {
    let Ok(store) = RocksStorage::open(data, &small()) else {
        return true;
    };
    let mut noticed = false;
    for (token, key, payload) in expected {
        match store.get(*token, key) {
            Ok(found) => assert_eq!(found.as_deref(), payload.as_deref(), "{what}: token {token}"),
            Err(_) => noticed = true,
        }
    }
    match store.scan(Column::Record, ALL, None, ScanLimit::rows(usize::MAX)) {
        Ok(page) if page.done => assert_eq!(page.rows.len(), expected.len(), "{what}"),
        Ok(_) | Err(_) => noticed = true,
    }
    noticed
}
