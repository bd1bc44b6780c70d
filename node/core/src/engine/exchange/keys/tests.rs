//! Lists and their differences, against what a plain set says.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::dot::{Actor, Dot};
use proptest::prelude::*;
use std::collections::BTreeMap;

const TREE: TreeId = TreeId {
    partition: PartitionId(0),
    n: 3,
};

fn key(n: u32) -> Key {
    Key::new(b"bucket", format!("key {n}").as_bytes(), None).unwrap()
}

/// An entry whose context holds the dots 1 to `counter` of actor `life`.
fn entry_with(n: u32, hash: u64, life: u64, counter: u64) -> KeyEntry {
    let actor = Actor { life, epoch: 1 };
    let context: Context = (1..=counter).map(|counter| Dot { actor, counter }).collect();
    KeyEntry {
        key: key(n),
        hash,
        context: postcard::to_stdvec(&context).unwrap().into(),
    }
}

#[test]
fn the_older_record_is_replaced_and_of_two_that_know_different_things_both_are() {
    let verdict = |mine: KeyEntry, theirs: KeyEntry| differences(&[mine], &[theirs])[0].todo;
    let base = || entry_with(1, 10, 1, 5);
    assert_eq!(verdict(entry_with(1, 11, 1, 6), base()), Todo::Send);
    assert_eq!(verdict(base(), entry_with(1, 11, 1, 6)), Todo::Pull);
    assert_eq!(
        verdict(base(), entry_with(1, 11, 2, 1)),
        Todo::Both,
        "neither covers the other"
    );
    assert_eq!(verdict(base(), entry_with(1, 11, 1, 5)), Todo::Both, "the same context");
    let mut unknown = entry_with(1, 11, 1, 6);
    unknown.context = Bytes::new();
    assert_eq!(verdict(base(), unknown), Todo::Both);
    assert!(differences(&[base()], &[base()]).is_empty());
}

proptest! {
    #[test]
    fn exactly_the_keys_that_differ_are_found(
        mine in prop::collection::btree_map(0u32..40, 1u64..3, 0..40),
        theirs in prop::collection::btree_map(0u32..40, 1u64..3, 0..40),
    ) {
        let list = |hashes: &BTreeMap<u32, u64>| {
            let mut list: Vec<_> = hashes.iter().map(|(&n, &hash)| entry_with(n, hash, 1, hash)).collect();
            list.sort_by(|a, b| a.key.cmp(&b.key));
            list
        };
        let found = differences(&list(&mine), &list(&theirs));
        let found: BTreeMap<Key, Todo> = found.into_iter().map(|d| (d.key, d.todo)).collect();
        for n in 0..40 {
            let expected = match (mine.get(&n), theirs.get(&n)) {
                (a, b) if a == b => None,
                (a, b) if a > b => Some(Todo::Send),
                _ => Some(Todo::Pull),
            };
            prop_assert_eq!(found.get(&key(n)).copied(), expected);
        }
    }

    #[test]
    fn pages_of_any_size_list_every_key_of_the_leaves_once(
        count in 0u32..150,
        leaves in prop::collection::btree_set(0u16..64, 1..40),
        bytes_max in 1usize..2_000,
        rows_max in 1usize..9,
    ) {
        // All keys in the first 64 leaves of the only tree.
        let trees = Trees::new(0);
        let leaf = |key: &Key| trees.leaf_of(TREE.partition, key.token(), TREE.n).at;
        let keys: BTreeSet<Key> = (0..count * 64).map(key).filter(|key| leaf(key) < 64).collect();
        let expected: Vec<Key> = keys.iter().filter(|key| leaves.contains(&leaf(key))).cloned().collect();
        let mut rest: Vec<u16> = leaves.into_iter().collect();
        let (mut listed, mut after) = (Vec::new(), None);
        while !rest.is_empty() {
            let asked = Leaves { tree: TREE, at: rest.clone() };
            let mut listing = Listing::new(asked.clone(), after.clone(), bytes_max);
            while let Some(scan) = listing.next_scan(&trees) {
                let page = read(&keys, &scan, rows_max);
                prop_assert!(listing.take(page, &trees, &BucketTable::default()).is_empty());
            }
            let page = listing.end();
            prop_assert!(page.upto > Upto { done: 0, last: after.clone() }, "it gets on");
            let checked = asked.check(&trees, |_| TREE.partition, after.as_ref(), &page.entries, page.upto.done);
            prop_assert!(checked.is_some_and(|upto| upto <= page.upto));
            prop_assert!(page.entries.iter().all(|entry| asked.is_listed(&trees, &entry.key, &page.upto)));
            listed.extend(page.entries.into_iter().map(|entry| entry.key));
            rest.drain(..page.upto.done);
            after = page.upto.last;
        }
        prop_assert_eq!(listed, expected);
    }
}

/// What a store with these keys answers.
fn read(keys: &BTreeSet<Key>, scan: &Scan, rows_max: usize) -> ScanPage {
    let ScanRows::Records(tokens) = &scan.rows else {
        panic!("only records are listed")
    };
    let wanted = |key: &&Key| tokens.contains(&key.token().0) && scan.after.as_ref().is_none_or(|after| *key > after);
    let found: Vec<&Key> = keys.iter().filter(wanted).collect();
    let row = |key: &&Key| ((*key).clone(), Ok(Stored::empty().payload()));
    ScanPage {
        rows: found.iter().take(rows_max).map(row).collect(),
        done: found.len() <= rows_max,
    }
}

#[test]
fn a_list_that_does_not_fit_its_question_is_refused() {
    let trees = Trees::new(0);
    let leaf = |n| trees.leaf_of(TREE.partition, key(n).token(), TREE.n).at;
    let (a, b) = (key(1).min(key(2)), key(1).max(key(2)));
    let mut at = vec![leaf(1), leaf(2)];
    at.sort_unstable();
    let asked = Leaves { tree: TREE, at };
    let line = |key: &Key| KeyEntry {
        key: key.clone(),
        hash: 1,
        context: Bytes::new(),
    };
    let check = |after: Option<&Key>, keys: &[&Key], done, partition| {
        let entries: Vec<_> = keys.iter().map(|key| line(key)).collect();
        asked.check(&trees, |_| PartitionId(partition), after, &entries, done)
    };
    let upto = |done, last: Option<&Key>| {
        Some(Upto {
            done,
            last: last.cloned(),
        })
    };
    assert_eq!(check(None, &[&a, &b], 2, 0), upto(2, None));
    assert_eq!(check(None, &[&a, &b], 1, 0), upto(1, Some(&b)));
    assert_eq!(check(None, &[&a], 0, 0), upto(0, Some(&a)));
    assert_eq!(check(None, &[], 1, 0), upto(1, None));
    assert_eq!(check(None, &[], 0, 0), None, "it does not get on");
    assert_eq!(check(None, &[&a, &b], 3, 0), None, "more leaves than were asked for");
    assert_eq!(check(None, &[&b, &a], 2, 0), None, "out of order");
    assert_eq!(check(None, &[&a, &a], 2, 0), None, "twice");
    assert_eq!(check(Some(&a), &[&a], 1, 0), None, "listed before");
    assert_eq!(check(None, &[&a, &b], 0, 0), None, "behind its own end");
    assert_eq!(check(None, &[&a], 2, 1), None, "of another partition");
    let stranger = (3..)
        .map(key)
        .find(|key| !asked.at.contains(&trees.leaf_of(TREE.partition, key.token(), 3).at));
    assert_eq!(check(None, &[&stranger.unwrap()], 2, 0), None, "of another leaf");
}
