//! The Merkle trees at the start of a node: read as they were stored, or computed of all records.
//!
//! Leaves are stored in the batches that change their records, so as a rule they are what the records are. Not so in a directory that an earlier
//! version made, which kept none; where their log or their file is damaged; and where the node ran with `trees = false`, which is for measuring what
//! they cost. That one leaves a note, on disk before its first record, and the next start that keeps trees drops all leaves and computes them anew, before
//! it compares anything with anybody. Rejected: to trust the scrub with that. It takes an hour, and until then owners would ship what none of
//! them lacks.

use super::{ALL, PAGE, each_row};
use crate::node::NodeError;
use quorate_core::engine::Engine;
use quorate_core::key::Key;
use quorate_core::place::{Place, Shelf};
use quorate_core::tree::{LeafRow, LeavesLost};
use quorate_storage::{Batch, Column, RocksStorage, ScanAround, Storage, StorageError};

/// Whether the leaves on disk are those of the records: they are, unless this says otherwise.
const TREES: &str = "trees";
const NOT_KEPT: &[u8] = b"not kept";

/// Hands the engine its trees, if it keeps any. What is to be on disk before its first record goes into the batch.
pub(super) fn restore(
    engine: &mut Engine,
    storage: &RocksStorage,
    is_legacy: bool,
    batch: &mut Batch,
) -> Result<(), NodeError> {
    if !engine.config().limits.trees {
        tracing::warn!(
            "trees = false: this node compares nothing with other owners, and none can be rebuilt from it; for measuring only"
        );
        batch.put_meta(TREES, NOT_KEPT);
        return Ok(());
    }
    let are_stale = storage.get_meta(TREES)?.is_some_and(|note| &note[..] == NOT_KEPT);
    if are_stale {
        tracing::info!("this node ran without Merkle trees; computing them");
        drop_leaves(storage, batch)?;
        batch.delete_meta(TREES);
        return make_trees(engine, storage);
    } else if is_legacy {
        tracing::info!("an earlier version made this data directory; computing its Merkle trees");
        return make_trees(engine, storage);
    }
    match restore_leaves(engine, storage) {
        Err(StorageError::Damaged { detail }) => {
            tracing::error!(detail, "stored Merkle trees cannot be read; computing them again");
            make_trees(engine, storage)
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "computing the Merkle trees again");
            drop_leaves(storage, batch)?;
            make_trees(engine, storage)
        }
        Ok(Ok(())) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Those that come out of the records follow in the same batch.
fn drop_leaves(storage: &RocksStorage, batch: &mut Batch) -> Result<(), StorageError> {
    each_row(storage, Column::Leaf, |row| {
        batch.delete(Column::Leaf, row.token, &row.key)
    })
}

/// All leaves or none: trees that are computed again start from nothing.
fn restore_leaves(engine: &mut Engine, storage: &RocksStorage) -> Result<Result<(), LeavesLost>, StorageError> {
    let mut rows = Vec::new();
    each_row(storage, Column::Leaf, |row| {
        if let Err(error) = &row.payload {
            tracing::error!(%error, "leaves of a Merkle tree cannot be read; computing them again");
        }
        rows.push(LeafRow {
            token: row.token,
            key: row.key,
            payload: row.payload.ok(),
        });
    })?;
    // Nothing is rebuilt from this node before those are right that cannot be read.
    Ok(engine.restore_leaves(rows))
}

/// Computes the trees of all records, and queues those that wait to be settled and are not queued: an earlier version had no such queue. What cannot be read is left out: to its owners it looks like something that is missing here, and is sent again.
fn make_trees(engine: &mut Engine, storage: &RocksStorage) -> Result<(), NodeError> {
    let mut scan = ScanAround::new(Column::Record, ALL);
    let (mut records, mut unreadable) = (0_u64, 0_u64);
    let mut queued = Batch::new();
    while !scan.is_done() {
        for row in scan.next_page(storage, PAGE)?.rows {
            let key = Place::key_in(Shelf::Record, &row.key);
            let is_taken = match (key, row.payload) {
                (Some(key), Ok(payload)) => {
                    if let Some(waits) = engine.settle_row(payload.clone()) {
                        queue(storage, &mut queued, key.clone(), &waits);
                    }
                    engine.restore_record(&key, payload)
                }
                _ => false,
            };
            records += u64::from(is_taken);
            unreadable += u64::from(!is_taken);
        }
        // Before the rest of the start is on disk: one that ends here is begun again.
        storage.apply_in_reserve(&mut queued)?;
    }
    let places = scan.unreadable().len();
    match unreadable as usize + places {
        0 => tracing::info!(records, "computed the Merkle trees"),
        _ => tracing::error!(
            records,
            unreadable,
            places,
            "computed the Merkle trees; some records cannot be read"
        ),
    }
    Ok(())
}

/// Adds the row of a record that waits to be settled, if there is none.
fn queue(storage: &RocksStorage, batch: &mut Batch, key: Key, waits: &[u8]) {
    let row = Place::Settle(key).row();
    let found = storage.get_row(Column::Settle, row.token, &row.key);
    if !matches!(found, Ok(Some(_))) {
        batch.put(Column::Settle, row.token, &row.key, waits);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::NodeConfig;
    use crate::config::tests::alone;
    use crate::data::{ALL, PAGE, open};
    use crate::node::NodeError;
    use bytes::Bytes;
    use quorate_core::engine::{Effect, Engine, Input, RequestHandle};
    use quorate_core::key::Key;
    use quorate_core::place::Place;
    use quorate_core::request::{Operation, RequestId, Value, WriteOptions};
    use quorate_core::time::Instant;
    use quorate_core::tree::{TreeId, Trees};
    use quorate_storage::{Batch, Column, RocksStorage, Storage};
    use std::collections::BTreeMap;
    use std::ops::Range;
    use std::sync::Arc;

    fn key(n: u64) -> Key {
        Key::new(b"bucket", &n.to_be_bytes(), None).unwrap()
    }

    fn start(config: &NodeConfig, keeps_trees: bool) -> (Arc<RocksStorage>, Engine) {
        let mut config = config.clone();
        config.healing.trees = keeps_trees;
        open(&mut config).unwrap()
    }

    /// Writes keys, as the shell does: the stores of an input are one batch, with the leaves that they change.
    fn write(storage: &RocksStorage, engine: &mut Engine, keys: Range<u64>) {
        for n in keys {
            let operation = Operation::Put {
                key: key(n),
                context: None,
                value: Value {
                    content_type: "text/plain".into(),
                    body: Bytes::from_static(b"value"),
                },
                request: RequestId { stamp_ms: n, unique: n },
                retry: false,
                options: WriteOptions::default(),
            };
            let (handle, timeout) = (RequestHandle(n), std::time::Duration::from_secs(1));
            let request = Input::Request {
                handle,
                operation,
                timeout,
            };
            engine.handle(Instant(0), request);
            carry_out(storage, engine);
        }
    }

    fn carry_out(storage: &RocksStorage, engine: &mut Engine) {
        let (mut batch, mut newest, mut is_written) = (Batch::new(), None, false);
        while let Some(effect) = engine.poll_effect() {
            match effect {
                Effect::Load { load, place } => {
                    let row = place.row();
                    let result = Ok(storage.get_row(Column::Record, row.token, &row.key).unwrap());
                    engine.handle(Instant(0), Input::Loaded { load, result });
                }
                Effect::Store { ticket, place, payload } => {
                    let (row, payload) = (place.row(), payload.unwrap());
                    let column = match place {
                        Place::Record(_) => Column::Record,
                        _ => Column::Meta,
                    };
                    batch.put(column, row.token, &row.key, &payload);
                    newest = Some(ticket);
                    is_written |= column == Column::Record;
                }
                _ => {}
            }
        }
        engine.write_leaves(|token, key, payload| batch.put(Column::Leaf, token, key, payload));
        if let Some(ticket) = newest {
            storage.apply(&mut batch).unwrap();
            engine.handle(Instant(0), Input::Durable(ticket));
            assert!(is_written || engine.poll_effect().is_none());
        }
    }

    fn leaves(storage: &RocksStorage) -> usize {
        storage.scan(Column::Leaf, ALL, None, PAGE).unwrap().rows.len()
    }

    fn roots(trees: &Trees) -> BTreeMap<TreeId, u64> {
        let roots = trees.ids().into_iter().map(|tree| (tree, trees.root(tree)));
        roots.filter(|&(_, root)| root != 0).collect()
    }

    /// What the trees should be.
    fn from_scratch(config: &NodeConfig, storage: &RocksStorage) -> BTreeMap<TreeId, u64> {
        let mut engine = crate::data::engine(config, Default::default()).unwrap();
        super::make_trees(&mut engine, storage).unwrap();
        roots(engine.trees())
    }

    #[test]
    fn trees_that_were_not_kept_for_a_while_are_what_they_should_be_at_the_next_start() {
        let (_dir, mut config) = alone();
        config.limits.disk_reserve_mib = 0;
        let (storage, mut engine) = start(&config, true);
        write(&storage, &mut engine, 0..50);
        assert_eq!(roots(engine.trees()), from_scratch(&config, &storage));
        let kept = leaves(&storage);
        assert!(kept > 40);
        drop((storage, engine));

        let (storage, mut engine) = start(&config, false);
        write(&storage, &mut engine, 40..80);
        let mut batch = Batch::new();
        (0..10).for_each(|n| batch.delete_record(key(n).token().0, key(n).encoded()));
        storage.apply(&mut batch).unwrap();
        assert_eq!((leaves(&storage), engine.trees().ids().len()), (kept, 0));
        drop((storage, engine));

        for start_again in 0..3 {
            let (storage, engine) = start(&config, true);
            let roots = roots(engine.trees());
            assert_eq!(roots, from_scratch(&config, &storage), "start {start_again}");
            assert!(roots.len() > 10);
        }
    }

    #[test]
    fn a_new_directory_of_a_node_with_peers_does_not_start_without_trees() {
        let (_dir, mut config) = crate::config::tests::one_of_two();
        config.limits.disk_reserve_mib = 0;
        config.healing.trees = false;
        let error = open(&mut config).err().unwrap();
        assert!(matches!(error, NodeError::NewWithoutTrees), "{error}");
    }
}
