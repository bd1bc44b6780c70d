//! When this node compares which tree with whom.
//!
//! Each pair of a peer and a tree has one time, and a class that says why. What a node without memory needs comes first, then what is known
//! to be behind, then the rounds that find what nobody knows of. Rejected: one round over all pairs. A pair that has to wait would hold up
//! those behind it.

use crate::time::Instant;
use crate::tree::TreeId;
use quorate_ring::{NodeIndex, PartitionId};
use std::collections::{BTreeMap, BTreeSet};

/// Who is compared with, and over what.
pub(super) type Pair = (NodeIndex, TreeId);

/// Why two owners are compared; more urgent ones are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// This node has lost its memory and reads it again.
    Wanted,
    /// The peer is known to have missed something.
    Dirty,
    /// It is time.
    Usual,
}

/// When a pair is due, and how its last exchanges went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) class: Class,
    pub(super) at: Instant,
    /// Exchanges in a row that did not come to their end.
    pub(super) failures: u32,
    /// Exchanges in a row that only looked whether the one before had been enough.
    pub(super) follow_ups: u32,
}

/// All pairs that wait. Invariant: `due` holds what `entries` says.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: BTreeMap<Pair, Entry>,
    due: BTreeSet<(Class, Instant, Pair)>,
}

/// Smaller than all pairs.
const FIRST: Pair = (
    NodeIndex(0),
    TreeId {
        partition: PartitionId(0),
        n: 0,
    },
);

impl Schedule {
    /// Lets a pair wait until its time, or until the earlier one if it waits already. The more urgent class counts.
    pub(super) fn put(&mut self, pair: Pair, mut entry: Entry) {
        if let Some(old) = self.entries.remove(&pair) {
            self.due.remove(&(old.class, old.at, pair));
            entry = Entry {
                class: old.class.min(entry.class),
                at: old.at.min(entry.at),
                ..entry
            };
        }
        self.entries.insert(pair, entry);
        self.due.insert((entry.class, entry.at, pair));
    }

    /// Has the pair compared at `at`, or earlier if it is due earlier. What is in this class already keeps its time: it waits for a reason.
    pub(super) fn hasten(&mut self, pair: Pair, class: Class, at: Instant) {
        if self
            .entries
            .get(&pair)
            .is_some_and(|entry| entry.class <= class && class != Class::Usual)
        {
            return;
        }
        let (failures, follow_ups) = (0, 0);
        self.put(
            pair,
            Entry {
                class,
                at,
                failures,
                follow_ups,
            },
        );
    }

    /// Takes out the most urgent pair whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Pair, Entry)> {
        let classes = [Class::Wanted, Class::Dirty, Class::Usual];
        let first = |class| self.first_of(class).filter(|&(_, at, _)| at <= now);
        let (class, at, pair) = classes.into_iter().find_map(first)?;
        self.due.remove(&(class, at, pair));
        self.entries.remove(&pair).map(|entry| (pair, entry))
    }

    /// When the next pair is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let classes = [Class::Wanted, Class::Dirty, Class::Usual];
        classes
            .into_iter()
            .filter_map(|class| self.first_of(class))
            .map(|(_, at, _)| at)
            .min()
    }

    /// The node is not connected any more.
    pub(super) fn forget(&mut self, node: NodeIndex) {
        self.entries.retain(|pair, _| pair.0 != node);
        self.due.retain(|&(_, _, pair)| pair.0 != node);
    }

    fn first_of(&self, class: Class) -> Option<(Class, Instant, Pair)> {
        let first = self.due.range((class, Instant(0), FIRST)..).next().copied();
        first.filter(|found| found.0 == class)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair(partition: u32) -> Pair {
        let partition = PartitionId(partition);
        (NodeIndex(1), TreeId { partition, n: 3 })
    }

    fn put(schedule: &mut Schedule, partition: u32, class: Class, at: u64) {
        let entry = Entry {
            class,
            at: Instant(at),
            failures: 0,
            follow_ups: 0,
        };
        schedule.put(pair(partition), entry);
    }

    #[test]
    fn what_is_due_comes_by_urgency_then_by_time() {
        let mut schedule = Schedule::default();
        put(&mut schedule, 1, Class::Usual, 1);
        put(&mut schedule, 2, Class::Dirty, 3);
        put(&mut schedule, 3, Class::Dirty, 2);
        put(&mut schedule, 4, Class::Wanted, 9);
        assert_eq!(schedule.next(), Some(Instant(1)));
        let mut taken = Vec::new();
        while let Some(((_, tree), _)) = schedule.take_due(Instant(5)) {
            taken.push(tree.partition.0);
        }
        assert_eq!(taken, [3, 2, 1]);
        assert_eq!(schedule.next(), Some(Instant(9)));
        schedule.forget(NodeIndex(1));
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_pair_waits_once_and_what_waits_after_a_failure_is_not_hastened_by_the_same_reason() {
        let mut schedule = Schedule::default();
        put(&mut schedule, 1, Class::Usual, 9);
        schedule.hasten(pair(1), Class::Dirty, Instant(5));
        schedule.hasten(pair(1), Class::Dirty, Instant(1));
        assert_eq!(schedule.take_due(Instant(4)), None);
        let (_, entry) = schedule.take_due(Instant(5)).unwrap();
        assert_eq!((entry.class, entry.at), (Class::Dirty, Instant(5)));
        assert_eq!(schedule.take_due(Instant(99)), None);
    }
}
