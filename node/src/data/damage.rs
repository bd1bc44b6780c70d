//! What is damaged in a data directory that opens all the same.
//!
//! A file can be damaged where it is not looked at when the store is opened. If that is under what the node has to know before it does anything
//! (whose directory it is, which start, which peers), the data are set aside like those of a directory that does not open. If it is under hints, those
//! around it are read, and the node [starts over](quorate_core::engine) when it has brought them home.

use super::{PAGE, each_row};
use crate::node::NodeError;
use quorate_core::detour::Detour;
use quorate_core::engine::Engine;
use quorate_core::place::Place;
use quorate_ring::{NodeId, Token};
use quorate_storage::{Column, RocksStorage, ScanRow, Storage, StorageError, asides};
use std::path::Path;

/// Whether a start failed since the data are damaged.
pub(super) fn is_beyond_use(error: &NodeError) -> bool {
    matches!(
        error,
        NodeError::Storage(
            StorageError::Damaged { .. } | StorageError::Corrupt { .. } | StorageError::CorruptMeta { .. }
        )
    )
}

/// Whether data were set aside in this directory.
pub(super) fn is_replaced(data_dir: &Path) -> bool {
    asides(data_dir).is_ok_and(|asides| !asides.is_empty())
}

/// Hands the engine the hints that its last process left.
pub(super) fn restore_hints(engine: &mut Engine, storage: &RocksStorage) -> Result<(), StorageError> {
    let take = |row: ScanRow, engine: &mut Engine| {
        if let Some(Place::Hint(target, key)) = Place::hint_in(row.token, &row.key) {
            // One that is damaged counts too: it stands for something that the owner may lack.
            engine.restore_hint(target, &key, &row.payload.unwrap_or_default());
        }
    };
    match each_row(storage, Column::Hint, |row| take(row, engine)) {
        Err(StorageError::Damaged { detail }) => {
            tracing::error!(detail, "some hints cannot be read; going round them");
            engine.forget_hints();
            let members: Vec<NodeId> = engine.config().ring.members().iter().map(|member| member.id).collect();
            for target in members {
                hints_around(storage, target, |row| take(row, engine))?;
            }
            engine.restore_damage();
            Ok(())
        }
        other => other,
    }
}

/// The hints for one node that can be read.
fn hints_around(storage: &RocksStorage, target: NodeId, mut take: impl FnMut(ScanRow)) -> Result<(), StorageError> {
    let (mut after, mut at, mut detour) = (Place::hints_from(target, Token(0)), 0, Detour::default());
    loop {
        match storage.scan(
            Column::Hint,
            after.token..=after.token,
            Some((after.token, &after.key)),
            PAGE,
        ) {
            Ok(page) => {
                detour.end();
                for row in page.rows {
                    let Some(Place::Hint(of, key)) = Place::hint_in(row.token, &row.key) else {
                        continue;
                    };
                    if of != target {
                        return Ok(());
                    }
                    (after.key, at) = (row.key.clone(), key.token().0);
                    take(row);
                }
                if page.done {
                    return Ok(());
                }
            }
            Err(StorageError::Damaged { .. }) => {
                let Some(next) = detour.beyond(at) else {
                    return Ok(());
                };
                at = next;
                after = Place::hints_from(target, Token(at));
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::NodeConfig;
    use crate::config::tests::one_of_two;
    use crate::data::open;
    use quorate_core::key::Key;
    use quorate_core::place::Place;
    use quorate_storage::{Batch, Column, Storage};
    use std::fs;
    use std::path::PathBuf;
    use tempfile::TempDir;

    const HINTS: u64 = 4000;

    /// A directory with hints for the other node, in one table.
    fn with_hints() -> (TempDir, NodeConfig, PathBuf) {
        let (dir, mut config) = one_of_two();
        config.limits.disk_reserve_mib = 0;
        let target = config
            .members()
            .iter()
            .map(|member| member.id)
            .find(|id| *id != config.id);
        let (storage, engine) = open(&mut config.clone()).unwrap();
        drop(engine);
        let mut batch = Batch::new();
        for n in 0..HINTS {
            let key = Key::new(b"bucket", &n.to_be_bytes(), None).unwrap();
            let row = Place::Hint(target.unwrap(), key).row();
            let payload = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().repeat(16);
            batch.put(Column::Hint, row.token, &row.key, &payload);
        }
        storage.apply(&mut batch).unwrap();
        storage.sync().unwrap();
        drop(storage);
        // The next start makes a table of the log.
        assert_eq!(kept(&config), HINTS);
        let files = fs::read_dir(config.data_dir.join("db"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let tables = files.filter(|path| path.extension().is_some_and(|ending| ending == "sst"));
        let table = tables.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        (dir, config, table)
    }

    fn kept(config: &NodeConfig) -> u64 {
        let (_storage, engine) = open(&mut config.clone()).unwrap();
        engine.hints().iter().map(|hints| hints.count).sum()
    }

    fn flip(table: &PathBuf, per_mille: impl IntoIterator<Item = usize>) {
        let mut bytes = fs::read(table).unwrap();
        let length = bytes.len();
        per_mille.into_iter().for_each(|at| bytes[length / 1000 * at] ^= 1);
        fs::write(table, bytes).unwrap();
    }

    fn is_set_aside(config: &NodeConfig) -> bool {
        super::is_replaced(&config.data_dir)
    }

    #[test]
    fn a_start_goes_round_damaged_hints() {
        let (_dir, config, table) = with_hints();
        flip(&table, [500]);
        let left = kept(&config);
        assert!((HINTS / 2..HINTS).contains(&left), "{left} hints are left");
        assert!(!is_set_aside(&config));
    }

    #[test]
    fn a_directory_whose_own_notes_are_damaged_is_set_aside() {
        let (_dir, config, table) = with_hints();
        flip(&table, (0..900).step_by(2));
        assert_eq!(kept(&config), 0);
        assert!(is_set_aside(&config));
        assert!(open(&mut config.clone()).unwrap().1.config().is_replaced);
    }
}
