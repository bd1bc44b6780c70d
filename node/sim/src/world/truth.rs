//! What the simulator sees that no client can: every record on its way to a disk, at its owners and as a hint.
//!
//! It holds promises while the run goes on. Dots are unique (P0): the first write seen under a dot is the only one ever. A replica's
//! context never shrinks within one memory (P6), unless what goes is settled: known to every owner, and live nowhere (P4). Only owners hold a key
//! (P14). What is acknowledged by W nodes is on W synced disks (P12). A hint goes only when its owner has merged it durably (P10). And it notes
//! which writes were ever stored anywhere: a write that nobody stored has covered nothing, and one that was certainly
//! not applied must not be among them.

use super::causal::Causal;
use super::disk::Disk;
use super::event::NodeNo;
use super::node::WALL_MS;
use super::rows::{Change, NodeRows, Row};
use crate::history::History;
use crate::probes::{Probe, Probes};
use crate::violation::{Promise, Violation};
use bytes::Bytes;
use quorate_core::context::Context;
use quorate_core::dot::Dot;
use quorate_core::engine::StoreTicket;
use quorate_core::key::Key;
use quorate_core::record::{Record, Sibling};
use quorate_core::request::Operation;
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::rc::Rc;

/// A request id and the hash of its payload: what makes a write.
pub(crate) type Identity = (u64, u64);

/// All records, as they are visible and as they are synced on each node.
pub(crate) struct Truth {
    owners: Vec<Vec<NodeNo>>,
    nodes: Vec<NodeRows>,
    /// What made each dot, by key.
    dots: BTreeMap<(usize, Dot), Identity>,
    causal: Causal,
    /// Keys whose bucket lets blind writes replace.
    replaces: Vec<bool>,
    /// Keys of which some context was ever made smaller.
    settled: BTreeSet<usize>,
    /// Which node last dropped a whole record, and when.
    pub(crate) last_reaped: Option<(NodeNo, u64)>,
    /// Writes seen on some disk.
    pub(crate) stored: BTreeSet<Identity>,
    /// Those of relaxed durability that a power cut took from some disk, and their keys.
    pub(crate) cut: BTreeSet<Identity>,
    pub(crate) cut_keys: BTreeSet<usize>,
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

/// What a hint begins with, and how many bytes are in front of its record's mark.
const HINT: (u8, usize) = (255, 9);
/// What the record of a node begins with that has lost some of it.
const INCOMPLETE: u8 = 254;

/// Whether a node knows that this is not all that it should hold.
pub(crate) fn is_incomplete(payload: &[u8]) -> bool {
    payload.first() == Some(&INCOMPLETE)
}

/// The record in what a node stores: behind its local mark, which has its length in front. A hint has its time before that.
pub(crate) fn record_in(payload: &[u8]) -> Option<Record> {
    let payload = match *payload.first()? {
        first if first == HINT.0 => payload.get(HINT.1..)?,
        INCOMPLETE => &payload[1..],
        _ => payload,
    };
    let mark = usize::from(*payload.first()?);
    Record::decode(payload.get(1 + mark..)?).ok()
}

impl Truth {
    pub(crate) fn new(nodes: usize, owners: Vec<Vec<NodeNo>>, replaces: Vec<bool>) -> Truth {
        Truth {
            owners,
            replaces,
            causal: Causal::default(),
            nodes: (0..nodes).map(|_| NodeRows::default()).collect(),
            dots: BTreeMap::new(),
            settled: BTreeSet::new(),
            last_reaped: None,
            stored: BTreeSet::new(),
            cut: BTreeSet::new(),
            cut_keys: BTreeSet::new(),
            lost: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            violations: Vec::new(),
            probes: Probes::default(),
        }
    }

