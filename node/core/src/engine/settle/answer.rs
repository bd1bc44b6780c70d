//! What a member does when it is asked, and what an owner does when it is proved.

use super::BATCH_RECORDS_MAX;
use super::row::{SKEW_MS, Want};
use super::watch::Proof;
use super::weigh::Purpose;
use crate::engine::Engine;
use crate::engine::slots::Work;
use crate::engine::stored::Stored;
use crate::key::Key;
use crate::message::{Candidate, Objection, Reap, SettleAsk, SettleReply, SettleRound};
use crate::planted;
use crate::record::Record;
use crate::time::Instant;
use quorate_ring::NodeIndex;
use std::collections::BTreeSet;
use std::time::Duration;

/// A record that is to be settled here, and by which proof.
#[derive(Debug)]
pub(in crate::engine) struct Order {
    proof: Proof,
    candidate: Candidate,
}

impl Engine {
    /// A member asks whether anything stands against settling records.
    pub(in crate::engine) fn settle_asked(&mut self, now: Instant, from: NodeIndex, ask: SettleAsk) {
        let SettleAsk { id, round, candidates } = ask;
        if candidates.len() > BATCH_RECORDS_MAX || self.settling.checks.is_full() {
            // No answer postpones it.
            return;
        }
        let longest = self.config.limits.settle_after * 8;
        self.settling.watches.prune(now, longest);
        let proof = Proof { asker: from, id };
        self.settle_check(proof, Purpose::Answer(round), candidates);
    }

    /// The answer to a round, once every record has been weighed.
    pub(super) fn settle_reply(
        &self,
        id: u64,
        round: SettleRound,
        candidates: &[Candidate],
        refused: Vec<(u16, Option<Objection>)>,
    ) -> SettleReply {
        let lives: BTreeSet<u64> = candidates.iter().flat_map(|c| c.retire.iter().copied()).collect();
        let living = lives.into_iter().filter(|&life| self.vnodes.is_living(life)).collect();
        let refused = refused
            .into_iter()
            .map(|(at, why)| (at, why.unwrap_or(Objection::Differs)));
        SettleReply {
            id,
            round,
            refused: refused.collect(),
            living,
        }
    }

    /// What stands here against settling a record, at this moment. If nothing does, the record is watched from now on (first round), or has been.
    pub(super) fn object(
        &mut self,
        now: Instant,
        proof: Proof,
        round: SettleRound,
        candidate: &Candidate,
        stored: Option<(&mut Stored, bool)>,
    ) -> Option<Objection> {
        if let Some((stored, is_steady)) = stored {
            let objection = self.differs(candidate, stored, is_steady);
            if objection == Some(Objection::Unsynced) {
                // Of a bucket of relaxed durability nobody else may wait for it.
                self.slots.want_all();
            }
            if objection.is_some() {
                return objection;
            }
        }
        if let Some(objection) = self.stands_against(&candidate.key) {
            return Some(objection);
        }
        let watches = &mut self.settling.watches;
        match round {
            SettleRound::First => (!watches.begin(now, proof, candidate)).then_some(Objection::Busy),
            SettleRound::Second if candidate.retire.iter().any(|&life| self.vnodes.is_living(life)) => {
                Some(Objection::Living)
            }
            SettleRound::Second => {
                let least = watched_least(self.config.limits.settle_after);
                let approved = watches.approve(now, proof, candidate, least);
                (!approved).then_some(Objection::NotWatched)
            }
        }
    }

