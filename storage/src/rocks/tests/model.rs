//! Any sequence of calls gives the same answers from the store on disk and from the model.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::MemStorage;

#[derive(Debug, Clone)]
enum Change {
    Put(Column, u64, Vec<u8>, Vec<u8>),
    Delete(Column, u64, Vec<u8>),
    SetAside(u64, Vec<u8>),
    Meta(u8, Vec<u8>),
    DeleteMeta(u8),
}

#[derive(Debug, Clone)]
enum Call {
    Apply(Vec<Change>),
    Get(Column, u64, Vec<u8>),
    Scan(Column, RangeInclusive<u64>, Option<(u64, Vec<u8>)>, ScanLimit),
    Rot(Column, u64, Vec<u8>, usize),
    /// Writes the memtable out as a file; the model has none.
    Flush,
    SyncAndCrash,
}

fn column() -> impl Strategy<Value = Column> {
    prop_oneof![
        4 => Just(Column::Record),
        1 => Just(Column::Hint),
        1 => Just(Column::Leaf),
        1 => Just(Column::Settle),
    ]
}

fn token() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, Just(255), Just(256), Just(u64::MAX)]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(0xff)], 0..3)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (column(), token(), key(), vec(any::<u8>(), 0..20)).prop_map(|(c, t, k, p)| Change::Put(c, t, k, p)),
        2 => (column(), token(), key()).prop_map(|(c, t, k)| Change::Delete(c, t, k)),
        1 => (token(), key()).prop_map(|(t, k)| Change::SetAside(t, k)),
        1 => (0..3u8, vec(any::<u8>(), 0..9)).prop_map(|(n, p)| Change::Meta(n, p)),
        1 => (0..3u8).prop_map(Change::DeleteMeta),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let scan = (
        prop_oneof![6 => column(), 1 => Just(Column::Meta), 1 => Just(Column::Aside)],
        token(),
        token(),
        proptest::option::of((token(), key())),
        0..9usize,
        0..200usize,
    );
    prop_oneof![
        12 => vec(change(), 0..8).prop_map(Call::Apply),
        6 => (column(), token(), key()).prop_map(|(c, t, k)| Call::Get(c, t, k)),
        6 => scan.prop_map(|(c, from, to, after, rows, bytes)| Call::Scan(c, from..=to, after, ScanLimit { rows, bytes })),
        2 => (column(), token(), key(), 0..400usize).prop_map(|(c, t, k, bit)| Call::Rot(c, t, k, bit)),
        1 => Just(Call::Flush),
        1 => Just(Call::SyncAndCrash),
    ]
}

fn batch(changes: &[Change]) -> Batch {
    let mut batch = Batch::new();
    for change in changes {
        match change {
            Change::Put(column, token, key, payload) => batch.put(*column, *token, key, payload),
            Change::Delete(column, token, key) => batch.delete(*column, *token, key),
            Change::SetAside(token, key) => batch.set_aside(*token, key),
            Change::Meta(name, payload) => batch.put_meta(&name.to_string(), payload),
            Change::DeleteMeta(name) => batch.delete_meta(&name.to_string()),
        }
    }
    batch
}

fn run(mut disk: OnDisk, model: &MemStorage, calls: &[Call]) -> Result<(), TestCaseError> {
    for call in calls {
        match call {
            Call::Apply(changes) => {
                let applied = disk.store().apply(&mut batch(changes));
                prop_assert_eq!(applied, model.apply(&mut batch(changes)));
            }
            Call::Get(column, token, key) => {
                let found = disk.store().get_row(*column, *token, key);
                prop_assert_eq!(found, model.get_row(*column, *token, key));
                prop_assert_eq!(disk.store().get_aside(*token, key), model.get_aside(*token, key));
            }
            Call::Scan(column, tokens, after, limit) => {
                let after = after.as_ref().map(|(token, key)| (*token, &key[..]));
                let page = disk.store().scan(*column, tokens.clone(), after, *limit);
                prop_assert_eq!(page, model.scan(*column, tokens.clone(), after, *limit));
                prop_assert_eq!(
                    disk.store().count(*column, tokens.clone()),
                    model.count(*column, tokens.clone())
                );
            }
            Call::Rot(column, token, key, bit) => {
                let row = row::encode(*column, *token, key);
                if let Some(stored) = disk.store.db.get(row).unwrap() {
                    disk.rot(*column, *token, key, bit % (stored.len() * 8));
                    model.rot(*column, *token, key, *bit);
                }
            }
            Call::Flush => disk.store.db.flush().unwrap(),
            Call::SyncAndCrash => {
                disk.store().sync().unwrap();
                model.sync().unwrap();
                disk = disk.crash();
                model.crash(0);
            }
        }
    }
    let all = disk
        .store()
        .scan(Column::Record, ALL, None, ScanLimit::rows(usize::MAX))
        .unwrap();
    prop_assert_eq!(all.rows, model.records());
    for name in ["0", "1", "2"] {
        prop_assert_eq!(disk.store().get_meta(name), model.get_meta(name));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_and_the_model_give_the_same_answers(calls in vec(call(), 1..60)) {
        run(OnDisk::new(), &MemStorage::new(), &calls)?;
    }
}
