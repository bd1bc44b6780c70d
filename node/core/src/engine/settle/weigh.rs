//! Weighing records: loading each of a list, and saying of each whether anything stands against settling it.
//!
//! A list has hundreds of records, some may be large, and a mass delete makes many lists at once, so only a few records are loaded at a time, and
//! only so many in a millisecond: a disk that answers at once would otherwise have the engine weigh all of them before it looks at a
//! request. Each is weighed in its slot, in one moment: it is the moment at which a member's word about this record holds, and at which its
//! watch begins.

use super::Settling;
use super::watch::Proof;
use crate::engine::Engine;
use crate::engine::background::Task;
use crate::engine::slots::Work;
use crate::engine::stored::Stored;
use crate::key::Key;
use crate::message::{Candidate, Objection, SettleRound};
use crate::time::Instant;
use quorate_ring::PartitionId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Records of one list that are loaded at once.
const WINDOW: usize = 32;
/// Records of all lists that are begun in one [`TURN`].
const PER_TURN: usize = 32;
const TURN: Duration = Duration::from_millis(1);
/// Lists at once. Beyond: the asker gets no answer, and tries again.
const CHECKS_MAX: usize = 256;

/// What a list is weighed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The asker's first look at its own rows, which is its own answer to the first round, too.
    Choose(PartitionId),
    /// A round's answer.
    Answer(SettleRound),
}

/// A list that is being weighed.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) proof: Proof,
    pub(super) purpose: Purpose,
    /// The records; while they are chosen only the keys are known.
    pub(super) candidates: Vec<Candidate>,
    /// Positions of those that are not to be settled, and what stands against each, if it is not simply that there is nothing to do.
    pub(super) refused: Vec<(u16, Option<Objection>)>,
    started: usize,
    open: usize,
}

/// All such lists, by number.
#[derive(Debug, Default)]
pub(super) struct Checks {
    checks: BTreeMap<u64, Check>,
    /// Those that can go on.
    ready: BTreeSet<u64>,
    last: u64,
    /// When the present turn ends, and how many records may still be begun in it.
    turn: (Instant, usize),
}

impl Checks {
    fn next_ready(&mut self) -> Option<u64> {
        self.ready.pop_first()
    }

    /// Begins a turn if the last one is over. When the present one ends, if nothing more may be begun in it.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        if now >= self.turn.0 {
            self.turn = (now + TURN, PER_TURN);
        }
        let (end, left) = self.turn;
        (left == 0).then_some(end)
    }

    /// The next record of a list that is to be loaded.
    fn start_next(&mut self, id: u64) -> Option<(u16, Key)> {
        let check = self.checks.get_mut(&id).filter(|check| check.open < WINDOW)?;
        let at = check.started;
        let key = check.candidates.get(at)?.key.clone();
        self.turn.1 = self.turn.1.checked_sub(1)?;
        check.started += 1;
        check.open += 1;
        Some((u16::try_from(at).expect("a list is bounded"), key))
    }

    /// A list that has been weighed to its end.
    fn take_done(&mut self, id: u64) -> Option<Check> {
        let check = self.checks.get(&id)?;
        let is_done = check.open == 0 && check.started == check.candidates.len();
        is_done.then(|| self.checks.remove(&id)).flatten()
    }

    pub(super) fn is_full(&self) -> bool {
        self.checks.len() >= CHECKS_MAX
    }
}

impl Engine {
    /// Begins to weigh a list.
    pub(super) fn settle_check(&mut self, proof: Proof, purpose: Purpose, candidates: Vec<Candidate>) {
        let checks = &mut self.settling.checks;
        checks.last += 1;
        let check = Check {
            proof,
            purpose,
            candidates,
            refused: Vec::new(),
            started: 0,
            open: 0,
        };
        checks.checks.insert(checks.last, check);
        checks.ready.insert(checks.last);
    }

    /// Goes on with every list that can go on, as far as this turn's share.
    pub(super) fn settle_weigh(&mut self, now: Instant) {
        loop {
            if let Some(end) = self.settling.checks.turn(now) {
                if !self.settling.checks.ready.is_empty() {
                    self.background.wake(end, Task::Weigh);
                }
                return;
            }
            let Some(id) = self.settling.checks.next_ready() else {
                return;
            };
            while let Some((at, key)) = self.settling.checks.start_next(id) {
                if !self.owners(&key).contains(&self.me) {
                    self.weigh(now, id, at, &key, None);
                } else if self.slots.are_full(self.config.limits.slots_max) {
                    self.weighed(id, at, Err(Some(Objection::Busy)));
                } else {
                    self.with_slot(now, &key, Work::Weigh { check: id, at });
                }
            }
            if let Some(check) = self.settling.checks.take_done(id) {
                self.settle_checked(now, check);
            } else if self.settling.checks.turn(now).is_some() {
                // It may have more to begin, in the next turn.
                self.settling.checks.ready.insert(id);
            }
        }
    }

    /// Weighs a record: an owner with what it has stored and whether that is synced, others without.
    pub(in crate::engine) fn weigh(
        &mut self,
        now: Instant,
        check: u64,
        at: u16,
        key: &Key,
        stored: Option<(&mut Stored, bool)>,
    ) {
        let Some(found) = self.settling.checks.checks.get(&check) else {
            return;
        };
        let (proof, purpose) = (found.proof, found.purpose);
        let result = match (purpose, stored) {
            (Purpose::Choose(_), Some((stored, is_steady))) => self.choose(now, proof, key, stored, is_steady),
            (Purpose::Choose(_), None) => Err(None),
            (Purpose::Answer(round), stored) => {
                let candidate = found.candidates[usize::from(at)].clone();
                match self.object(now, proof, round, &candidate, stored) {
                    None => Ok(candidate),
                    objection => Err(objection),
                }
            }
        };
        self.weighed(check, at, result);
    }

    /// A record has been weighed, or cannot be.
    pub(in crate::engine) fn weighed(&mut self, id: u64, at: u16, result: Result<Candidate, Option<Objection>>) {
        let Settling { checks, .. } = &mut self.settling;
        let Some(check) = checks.checks.get_mut(&id) else {
            return;
        };
        check.open -= 1;
        match result {
            Ok(candidate) => check.candidates[usize::from(at)] = candidate,
            Err(objection) => check.refused.push((at, objection)),
        }
        checks.ready.insert(id);
    }
}
