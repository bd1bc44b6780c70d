//! Partitions of which a peer has missed writes that no hint tells of.
//!
//! When there is no room for a hint, what is left of it is one durable note: this peer has to be compared with, for this partition, as soon as
//! it is there. The note goes when an exchange with that peer over every tree of the partition has ended after it was made.

use super::Engine;
use super::background::Task;
use crate::place::Place;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::{NodeId, PartitionId};
use std::collections::BTreeMap;

/// All such partitions, by peer.
#[derive(Debug, Default)]
pub(super) struct Dirty(BTreeMap<(NodeId, PartitionId), Mark>);

/// One of them.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// How often it was noted, so that an exchange that began before the last time does not clear it.
    times: u64,
    /// On disk, or on its way there.
    is_stored: bool,
}

impl Dirty {
    /// Takes in a note that was stored.
    pub(super) fn restore(&mut self, node: NodeId, partition: PartitionId) {
        let (times, is_stored) = (1, true);
        self.0.insert((node, partition), Mark { times, is_stored });
    }

    /// How often a partition was noted; `None` if it is not.
    pub(super) fn mark_of(&self, node: NodeId, partition: PartitionId) -> Option<u64> {
        self.0.get(&(node, partition)).map(|mark| mark.times)
    }

    /// All that is noted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, PartitionId)> {
        self.0.keys().copied()
    }
}

impl Engine {
    /// Notes that a peer has missed something of a partition. The note is durable with the burst in which it is made.
    pub(super) fn mark_dirty(&mut self, node: NodeId, partition: PartitionId) {
        if !self.count_mark(node, partition).is_stored {
            self.store_mark(node, partition);
        }
    }

    /// Notes again what was noted and not stored.
    pub(super) fn mark_dirty_again(&mut self, node: NodeId, partition: PartitionId) {
        self.count_mark(node, partition);
        self.store_mark(node, partition);
    }

    /// Notes that a peer may have missed something of a partition, for as long as this process lives.
    pub(super) fn mark_dirty_for_now(&mut self, node: NodeId, partition: PartitionId) {
        self.count_mark(node, partition);
    }

    /// One mark more, and an exchange because of it. Returns the note.
    fn count_mark(&mut self, node: NodeId, partition: PartitionId) -> Mark {
        self.exchange.note_dirty(node, partition);
        self.background.wake(Instant(0), Task::Exchange);
        let mark = self.dirty.0.entry((node, partition)).or_default();
        mark.times += 1;
        *mark
    }

    fn store_mark(&mut self, node: NodeId, partition: PartitionId) {
        if let Some(mark) = self.dirty.0.get_mut(&(node, partition)) {
            mark.is_stored = true;
            self.store_plain(Place::Dirty(node, partition), Some(Bytes::from_static(&[1])));
        }
    }

    /// An exchange with the peer has ended that began when the partition had been noted `marks` times.
    pub(super) fn clear_dirty(&mut self, node: NodeId, partition: PartitionId, marks: u64) {
        if self.dirty.mark_of(node, partition) == Some(marks)
            && let Some(mark) = self.dirty.0.remove(&(node, partition))
            && mark.is_stored
        {
            self.store_plain(Place::Dirty(node, partition), None);
        }
    }
}