    /// Whether an owner holds anything but the very record, synced, and with nothing live in what is to go.
    fn differs(&self, candidate: &Candidate, stored: &mut Stored, is_steady: bool) -> Option<Objection> {
        // An owner that has lost its memory, and has not read everything again, does not know what it should hold.
        if self.rebuilds(&candidate.key) {
            return Some(Objection::Rebuilding);
        }
        if Record::hash_encoded(stored.encoded()) != candidate.hash {
            return Some(Objection::Differs);
        }
        if !is_steady {
            return Some(Objection::Unsynced);
        }
        let Ok(record) = stored.record() else {
            return Some(Objection::Unreadable);
        };
        match Want::of(record) {
            _ if !candidate.retire.is_empty() => None,
            Want::Drop { ends_ms } if self.has_ended(ends_ms) => None,
            _ => Some(Objection::NotExpired),
        }
    }

    /// Whether what expires at a time of day has surely expired, by this node's clock.
    fn has_ended(&self, ends_ms: u64) -> bool {
        ends_ms == 0 || ends_ms.saturating_add(SKEW_MS) <= self.wall_ms
    }

    /// What is to go of a record that waits, as the asker sees it. That is the asker's own answer to the first round, too.
    pub(super) fn choose(
        &mut self,
        now: Instant,
        proof: Proof,
        key: &Key,
        stored: &mut Stored,
        is_steady: bool,
    ) -> Result<Candidate, Option<Objection>> {
        let hash = Record::hash_encoded(stored.encoded());
        let record = stored.record().map_err(|_| Some(Objection::Unreadable))?;
        let retire = match Want::of(record) {
            Want::Nothing => {
                // The row has outlived its reason.
                self.settle_unqueue(key);
                return Err(None);
            }
            _ if !self.leads(key).1 => return Err(None),
            Want::Drop { ends_ms } if !self.has_ended(ends_ms) => return Err(None),
            Want::Drop { .. } => Vec::new(),
            Want::Trim => {
                let mut lives = record.idle_lives();
                lives.retain(|&life| !self.vnodes.is_living(life));
                if lives.is_empty() {
                    return Err(None);
                }
                lives
            }
        };
        let key = key.clone();
        let candidate = Candidate { key, hash, retire };
        if planted::is(12) {
            return Ok(candidate);
        }
        match self.object(now, proof, SettleRound::First, &candidate, Some((stored, is_steady))) {
            None => Ok(candidate),
            objection => Err(objection),
        }
    }

    /// It is proved. Settles the records that this node owns, each in its turn.
    pub(in crate::engine) fn settle_proved(&mut self, now: Instant, from: NodeIndex, reap: Reap) {
        let proof = Proof {
            asker: from,
            id: reap.id,
        };
        for candidate in reap.candidates {
            if self.is_proved(proof, &candidate) && !self.slots.are_full(self.config.limits.slots_max) {
                let key = candidate.key.clone();
                let order = Order { proof, candidate };
                self.with_slot(now, &key, Work::Settle(Box::new(order)));
            }
        }
    }

    fn is_proved(&self, proof: Proof, candidate: &Candidate) -> bool {
        self.owners(&candidate.key).contains(&self.me)
            && (planted::is(12) || self.settling.watches.is_approved(proof, candidate))
    }

    /// Settles a record, if it is still what was proved.
    pub(in crate::engine) fn settle(&mut self, order: &Order, stored: &mut Stored, is_steady: bool) {
        let candidate = &order.candidate;
        if !self.is_proved(order.proof, candidate) || self.differs(candidate, stored, is_steady).is_some() {
            self.counters.settle_refused += 1;
            return;
        }
        let Ok(record) = stored.record() else { return };
        if candidate.retire.is_empty() {
            self.counters.reaped += 1;
            // The mark goes with it: the next write is under a new epoch.
            return stored.replace(Record::default(), None);
        }
        let mut trimmed = record.clone();
        self.counters.trimmed += trimmed.retire(&candidate.retire) as u64;
        let mark = stored.mark().filter(|mark| !candidate.retire.contains(&mark.life));
        stored.replace(trimmed, mark);
    }
}

/// How long a record is watched at least, by the member's own clock: a little less than the asker waits by its own.
fn watched_least(settle_after: Duration) -> Duration {
    settle_after / 8 * 7
}
