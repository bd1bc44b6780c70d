//! The store on disk against the conformance suite, against the model, and against what happens to disks.
#![allow(clippy::unwrap_used)]

mod aside;
mod damage;
mod damaged_block;
mod data_dir;
mod full_disk;
mod model;

use std::{fs, io, os::unix::fs::PermissionsExt, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::conformance::{ALL, Subject, conformance_suite, get, put, scan};

/// Small, and content with whatever space the machine has.
fn small() -> RocksOptions {
    RocksOptions {
        block_cache_bytes: 8 << 20,
        reserve_bytes: 0,
        ..RocksOptions::default()
    }
}

fn open(path: impl AsRef<Path>) -> RocksStorage {
    RocksStorage::open(path, &small()).unwrap()
}

/// A directory of its owner's, gone when the test ends.
fn empty_dir() -> TempDir {
    tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .unwrap()
}

/// What a crash leaves: the files as they are now, without what is still in this process's buffers.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() {
            copy(&from, &to);
        } else {
            match fs::copy(&from, &to) {
                // Obsolete since we listed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

struct OnDisk {
    store: RocksStorage,
    home: TempDir,
}

impl Subject for OnDisk {
    type Store = RocksStorage;

    fn new() -> Self {
        let home = empty_dir();
        OnDisk {
            store: open(home.path().join("data")),
            home,
        }
    }

    fn store(&self) -> &RocksStorage {
        &self.store
    }

    fn crash(self) -> Self {
        let home = empty_dir();
        // A copy takes a while, a crash does not: what is listed must still be there when it is copied.
        self.store.db.disable_file_deletions().unwrap();
        copy(self.store.path(), &home.path().join("data"));
        drop(self);
        OnDisk {
            store: open(home.path().join("data")),
            home,
        }
    }

    fn restart(self) -> Self {
        self.store.sync().unwrap();
        let OnDisk { store, home } = self;
        drop(store);
        OnDisk {
            store: open(home.path().join("data")),
            home,
        }
    }

    fn rot(&self, column: Column, token: u64, key: &[u8], bit: usize) {
        let row = row::encode(column, token, key);
        let mut stored = self.store.db.get(&row).unwrap().unwrap();
        stored[bit / 8] ^= 1 << (bit % 8);
        self.store.db.put(&row, stored).unwrap();
    }
}

conformance_suite!(OnDisk);

#[test]
fn what_was_handed_over_survives_the_process_and_what_was_not_does_not() {
    let disk = OnDisk::new();
    put(&disk.store, 1, b"handed", b"v");
    disk.store.hand_over().unwrap();
    put(&disk.store, 2, b"kept", b"v");
    let disk = disk.crash();
    assert_eq!(get(&disk.store, 1, b"handed").as_deref(), Some(&b"v"[..]));
    assert_eq!(get(&disk.store, 2, b"kept"), None);
}

#[test]
fn one_thread_syncs_while_another_applies() {
    fn assert_shareable<T: Send + Sync>(_: &T) {}
    let subject = OnDisk::new();
    assert_shareable(subject.store());
    let store = subject.store();
    std::thread::scope(|threads| {
        let syncing = threads.spawn(|| (0..50).try_for_each(|_| store.sync()));
        for i in 0..2000 {
            put(store, i, b"k", &[i as u8; 100]);
        }
        syncing.join().unwrap().unwrap();
    });
    store.sync().unwrap();
    let subject = subject.crash();
    assert_eq!(scan(subject.store(), ALL, 300).len(), 2000);
}

#[test]
fn what_was_applied_and_not_synced_makes_no_system_call() {
    let subject = OnDisk::new();
    put(subject.store(), 1, b"k", &[7; 1000]);
    let logged = subject.store().fresh_stats().wal_bytes;
    put(subject.store(), 2, b"k", &[7; 1000]);
    assert_eq!(
        subject.store().fresh_stats().wal_bytes,
        logged,
        "nothing is written before a sync"
    );
    subject.store().sync().unwrap();
    assert!(subject.store().fresh_stats().wal_bytes >= logged + 2000);
}

#[test]
fn a_store_short_of_space_refuses_writes_and_takes_them_again_by_itself() {
    let subject = OnDisk::new();
    let store = subject.store();
    put(store, 1, b"k", b"v");
    store.set_reserve_bytes(u64::MAX);
    let mut batch = Batch::new();
    batch.put_record(1, b"k", b"v2");
    let error = store.apply(&mut batch).unwrap_err();
    assert!(matches!(error, StorageError::Full { refused: true, .. }), "{error}");
    assert_eq!((get(store, 1, b"k").unwrap(), batch.len()), (b"v".to_vec(), 1));
    store.sync().unwrap();
    let mut note = Batch::new();
    note.put_meta("note", b"worth it");
    store.apply_in_reserve(&mut note).unwrap();
    assert!(store.fresh_stats().is_low && store.fresh_stats().free_bytes.is_some());
    assert!(note.is_empty() && store.get_meta("note").unwrap().is_some());
    store.set_reserve_bytes(0);
    assert!(!store.fresh_stats().is_low);
    store.apply(&mut batch).unwrap();
    assert_eq!(get(store, 1, b"k").unwrap(), b"v2");
}

#[test]
fn after_a_failed_sync_no_write_and_no_sync_succeeds() {
    let subject = OnDisk::new();
    let store = subject.store();
    put(store, 1, b"k", b"v");
    store.stop(StorageError::SyncFailed {
        detail: "as if fsync had failed".to_owned(),
    });
    let mut batch = Batch::new();
    batch.put_record(1, b"k", b"v2");
    assert!(matches!(store.apply(&mut batch), Err(StorageError::SyncFailed { .. })));
    assert!(matches!(store.sync(), Err(StorageError::SyncFailed { .. })));
    assert_eq!(get(store, 1, b"k").unwrap(), b"v", "reads go on");
}

#[test]
fn stats_count_rows_and_bytes() {
    let subject = OnDisk::new();
    for i in 0..1000 {
        put(subject.store(), i, b"k", &[i as u8; 500]);
    }
    let before = subject.store().fresh_stats();
    assert!(
        before.keys_estimate >= 1000 && before.memtable_bytes > 500_000 && before.sst_bytes == 0,
        "{before:?}"
    );
    subject.store.db.flush().unwrap();
    let after = subject.store().fresh_stats();
    assert!(
        after.sst_bytes > 0 && after.memtable_bytes < before.memtable_bytes,
        "{after:?}"
    );
    assert!(
        !after.is_write_stopped && after.background_errors == 0 && after.free_bytes.is_some(),
        "{after:?}"
    );
}

#[test]
fn stats_are_gathered_once_for_all_who_ask_at_the_same_time() {
    let subject = OnDisk::new();
    let recent = RecentStats::default();
    let gathered = std::cell::Cell::new(0);
    for _ in 0..3 {
        recent.get_or(|| {
            gathered.set(gathered.get() + 1);
            subject.store().fresh_stats()
        });
    }
    assert_eq!(gathered.get(), 1);
    assert!(subject.store().stats().free_bytes.is_some());
}

#[test]
fn records_in_files_read_as_those_in_memory() {
    let subject = OnDisk::new();
    for round in 0..3u8 {
        for i in (0..600).step_by(1 + usize::from(round)) {
            put(subject.store(), i as u64, b"k", &[round; 50]);
        }
        subject.store.db.flush().unwrap();
    }
    let before = scan(subject.store(), ALL, 100);
    assert_eq!(before.len(), 600);
    subject.store.db.compact_range(None::<&[u8]>, None::<&[u8]>);
    assert_eq!(scan(subject.store(), ALL, 100), before);
    let subject = subject.restart();
    assert_eq!(scan(subject.store(), ALL, 100), before);
}

/// The one file in `db/` with this ending, the largest if there are more.
fn largest(data: &Path, extension: &str) -> PathBuf {
    let files = fs::read_dir(data.join("db")).unwrap().map(|e| e.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap()
}

fn flip(path: &Path, bit: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}
