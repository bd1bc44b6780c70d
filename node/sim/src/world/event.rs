//! The one queue of everything that is still to happen, by virtual time.
//!
//! Two events of one moment happen in the order in which they were put in, so a run is the same every time.

use super::shell::{Found, Read};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Index of a node.
pub(crate) type NodeNo = usize;

/// Something that is still to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client begins an operation of the plan.
    Step(usize),
    /// A fault of the plan.
    Fault(usize),
    /// A client's request reaches its node.
    Request(u64),
    /// A reply reaches its client.
    Reply(u64, Bytes),
    /// A client stops waiting.
    GiveUp(u64),
    /// A node's timer.
    Tick { node: NodeNo, life: u32 },
    /// A load or a scan is served.
    Read {
        node: NodeNo,
        life: u32,
        read: Box<(Read, Option<Found>)>,
    },
    /// A sync ends.
    Synced { node: NodeNo, life: u32 },
    /// What was stored and nobody waits for is synced now.
    Flush { node: NodeNo, life: u32 },
    /// A node starts again.
    Start { node: NodeNo, life: u32 },
    /// A pause ends.
    Resume { node: NodeNo, life: u32, pause: u32 },
    /// Peers lose patience with a node that is paused.
    Silent { node: NodeNo, life: u32, pause: u32 },
    /// A fault that lasts comes to its end.
    End(usize),
    /// All nodes lose power.
    PowerFails { down_ms: u32 },
    /// A frame arrives.
    Frame {
        from: NodeNo,
        to: NodeNo,
        epoch: u32,
        bytes: Bytes,
    },
    /// The node with the smaller id tries to connect.
    Dial { from: NodeNo, to: NodeNo },
    /// The dialing side has its connection.
    Connected {
        node: NodeNo,
        life: u32,
        peer: NodeNo,
        epoch: u32,
    },
    /// One side notices that its connection is gone.
    Lost { node: NodeNo, peer: NodeNo, epoch: u32 },
    /// A direction may have been cut for longer than the connection's patience.
    Cut { from: NodeNo, to: NodeNo, since: u32 },
}

struct Entry {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The queue.
#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    number: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.heap.push(Reverse(Entry {
            at,
            number: self.number,
            event,
        }));
    }

    /// The next event that happens by `until`, and when.
    pub(crate) fn pop(&mut self, until: u64) -> Option<(u64, Event)> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}
