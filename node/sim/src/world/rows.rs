//! The records on one node's disk: those that it owns and those that it keeps for others, as reads see them and as a power cut
//! would leave them.

use super::disk::Disk;
use super::event::NodeNo;
use super::truth::{Identity, record_in};
use crate::plan::node_of;
use quorate_core::context::Context;
use quorate_core::engine::StoreTicket;
use quorate_core::key::Key;
use quorate_core::place::{Place, Shelf};
use quorate_core::record::Record;
use quorate_ring::NodeId;
use quorate_storage::Column;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// Which record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    /// That of a key, at one of its owners.
    Record(usize),
    /// What is kept of a key for one of its owners.
    Hint(NodeNo, usize),
}

impl Row {
    /// The key.
    pub(crate) fn key(self) -> usize {
        match self {
            Row::Record(key) | Row::Hint(_, key) => key,
        }
    }

    /// The row at a place, if it is one of these, and its key one that is known.
    pub(crate) fn at(place: &Place, keys: &BTreeMap<Key, usize>) -> Option<Row> {
        match place {
            Place::Record(key) => Some(Row::Record(*keys.get(key)?)),
            Place::Hint(target, key) => Some(Row::Hint(node_of(*target), *keys.get(key)?)),
            _ => None,
        }
    }
}

/// A row gets a record, or goes.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) row: Row,
    pub(crate) record: Option<Rc<Record>>,
    /// Whether it is all that the node should hold, as far as it knows.
    pub(crate) is_whole: bool,
}

type Rows = BTreeMap<Row, Rc<Record>>;

/// The records on one node's disk.
#[derive(Default)]
pub(crate) struct NodeRows {
    visible: Rows,
    synced: Rows,
    unsynced: VecDeque<(StoreTicket, Change)>,
    /// All that this node ever knew durably of the keys that it owns.
    ever: BTreeMap<usize, Context>,
    /// Overwritten writes that it ever knew durably under an id that says that they were sent again.
    resent: BTreeSet<Identity>,
}

impl NodeRows {
    /// What reads see.
    pub(crate) fn get(&self, row: Row) -> Option<&Rc<Record>> {
        self.visible.get(&row)
    }

    /// What a power cut would leave.
    pub(crate) fn get_synced(&self, row: Row) -> Option<&Rc<Record>> {
        self.synced.get(&row)
    }

