//! A disk that is nearly or really full: a small tmpfs. To mount one takes root; otherwise these tests say that they were
//! skipped.

use std::{process::Command, time::Duration};

use super::*;

const MIB: usize = 1 << 20;

/// A filesystem of its own in memory, unmounted at the end.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where it cannot be had.
    fn of(mib: usize, test: &str) -> Option<Self> {
        let home = empty_dir();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=700"), "tmpfs"])
            .arg(home.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(home));
        }
        eprintln!("skipped {test}: mounting a tmpfs takes root");
        None
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Leaves this much room.
    fn fill_up_to(&self, left: usize) {
        let fs = rustix::fs::statvfs(self.0.path()).unwrap();
        let free = (fs.f_bavail * fs.f_frsize) as usize;
        fs::write(self.0.path().join("ballast"), vec![1; free - left]).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn options(reserve: usize) -> RocksOptions {
    RocksOptions {
        write_buffer_bytes: 4 * MIB,
        reserve_bytes: reserve as u64,
        ..small()
    }
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut draw = seed | 1;
    let mut next = || {
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        draw as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Synced rows of 100 kB.
fn fill(store: &RocksStorage, rows: u64) {
    for i in 0..rows {
        put(store, i, b"k", &noise(i, 100_000));
    }
    store.sync().unwrap();
}

fn one_more() -> Batch {
    let mut batch = Batch::new();
    batch.put_record(1 << 40, b"one more", b"v");
    batch
}

#[test]
fn at_the_watermark_writes_are_refused_and_taken_again_without_a_sync_or_a_restart() {
    let Some(disk) = SmallDisk::of(64, "the watermark") else {
        return;
    };
    let store = RocksStorage::open(disk.data(), &options(16 * MIB)).unwrap();
    fill(&store, 20);
    disk.fill_up_to(15 * MIB);
    store.sync().unwrap();
    let mut batch = one_more();
    for _ in 0..2 {
        let error = store.apply(&mut batch).unwrap_err();
        assert!(matches!(error, StorageError::Full { refused: true, .. }), "{error}");
        assert_eq!(scan(&store, ALL, 9).len(), 20, "reads go on");
    }
    let mut note = Batch::new();
    note.put_meta("note", b"1");
    store.apply_in_reserve(&mut note).unwrap();
    disk.free();
    disk.fill_up_to(MIB);
    note.put_meta("note", b"2");
    let error = store.apply_in_reserve(&mut note).unwrap_err();
    assert!(error.is_certainly_not_applied(), "{error}");
    disk.free();
    store.apply(&mut batch).unwrap();
    store.sync().unwrap();
}

#[test]
fn a_flush_that_runs_out_of_space_refuses_writes_until_there_is_some() {
    let Some(disk) = SmallDisk::of(32, "a flush without space") else {
        return;
    };
    let store = RocksStorage::open(disk.data(), &options(0)).unwrap();
    fill(&store, 30);
    disk.fill_up_to(MIB);
    store.db.flush().unwrap_err();
    let mut batch = one_more();
    let error = store.apply(&mut batch).unwrap_err();
    assert!(matches!(error, StorageError::Full { refused: false, .. }), "{error}");
    store.sync().unwrap();
    assert_eq!(scan(&store, ALL, 9).len(), 30, "reads go on");

    disk.free();
    // The engine looks every five seconds, and says nothing when it has found some: ask it, without taking a core for it.
    while let Err(error) = store.apply(&mut batch) {
        assert!(matches!(error, StorageError::Full { refused: false, .. }), "{error}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    store.sync().unwrap();
    drop(store);
    let store = RocksStorage::open(disk.data(), &options(0)).unwrap();
    assert_eq!(scan(&store, ALL, 99).len(), 31);
}

#[test]
fn a_log_that_runs_out_of_space_stops_the_store_and_what_was_synced_is_kept() {
    let Some(disk) = SmallDisk::of(32, "a log without space") else {
        return;
    };
    let store = RocksStorage::open(disk.data(), &options(0)).unwrap();
    fill(&store, 20);
    disk.fill_up_to(MIB / 2);
    let mut i = 1 << 32;
    let error = loop {
        let mut batch = Batch::new();
        batch.put_record(i, b"unsynced", &noise(i, 100_000));
        match store.apply(&mut batch).and_then(|()| store.sync()) {
            Ok(()) => i += 1,
            Err(error) => break error,
        }
    };
    let stopped = |error: &StorageError| matches!(error, StorageError::SyncFailed { .. } | StorageError::Io { .. });
    assert!(stopped(&error), "{error}");
    disk.free();
    for _ in 0..2 {
        let error = store.apply(&mut one_more()).unwrap_err();
        assert!(matches!(error, StorageError::SyncFailed { .. }), "{error}");
        assert!(matches!(store.sync(), Err(StorageError::SyncFailed { .. })));
    }
    drop(store);
    let store = RocksStorage::open(disk.data(), &options(0)).unwrap();
    assert!(scan(&store, ALL, 99).len() >= 20);
    assert_eq!(get(&store, 19, b"k").unwrap(), noise(19, 100_000));
}

#[test]
fn a_store_that_finds_no_space_to_open_says_so_and_opens_later() {
    let Some(disk) = SmallDisk::of(32, "opening without space") else {
        return;
    };
    fill(&RocksStorage::open(disk.data(), &options(0)).unwrap(), 30);
    disk.fill_up_to(MIB);
    let error = RocksStorage::open(disk.data(), &options(0)).unwrap_err();
    assert!(
        matches!(error, OpenError::Full { .. }) && !error.is_damage(),
        "{error:?}"
    );
    disk.free();
    let store = RocksStorage::open(disk.data(), &options(0)).unwrap();
    assert_eq!(scan(&store, ALL, 99).len(), 30);
}
