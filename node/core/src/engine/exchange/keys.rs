//! Lists of keys: what lies in some leaves of a tree, and where two such lists differ.
//!
//! Both owners list the same leaves in the same order, each up to a bound, so what both have listed is a range, and within it a key that only
//! one side names is one that the other lacks. The rest is listed again with the next page.
//!
//! A leaf is one range of tokens, and leaves that lie close together are read in one scan, with what is between them passed over: a seek costs
//! more than a few rows. Buckets with another n share the tokens, so rows are picked by their bucket.

use crate::bucket::BucketTable;
use crate::context::Context;
use crate::engine::stored::Stored;
use crate::engine::{Scan, ScanPage, ScanRows};
use crate::key::Key;
use crate::message::KeyEntry;
use crate::record::Record;
use crate::tree::{LeafId, TreeId, Trees};
use bytes::Bytes;
use quorate_ring::PartitionId;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Bytes of entries in one answer. With the entry that reaches it and the fields beside it a message stays under 64 KiB.
pub(super) const ANSWER_BYTES_MAX: usize = 56 << 10;
/// Longest context that is sent along, in bytes: two actors or three. Records with longer ones are compared by being merged.
const CONTEXT_BYTES_MAX: usize = 128;
/// Leaves that are passed over rather than read with a scan of their own.
const GAP_MAX: u16 = 2;
/// Rows of one scan, and their bytes: a tenth of a millisecond's work.
const ROWS_MAX: usize = 64;
const ROW_BYTES_MAX: usize = 256 << 10;

/// How far a list has come: so many leaves to their end, and the next up to this key. Sorts as lists go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Upto {
    pub(super) done: usize,
    pub(super) last: Option<Key>,
}

/// Keys of some leaves, in order.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) entries: Vec<KeyEntry>,
    pub(super) upto: Upto,
    /// Keys whose rows are damaged. Nothing is known of what they hold.
    pub(super) damaged: BTreeSet<Key>,
}

/// Which leaves are listed: some of a tree, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaves {
    pub(super) tree: TreeId,
    /// Invariant: rising.
    pub(super) at: Vec<u16>,
}

impl Leaves {
    /// Where in the list the leaf of a key is, or would be.
    fn position(&self, trees: &Trees, key: &Key) -> Result<usize, usize> {
        let leaf = trees.leaf_of(self.tree.partition, key.token(), self.tree.n);
        self.at.binary_search(&leaf.at)
    }

    /// Whether a list that has come so far would name the key if it were there.
    pub(super) fn is_listed(&self, trees: &Trees, key: &Key, upto: &Upto) -> bool {
        match self.position(trees, key) {
            Ok(at) if at == upto.done => upto.last.as_ref().is_some_and(|last| key <= last),
            Ok(at) => at < upto.done,
            Err(_) => false,
        }
    }

    /// How far the list of another node has come that names these keys; `None` if it does not follow from what it was asked, which was
    /// these leaves, and of the first what is behind `after`.
    pub(super) fn check(
        &self,
        trees: &Trees,
        partition_of: impl Fn(&Key) -> PartitionId,
        after: Option<&Key>,
        entries: &[KeyEntry],
        done: usize,
    ) -> Option<Upto> {
        let is_asked = |entry: &KeyEntry| {
            partition_of(&entry.key) == self.tree.partition
                && self.position(trees, &entry.key).is_ok_and(|at| at <= done)
        };
        let is_sound = done <= self.at.len()
            && entries.iter().all(is_asked)
            && entries.is_sorted_by(|a, b| a.key < b.key)
            && entries
                .first()
                .is_none_or(|first| after.is_none_or(|after| first.key > *after));
        let last = entries
            .last()
            .filter(|last| self.position(trees, &last.key) == Ok(done));
        let last = last.map(|entry| entry.key.clone());
        let goes_on = done > 0 || last.is_some();
        (is_sound && goes_on).then_some(Upto { done, last })
    }
}

/// A list that is being made.
#[derive(Debug)]
pub(super) struct Listing {
    leaves: Leaves,
    page: Page,
    /// The row behind which the next scan goes on, if that is within a leaf.
    after: Option<Key>,
    /// Leaves that the scan under way reads to their end.
    reads: usize,
    bytes: usize,
    bytes_max: usize,
    is_full: bool,
}

impl Listing {
    /// A list of these leaves, of the first only what is behind `after`, that ends when it has about `bytes_max`.
    pub(super) fn new(leaves: Leaves, after: Option<Key>, bytes_max: usize) -> Listing {
        Listing {
            leaves,
            page: Page::default(),
            after,
            reads: 0,
            bytes: 0,
            bytes_max,
            is_full: false,
        }
    }

