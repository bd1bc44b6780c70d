//! Carrying out the plan's faults, and undoing them all at the end.

use super::event::Event;
use super::node::Node;
use super::rows::{Row, target_of};
use super::{World, micros};
use crate::plan::{FaultKind, Rotten, node_of};
use crate::probes::Probe;
use quorate_core::place::{Place, Shelf};
use quorate_storage::{Column, ScanRow};

impl World {
    pub(super) fn begin_fault(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let plan = self.plan.clone();
        let kind = &plan.faults[index].kind;
        self.note(|| format!("fault: {kind:?}"));
        match kind {
            &FaultKind::Crash {
                node,
                survive_pm,
                down_ms,
                wipe,
            } => {
                self.crash_and_restart(node.into(), survive_pm, down_ms, wipe);
            }
            &FaultKind::PowerCut { survive_pm, down_ms } => self.power_cut(survive_pm, down_ms),
            &FaultKind::CutAtAck { down_ms } => self.cut_at_ack = Some(down_ms),
            &FaultKind::CrashAtEffect { node, effects, down_ms } => {
                self.nodes[usize::from(node)].crash_after = Some((effects, down_ms));
            }
            &FaultKind::RollBack { node, starts, down_ms } => self.roll_back(node.into(), starts.into(), down_ms),
            &FaultKind::Leave { node } => self.leave(node.into()),
            &FaultKind::Rot { node, what, row, bit } => self.rot(node.into(), what, row.into(), bit.into()),
            &FaultKind::Damage { node, what, row, more } => self.damage(node.into(), what, row.into(), more.into()),
            &FaultKind::SyncFails { node } => self.nodes[usize::from(node)].disk.sync_fails = true,
            &FaultKind::Slow { node, by_ms, for_ms } => {
                self.probes.hit(Probe::SlowNode);
                self.nodes[usize::from(node)].slow_us = micros(by_ms.into());
                self.end_later(index, for_ms);
            }
            &FaultKind::Pause { node, for_ms } => self.pause(node.into(), micros(for_ms.into())),
            FaultKind::Partition {
                from,
                to,
                both_ways,
                for_ms,
            } => {
                self.probes.hit_if(!both_ways, Probe::OneWayPartition);
                for (a, b) in directions(from, to, *both_ways) {
                    self.cut(a, b);
                }
                self.end_later(index, *for_ms);
            }
            &FaultKind::Reset { a, b } => self.kill_connection(a.into(), b.into(), (0, 200_000)),
            &FaultKind::Forget { key } => self.forget(key.into()),
            &FaultKind::DiskFull { node, for_ms } => {
                self.probes.hit(Probe::DiskFull);
                self.nodes[usize::from(node)].disk.full += 1;
                self.end_later(index, for_ms);
            }
            &FaultKind::Unreadable { node, for_ms } => {
                self.nodes[usize::from(node)].disk.unreadable += 1;
                self.end_later(index, for_ms);
            }
        }
    }

    pub(super) fn end_fault(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let plan = self.plan.clone();
        match &plan.faults[index].kind {
            FaultKind::Partition {
                from, to, both_ways, ..
            } => {
                for (a, b) in directions(from, to, *both_ways) {
                    self.mend(a, b);
                }
            }
            FaultKind::Slow { node, .. } => self.nodes[usize::from(*node)].slow_us = 0,
            FaultKind::DiskFull { node, .. } => self.nodes[usize::from(*node)].disk.full -= 1,
            FaultKind::Unreadable { node, .. } => self.nodes[usize::from(*node)].disk.unreadable -= 1,
            _ => {}
        }
    }

    fn end_later(&mut self, index: usize, after_ms: u32) {
        self.queue.push(self.now + micros(after_ms.into()), Event::End(index));
    }

    /// All nodes lose power, and come back one after the other.
    pub(super) fn power_cut(&mut self, survive_pm: u16, down_ms: u32) {
        self.probes.hit(Probe::PowerCut);
        for at in 0..self.nodes.len() {
            self.crash_and_restart(at, survive_pm, down_ms + at as u32 * 7, false);
        }
    }

    /// A write is acknowledged: the moment that some power cuts wait for.
    pub(super) fn acknowledged(&mut self) {
        if let Some(down_ms) = self.cut_at_ack.take().filter(|_| !self.healed) {
            self.probes.hit(Probe::CutAtAck);
            self.queue.push(self.now, Event::PowerFails { down_ms });
        }
    }

