//! Carrying out the plan's faults, and undoing them all at the end.

use super::event::Event;
use super::{World, micros};
use crate::plan::FaultKind;
use crate::probes::Probe;

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

    pub(super) fn crash_and_restart(&mut self, at: usize, survive_pm: u16, down_ms: u32, wipe: bool) {
        if !self.nodes[at].is_running() {
            return;
        }
        self.crash(at, survive_pm);
        if wipe {
            self.probes.hit(Probe::WipedNodeReturned);
            self.nodes[at].disk.wipe();
            self.truth.reload(&self.keys, at, &self.nodes[at].disk);
        }
        self.start_later(at, micros(down_ms.into()));
    }

    /// The key's victim forgets it. Always the same owner of a key, so that the others keep what was acknowledged.
    fn forget(&mut self, key: usize) {
        let owners = self.truth.owners(key);
        let at = owners[usize::from(self.plan.options.keys[key].victim) % owners.len()];
        if self.nodes[at].disk.forget(&self.key_names[key]) {
            self.truth.forget(at, key);
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
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            (node.disk.full, node.disk.unreadable, node.crash_after) = (0, 0, None);
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
