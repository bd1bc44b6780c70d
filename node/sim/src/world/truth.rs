//! What the simulator sees that no client can: every record on its way to a disk.
//!
//! It holds three promises while the run goes on. Dots are unique (P0): the first write seen under a dot is the only one ever. A replica's
//! context never shrinks within one memory (P6): each record covers the one that it replaces. Only owners hold a key
//! (P14). What is acknowledged by W owners is on W synced disks (P12). And it notes which writes were ever stored anywhere: a write that nobody stored has covered nothing, and one that was certainly
//! not applied must not be among them.

use super::causal::Causal;
use super::disk::Disk;
use super::event::NodeNo;
use crate::history::History;
use crate::probes::{Probe, Probes};
use crate::violation::{Promise, Violation};
use bytes::Bytes;
use quorate_core::dot::Dot;
use quorate_core::engine::StoreTicket;
use quorate_core::key::Key;
use quorate_core::record::{Record, Sibling};
use quorate_core::request::Operation;
use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry};
use std::mem;
use std::rc::Rc;

/// A request id and the hash of its payload: what makes a write.
pub(crate) type Identity = (u64, u64);

/// All records, as they are visible on each node.
pub(crate) struct Truth {
    owners: Vec<Vec<NodeNo>>,
    /// By node and key.
    records: Vec<BTreeMap<usize, Rc<Record>>>,
    /// What made each dot, by key.
    dots: BTreeMap<(usize, Dot), Identity>,
    causal: Causal,
    /// Records that are synced, by node and key, and those that are not yet.
    synced: Vec<BTreeMap<usize, Rc<Record>>>,
    unsynced: Vec<VecDeque<(StoreTicket, usize, Rc<Record>)>>,
    /// Keys whose bucket lets blind writes replace.
    replaces: Vec<bool>,
    /// Writes seen on some disk.
    pub(crate) stored: BTreeSet<Identity>,
    /// The record last seen on its way to a disk.
    coming: Option<Record>,
    /// Keys that a node has lost something of.
    lost: BTreeSet<(NodeNo, usize)>,
    forgotten: BTreeSet<(NodeNo, usize)>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) probes: Probes,
}

/// What identifies the write that left a sibling.
pub(crate) fn identity(sibling: &Sibling) -> Identity {
    (sibling.request.unique, sibling.content.payload_hash())
}

/// The record in what a node stores: behind its local mark, which has its length in front.
pub(crate) fn record_in(payload: &[u8]) -> Option<Record> {
    let mark = usize::from(*payload.first()?);
    Record::decode(payload.get(1 + mark..)?).ok()
}

impl Truth {
    pub(crate) fn new(nodes: usize, owners: Vec<Vec<NodeNo>>, replaces: Vec<bool>) -> Truth {
        Truth {
            owners,
            replaces,
            causal: Causal::default(),
            synced: vec![BTreeMap::new(); nodes],
            unsynced: vec![VecDeque::new(); nodes],
            records: vec![BTreeMap::new(); nodes],
            dots: BTreeMap::new(),
            stored: BTreeSet::new(),
            coming: None,
            lost: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            violations: Vec::new(),
            probes: Probes::default(),
        }
    }

    /// A store is to be carried out. Returns whether it holds a dot that was never seen.
    pub(crate) fn see(&mut self, history: &History, at: NodeNo, key: usize, payload: &Bytes) -> bool {
        self.coming = None;
        if !self.owners[key].contains(&at) {
            self.broken(Promise::P14, format!("node {at} stores key {key} without owning it"));
        }
        let Some(record) = record_in(payload) else {
            self.broken(
                Promise::P3,
                format!("node {at} stores bytes under key {key} that are no record"),
            );
            return false;
        };
        let mut mints = false;
        for sibling in record.siblings() {
            mints |= self.note_dot(history, key, sibling);
        }
        for sibling in record.siblings() {
            let (made, first) = (identity(sibling), self.dots[&(key, sibling.dot)]);
            if first != made {
                let detail = format!(
                    "dot {:?} of key {key} names two writes: {first:x?} and {made:x?}",
                    sibling.dot
                );
                self.broken(Promise::P0, detail);
            }
        }
        if let Some(wrong) = self.causal.judge(key, &record, self.replaces[key]) {
            self.broken(
                Promise::P2,
                format!("node {at} stores a wrong record of key {key}: {wrong}"),
            );
        }
        if mints {
            self.probes
                .hit_if(self.lost.remove(&(at, key)), Probe::LostRecordWritten);
            self.probes
                .hit_if(self.forgotten.remove(&(at, key)), Probe::ForgottenRecordWritten);
        }
        self.coming = Some(record);
        mints
    }

