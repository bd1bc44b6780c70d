//! What is kept for whom: hints by target and partition, in numbers and bytes.
//!
//! The numbers are exact, since every change of a row comes through here and is undone if its store is refused. When nothing is left for a
//! target its bytes are zero again, whatever a damaged row had been counted with.

use crate::key::Key;
use quorate_ring::{NodeId, PartitionId};
use std::collections::{BTreeMap, BTreeSet};

/// What a row costs beside its key and payload, in bytes.
const ROW_BYTES: u64 = 64;

/// How a row of hints changes, in bytes as they are counted; 0: there is none.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct HintChange {
    pub(super) target: NodeId,
    pub(super) partition: PartitionId,
    pub(super) before: u64,
    pub(super) after: u64,
    pub(super) since_ms: u64,
    /// It is a reference.
    pub(super) refers: bool,
}

/// What is kept for one owner, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintsFor {
    /// The owner.
    pub target: NodeId,
    /// Hints.
    pub count: u64,
    /// Bytes that they are counted with: keys, payloads and a little for each row.
    pub bytes: u64,
    /// When the oldest of them was made, in milliseconds since 1970; about right, never too late. `None` if there are none.
    pub oldest_ms: Option<u64>,
    /// Hints that it has merged since this process started.
    pub delivered: u64,
    /// How many it merges a second at present; 0 while none are under way.
    pub rate_per_second: u32,
    /// Hints under way to it.
    pub under_way: u32,
}

/// The hints for one owner.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) oldest_ms: Option<u64>,
    partitions: BTreeMap<PartitionId, u64>,
}

/// All hints that this node keeps. Invariant: `bytes` is the sum of all targets'.
#[derive(Debug, Default)]
pub(in crate::engine) struct Hints {
    pub(super) targets: BTreeMap<NodeId, Target>,
    pub(super) bytes: u64,
    /// Removals that are not durable, by partition: a power cut would take them back.
    going: BTreeMap<PartitionId, u32>,
    /// What could not even be noted as dirty, since the disk refused.
    pub(super) unmarked: BTreeSet<(NodeId, PartitionId)>,
}

impl Hints {
    /// Whether there are any for the owner.
    pub(in crate::engine) fn are_for(&self, target: NodeId) -> bool {
        self.targets.contains_key(&target)
    }

    /// The owners that there are any for.
    pub(in crate::engine) fn targets(&self) -> impl Iterator<Item = &NodeId> {
        self.targets.keys()
    }

    /// Whether there are any of the partition for the owner.
    pub(in crate::engine) fn are_for_partition(&self, target: NodeId, partition: PartitionId) -> bool {
        let target = self.targets.get(&target);
        target.is_some_and(|target| target.partitions.contains_key(&partition))
    }

    /// Whether there are any for keys of the partition.
    pub(super) fn are_in(&self, partition: PartitionId) -> bool {
        let mut targets = self.targets.values();
        targets.any(|target| target.partitions.contains_key(&partition))
    }

    /// Whether some of the partition were removed, and that is not durable.
    pub(super) fn are_going_in(&self, partition: PartitionId) -> bool {
        self.going.contains_key(&partition)
    }

    /// A change is on its way to the disk: takes note if it removes a hint.
    pub(super) fn removal_begins(&mut self, change: HintChange) {
        if change.after == 0 {
            *self.going.entry(change.partition).or_default() += 1;
        }
    }

    /// That change is durable, or was refused.
    pub(in crate::engine) fn removal_ends(&mut self, change: HintChange) {
        if change.after == 0
            && let Some(left) = self.going.get_mut(&change.partition)
        {
            *left -= 1;
            if *left == 0 {
                self.going.remove(&change.partition);
            }
        }
    }

    pub(super) fn change(&mut self, change: HintChange) {
        let HintChange {
            target,
            partition,
            before,
            after,
            since_ms,
            ..
        } = change;
        let entry = self.targets.entry(target).or_default();
        entry.bytes = (entry.bytes + after).saturating_sub(before);
        self.bytes = (self.bytes + after).saturating_sub(before);
        match (before, after) {
            (0, 1..) => {
                entry.count += 1;
                *entry.partitions.entry(partition).or_default() += 1;
                entry.oldest_ms = Some(entry.oldest_ms.map_or(since_ms, |oldest| oldest.min(since_ms)));
            }
            (1.., 0) => {
                entry.count = entry.count.saturating_sub(1);
                let left = entry.partitions.entry(partition).or_default();
                *left = left.saturating_sub(1);
                if *left == 0 {
                    entry.partitions.remove(&partition);
                }
            }
            _ => {}
        }
        if entry.count == 0 {
            let left = std::mem::take(&mut entry.bytes);
            self.bytes = self.bytes.saturating_sub(left);
            self.targets.remove(&target);
        }
    }
}

/// What a row is counted with; nothing for one that is not there.
pub(super) fn row_bytes(key: &Key, payload: usize) -> u64 {
    match payload {
        0 => 0,
        _ => key.encoded().len() as u64 + payload as u64 + ROW_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_counted_with_more_or_less_than_they_are_removed_with_leave_nothing_behind() {
        let [damaged, other] = [1, 2].map(|id| NodeId([id; 16]));
        let change = |target, before, after| HintChange {
            target,
            partition: PartitionId(0),
            before,
            after,
            since_ms: 0,
            refers: false,
        };
        let mut hints = Hints::default();
        hints.change(change(damaged, 0, 1));
        hints.change(change(other, 0, 10));
        hints.change(change(damaged, 15, 0));
        hints.change(change(other, 8, 0));
        assert_eq!((hints.bytes, hints.targets.len()), (0, 0));
    }
}