    /// All that reads see.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Row, &Rc<Record>)> {
        self.visible.iter().map(|(&row, record)| (row, record))
    }

    /// All that is synced.
    pub(crate) fn iter_synced(&self) -> impl Iterator<Item = (Row, &Rc<Record>)> {
        self.synced.iter().map(|(&row, record)| (row, record))
    }

    /// A copy of all that is synced.
    pub(crate) fn synced_rows(&self) -> Vec<(Row, Rc<Record>)> {
        self.synced.iter().map(|(&row, record)| (row, record.clone())).collect()
    }

    /// Everything about a key that is on this disk now or would be after a power cut.
    pub(crate) fn of_key(&self, key: usize) -> impl Iterator<Item = &Rc<Record>> {
        let both = [&self.visible, &self.synced];
        both.into_iter()
            .flatten()
            .filter(move |(row, _)| row.key() == key)
            .map(|(_, record)| record)
    }

    /// What this node ever knew durably of a key.
    pub(crate) fn ever(&self, key: usize) -> Option<&Context> {
        self.ever.get(&key)
    }

    /// The records of its keys that are not synced, newest or not.
    pub(crate) fn unsynced(&self) -> impl Iterator<Item = (usize, Rc<Record>)> {
        self.unsynced.iter().filter_map(|(_, change)| match change.row {
            Row::Record(key) => Some((key, change.record.clone()?)),
            Row::Hint(..) => None,
        })
    }

    /// A row of which a store up to this one is not synced, if there is one.
    pub(crate) fn first_unsynced(&self, upto: StoreTicket) -> Option<Row> {
        let (ticket, change) = self.unsynced.front()?;
        (*ticket <= upto).then_some(change.row)
    }

    /// The overwritten writes that it ever remembered durably as sent again.
    pub(crate) fn resent(&self) -> &BTreeSet<Identity> {
        &self.resent
    }

    /// A change is visible. Returns what was there.
    pub(crate) fn change(&mut self, ticket: StoreTicket, change: Change) -> Option<Rc<Record>> {
        let before = match &change.record {
            Some(record) => self.visible.insert(change.row, record.clone()),
            None => self.visible.remove(&change.row),
        };
        self.unsynced.push_back((ticket, change));
        before
    }

    /// A hint that is there stands for this node's own record, as it is now.
    pub(crate) fn refer(&mut self, hint: Row) {
        if let Some(own) = self.visible.get(&Row::Record(hint.key())).cloned()
            && let Some(record) = self.visible.get_mut(&hint)
            && own.context().covers(record.context())
        {
            *record = own;
        }
    }

    /// All changes up to this one are synced.
    pub(crate) fn sync(&mut self, upto: StoreTicket) {
        let done = self.unsynced.partition_point(|(ticket, _)| *ticket <= upto);
        let NodeRows {
            synced,
            unsynced,
            ever,
            resent,
            ..
        } = self;
        for (_, Change { row, record, .. }) in unsynced.drain(..done) {
            match record {
                Some(record) => {
                    if let Row::Record(key) = row {
                        ever.entry(key).or_default().join(record.context());
                    }
                    let gone = record.overwritten().iter().filter(|o| o.request.is_again());
                    resent.extend(gone.map(|o| (o.request.unique, o.payload)));
                    synced.insert(row, record);
                }
                None => {
                    synced.remove(&row);
                }
            }
        }
    }

    /// The disk has changed behind the node's back: a crash, a wipe. Returns what was visible before.
    pub(crate) fn reload(&mut self, keys: &BTreeMap<Key, usize>, disk: &Disk) -> Vec<(Row, Rc<Record>)> {
        let mut rows = Rows::new();
        for (column, shelf) in [(Column::Record, Shelf::Record), (Column::Hint, Shelf::Hint)] {
            for found in disk.rows(column) {
                let (Some(key), Ok(payload)) = (Place::key_in(shelf, &found.key), found.payload) else {
                    continue;
                };
                let target = (shelf == Shelf::Hint).then(|| target_of(found.token, &found.key));
                if let (Some(&key), Some(record)) = (keys.get(&key), record_in(&payload)) {
                    let row = target.map_or(Row::Record(key), |target| Row::Hint(node_of(target), key));
                    rows.insert(row, Rc::new(record));
                }
            }
        }
        // A hint of an owner for another one refers to the owner's own record.
        let own = |row: &Row| rows.get(&Row::Record(row.key())).cloned();
        let referred: Vec<(Row, Rc<Record>)> = rows
            .iter()
            .filter(|(row, record)| matches!(row, Row::Hint(..)) && record.is_empty())
            .filter_map(|(row, _)| Some((*row, own(row)?)))
            .collect();
        rows.extend(referred);
        // What a sync was about to make durable may have survived: then it is durable now.
        for (row, record) in &rows {
            if let Row::Record(key) = *row {
                self.ever.entry(key).or_default().join(record.context());
            }
        }
        self.unsynced.clear();
        self.synced = rows.clone();
        std::mem::replace(&mut self.visible, rows).into_iter().collect()
    }

    /// One row is gone for good; and with an owner's record all hints that refer to it.
    pub(crate) fn lose(&mut self, lost: Row) {
        let goes = |row: &Row| *row == lost || matches!(lost, Row::Record(key) if key == row.key());
        if let (Row::Record(key), Some(record)) = (lost, self.visible.get(&lost)) {
            // It may be known to others as durable before this node hears that it is.
            self.ever.entry(key).or_default().join(record.context());
        }
        self.visible.retain(|row, _| !goes(row));
        self.synced.retain(|row, _| !goes(row));
        self.unsynced.retain(|(_, change)| !goes(&change.row));
    }
}

/// The node that a hint is for, from the name of its row.
pub(crate) fn target_of(token: u64, row_key: &[u8]) -> NodeId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&token.to_be_bytes());
    id[8..].copy_from_slice(&row_key[..8]);
    NodeId(id)
}