    /// The store seen last is on disk.
    pub(crate) fn stored(&mut self, at: NodeNo, key: usize, ticket: StoreTicket) {
        let Some(record) = self.coming.take() else { return };
        let record = Rc::new(record);
        self.unsynced[at].push_back((ticket, key, record.clone()));
        self.stored.extend(record.siblings().iter().map(identity));
        // A write that was overwritten before its first sync left only its id.
        self.stored
            .extend(record.overwritten().iter().map(|o| (o.request.unique, o.payload)));
        if let Some(before) = self.records[at].insert(key, record.clone())
            && !record.context().covers(before.context())
        {
            let (from, to) = (before.context(), record.context());
            self.broken(
                Promise::P6,
                format!("node {at}'s context of key {key} shrank from {from:?} to {to:?}"),
            );
        }
    }

    /// All stores of a node up to this one are synced.
    pub(crate) fn synced(&mut self, at: NodeNo, upto: StoreTicket) {
        let unsynced = &mut self.unsynced[at];
        let done = unsynced.partition_point(|(ticket, ..)| *ticket <= upto);
        self.synced[at].extend(unsynced.drain(..done).map(|(_, key, record)| (key, record)));
    }

    /// How many owners of a key have synced a record that knows this dot.
    pub(crate) fn synced_owners(&self, key: usize, dot: Dot) -> usize {
        let knows = |at: &&NodeNo| {
            self.synced[**at]
                .get(&key)
                .is_some_and(|record| record.context().contains(dot))
        };
        self.owners[key].iter().filter(knows).count()
    }

    /// Notes a sibling's dot. Returns whether it was never seen before.
    fn note_dot(&mut self, history: &History, key: usize, sibling: &Sibling) -> bool {
        let made = identity(sibling);
        let Entry::Vacant(entry) = self.dots.entry((key, sibling.dot)) else {
            return false;
        };
        entry.insert(made);
        let sealed =
            history
                .by_identity(&sibling.request, made.1)
                .and_then(|write| match &history.writes[write].operation {
                    Operation::Put { context, .. } | Operation::Delete { context, .. } => context.as_ref(),
                    Operation::Get { .. } => None,
                });
        self.causal
            .mint(key, sibling.dot, made, sibling.content.is_tombstone(), sealed);
        true
    }

    /// A node's disk has changed behind its back: a crash, a wipe.
    pub(crate) fn reload(&mut self, keys: &BTreeMap<Key, usize>, at: NodeNo, disk: &Disk) {
        let rows = disk.rows().into_iter().filter_map(|(key, payload)| {
            let key = keys.get(&Key::decode(key).ok()?)?;
            Some((*key, Rc::new(record_in(&payload)?)))
        });
        let before = mem::replace(&mut self.records[at], rows.collect());
        self.unsynced[at].clear();
        self.synced[at] = self.records[at].clone();
        for (key, record) in before {
            if self.records[at]
                .get(&key)
                .is_none_or(|now| now.context() != record.context())
            {
                self.lost.insert((at, key));
            }
        }
    }

    /// A node has forgotten one key.
    pub(crate) fn forget(&mut self, at: NodeNo, key: usize) {
        self.records[at].remove(&key);
        self.forgotten.insert((at, key));
    }

    /// What a node holds under a key.
    pub(crate) fn record(&self, at: NodeNo, key: usize) -> Option<&Record> {
        self.records[at].get(&key).map(Rc::as_ref)
    }

    /// The merge over all owners: what the key holds once everybody has heard everything.
    pub(crate) fn merged(&self, key: usize) -> Record {
        let mut merged = Record::default();
        self.owners[key]
            .iter()
            .filter_map(|&at| self.records[at].get(&key))
            .for_each(|record| merged.merge(record));
        merged.settle_retries();
        merged
    }

    pub(crate) fn owners(&self, key: usize) -> &[NodeNo] {
        &self.owners[key]
    }

    fn broken(&mut self, promise: Promise, detail: String) {
        self.violations.push(Violation { promise, detail });
    }
}
