//! Payloads of recently used records, so that a hot key is not looked up in RocksDB each time.
//!
//! A put reads the old record at every owner and a get reads it at two, so without this a third of the data loop's time goes into
//! searching the memtable. The shard sees every store of its keys, so the cache is exact: a payload is put in when it is stored,
//! and thrown out when that store is refused. It holds bytes as they are on disk, in plain and bounded memory; eviction is
//! S3-FIFO, by quick_cache. Rejected: RocksDB's row cache, which does not cover what is still in the memtable.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use quorate_core::key::Key;

/// Bookkeeping per entry, in bytes, beside key and payload.
const ENTRY_BYTES: u64 = 160;
/// What an entry is expected to weigh, to size the index.
const TYPICAL_BYTES: u64 = 1024;

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Bytes> for Weight {
    fn weight(&self, key: &Key, payload: &Bytes) -> u64 {
        key.encoded().len() as u64 + payload.len() as u64 + ENTRY_BYTES
    }
}

/// The newest payloads of some keys.
pub(super) struct RecordCache(Cache<Key, Bytes, Weight>);

impl RecordCache {
    /// A cache of at most about `bytes`.
    pub(super) fn new(bytes: u64) -> RecordCache {
        RecordCache(Cache::with_weighter((bytes / TYPICAL_BYTES) as usize, bytes, Weight))
    }

    /// The payload stored under `key`, if it is here.
    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        self.0.get(key).cloned()
    }

    /// Notes what is stored under `key`.
    pub(super) fn insert(&mut self, key: Key, payload: Bytes) {
        self.0.insert(key, payload);
    }

    /// Forgets what was noted: it is not certain that it is stored.
    pub(super) fn remove(&mut self, key: &Key) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(n: u32) -> Key {
        Key::new(b"bucket", &n.to_be_bytes(), None).unwrap()
    }

    #[test]
    fn the_newest_payload_is_returned_until_it_is_removed() {
        let mut cache = RecordCache::new(1 << 20);
        cache.insert(key(1), Bytes::from_static(b"old"));
        cache.insert(key(1), Bytes::from_static(b"new"));
        assert_eq!(cache.get(&key(1)), Some(Bytes::from_static(b"new")));
        assert_eq!(cache.get(&key(2)), None);
        cache.remove(&key(1));
        assert_eq!(cache.get(&key(1)), None);
    }

    #[test]
    fn it_stays_within_its_bytes() {
        let mut cache = RecordCache::new(64 << 10);
        for n in 0..10_000 {
            cache.insert(key(n), Bytes::from(vec![0; 1000]));
        }
        assert!(cache.0.weight() <= 64 << 10);
    }
}
