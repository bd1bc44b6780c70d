//! The data directory at the start of a node: opened, set aside if it is beyond use, and read into a new engine.
//!
//! Before anything else happens one batch is on disk: whose directory it is, that it was started once more, and what it was made with. So a
//! directory that says whose it is but not how often it was started was made by an earlier version. That one kept no trees, so they are made
//! now, of all records; and it knew the strict quorum only, which buckets keep that name none.
//!
//! Data that cannot be opened, or were marked for rebuild by the process before, are moved into a directory beside, and the node starts with an
//! empty one, as one that has lost its memory: the other owners have what it needs. A node without peers stops instead: nobody could give it
//! anything back. Rejected: repairing what is damaged, which ends with a store that has forgotten something and does not know what.

mod damage;
mod trees;

use crate::config::NodeConfig;
use crate::node::{NodeError, system};
use quorate_core::bucket::Durability;
use quorate_core::engine::{Boot, Engine, EngineConfig};
use quorate_core::place::Place;
use quorate_storage::{
    Batch, Column, OpenError, RocksOptions, RocksStorage, ScanLimit, ScanRow, Storage, StorageError, set_aside_before,
    set_directory_aside,
};
use rand::TryRngCore;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

/// Rows read at once.
const PAGE: ScanLimit = ScanLimit {
    rows: 4096,
    bytes: 4 << 20,
};
/// Every token.
const ALL: std::ops::RangeInclusive<u64> = 0..=u64::MAX;
/// Which quorum buckets have that name none, as it was when the directory was made.
const OPEN_QUORUM: &str = "open_quorum";

/// Opens the data directory and makes an engine of what is in it. Buckets of `config` that name no quorum get the one that they had.
///
/// # Errors
/// The directory cannot be used. What is in it was not changed, unless the log says that it was set aside.
pub(crate) fn open(config: &mut NodeConfig) -> Result<(Arc<RocksStorage>, Engine), NodeError> {
    match open_once(config) {
        Err(error) if damage::is_beyond_use(&error) && config.members().len() > 1 => {
            set_aside(config, &error)?;
            open_once(config)
        }
        other => other,
    }
}

fn open_once(config: &mut NodeConfig) -> Result<(Arc<RocksStorage>, Engine), NodeError> {
    let storage = open_or_set_aside(config)?;
    tell_of_asides(config);
    let mut batch = Batch::new();
    let is_known = identify(&storage, config, &mut batch)?;
    let (boot, is_legacy) = boot(&storage, is_known, &mut batch)?;
    if boot.is_new && !config.healing.trees && config.members().len() > 1 {
        return Err(NodeError::NewWithoutTrees);
    }
    choose_quorum(&storage, config, is_legacy, &mut batch)?;
    warn_of_relaxed(config);
    let mut engine = engine(config, boot)?;
    restore(&mut engine, &storage, is_legacy, &mut batch)?;
    engine.write_leaves(|token, key, payload| batch.put(Column::Leaf, token, key, payload));
    // Also on a disk that is nearly full: a node that takes no writes still serves reads, and takes writes again when there is space.
    storage.apply_in_reserve(&mut batch)?;
    storage.sync()?;
    Ok((Arc::new(storage), engine))
}

fn open_or_set_aside(config: &NodeConfig) -> Result<RocksStorage, NodeError> {
    let options = RocksOptions {
        block_cache_bytes: config.limits.cache_mib << 20,
        reserve_bytes: config.limits.disk_reserve_mib << 20,
        ..RocksOptions::default()
    };
    let error = match RocksStorage::open(&config.data_dir, &options) {
        Ok(storage) => return Ok(storage),
        Err(error) => error,
    };
    let is_beyond_use = error.is_damage() || matches!(error, OpenError::MarkedForRebuild { .. });
    if !is_beyond_use || config.members().len() == 1 {
        return Err(error.into());
    }
    set_aside(config, &error)?;
    Ok(RocksStorage::open(&config.data_dir, &options)?)
}