    /// What is to be read next; `None` when the list has come to its end.
    pub(super) fn next_scan(&mut self, trees: &Trees) -> Option<Scan> {
        let rest = self.leaves.at.get(self.page.upto.done..)?;
        let first = *rest.first().filter(|_| !self.is_full)?;
        let near = rest.windows(2).take_while(|pair| pair[1] - pair[0] <= 1 + GAP_MAX);
        let more = near.count();
        self.reads = self.page.upto.done + 1 + more;
        let tokens = |at: u16| {
            trees.tokens(LeafId {
                tree: self.leaves.tree,
                at,
            })
        };
        Some(Scan {
            rows: ScanRows::Records(*tokens(first).start()..=*tokens(rest[more]).end()),
            after: self.after.clone(),
            rows_max: ROWS_MAX,
            bytes_max: ROW_BYTES_MAX,
        })
    }

    /// Takes in what was read. Returns the keys of damaged rows.
    pub(super) fn take(&mut self, page: ScanPage, trees: &Trees, buckets: &BucketTable) -> Vec<Key> {
        let mut damaged = Vec::new();
        for (key, row) in page.rows {
            let n = buckets.of(key.bucket()).n;
            let position = self.leaves.position(trees, &key);
            let wanted = n == self.leaves.tree.n && position.is_ok();
            let listed = row.ok().and_then(|payload| entry(&key, payload));
            let is_damaged = listed.is_none();
            let entry = listed.unwrap_or_else(|| lost(&key));
            if wanted {
                let bytes = entry_bytes(&entry);
                if self.bytes + bytes > self.bytes_max && !self.page.entries.is_empty() {
                    self.is_full = true;
                    return damaged;
                }
                self.bytes += bytes;
                self.page.entries.push(entry);
            }
            if is_damaged {
                if wanted {
                    self.page.damaged.insert(key.clone());
                }
                damaged.push(key.clone());
            }
            let (Ok(done) | Err(done)) = position;
            self.page.upto.done = done;
            self.after = position.is_ok().then_some(key);
        }
        if page.done {
            self.page.upto.done = self.reads;
            self.after = None;
        }
        damaged
    }

    /// The list.
    pub(super) fn end(mut self) -> Page {
        self.page.upto.last = self.after;
        self.page
    }
}

/// The line of a row that holds a record, or has held one, and nobody can say which. It is like no other line, so who compares lists does not
/// take them for equal.
fn lost(key: &Key) -> KeyEntry {
    KeyEntry {
        key: key.clone(),
        hash: 0,
        context: Bytes::new(),
    }
}

/// The line of a row; `None` if it holds no record, or not all of it.
fn entry(key: &Key, payload: Bytes) -> Option<KeyEntry> {
    let stored = Stored::parse(Some(payload))
        .ok()
        .filter(|stored| !stored.is_incomplete())?;
    let context = Record::context_bytes(stored.encoded())?;
    let context = match context.len() <= CONTEXT_BYTES_MAX {
        true => Bytes::copy_from_slice(context),
        false => Bytes::new(),
    };
    Some(KeyEntry {
        key: key.clone(),
        hash: Record::hash_encoded(stored.encoded()),
        context,
    })
}

/// Bytes of an entry on the wire, or a little more.
pub(super) fn entry_bytes(entry: &KeyEntry) -> usize {
    entry.key.encoded().len() + entry.context.len() + 12
}

/// What has to be done about a key that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Todo {
    /// The peer is behind: it is sent our record.
    Send,
    /// We are behind: the peer's record is pulled.
    Pull,
    /// Both may have something: pulled, merged, and sent if that is news to the peer.
    Both,
}

/// Compares two lists of the same range, each in order.
pub(super) fn differences(mine: &[KeyEntry], theirs: &[KeyEntry]) -> Vec<Difference> {
    let (mut mine, mut theirs) = (mine.iter().peekable(), theirs.iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (mine.peek(), theirs.peek()) {
            (Some(a), Some(b)) => a.key.cmp(&b.key),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return found,
        };
        let a = mine.next_if(|_| order.is_le());
        let b = theirs.next_if(|_| order.is_ge());
        let todo = match (a, b) {
            (Some(a), Some(b)) if a.hash == b.hash => continue,
            (Some(a), Some(b)) => newer(a, b),
            (Some(_), None) => Todo::Send,
            _ => Todo::Pull,
        };
        if let Some(entry) = a.or(b) {
            found.push(Difference {
                key: entry.key.clone(),
                todo,
                is_new_there: b.is_some_and(|b| b.hash == 0),
            });
        }
    }
}

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) key: Key,
    pub(super) todo: Todo,
    /// The peer has written it a moment ago.
    pub(super) is_new_there: bool,
}

/// Which of two records covers the other.
fn newer(mine: &KeyEntry, theirs: &KeyEntry) -> Todo {
    let context = |entry: &KeyEntry| postcard::from_bytes::<Context>(&entry.context).ok();
    let (Some(a), Some(b)) = (context(mine), context(theirs)) else {
        return Todo::Both;
    };
    match (a.covers(&b), b.covers(&a)) {
        (true, false) => Todo::Send,
        (false, true) => Todo::Pull,
        _ => Todo::Both,
    }
}

#[cfg(test)]
mod tests {
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
        let wanted =
            |key: &&Key| tokens.contains(&key.token().0) && scan.after.as_ref().is_none_or(|after| *key > after);
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
}