    fn crash_and_restart(&mut self, at: usize, survive_pm: u16, down_ms: u32, wipe: bool) {
        if !self.nodes[at].is_running() {
            return;
        }
        self.crash(at, survive_pm);
        if wipe && self.may_lose_all(at) {
            self.probes.hit(Probe::WipedNodeReturned);
            self.empty(at);
        }
        self.start_later(at, micros(down_ms.into()));
    }

    /// A node's disk is empty from now on.
    pub(super) fn empty(&mut self, at: usize) {
        self.note(|| format!("the disk of node {at} is emptied"));
        let node = &mut self.nodes[at];
        node.disk.wipe();
        (node.has_amnesia, node.is_damaged, node.is_replaced) = (true, false, false);
        // What it makes now may be taken for an older copy until its peers have met it.
        node.is_rolled_back = true;
        node.is_put_back = false;
        self.truth.reload(&self.keys, at, &self.nodes[at].disk);
    }

    /// A node loses power and comes back over an older copy of its disk.
    fn roll_back(&mut self, at: usize, starts: usize, down_ms: u32) {
        if !self.nodes[at].is_running() {
            return;
        }
        self.crash(at, 1000);
        if self.nodes[at].disk.remembered() > 0 && self.may_lose_all(at) {
            self.probes.hit(Probe::RolledBack);
            let before = self.truth.rows(at).synced_rows();
            let node = &mut self.nodes[at];
            node.disk.roll_back(starts);
            node.is_rolled_back = true;
            (node.is_put_back, node.is_damaged) = (true, false);
            self.truth.reload(&self.keys, at, &self.nodes[at].disk);
            self.nodes[at].has_amnesia |= before != self.truth.rows(at).synced_rows();
        }
        self.start_later(at, micros(down_ms.into()));
    }

    /// A node goes and never comes back; but not while another one needs it to know what it has lost.
    fn leave(&mut self, at: usize) {
        let is_sound = |node: &Node| {
            let rebuilding = node.engine.as_ref().map(quorate_core::engine::Engine::rebuilding);
            !node.has_amnesia && node.rotten.is_empty() && rebuilding.is_some_and(|(read, all)| read == all)
        };
        if self.nodes.iter().all(is_sound) {
            self.crash(at, 1000);
            self.nodes[at].has_left = true;
            self.left_at = Some(self.now);
            self.probes.hit(Probe::StaysAway);
        }
    }

    /// A bit flips on a node's disk.
    fn rot(&mut self, at: usize, what: Rotten, number: usize, bit: usize) {
        let column = match what {
            Rotten::Record => Column::Record,
            Rotten::Hint => Column::Hint,
            Rotten::Leaf => Column::Leaf,
        };
        let rows = self.nodes[at].disk.rows(column);
        let Some(found) = rows.get(number % rows.len().max(1)) else {
            return;
        };
        if column == Column::Leaf {
            self.probes.hit(Probe::RottenLeaf);
            return self.nodes[at].disk.rot(column, found, bit);
        }
        let shelf = if column == Column::Hint {
            Shelf::Hint
        } else {
            Shelf::Record
        };
        let Some(&key) = Place::key_in(shelf, &found.key).and_then(|key| self.keys.get(&key)) else {
            return;
        };
        let row = match shelf {
            Shelf::Hint => Row::Hint(node_of(target_of(found.token, &found.key)), key),
            _ => Row::Record(key),
        };
        if !self.may_lose(at, Some(row)) {
            return;
        }
        self.note(|| format!("{row:?} rots on node {at}"));
        self.probes.hit(match row {
            Row::Record(_) => Probe::RottenRecord,
            Row::Hint(..) => Probe::RottenHint,
        });
        self.nodes[at].disk.rot(column, found, bit);
        self.truth.lose(at, row);
        if let Row::Record(key) = row {
            self.nodes[at].rotten.insert(key);
        }
    }