fn set_aside(config: &NodeConfig, error: &dyn std::error::Error) -> Result<(), NodeError> {
    tracing::error!(%error, "the data directory is beyond use; setting its data aside, to be rebuilt from the other owners");
    let aside = set_directory_aside(&config.data_dir).map_err(|source| NodeError::SetAside {
        path: config.data_dir.clone(),
        source,
    })?;
    tracing::error!(
        aside = %aside.display(),
        "the old data are there; remove them when all owners agree (quorate wait --for settled). What no other node has is only there"
    );
    Ok(())
}

/// What was set aside costs its space until somebody removes it.
fn tell_of_asides(config: &NodeConfig) {
    match set_aside_before(&config.data_dir) {
        Ok(asides) => asides.iter().for_each(|(path, bytes)| {
            tracing::warn!(
                path = %path.display(),
                mib = bytes.div_ceil(1 << 20),
                "data were set aside there; remove the directory when all owners agree (quorate wait --for settled)"
            );
        }),
        Err(error) => tracing::warn!(%error, "cannot look for data that were set aside"),
    }
}

/// Checks whose directory it is, or says so. Returns whether it was known.
fn identify(storage: &RocksStorage, config: &NodeConfig, batch: &mut Batch) -> Result<bool, NodeError> {
    let mut is_known = true;
    for (what, name, expected) in [
        ("cluster", "cluster", config.cluster.clone()),
        ("node", "node_id", config.id.to_string()),
    ] {
        match storage.get_meta(name)? {
            Some(found) if found == expected.as_bytes() => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                return Err(NodeError::Identity { what, found, expected });
            }
            None => {
                batch.put_meta(name, expected.as_bytes());
                is_known = false;
            }
        }
    }
    Ok(is_known)
}

/// One start more. Also whether an earlier version made the directory.
fn boot(storage: &RocksStorage, is_known: bool, batch: &mut Batch) -> Result<(Boot, bool), NodeError> {
    let row = Place::Own.row();
    let last = storage.get_row(Column::Meta, row.token, &row.key)?;
    let is_legacy = is_known && last.is_none();
    let next =
        Boot::next(last.as_deref()).map_err(|error| system("reading the node's note")(io::Error::other(error)))?;
    let boot = Boot {
        is_new: next.is_new && !is_legacy,
        ..next
    };
    batch.put(Column::Meta, row.token, &row.key, &boot.note());
    Ok((boot, is_legacy))
}

/// Lets buckets that name no quorum have the one that was the default when the directory was made.
fn choose_quorum(
    storage: &RocksStorage,
    config: &mut NodeConfig,
    is_legacy: bool,
    batch: &mut Batch,
) -> Result<(), NodeError> {
    let is_strict = match storage.get_meta(OPEN_QUORUM)? {
        Some(chosen) => &chosen[..] == b"strict",
        None => {
            batch.put_meta(OPEN_QUORUM, if is_legacy { b"strict" } else { b"sloppy" });
            is_legacy
        }
    };
    if is_strict {
        let buckets: Vec<&str> = config.open_quorums().collect();
        if !buckets.is_empty() {
            tracing::warn!(
                buckets = buckets.join(", "),
                "these buckets name no quorum and keep the strict one, which was the default when this data directory was made; to \
                 choose, write quorum = \"sloppy\" or quorum = \"strict\" under [buckets.NAME] in the configuration of every node"
            );
        }
        config.keep_strict();
    }
    Ok(())
}

fn warn_of_relaxed(config: &NodeConfig) {
    let table = config.bucket_table();
    let named = table
        .named
        .iter()
        .map(|(name, bucket)| (name.escape_ascii().to_string(), bucket));
    let all = named.chain([("default".to_owned(), &table.defaults)]);
    for (bucket, _) in all.filter(|(_, bucket)| bucket.durability == Durability::Relaxed) {
        tracing::warn!(
            bucket,
            flush_interval_ms = config.limits.flush_interval_ms,
            "this bucket acknowledges writes before they are on disk: a power cut takes back what was acknowledged in the flush interval"
        );
    }
}

