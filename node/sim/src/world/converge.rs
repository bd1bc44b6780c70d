//! After healing: replicas become equal, and then there is nothing left to do (P5).
//!
//! The world runs on in virtual time until every owner of every key that is there holds the same bytes, Merkle trees say so too, and nothing is
//! left of what heals: no hints, no notes of partitions that somebody has missed, no keys that wait to be settled, no tombstones. Then it runs on for
//! a while, and the counters of repair must stand still. If one node stays away for ever the others converge without it; what is kept for it
//! is kept, and no tombstone may go.

use super::rows::Row;
use super::{World, micros};
use crate::probes::Probe;
use crate::violation::Promise;
use quorate_core::engine::{Counters, ExchangePhase};
use quorate_core::place::{Place, Shelf};
use quorate_core::time::Instant;
use quorate_core::tree::{Trees, entry};
use quorate_storage::Column;

/// Virtual time within which replicas must be equal.
const PATIENCE_MS: u64 = 180_000;
/// Between the looks of nodes with a damaged file whether they may start over, for each node.
const TURN_US: u64 = 15_000_000;
/// Requests that were under way are over by then, and everybody has noticed which connections are dead.
const FIRST_LOOK_US: u64 = 6_000_000;
/// Times that settling may go on behind equal replicas.
const SETTLING_TURNS: u32 = 12;
/// What was proved before a node went away may be carried out this much later.
const AFTER_LEAVING_US: u64 = 20_000_000;

impl World {
    /// Lets replicas become equal and looks whether they stay it. Without anti-entropy they only get time for what is under way.
    pub(super) fn converge(&mut self) {
        if !self.plan.options.healing.exchange {
            let settled = self.now + micros(20_000);
            return self.run_until(settled);
        }
        let began = self.now;
        let end = began + micros(PATIENCE_MS) + self.turns_us();
        let mut next = began + FIRST_LOOK_US;
        loop {
            self.run_until(next);
            next = self.now + micros(1_000);
            let Some(difference) = self.difference().or_else(|| self.repair()) else {
                break;
            };
            if self.now >= end {
                return self.violated(Promise::P5, || {
                    format!("not converged {PATIENCE_MS} ms after the last fault: {difference}")
                });
            }
        }
        let took = self.now - began;
        self.note(|| format!("converged after {} ms", took / 1000));
        self.probes.hit(Probe::Converged);
        self.stay_converged();
    }

    /// What it takes until every node with a damaged file has had its turn to start over, twice.
    fn turns_us(&self) -> u64 {
        let damaged = self.nodes.iter().filter(|node| node.is_damaged).count() as u64;
        2 * damaged * self.nodes.len() as u64 * TURN_US
    }

    /// Nothing more is repaired, and everything stays as it is. Contexts may still be trimmed for a while: then it is looked at again.
    fn stay_converged(&mut self) {
        for _ in 0..SETTLING_TURNS {
            let (before, settled) = (self.repairs(), self.settled());
            let later = self.now + micros(2 * u64::from(self.plan.options.healing.exchange_every_ms) + 1_000);
            self.run_until(later);
            if settled != self.settled() || self.repair().is_some() {
                continue;
            }
            let after = self.repairs();
            if before != after {
                self.violated(Promise::P5, || {
                    format!("replicas were equal, and repair went on: from {before:?} to {after:?}")
                });
            }
            if let Some(difference) = self.difference() {
                self.violated(Promise::P5, || {
                    format!("replicas were equal, and did not stay so: {difference}")
                });
            }
            return;
        }
        self.violated(Promise::P5, || "replicas were equal, and settling does not end".into());
    }

    /// Records that were settled so far.
    fn settled(&self) -> u64 {
        let engines = self.nodes.iter().filter_map(|node| node.engine.as_ref());
        engines
            .map(|engine| engine.counters().reaped + engine.counters().trimmed)
            .sum()
    }

    /// Everything that stands still once replicas are equal, over all nodes.
    fn repairs(&self) -> Vec<[u64; 7]> {
        let counts = |c: Counters| {
            [
                c.hints_stored,
                c.read_repairs,
                c.exchanges_differed,
                c.exchange_sent,
                c.exchange_received,
                c.healed_records,
                c.leaves_corrected,
            ]
        };
        let engines = self.nodes.iter().filter_map(|node| node.engine.as_ref());
        engines.map(|engine| counts(engine.counters())).collect()
    }

    /// Whether values expire: they do so, and are settled, whenever their time has come.
    fn expires(&self) -> bool {
        self.plan
            .options
            .buckets
            .iter()
            .any(|bucket| bucket.properties.ttl_seconds.is_some())
    }

