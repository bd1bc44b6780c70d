//! Hinted handoff: hints go home.
//!
//! ```text
//! target connected ──► a page of its hints is read ──► each is sent, few at a time ──► merged and synced there ──► dropped here
//!        ▲                        ▲                              │
//!        └── pause, doubling ◄────┼───────── refused ◄───────────┘
//!                                 └── next page, until there are none
//! ```
//!
//! A hint is dropped only when its owner says that it has merged it durably (promise P10), and only if it is still what was sent: one that was made
//! again in the meantime stays and is sent again on the next pass. A hint holds a whole record and the owner merges it, so it may be sent
//! twice, late, or beside newer writes. What is under way when the connection goes is still here; where a pass was when the process ended does
//! not matter, since what was delivered is gone.
//!
//! Where rows are damaged a pass goes round them, and brings home what lies behind. What is left then is lost with the file.
//!
//! How many may be under way is the [receiver's](super::handoff_receive) to say, up to this node's own window, which is smaller the busier
//! this node is (`exchange/pace.rs`). Rejected: a rate in the
//! configuration. It is too slow for an idle cluster and too fast for a busy one.

mod pass;

use super::background::{Reader, Task};
use super::hints::HintWork;
use super::sizes;
use super::slots::Work;
use super::stored::Stored;
use super::{Engine, LoadFailed, Scan, ScanPage, ScanRows};
use crate::key::Key;
use crate::message::{Handoff, HandoffReply, PeerMessage, RECORD_BYTES_MAX};
use crate::place::Place;
use crate::planted;
use crate::record::Record;
use crate::time::Instant;
use bytes::Bytes;
use pass::{Pass, Sent};
use quorate_ring::{NodeId, NodeIndex, Token};
use std::time::Duration;

pub(super) use pass::Handoffs;

/// Rows and bytes of a page.
const PAGE_ROWS: usize = 64;
const PAGE_BYTES: usize = 1 << 20;

/// A hint for a node that is connected waits this long: an owner that was slow may be slow still.
const SOON: Duration = Duration::from_millis(250);

impl Engine {
    /// A node is there: its hints may go home.
    pub(super) fn wake_handoff(&mut self, now: Instant, node: NodeIndex) {
        if self.hints.are_for(self.config.ring.member(node).id) {
            self.background.wake(now, Task::Handoff(node));
        }
    }

    /// There is a new hint for a node.
    pub(super) fn wake_handoff_soon(&mut self, now: Instant, target: NodeId) {
        if let Some(node) = self.config.ring.index_of(target).filter(|&node| self.peers.is_up(node))
            && self.handoffs.pass(node).is_none()
        {
            let jitter = Duration::from_millis(self.vnodes.draw(100));
            self.background.wake(now + SOON + jitter, Task::Handoff(node));
        }
    }

    /// A hint that was delivered is still here, since the disk refused to remove it. It goes home once more when the disk may take stores again.
    pub(super) fn wake_handoff_later(&mut self, now: Instant, target: NodeId) {
        if let Some(node) = self.config.ring.index_of(target).filter(|&node| self.peers.is_up(node)) {
            self.background
                .wake(self.gate.opens_at(now).max(now + SOON), Task::Handoff(node));
        }
    }

    /// Begins a pass, or goes on with one after a pause.
    pub(super) fn run_handoff(&mut self, now: Instant, node: NodeIndex) {
        let target = self.config.ring.member(node).id;
        if !self.peers.is_up(node) {
            return;
        }
        if !self.hints.are_for(target) {
            // The last ones went without an answer, as references to a lost record do. The next hint needs another pass.
            return self.end_pass(now, node);
        }
        if self.gate.is_closed(now) {
            // What is brought home now could not be removed here, and would be brought again.
            return self.background.wake(self.gate.opens_at(now), Task::Handoff(node));
        }
        let home = self.handoffs.homes.entry(node).or_default();
        if home.pass.is_none() {
            self.handoffs.passes += 1;
            (home.counted_since, home.counted) = (now, 0);
            home.pass = Some(Pass {
                number: self.handoffs.passes,
                credit: self.config.limits.handoff_window,
                ..Pass::default()
            });
        }
        self.go_on(now, node);
    }