    /// A file is damaged under some rows of a node.
    fn damage(&mut self, at: usize, what: Rotten, number: usize, more: usize) {
        let (column, shelf) = match what {
            Rotten::Hint => (Column::Hint, Shelf::Hint),
            Rotten::Record | Rotten::Leaf => (Column::Record, Shelf::Record),
        };
        let found = self.nodes[at].disk.rows(column);
        let Some(first) = found.get(number % found.len().max(1)).map(|row| row.token) else {
            return;
        };
        let last = found
            .iter()
            .map(|row| row.token)
            .filter(|token| *token >= first)
            .nth(more);
        let tokens = first..=last.unwrap_or(first);
        let key_of = |row: &ScanRow| Place::key_in(shelf, &row.key).and_then(|key| self.keys.get(&key).copied());
        let row_of = |row: &ScanRow| match shelf {
            Shelf::Hint => Some(Row::Hint(node_of(target_of(row.token, &row.key)), key_of(row)?)),
            _ => Some(Row::Record(key_of(row)?)),
        };
        let hit = found.iter().filter(|row| tokens.contains(&row.token));
        let hit: Vec<Row> = hit.filter_map(row_of).collect();
        if self.nodes[at].is_put_back || !hit.iter().all(|&row| self.may_lose(at, Some(row))) {
            return;
        }
        self.note(|| format!("a file is damaged under {hit:?} on node {at}"));
        self.probes.hit(Probe::Damaged);
        self.nodes[at].disk.damage(column, tokens);
        self.nodes[at].is_damaged = true;
        for row in hit {
            self.truth.lose(at, row);
            if let Row::Record(key) = row {
                self.nodes[at].rotten.insert(key);
            }
        }
    }

    /// Whether a node may lose all that is on its disk.
    fn may_lose_all(&self, at: usize) -> bool {
        self.may_lose(at, None)
    }

    /// Whether a node may lose a row, or all rows: not the last copy of anything that counts, and not while another node reads again
    /// what it has lost.
    fn may_lose(&self, at: usize, row: Option<Row>) -> bool {
        let mut others = self.nodes.iter().enumerate().filter(|&(node, _)| node != at);
        let is_hurt = |node: &Node| {
            let rotten = row.map_or(!node.rotten.is_empty(), |row| node.rotten.contains(&row.key()));
            // What damage has taken a node knows, and asks for everywhere.
            node.has_amnesia || node.has_left || (rotten && !node.is_damaged)
        };
        !others.any(|(_, node)| is_hurt(node)) && !self.truth.holds_last_copy(&self.history, self.now, at, row)
    }

    /// The key's victim forgets it. Always the same owner of a key, so that the others keep what was acknowledged.
    fn forget(&mut self, key: usize) {
        let owners = self.truth.owners(key);
        let at = owners[usize::from(self.plan.options.keys[key].victim) % owners.len()];
        let row = Row::Record(key);
        if self.may_lose(at, Some(row)) && self.nodes[at].disk.forget(&self.key_names[key]) {
            self.truth.lose(at, row);
            self.nodes[at].rotten.insert(key);
        }
    }

    /// Everything works from now on.
    pub(super) fn heal(&mut self) {
        self.note(|| super::HEALED.to_string());
        self.healed = true;
        self.network.loss_pm = 0;
        self.network.duplicate_pm = 0;
        self.network.straggler_pm = 0;
        self.network.jitter_us = self.network.jitter_us.min(1_000);
        self.disk_rates.read_error_pm = 0;
        self.disk_rates.refused_pm = 0;
        self.disk_rates.slow_sync_pm = 0;
        self.disk_rates.sync_us = self.disk_rates.sync_us.min(5_000);
        self.lost_replies_pm = 0;
        if !self.network.reliable {
            // Who waits for an answer that was lost waits for as long as the connection lasts.
            self.lose_all_connections();
        }
        self.network.reliable = true;
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            (node.disk.full, node.disk.unreadable, node.crash_after, node.slow_us) = (0, 0, None, 0);
            node.disk.sync_fails = false;
            if node.has_left {
                continue;
            }
            if !node.is_running() {
                self.start(at);
            } else if node.is_paused() {
                self.resume(at);
            }
        }
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                while self.links.is_cut(from, to) {
                    self.mend(from, to);
                }
            }
        }
    }
}

/// Every direction that a partition cuts, once.
fn directions(from: &[u8], to: &[u8], both_ways: bool) -> Vec<(usize, usize)> {
    let one_way = from
        .iter()
        .flat_map(|&a| to.iter().map(move |&b| (usize::from(a), usize::from(b))));
    let mut all: Vec<_> = one_way.filter(|(a, b)| a != b).collect();
    if both_ways {
        all.extend(all.clone().into_iter().map(|(a, b)| (b, a)));
    }
    all.sort_unstable();
    all.dedup();
    all
}