    /// What keeps the cluster from being converged, if anything does.
    fn difference(&self) -> Option<String> {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|&at| !self.nodes[at].has_left).collect();
        up.iter()
            .find_map(|&at| self.left_to_do(at))
            .or_else(|| (0..self.key_names.len()).find_map(|key| self.key_differs(key)))
            .or_else(|| up.iter().find_map(|&at| self.tree_differs(at)))
    }

    /// A repair that is under way. Owners may be equal by it already: what it has brought can be read before it is synced, is counted after that, and
    /// who sent it hears of it later still.
    fn repair(&self) -> Option<String> {
        let engines = self.nodes.iter().enumerate();
        let mut engines = engines.filter_map(|(at, node)| Some((at, node.origin, node.engine.as_ref()?)));
        engines.find_map(|(at, origin, engine)| {
            let wanted = engine.sync_wanted();
            if let Some(row) = self.truth.rows(at).first_unsynced(wanted.now.max(wanted.soon)) {
                return Some(format!(
                    "node {at} has not synced {row:?}, and something waits for that"
                ));
            }
            let exchanges = engine.exchanges(Instant(self.now + origin)).running;
            let found = exchanges.iter().find(|running| running.phase != ExchangePhase::Roots)?;
            Some(format!("node {at} is in an exchange: {found:?}"))
        })
    }

    /// What a node has still to do.
    fn left_to_do(&self, at: usize) -> Option<String> {
        let node = &self.nodes[at];
        if !node.is_running() || node.has_amnesia {
            return Some(format!("node {at} is not ready"));
        }
        if node.is_damaged {
            return Some(format!("a file is damaged on node {at}"));
        }
        if node.disk.rows(Column::Record).iter().any(|row| row.payload.is_err()) {
            return Some(format!("a record has rotted on node {at}"));
        }
        let is_for_somebody = |target: usize| !self.nodes[target].has_left;
        for (row, _) in self.truth.rows(at).iter() {
            match row {
                Row::Hint(target, key) if is_for_somebody(target) => {
                    return Some(format!("node {at} has a hint of key {key} for node {target}"));
                }
                Row::Record(key) if !self.truth.owners(key).contains(&at) => {
                    return Some(format!("node {at} holds key {key}, which it does not own"));
                }
                _ => {}
            }
        }
        let notes = node.disk.rows(Column::Meta);
        let dirty = notes.iter().find_map(|row| match Place::note_in(&row.key)? {
            Place::Dirty(node, partition) if is_for_somebody(crate::plan::node_of(node)) => Some((node, partition)),
            _ => None,
        });
        if let Some((peer, partition)) = dirty {
            return Some(format!(
                "node {at} has a note that {peer} has missed writes of partition {partition:?}"
            ));
        }
        self.waits_to_be_settled(at)
    }

    /// A deleted key that a node still has to settle. One that is there may wait for ever: for actors that have no sibling live any more.
    fn waits_to_be_settled(&self, at: usize) -> Option<String> {
        if self.expires() || self.left_at.is_some() {
            return None;
        }
        let rows = self.nodes[at].disk.rows(Column::Settle);
        let waits = |key: &usize| {
            let record = self.truth.record(at, *key);
            record.is_none_or(|record| record.values().next().is_none())
        };
        let keys = rows.iter().filter_map(|row| Place::key_in(Shelf::Settle, &row.key));
        let key = keys.filter_map(|key| self.keys.get(&key).copied()).find(waits)?;
        Some(format!("at node {at} key {key} waits to be settled"))
    }

    /// Whether the owners of a key differ, or hold one that is deleted.
    fn key_differs(&self, key: usize) -> Option<String> {
        let mut owners = self
            .truth
            .owners(key)
            .iter()
            .copied()
            .filter(|&at| !self.nodes[at].has_left);
        let first = owners.next()?;
        let record = self.truth.record(first, key);
        if let Some(other) = owners.find(|&at| self.truth.record(at, key) != record) {
            let line = |at| {
                self.truth
                    .record(at, key)
                    .map_or("nothing".into(), super::log::describe)
            };
            return Some(format!(
                "key {key} at node {first} is {}, and at node {other} {}",
                line(first),
                line(other)
            ));
        }
        let is_dead = record.is_some_and(|record| record.values().next().is_none());
        (is_dead && self.left_at.is_none()).then(|| format!("key {key} is deleted, and still there at node {first}"))
    }

    /// Whether a node's Merkle trees, in memory or on disk, are not those of its records.
    fn tree_differs(&self, at: usize) -> Option<String> {
        let engine = self.nodes[at].engine.as_ref()?;
        let mut trees = Trees::new(self.ring.partition_bits());
        for (row, record) in self.truth.rows(at).iter() {
            if let Row::Record(number) = row {
                let (key, n) = (&self.key_names[number], self.plan.options.properties(number).n);
                let leaf = trees.leaf_of(self.ring.partition_of(key.token()), key.token(), n);
                trees.change(leaf, 0, entry(key, &record.encode()));
            }
        }
        let theirs = engine.trees();
        for tree in trees.ids().union(&theirs.ids()) {
            if trees.root(*tree) != theirs.root(*tree) {
                return Some(format!("node {at}'s {tree:?} is not that of its records"));
            }
        }
        // What has rotted or was corrected is on disk with the next batch, or corrected again after the next start.
        let options = &self.plan.options;
        match options.forgets || options.loses {
            true => None,
            false => self.leaves_differ(at, &trees),
        }
    }

    fn leaves_differ(&self, at: usize, trees: &Trees) -> Option<String> {
        let mut stored = Trees::new(self.ring.partition_bits());
        let is_sound = stored
            .restore(self.nodes[at].disk.leaves())
            .is_ok_and(|lost| lost.is_empty());
        if !is_sound {
            return Some(format!("a leaf has rotted on node {at}"));
        }
        let all = trees.ids().into_iter().chain(stored.ids());
        let mut differing = all.filter(|&tree| stored.root(tree) != trees.root(tree));
        differing
            .next()
            .map(|tree| format!("{tree:?} on the disk of node {at} is not that of its records"))
    }

    /// With a node away for ever, nothing may be reaped: it may hold what the tombstone covers.
    pub(super) fn check_nothing_reaped(&mut self) {
        let Some(left_at) = self.left_at else { return };
        if let Some((at, when)) = self
            .truth
            .last_reaped
            .filter(|&(_, when)| when > left_at + AFTER_LEAVING_US)
        {
            self.violated(Promise::P4, || {
                format!("node {at} reaped a tombstone at {when}, and a node was away since {left_at}")
            });
        }
    }
}
