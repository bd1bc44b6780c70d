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

    /// Whether anything was read that the next list need not read again.
    pub(super) fn has_some(&self) -> bool {
        self.page.upto.done > 0 || !self.page.entries.is_empty()
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
mod tests;