    /// A store is to be carried out; `wall_ms` is the latest time by any node's clock. Returns the record that is in it, and whether that holds a dot that was never seen.
    pub(crate) fn see(
        &mut self,
        (history, wall_ms): (&History, u64),
        at: NodeNo,
        row: Row,
        payload: Option<&Bytes>,
    ) -> Option<(Change, bool)> {
        let key = row.key();
        if let Row::Record(key) | Row::Hint(_, key) = row
            && payload.is_some()
            && self.is_misplaced(at, row)
        {
            self.broken(
                Promise::P14,
                format!("node {at} stores {row:?} of key {key}, where it does not belong"),
            );
        }
        let Some(payload) = payload else {
            let gone = Change {
                row,
                record: None,
                is_whole: true,
            };
            return Some((gone, false));
        };
        let Some(record) = record_in(payload) else {
            self.broken(
                Promise::P3,
                format!("node {at} stores bytes under {row:?} that are no record"),
            );
            return None;
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
        // Without what has been settled it is not known what replaced what.
        let shrinks = self.nodes[at]
            .get(row)
            .is_some_and(|before| !record.context().covers(before.context()));
        let may_miss = self.replaces[key] || self.settled.contains(&key) || shrinks;
        if let Some(wrong) = self.causal.judge(key, &record, may_miss, wall_ms) {
            self.broken(
                Promise::P2,
                format!("node {at} stores a wrong record under {row:?}: {wrong}"),
            );
        }
        if mints && matches!(row, Row::Record(_)) {
            self.probes
                .hit_if(self.lost.remove(&(at, key)), Probe::LostRecordWritten);
            self.probes
                .hit_if(self.forgotten.remove(&(at, key)), Probe::ForgottenRecordWritten);
        }
        let change = Change {
            row,
            record: Some(Rc::new(record)),
            is_whole: !is_incomplete(payload),
        };
        Some((change, mints))
    }

    /// P14, as far as one row tells: records are at their owners, and hints are for owners.
    fn is_misplaced(&self, at: NodeNo, row: Row) -> bool {
        match row {
            Row::Record(key) => !self.owners[key].contains(&at),
            Row::Hint(target, key) => target == at || !self.owners[key].contains(&target),
        }
    }

    /// A change is on disk, if not synced yet.
    pub(crate) fn stored(&mut self, now: u64, at: NodeNo, ticket: StoreTicket, mut change: Change) {
        let row = change.row;
        if let (Row::Hint(_, key), Some(record)) = (row, &change.record)
            && record.is_empty()
        {
            // A hint of an owner for another one refers to the owner's own record.
            change.record = self.nodes[at].get(Row::Record(key)).cloned().or(change.record);
        }
        if let Some(record) = &change.record {
            self.stored.extend(record.siblings().iter().map(identity));
            // A write that was overwritten before its first sync left only its id.
            self.stored
                .extend(record.overwritten().iter().map(|o| (o.request.unique, o.payload)));
        }
        let after = change.record.clone();
        let Some(before) = self.nodes[at].change(ticket, change) else {
            return;
        };
        let nothing = Record::default();
        let after = after.as_deref().unwrap_or(&nothing).context();
        if after.covers(before.context()) {
            return;
        }
        match row {
            Row::Record(key) => {
                if after.is_empty() {
                    self.last_reaped = Some((at, now));
                }
                self.check_settled(now, (at, key), before.context(), after);
            }
            Row::Hint(target, key) if after.is_empty() => self.check_went_home(at, (target, key), &before),
            // One that is home may go in the same batch in which the next one for that owner comes.
            Row::Hint(target, key) if self.is_home((target, key), &before) => {}
            Row::Hint(..) => self.broken(
                Promise::P6,
                format!(
                    "node {at}'s context of {row:?} shrank from {:?} to {after:?}",
                    before.context()
                ),
            ),
        }
    }

    /// P6 and P4: what an owner drops of what it knew, every owner knew durably, and none of it is live as a value anywhere.
    fn check_settled(&mut self, now: u64, (at, key): (NodeNo, usize), before: &Context, after: &Context) {
        let unknown_to = self.owners[key].iter().copied().find(|&owner| {
            let nothing = Context::new();
            !knows_dropped(self.nodes[owner].ever(key).unwrap_or(&nothing), before, after)
        });
        if let Some(owner) = unknown_to {
            return self.broken(
                Promise::P6,
                format!("node {at}'s context of key {key} shrank from {before:?} to {after:?}, and node {owner} never knew as much"),
            );
        }
        let dropped = |dot: Dot| before.contains(dot) && !after.contains(dot);
        let live = self.nodes.iter().enumerate().find_map(|(node, rows)| {
            let mut siblings = rows.of_key(key).flat_map(|record| record.siblings());
            let wall_ms = WALL_MS as u64 + now / 1000;
            let alive = siblings.find(|s| dropped(s.dot) && s.is_live(wall_ms))?;
            Some((node, alive.dot))
        });
        if let Some((node, dot)) = live {
            return self.broken(
                Promise::P4,
                format!(
                    "node {at} drops what it knows of {dot:?} of key {key}, whose value is live on node {node}'s disk"
                ),
            );
        }
        self.settled.insert(key);
        self.probes.hit(match after.is_empty() {
            true => Probe::Reaped,
            false => Probe::Trimmed,
        });
    }

    /// An owner is about to keep a hint for another one. If it has one already nothing will be stored, and that one stands for its record as it is now.
    pub(crate) fn refer(&mut self, at: NodeNo, target: NodeNo, key: usize) {
        if self.owners[key].contains(&at) {
            self.nodes[at].refer(Row::Hint(target, key));
        }
    }

    /// Whether an owner has ever durably known all of a hint.
    fn is_home(&self, (target, key): (NodeNo, usize), hint: &Record) -> bool {
        let home = self.nodes[target].ever(key);
        home.is_some_and(|home| home.covers(hint.context()))
    }

    /// P10: a hint goes only when its owner has merged it durably.
    fn check_went_home(&mut self, at: NodeNo, (target, key): (NodeNo, usize), hint: &Record) {
        if !self.is_home((target, key), hint) {
            let home = self.nodes[target].ever(key);
            return self.broken(
                Promise::P10,
                format!(
                    "node {at} drops its hint of key {key} for node {target}, which never merged it durably: {:?}, and home {home:?}",
                    hint.context()
                ),
            );
        }
        self.probes.hit(Probe::HintWentHome);
    }

    /// All stores of a node up to this one are synced.
    pub(crate) fn synced(&mut self, at: NodeNo, upto: StoreTicket) {
        self.nodes[at].sync(upto);
    }

    /// On how many nodes' disks a record of the key that knows this dot is synced: of its owners, and of all nodes, hints included.
    pub(crate) fn synced_nodes(&self, key: usize, dot: Dot) -> (usize, usize) {
        let mut counts = (0, 0);
        for (at, rows) in self.nodes.iter().enumerate() {
            let knows = |record: &Rc<Record>| record.context().contains(dot);
            let owns = self.owners[key].contains(&at) && rows.get_synced(Row::Record(key)).is_some_and(knows);
            let keeps = || {
                let of_key = rows.iter_synced().filter(|(row, _)| row.key() == key);
                of_key.into_iter().any(|(_, record)| knows(record))
            };
            counts.0 += usize::from(owns);
            counts.1 += usize::from(owns || keeps());
        }
        counts
    }

    /// On how many nodes' disks a record of the key that knows this dot is, synced or not: of its owners, and of all nodes, hints included.
    pub(crate) fn applied_nodes(&self, key: usize, dot: Dot) -> (usize, usize) {
        let mut counts = (0, 0);
        for (at, rows) in self.nodes.iter().enumerate() {
            let knows = |record: &Rc<Record>| record.context().contains(dot);
            let owns = self.owners[key].contains(&at) && rows.get(Row::Record(key)).is_some_and(knows);
            let keeps = || rows.iter().any(|(row, record)| row.key() == key && knows(record));
            counts.0 += usize::from(owns);
            counts.1 += usize::from(owns || keeps());
        }
        counts
    }

    /// Writes that no owner ever knew of durably but those that have `left`; none if nobody has.
    pub(crate) fn unknown_without(&self, left: impl Fn(NodeNo) -> bool) -> BTreeSet<Identity> {
        if !(0..self.nodes.len()).any(&left) {
            return BTreeSet::new();
        }
        let is_known = |&(key, dot): &(usize, Dot)| {
            let mut there = self.owners[key].iter().filter(|&&at| !left(at));
            there.any(|&at| self.nodes[at].ever(key).is_some_and(|ever| ever.contains(dot)))
        };
        let (known, unknown): (Vec<_>, Vec<_>) = self.dots.iter().partition(|(dot, _)| is_known(dot));
        let known: BTreeSet<Identity> = known.into_iter().map(|(_, made)| *made).collect();
        let unknown = unknown.into_iter().map(|(_, made)| *made);
        unknown.filter(|made| !known.contains(made)).collect()
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
        self.causal.mint(key, sibling, sealed);
        true
    }

    /// A node's process has ended, and of what its disk had not synced not all may be left. Of keys that are `relaxed` that may have been acknowledged.
    pub(crate) fn crashed(
        &mut self,
        keys: &BTreeMap<Key, usize>,
        at: NodeNo,
        disk: &Disk,
        relaxed: impl Fn(usize) -> bool,
    ) {
        let unsynced: Vec<_> = self.nodes[at].unsynced().filter(|&(key, _)| relaxed(key)).collect();
        self.reload(keys, at, disk);
        for (key, record) in unsynced {
            let left = self.nodes[at].get(Row::Record(key));
            let is_left = |dot| left.is_some_and(|left| left.context().contains(dot));
            let gone: Vec<_> = record
                .siblings()
                .iter()
                .filter(|s| !is_left(s.dot))
                .map(identity)
                .collect();
            if !gone.is_empty() {
                self.cut_keys.insert(key);
                self.cut.extend(gone);
            }
        }
    }

    /// A node's disk has changed behind its back: a crash, a wipe.
    pub(crate) fn reload(&mut self, keys: &BTreeMap<Key, usize>, at: NodeNo, disk: &Disk) {
        let before = self.nodes[at].reload(keys, disk);
        for (row, record) in before {
            if let Row::Record(key) = row
                && self.nodes[at]
                    .get(row)
                    .is_none_or(|now| now.context() != record.context())
            {
                self.lost.insert((at, key));
            }
        }
    }

    /// A node has lost one row.
    pub(crate) fn lose(&mut self, at: NodeNo, row: Row) {
        self.nodes[at].lose(row);
        if let Row::Record(key) = row {
            self.forgotten.insert((at, key));
        }
    }

    /// Whether a node holds the only durable copy of something that was, or may yet be, acknowledged: in all its rows, or in one.
    pub(crate) fn holds_last_copy(&self, history: &History, now: u64, at: NodeNo, only: Option<Row>) -> bool {
        let matters = |made: &Identity| {
            history
                .by_identity_of(*made)
                .is_none_or(|write| history.writes[write].may_count(now))
        };
        let rows = self.nodes[at].iter().chain(self.nodes[at].iter_synced());
        let mut rows = rows.filter(|(row, _)| only.is_none_or(|only| only == *row));
        rows.any(|(row, record)| {
            let mut siblings = record.siblings().iter().filter(|s| matters(&identity(s)));
            siblings.any(|s| !self.is_elsewhere(at, row.key(), s.dot))
        })
    }

    /// Whether another node knows a dot durably. What is on its disk, and was removed by a store that is not synced yet, is as good as gone.
    fn is_elsewhere(&self, at: NodeNo, key: usize, dot: Dot) -> bool {
        let knows = |record: &Rc<Record>| record.context().contains(dot);
        let others = self.nodes.iter().enumerate().filter(|(node, _)| *node != at);
        others.map(|(_, rows)| rows).any(|rows| {
            let mut of_key = rows.iter_synced().filter(|(row, _)| row.key() == key);
            of_key.any(|(row, record)| knows(record) && rows.get(row).is_some_and(knows))
        })
    }

    /// What a node holds under a key that it owns.
    pub(crate) fn record(&self, at: NodeNo, key: usize) -> Option<&Record> {
        self.nodes[at].get(Row::Record(key)).map(Rc::as_ref)
    }

    /// The records on a node's disk.
    pub(crate) fn rows(&self, at: NodeNo) -> &NodeRows {
        &self.nodes[at]
    }

    /// The merge over all disks: what the key holds once everybody has heard everything.
    pub(crate) fn merged(&self, key: usize) -> Record {
        self.merged_over(key, 0..self.nodes.len())
    }

    /// The merge over the disks of some nodes.
    pub(crate) fn merged_over(&self, key: usize, nodes: impl Iterator<Item = NodeNo>) -> Record {
        let mut merged = Record::default();
        for rows in nodes.map(|at| &self.nodes[at]) {
            let of_key = rows.iter().filter(|(row, _)| row.key() == key);
            of_key.for_each(|(_, record)| merged.merge(record));
        }
        merged.settle_retries();
        merged
    }

    pub(crate) fn owners(&self, key: usize) -> &[NodeNo] {
        &self.owners[key]
    }

    /// Overwritten writes that some node remembered durably as sent again.
    pub(crate) fn resent(&self) -> BTreeSet<Identity> {
        self.nodes.iter().flat_map(NodeRows::resent).copied().collect()
    }

    /// Whether anything that was known of this key was ever dropped because it was settled.
    pub(crate) fn was_settled(&self, key: usize) -> bool {
        self.settled.contains(&key)
    }

    fn broken(&mut self, promise: Promise, detail: String) {
        self.violations.push(Violation { promise, detail });
    }
}

/// Whether `known` has every dot that is in `before` and not in `after`.
fn knows_dropped(known: &Context, before: &Context, after: &Context) -> bool {
    let runs = before
        .vector()
        .iter()
        .all(|&(actor, upto)| after.reach(actor) >= upto || known.reach(actor) >= upto);
    runs && before
        .lone()
        .iter()
        .all(|&dot| after.contains(dot) || known.contains(dot))
}
