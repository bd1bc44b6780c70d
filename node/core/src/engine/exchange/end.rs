//! How exchanges end, and when the next one is due.
//!
//! Roots differed: look again soon whether that was all, later each time, until they agree, so that the node that was asked knows it, too. Failed, or the tree was taken: try again, later each time. Otherwise: the usual round,
//! which the node with the smaller index begins. One that left out what is damaged has done what can be done: the peer counts as one that
//! does not know all, and what it was known to have missed as brought.

use super::schedule::{Class, Entry};
use super::session::{End, Session};
use super::{BUSY_AFTER, FAILED_AFTER, FOLLOW_UP_AFTER, Lister, PAUSE_MAX};
use crate::engine::Engine;
use crate::engine::rebuild::Knew;
use crate::time::Instant;
use crate::tree::TreeId;
use quorate_ring::NodeIndex;
use std::time::Duration;

impl Engine {
    /// Ends sessions that have waited too long.
    pub(super) fn drop_overdue(&mut self, now: Instant) {
        let sessions = self.exchange.sessions.values();
        let overdue: Vec<TreeId> = sessions.filter(|s| s.deadline <= now).map(|s| s.tree).collect();
        overdue
            .into_iter()
            .for_each(|tree| self.end_session(now, tree, End::Failed));
    }

    pub(super) fn end_session(&mut self, now: Instant, tree: TreeId, end: End) {
        let Some(session) = self.exchange.sessions.remove(&tree) else {
            return;
        };
        let (peer, ended) = (session.peer, session.ended);
        self.exchange.flights.leave(session.id);
        let lister = Lister::Session(tree, session.id);
        self.exchange.lists.retain(|kept| *kept != lister);
        if end == End::Done {
            self.counters.exchanges += 1;
            self.counters.exchanges_differed += u64::from(ended.differing > 0);
            self.exchange.last.insert(peer, (now, ended));
        }
        let left_out = session.left_out;
        match end {
            End::Done if ended.failed == 0 && !left_out.any() => _ = self.exchange.in_sync.insert((peer, tree)),
            End::Busy => {}
            End::Done | End::Failed => _ = self.exchange.in_sync.remove(&(peer, tree)),
        }
        if end == End::Done && ended.skipped + ended.failed == 0 {
            self.note_healed(peer, tree, session.marks);
            if !left_out.mine {
                let knew = match (session.peer_was_rebuilding, left_out.theirs) {
                    (true, _) => Knew::Nothing,
                    (false, true) => Knew::Some,
                    (false, false) => Knew::All,
                };
                self.exchanged(peer, tree, knew);
            }
        } else if end != End::Busy {
            self.source_failed(peer, tree);
        }
        self.reschedule(now, &session, end);
    }

    /// The tree holds all that the peer has missed up to the `marks`-th note of it. When all trees of the partition do, the notes are done with.
    fn note_healed(&mut self, peer: NodeIndex, tree: TreeId, marks: Option<u64>) {
        let at = (peer, tree.partition);
        let current = self.marks_of(peer, tree);
        let (Some(marks), Some(_)) = (marks, current) else {
            self.exchange.healed.remove(&at);
            return;
        };
        let healed = self.exchange.healed.entry(at).or_default();
        healed.insert(tree.n, marks);
        let healed = &self.exchange.healed[&at];
        let all = self
            .shared_in(peer, tree.partition)
            .all(|tree| healed.get(&tree.n).copied() == current);
        if all {
            self.exchange.healed.remove(&at);
            let node = self.config.ring.member(peer).id;
            self.clear_dirty(node, tree.partition, marks);
        }
    }

    /// Says when the pair is compared again, if by this node.
    fn reschedule(&mut self, now: Instant, session: &Session, end: End) {
        let (peer, tree, ended) = (session.peer, session.tree, session.ended);
        let class = self.class_of(peer, tree);
        let Entry {
            failures, follow_ups, ..
        } = session.entry;
        let limits = &self.config.limits;
        let grown = |pause: Duration, times: u32| (pause * (1 << times.min(6))).min(PAUSE_MAX);
        // Where roots differed the peer, too, waits to hear that they do not any more, even if
        // all that differed was a write on its way.
        let looks_again = !session.agreed;
        let failed = end == End::Failed || ended.failed > 0 || session.left_out.any();
        let (pause, failures, follow_ups) = match end {
            End::Busy => (grown(BUSY_AFTER, failures.min(3)), failures + 1, follow_ups),
            _ if failed => (grown(FAILED_AFTER, failures), failures + 1, follow_ups),
            _ if class != Class::Usual => (grown(FAILED_AFTER, failures), failures + 1, 0),
            _ if looks_again => (grown(FOLLOW_UP_AFTER, follow_ups.min(3)), 0, follow_ups + 1),
            _ if limits.exchange && self.me < peer => (limits.exchange_every, 0, 0),
            _ => return,
        };
        let at = now + self.exchange.about(pause.min(self.config.limits.exchange_every));
        let entry = Entry {
            class,
            at,
            failures,
            follow_ups,
        };
        self.exchange.schedule.put((peer, tree), entry);
    }
}
