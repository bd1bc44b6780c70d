//! Starting over with an empty directory, since a file is damaged and nobody can name the records in it.
//!
//! ```text
//! damage noted ──► its turn ──► all others whole, nothing owed? ──► takes nothing in, and gives what it has to all ──► all have it: starts over
//!                    ▲                        │ no                                  │ somebody is gone, or is leaving too
//!                    └────────────────────────┴─────────────────────────────────────┘
//! ```
//!
//! What is set aside must be on other disks, to the last acknowledged write. So the node first *leaves*: clients' writes, merges and handoffs are
//! refused as by a disk that cannot be read, at the moment they would change a row, so nothing that was queued slips in. Then every partition is noted as
//! [dirty](super::dirty) for every other owner, and an exchange that began after that brings them all that can be read here; it fetches nothing. When no note is left
//! nothing here is unknown to the others, whatever became of writes under way, hints or the settings. It takes seconds, in which this node serves
//! reads.
//!
//! Two that left at once could each rely on the other. So a node that is leaving answers no exchange. One that is refused for that by a node
//! before it in the ring stays, and takes its next turn; the other one asks again. Whoever has got its answers got them from a node that was not leaving,
//! and that one will get none from it.
//!
//! A node that holds records which nobody else owns (buckets of one copy) stays as it is. Rejected: asking only whether all is quiet. What is on its way in
//! queues and sockets is not seen by that.

use super::Engine;
use super::background::Task;
use crate::time::Instant;
use quorate_ring::NodeIndex;
use std::time::Duration;

/// Between the looks whether it is safe, for each node before this one in the ring.
const TURN: Duration = Duration::from_secs(15);
/// Between the looks whether all is given.
const LOOK: Duration = Duration::from_millis(250);
/// How long that may take, and for each partition and peer.
const LEAVE_MAX: Duration = Duration::from_secs(60);
const LEAVE_MAX_EACH: Duration = Duration::from_millis(20);
/// The same where the store takes no writes any more: then it goes without what could never be synced, and so was acknowledged to nobody.
const UNSYNCED_MAX: Duration = Duration::from_secs(10);

/// Whether this node is to start over, and how far that is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StartOver {
    /// Something is damaged: when it is looked at next.
    at: Option<Instant>,
    /// This node takes nothing in, at most until then.
    leaving: Option<Instant>,
    /// The store has met the damage itself, and takes no writes any more.
    takes_no_writes: bool,
}

impl StartOver {
    /// Whether this node takes nothing in, since it is about to forget it.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }
}

impl Engine {
    /// Rows that nobody can name are lost.
    pub(super) fn note_damage(&mut self, now: Instant) {
        if self.start_over.at.is_none() && self.config.ring.members().len() > 1 {
            // Those before it in the ring have begun by then.
            self.look_again(now, TURN * (u32::from(self.me.0) + 1));
        }
    }

    /// The store takes no writes any more.
    pub(super) fn store_is_damaged(&mut self, now: Instant) {
        self.start_over.takes_no_writes = true;
        self.note_damage(now);
    }

    fn look_again(&mut self, now: Instant, after: Duration) {
        let at = now + after;
        self.start_over.at = Some(at);
        self.background.wake(at, Task::StartOver);
    }

    /// Looks whether it is safe to start over, or whether all is given.
    pub(super) fn run_start_over(&mut self, now: Instant) {
        match self.start_over.leaving {
            None if self.may_leave() => self.leave(now),
            None => self.stay(now),
            Some(_) if !self.others_are_whole() => self.stay(now),
            Some(until) if now > until && !self.start_over.takes_no_writes => self.stay(now),
            Some(until) if now > until || self.owes_nothing() => {
                let reason =
                    "a file of this node's data directory is damaged, and with it records that cannot be named";
                self.fall_silent(now, reason.into());
            }
            Some(_) => self.look_again(now, LOOK),
        }
    }

    fn leave(&mut self, now: Instant) {
        let mut until = match self.start_over.takes_no_writes {
            true => now + UNSYNCED_MAX,
            false => now + LEAVE_MAX,
        };
        for peer in self.others() {
            let node = self.config.ring.member(peer).id;
            let ring = self.config.ring.clone();
            for partition in ring.partition_ids() {
                if self.shared_in(peer, partition).next().is_some() {
                    self.mark_dirty_for_now(node, partition);
                    until = until + LEAVE_MAX_EACH;
                }
            }
        }
        self.start_over.leaving = Some(until);
        self.look_again(now, LOOK);
    }

    /// Goes on as before, and looks again later.
    fn stay(&mut self, now: Instant) {
        self.start_over.leaving = None;
        self.look_again(now, TURN * self.config.ring.members().len() as u32);
    }

    /// A peer answers no exchange, since it is leaving itself.
    pub(super) fn peer_leaves(&mut self, now: Instant, peer: NodeIndex) {
        if self.start_over.is_leaving() && peer < self.me {
            self.stay(now);
        }
    }

    fn may_leave(&self) -> bool {
        // Whether this node is whole itself does not matter: with damage in its new directory it may never be.
        self.others_are_whole() && self.owes_nothing() && !self.holds_alone()
    }

    fn others_are_whole(&self) -> bool {
        self.others()
            .all(|node| self.peers.is_up(node) && !self.is_rebuilding(node))
    }

    /// Whether no peer is known to lack anything that this node could give it.
    fn owes_nothing(&self) -> bool {
        let is_member = |node| self.config.ring.index_of(node).is_some();
        let is_owed = self.dirty.iter().any(|(node, _)| is_member(node));
        !is_owed && self.hints_are_home()
    }

    /// Whether there are records here that no other node owns.
    fn holds_alone(&self) -> bool {
        let is_alone = |tree: &crate::tree::TreeId| self.config.ring.owners(tree.partition, tree.n) == [self.me];
        let trees = self.trees.ids();
        trees.iter().any(|tree| is_alone(tree) && self.trees.root(*tree) != 0)
    }
}