fn engine(config: &NodeConfig, boot: Boot) -> Result<Engine, NodeError> {
    let mut seed = [0; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut seed)
        .map_err(|error| system("reading the system's randomness")(io::Error::other(error)))?;
    Ok(Engine::new(EngineConfig {
        me: config.id,
        ring: Arc::new(config.ring()),
        seed,
        context_keys: config.context_keys(),
        buckets: config.bucket_table(),
        limits: config.engine_limits(),
        wall_ms: wall_ms(),
        is_replaced: boot.is_new && damage::is_replaced(&config.data_dir),
        boot,
    }))
}

/// The time of day, in milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Hands the engine what its last process left.
fn restore(engine: &mut Engine, storage: &RocksStorage, is_legacy: bool, batch: &mut Batch) -> Result<(), NodeError> {
    restore_notes(engine, storage)?;
    damage::restore_hints(engine, storage)?;
    trees::restore(engine, storage, is_legacy, batch)
}

fn restore_notes(engine: &mut Engine, storage: &RocksStorage) -> Result<(), NodeError> {
    each_row(storage, Column::Meta, |row| {
        let Some(place) = Place::note_in(&row.key) else { return };
        let restored = match (&place, &row.payload) {
            (_, Ok(payload)) => engine
                .restore_note(place.clone(), payload)
                .map_err(|error| error.to_string()),
            // Its name says all.
            (Place::Dirty(..), Err(_)) => engine
                .restore_note(place.clone(), &[])
                .map_err(|error| error.to_string()),
            (_, Err(error)) => Err(error.to_string()),
        };
        if let Err(error) = restored {
            tracing::error!(?place, error, "a note cannot be read; going on without it");
        }
    })?;
    Ok(())
}