    /// Sends as many as may be under way, and reads more when there are no more to send.
    fn go_on(&mut self, now: Instant, node: NodeIndex) {
        let window = self.healing_window(now, self.config.limits.handoff_window);
        while let Some(pass) = self.handoffs.pass(node) {
            if let Some(until) = pass.paused_until.filter(|&until| now < until) {
                // A hint that was skipped may have woken the task instead.
                return self.background.wake(until, Task::Handoff(node));
            }
            let window = usize::from(pass.credit.min(window).max(1));
            let is_full = pass.under_way.len() >= window.min(pass.sizes.window());
            if is_full || pass.bytes_sent() >= sizes::BYTES_MAX {
                return;
            }
            let Some((key, record)) = pass.queue.pop_front() else {
                break;
            };
            self.begin_delivery(now, node, key, record);
        }
        self.read_hints(now, node);
    }

    fn read_hints(&mut self, now: Instant, node: NodeIndex) {
        let Some(pass) = self.handoffs.pass(node) else { return };
        if pass.is_reading {
            return;
        }
        if pass.has_read_all {
            return self.end_pass(now, node);
        }
        pass.is_reading = true;
        let (number, after) = (pass.number, pass.after.clone());
        let rows = ScanRows::Hints(self.config.ring.member(node).id, Token(pass.from));
        let scan = Scan {
            rows,
            after,
            rows_max: PAGE_ROWS,
            bytes_max: PAGE_BYTES,
        };
        self.begin_scan(Reader::Handoff(node, number), scan);
    }

    /// A page of hints was read.
    pub(super) fn hints_read(
        &mut self,
        now: Instant,
        node: NodeIndex,
        number: u64,
        result: Result<ScanPage, LoadFailed>,
    ) {
        let Some(pass) = self.handoffs.pass(node).filter(|pass| pass.number == number) else {
            return;
        };
        pass.is_reading = false;
        let page = match result {
            Ok(page) => page,
            Err(LoadFailed::Unreadable) => return self.pause_handoff(now, node),
            Err(LoadFailed::Corrupt | LoadFailed::Damaged) => {
                pass.go_round();
                self.note_damage(now);
                return self.go_on(now, node);
            }
        };
        pass.has_read_all = page.done;
        pass.detour.end();
        if let Some((last, _)) = page.rows.last() {
            pass.after = Some(last.clone());
        }
        for (key, payload) in page.rows {
            let owns = self.owners(&key).contains(&self.me);
            let record = match payload.map(|payload| Stored::parse(Some(payload))) {
                // To an owner the row says all by being there.
                _ if owns => None,
                Ok(Ok(stored)) if !stored.has_no_record() => Some(stored.encoded().clone()),
                Err(LoadFailed::Corrupt) => {
                    self.drop_hint(now, node, key, None);
                    continue;
                }
                // It cannot be read now. The next pass looks again.
                _ => {
                    self.leave_some(node);
                    continue;
                }
            };
            if let Some(pass) = self.handoffs.pass(node) {
                pass.queue.push_back((key, record));
            }
        }
        self.go_on(now, node);
    }

    fn begin_delivery(&mut self, now: Instant, node: NodeIndex, key: Key, record: Option<Bytes>) {
        let id = self.new_op().0;
        let Some(pass) = self.handoffs.pass(node) else { return };
        let hash = record.as_ref().map(|record| Record::hash_encoded(record));
        let sent = Sent {
            key: key.clone(),
            hash,
            bytes: 0,
            again: false,
        };
        match record {
            Some(record) if record.len() > RECORD_BYTES_MAX => pass.left_some = true,
            Some(record) => {
                pass.under_way.insert(id, sent);
                self.send_hint_home(now, node, Handoff { id, key, record }, hash);
            }
            None => {
                pass.under_way.insert(id, sent);
                self.with_slot(now, &key, Work::Hint(HintWork::Deliver(node, id)));
            }
        }
    }

    /// This node's own record is here, for which a reference stands.
    pub(super) fn deliver(&mut self, now: Instant, to: NodeIndex, id: u64, key: &Key, stored: &Stored) {
        let record = stored.encoded().clone();
        if stored.has_no_record() {
            // It was lost here. Those who have it are found by comparing.
            self.mark_dirty(
                self.config.ring.member(to).id,
                self.config.ring.partition_of(key.token()),
            );
            self.drop_hint(now, to, key.clone(), None);
            self.skip_hint(now, to, id);
        } else if record.len() > RECORD_BYTES_MAX {
            self.skip_hint(now, to, id);
        } else {
            let key = key.clone();
            self.send_hint_home(now, to, Handoff { id, key, record }, None);
        }
    }

