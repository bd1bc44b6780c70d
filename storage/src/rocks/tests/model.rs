//! Any sequence of calls gives the same answers from the store on disk and from the model.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::MemStorage;

#[derive(Debug, Clone)]
enum Change {
    Put(u64, Vec<u8>, Vec<u8>),
    Delete(u64, Vec<u8>),
    SetAside(u64, Vec<u8>),
    Meta(u8, Vec<u8>),
    DeleteMeta(u8),
}

#[derive(Debug, Clone)]
enum Call {
    Apply(Vec<Change>),
    Get(u64, Vec<u8>),
    Scan(RangeInclusive<u64>, Option<(u64, Vec<u8>)>, ScanLimit),
    Corrupt(u64, Vec<u8>, usize),
    /// Writes the memtable out as a file; the model has none.
    Flush,
    SyncAndCrash,
}

fn token() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, Just(255), Just(256), Just(u64::MAX)]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(0xff)], 0..3)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (token(), key(), vec(any::<u8>(), 0..20)).prop_map(|(t, k, p)| Change::Put(t, k, p)),
        2 => (token(), key()).prop_map(|(t, k)| Change::Delete(t, k)),
        1 => (token(), key()).prop_map(|(t, k)| Change::SetAside(t, k)),
        1 => (0..3u8, vec(any::<u8>(), 0..9)).prop_map(|(n, p)| Change::Meta(n, p)),
        1 => (0..3u8).prop_map(Change::DeleteMeta),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let scan = (
        token(),
        token(),
        proptest::option::of((token(), key())),
        0..9usize,
        0..200usize,
    );
    prop_oneof![
        12 => vec(change(), 0..8).prop_map(Call::Apply),
        6 => (token(), key()).prop_map(|(t, k)| Call::Get(t, k)),
        6 => scan.prop_map(|(from, to, after, rows, bytes)| Call::Scan(from..=to, after, ScanLimit { rows, bytes })),
        2 => (token(), key(), 0..400usize).prop_map(|(t, k, bit)| Call::Corrupt(t, k, bit)),
        1 => Just(Call::Flush),
        1 => Just(Call::SyncAndCrash),
    ]
}

fn batch(changes: &[Change]) -> Batch {
    let mut batch = Batch::new();
    for change in changes {
        match change {
            Change::Put(token, key, payload) => batch.put_record(*token, key, payload),
            Change::Delete(token, key) => batch.delete_record(*token, key),
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
            Call::Get(token, key) => {
                prop_assert_eq!(disk.store().get(*token, key), model.get(*token, key));
                prop_assert_eq!(disk.store().get_aside(*token, key), model.get_aside(*token, key));
            }
            Call::Scan(tokens, after, limit) => {
                let after = after.as_ref().map(|(token, key)| (*token, &key[..]));
                let page = disk.store().scan(tokens.clone(), after, *limit);
                prop_assert_eq!(page, model.scan(tokens.clone(), after, *limit));
            }
            Call::Corrupt(token, key, bit) => {
                let row = row::encode(Column::Record, *token, key);
                if let Some(stored) = disk.store.db.get(row).unwrap() {
                    disk.corrupt(*token, key, bit % (stored.len() * 8));
                    model.corrupt(*token, key, *bit);
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
    let all = disk.store().scan(ALL, None, ScanLimit::rows(usize::MAX)).unwrap();
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