fn each_row(storage: &RocksStorage, column: Column, mut take: impl FnMut(ScanRow)) -> Result<(), StorageError> {
    let mut after: Option<(u64, bytes::Bytes)> = None;
    loop {
        let behind = after.as_ref().map(|(token, key)| (*token, &key[..]));
        let page = storage.scan(column, ALL, behind, PAGE)?;
        after = page.rows.last().map(|row| (row.token, row.key.clone()));
        page.rows.into_iter().for_each(&mut take);
        if page.done {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::tests::one_of_two;
    use quorate_core::dot::{Actor, Dot};
    use quorate_core::key::Key;
    use quorate_core::place::Shelf;
    use quorate_core::record::{Content, Record, Sibling};
    use quorate_core::request::{QuorumKind, RequestId};
    use quorate_core::seen::Seen;
    use std::fs;
    use tempfile::TempDir;

    fn node() -> (TempDir, NodeConfig) {
        let (dir, mut config) = one_of_two();
        config.limits.disk_reserve_mib = 0;
        (dir, config)
    }

    fn generation(config: &NodeConfig) -> u64 {
        open(&mut config.clone()).unwrap().1.generation()
    }

    fn quorum(config: &NodeConfig) -> QuorumKind {
        let mut config = config.clone();
        open(&mut config).unwrap();
        config.bucket_table().defaults.quorum
    }

    /// What an earlier version left: whose directory it is, and records.
    fn legacy(config: &NodeConfig, records: u32) {
        let options = RocksOptions {
            reserve_bytes: 0,
            ..RocksOptions::default()
        };
        let storage = RocksStorage::open(&config.data_dir, &options).unwrap();
        let mut batch = Batch::new();
        batch.put_meta("cluster", config.cluster.as_bytes());
        batch.put_meta("node_id", config.id.to_string().as_bytes());
        for n in 0..records {
            let key = Key::new(b"bucket", &n.to_be_bytes(), None).unwrap();
            // No mark, and a few bytes that stand for a record.
            batch.put_record(key.token().0, key.encoded(), &[0, 1, 2, 3]);
        }
        storage.apply(&mut batch).unwrap();
        storage.sync().unwrap();
    }

    #[test]
    fn every_start_counts_and_a_new_directory_is_sloppy() {
        let (_dir, config) = node();
        assert_eq!(
            [generation(&config), generation(&config), generation(&config)],
            [1, 2, 3]
        );
        assert_eq!(quorum(&config), QuorumKind::Sloppy);
    }

    #[test]
    fn a_directory_of_an_earlier_version_gets_its_trees_and_keeps_the_strict_quorum() {
        let (_dir, config) = node();
        legacy(&config, 100);
        let roots = || {
            let mut config = config.clone();
            let (_, engine) = open(&mut config).unwrap();
            let trees = engine.trees();
            let roots: Vec<u64> = trees.ids().into_iter().map(|tree| trees.root(tree)).collect();
            (roots, config.bucket_table().defaults.quorum, engine.generation())
        };
        let first = roots();
        assert!(first.0.iter().any(|root| *root != 0), "trees are computed");
        assert_eq!((first.1, first.2), (QuorumKind::Strict, 1));
        assert_eq!(roots(), (first.0, QuorumKind::Strict, 2), "and are stored");
    }

    #[test]
    fn the_deletes_of_an_earlier_version_wait_to_be_settled() {
        let (_dir, config) = node();
        legacy(&config, 3);
        let key = Key::new(b"bucket", b"deleted", None).unwrap();
        let mut record = Record::default();
        let actor = Actor { life: 1, epoch: 1 };
        let deleted = Sibling {
            dot: Dot { actor, counter: 1 },
            request: RequestId { stamp_ms: 1, unique: 1 },
            basis: 0,
            content: Content::Tombstone,
            expires_ms: 0,
        };
        record.write(&Seen::default(), deleted);
        // No mark, and the record.
        let payload = [&[0], &record.encode()[..]].concat();
        let options = RocksOptions {
            reserve_bytes: 0,
            ..RocksOptions::default()
        };
        let storage = RocksStorage::open(&config.data_dir, &options).unwrap();
        let mut batch = Batch::new();
        batch.put_record(key.token().0, key.encoded(), &payload);
        storage.apply(&mut batch).unwrap();
        storage.sync().unwrap();
        drop(storage);
        let (storage, _) = open(&mut config.clone()).unwrap();
        let queued = storage.scan(Column::Settle, ALL, None, PAGE).unwrap().rows;
        let queued: Vec<_> = queued
            .iter()
            .map(|row| Place::key_in(Shelf::Settle, &row.key))
            .collect();
        assert_eq!(queued, [Some(key)]);
    }

    #[test]
    fn data_beyond_use_are_set_aside_and_the_node_starts_without() {
        let (dir, config) = node();
        legacy(&config, 3);
        quorate_storage::mark_for_rebuild(&config.data_dir, "a test says so").unwrap();
        assert_eq!(generation(&config), 1);
        fs::write(config.data_dir.join("FORMAT"), "no number").unwrap();
        let (storage, engine) = open(&mut config.clone()).unwrap();
        assert_eq!(engine.generation(), 1);
        assert_eq!(storage.scan(Column::Record, ALL, None, PAGE).unwrap().rows, []);
        let names = fs::read_dir(dir.path().join("data")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let aside = names.filter(|name| name.starts_with("aside-"));
        assert_eq!(aside.count(), 2);
    }

    #[test]
    fn a_node_starts_on_a_disk_below_the_watermark_and_only_other_writes_are_refused() {
        let (_dir, mut config) = node();
        config.limits.disk_reserve_mib = u64::MAX >> 20;
        assert_eq!([generation(&config), generation(&config)], [1, 2]);
        let (storage, _) = open(&mut config.clone()).unwrap();
        let mut batch = Batch::new();
        batch.put_record(1, b"key", &[0]);
        assert!(
            storage
                .apply(&mut batch)
                .is_err_and(|error| error.is_certainly_not_applied())
        );
        storage.set_reserve_bytes(0);
        storage.apply(&mut batch).unwrap();
    }

    #[test]
    fn another_nodes_directory_is_refused() {
        let (_dir, mut config) = node();
        generation(&config);
        config.cluster = "another".into();
        let error = open(&mut config).err().unwrap();
        assert!(matches!(error, NodeError::Identity { what: "cluster", .. }), "{error}");
    }
}