    /// Sends a hint, if there is room for it. One that is read anew for that goes back to those that wait, and the next answer goes on with them.
    fn send_hint_home(&mut self, now: Instant, to: NodeIndex, handoff: Handoff, hash: Option<u64>) {
        let Some(pass) = self.handoffs.pass(to) else { return };
        pass.sizes.weigh(&handoff.record);
        let is_full = pass.bytes_sent() >= sizes::BYTES_MAX;
        // One that was read for a pass that is over has a place in the next one.
        let Some(sent) = pass.under_way.get_mut(&handoff.id) else {
            return;
        };
        if is_full {
            pass.under_way.remove(&handoff.id);
            return pass.queue.push_front((handoff.key, hash.map(|_| handoff.record)));
        }
        sent.bytes = handoff.record.len();
        if planted::is(10) {
            self.drop_hint(now, to, handoff.key.clone(), hash);
        }
        self.send(to, PeerMessage::Handoff(handoff));
    }

    /// A hint stays for now.
    pub(super) fn skip_hint(&mut self, now: Instant, node: NodeIndex, id: u64) {
        let Some(pass) = self.handoffs.pass(node) else { return };
        pass.left_some = true;
        if pass.under_way.remove(&id).is_some() {
            // Later: this is said while a row is being worked on.
            self.background.wake(now, Task::Handoff(node));
        }
    }

    fn leave_some(&mut self, node: NodeIndex) {
        if let Some(pass) = self.handoffs.pass(node) {
            pass.left_some = true;
        }
    }

    /// Whether no hints are left that could be brought home: what is left is damaged.
    pub(super) fn hints_are_home(&self) -> bool {
        let is_lost = |target: &NodeId| {
            self.config
                .ring
                .index_of(*target)
                .is_some_and(|node| self.handoffs.is_rest_lost(node))
        };
        self.hints.targets().all(is_lost)
    }

    /// An owner has answered.
    pub(super) fn handoff_answer(&mut self, now: Instant, from: NodeIndex, answer: &HandoffReply) {
        let Some(pass) = self.handoffs.pass(from) else { return };
        let Some(sent) = pass.under_way.remove(&answer.id) else {
            return;
        };
        pass.credit = answer.credit;
        match answer.result {
            Ok(()) => {
                pass.delivered += 1;
                if let Some(home) = self.handoffs.homes.get_mut(&from) {
                    home.pause = Duration::ZERO;
                    home.count(now);
                }
                self.counters.hints_delivered += 1;
                if !sent.again {
                    self.drop_hint(now, from, sent.key, sent.hash);
                }
                self.go_on(now, from);
            }
            Err(_) => self.pause_handoff(now, from),
        }
    }

    fn drop_hint(&mut self, now: Instant, owner: NodeIndex, key: Key, hash: Option<u64>) {
        let place = Place::Hint(self.config.ring.member(owner).id, key);
        self.with_place(now, place, Work::Hint(HintWork::Drop(hash)));
    }

    /// Nothing is sent for a while.
    fn pause_handoff(&mut self, now: Instant, node: NodeIndex) {
        let Some(home) = self.handoffs.homes.get_mut(&node) else {
            return;
        };
        let Some(pass) = home.pass.as_ref() else { return };
        // Refusals of what was under way together count once.
        if pass.paused_until.is_some_and(|until| now < until) {
            return;
        }
        let pause = home.lengthen_pause();
        let until = now + self.jittered(pause);
        if let Some(pass) = self.handoffs.pass(node) {
            pass.paused_until = Some(until);
        }
        self.background.wake(until, Task::Handoff(node));
    }

    /// All hints have been looked at. What is left is looked at again later.
    fn end_pass(&mut self, now: Instant, node: NodeIndex) {
        let Some(home) = self.handoffs.homes.get_mut(&node) else {
            return;
        };
        let Some(pass) = home.pass.take_if(|pass| pass.under_way.is_empty()) else {
            return;
        };
        home.rate_per_second = 0;
        home.is_rest_lost = pass.went_round && pass.delivered == 0 && pass.paused_until.is_none() && !pass.left_some;
        let pause = match pass.delivered == 0 && pass.paused_until.is_none() {
            true => home.lengthen_pause(),
            // A pause after a refusal was made already.
            false => SOON,
        };
        // A hint that was skipped has woken the task for this pass, which is over: the next one begins after the pause.
        self.background.sleep(None, Task::Handoff(node));
        if self.hints.are_for(self.config.ring.member(node).id) {
            let at = now + self.jittered(pause);
            self.background.wake(at, Task::Handoff(node));
        }
    }

    /// At least half of it, at most all.
    fn jittered(&mut self, pause: Duration) -> Duration {
        let micros = pause.as_micros() as u64;
        Duration::from_micros(micros / 2 + self.vnodes.draw(micros / 2 + 1))
    }
}
