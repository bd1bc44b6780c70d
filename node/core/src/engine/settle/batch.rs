//! The asker's side: one batch of a partition at a time goes through the proof.
//!
//! ```text
//! reading ──► choosing ──► first round ──► waiting ──► second round ──► proved: all owners are told
//!    │           │              │             │             │
//!    └───────────┴── nothing ◄──┴─ refused ◄──┴── refused ◄─┴── later, again
//! ```

use super::BATCHES_MAX;
use super::watch::Proof;
use super::weigh::{Check, Purpose};
use crate::engine::{Engine, LoadFailed, ScanPage};
use crate::message::{Candidate, Objection, PeerMessage, Reap, SettleAsk, SettleReply, SettleRound};
use crate::planted;
use crate::time::Instant;
use quorate_ring::{NodeIndex, PartitionId};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long the disk may take over a batch.
const DISK_PATIENCE: Duration = Duration::from_secs(30);

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Batch {
    id: u64,
    stage: Stage,
    /// When the stage ends: the second round's time, or the end of patience.
    pub(super) at: Instant,
    candidates: Vec<Candidate>,
    /// Positions of candidates against which something stands.
    refused: BTreeSet<u16>,
    /// Lives that go on, among those to be retired.
    living: BTreeSet<u64>,
}

#[derive(Debug)]
enum Stage {
    /// Rows or records are being read.
    Reading,
    /// A round is being answered, by all but these.
    Asking(SettleRound, BTreeSet<NodeIndex>),
    /// Until the second round.
    Waiting,
}

impl Engine {
    /// Goes on with what is due.
    pub(in crate::engine) fn settle_tick(&mut self, now: Instant) {
        if !self.settles() {
            return;
        }
        if self.settling.queue.walks_again(now) {
            self.settle_walk_once();
        }
        let batches = &self.settling.batches;
        let due: Vec<PartitionId> = batches.iter().filter(|(_, b)| b.at <= now).map(|(&p, _)| p).collect();
        for partition in due {
            match self.settling.batches.get(&partition).map(|batch| &batch.stage) {
                Some(Stage::Waiting) => self.settle_ask(now, partition, SettleRound::Second),
                _ => self.settle_late(now, partition),
            }
        }
        while self.settling.batches.len() < BATCHES_MAX {
            let batches = &self.settling.batches;
            let next = self
                .settling
                .queue
                .due(now, |partition| batches.contains_key(&partition));
            let Some(partition) = next else { break };
            self.settle_begin(now, partition);
        }
        self.settle_wake();
    }

    fn settle_begin(&mut self, now: Instant, partition: PartitionId) {
        // Random at the start of a process, so that an answer to a former one names no batch of this one.
        let id = self.new_op().0;
        let batch = Batch {
            id,
            stage: Stage::Reading,
            at: now + DISK_PATIENCE,
            candidates: Vec::new(),
            refused: BTreeSet::new(),
            living: BTreeSet::new(),
        };
        self.settling.batches.insert(partition, batch);
        self.settle_read(partition, id);
    }

    /// The batch of this partition, if it is still this one.
    fn settle_batch(&mut self, partition: PartitionId, id: u64) -> Option<&mut Batch> {
        let batch = self.settling.batches.get_mut(&partition);
        batch.filter(|batch| batch.id == id)
    }

    /// Rows have been read: those that are ready are weighed.
    pub(in crate::engine) fn settle_page(
        &mut self,
        now: Instant,
        partition: PartitionId,
        id: u64,
        result: Result<ScanPage, LoadFailed>,
    ) {
        if self.settle_batch(partition, id).is_none() {
            return;
        }
        let page = match result {
            Ok(page) => page,
            Err(failed) => {
                self.note_damaged(now, failed);
                return self.settle_late(now, partition);
            }
        };
        let Some(keys) = self.settle_take(now, partition, &page) else {
            self.settling.batches.remove(&partition);
            return self.settle_wake();
        };
        let candidate = |key| Candidate {
            key,
            hash: 0,
            retire: Vec::new(),
        };
        let candidates = keys.into_iter().map(candidate).collect();
        let proof = Proof { asker: self.me, id };
        self.settle_check(proof, Purpose::Choose(partition), candidates);
    }

    /// A list has been weighed here, for this node's own batch or for another's.
    pub(super) fn settle_checked(&mut self, now: Instant, check: Check) {
        let Check {
            proof,
            purpose,
            candidates,
            refused,
            ..
        } = check;
        match purpose {
            Purpose::Choose(partition) => self.settle_chosen(now, partition, proof.id, candidates, refused),
            Purpose::Answer(round) => {
                let reply = self.settle_reply(proof.id, round, &candidates, refused);
                if proof.asker == self.me {
                    self.settle_answer(now, self.me, reply);
                } else {
                    self.send(proof.asker, PeerMessage::SettleReply(reply));
                }
            }
        }
    }

    /// The records are chosen, and this node has nothing against them: asks the others.
    fn settle_chosen(
        &mut self,
        now: Instant,
        partition: PartitionId,
        id: u64,
        candidates: Vec<Candidate>,
        refused: Vec<(u16, Option<Objection>)>,
    ) {
        let me = self.me;
        for objection in refused.iter().filter_map(|&(_, objection)| objection) {
            self.settle_refused(me, objection);
        }
        let Some(batch) = self.settle_batch(partition, id) else {
            return;
        };
        let gone: BTreeSet<u16> = refused.into_iter().map(|(at, _)| at).collect();
        batch.candidates = without(candidates, &gone);
        if batch.candidates.is_empty() {
            self.settle_end(now, partition, 0);
        } else if planted::is(12) {
            self.settle_tell(now, partition);
        } else {
            self.settle_ask(now, partition, SettleRound::First);
        }
    }

    /// Asks all members; in the first round this node has answered already.
    fn settle_ask(&mut self, now: Instant, partition: PartitionId, round: SettleRound) {
        let others: BTreeSet<NodeIndex> = self.others().collect();
        let after = self.config.limits.settle_after;
        let Some(batch) = self.settling.batches.get_mut(&partition) else {
            return;
        };
        let (id, candidates) = (batch.id, batch.candidates.clone());
        let mut waiting = others.clone();
        if round == SettleRound::Second {
            waiting.insert(self.me);
        }
        // That the first round is short is part of the proof.
        batch.at = match round {
            SettleRound::First => now + after / 8,
            SettleRound::Second => now + after,
        };
        batch.stage = Stage::Asking(round, waiting);
        let ask = SettleAsk { id, round, candidates };
        for node in others {
            self.send(node, PeerMessage::SettleAsk(ask.clone()));
        }
        match round {
            SettleRound::First => self.settle_round(now, partition),
            SettleRound::Second => self.settle_asked(now, self.me, ask),
        }
        self.settling.seen.rounds += 1;
        self.settle_wake();
    }

    /// A member has answered.
    pub(in crate::engine) fn settle_answer(&mut self, now: Instant, from: NodeIndex, reply: SettleReply) {
        let found = self.settling.batches.iter_mut().find(|(_, batch)| batch.id == reply.id);
        let Some((&partition, batch)) = found else { return };
        let Stage::Asking(round, waiting) = &mut batch.stage else {
            return;
        };
        if *round != reply.round || !waiting.remove(&from) {
            return;
        }
        batch.refused.extend(reply.refused.iter().map(|&(at, _)| at));
        batch.living.extend(reply.living);
        for (_, objection) in reply.refused {
            self.settle_refused(from, objection);
        }
        self.settle_round(now, partition);
    }

    /// Ends a round that all have answered.
    fn settle_round(&mut self, now: Instant, partition: PartitionId) {
        let after = self.config.limits.settle_after;
        let Some(batch) = self.settling.batches.get_mut(&partition) else {
            return;
        };
        let round = match &batch.stage {
            Stage::Asking(round, waiting) if waiting.is_empty() => *round,
            _ => return,
        };
        let refused = std::mem::take(&mut batch.refused);
        let mut candidates = without(std::mem::take(&mut batch.candidates), &refused);
        if round == SettleRound::First {
            let living = std::mem::take(&mut batch.living);
            candidates.retain_mut(|candidate| {
                let drops_all = candidate.retire.is_empty();
                candidate.retire.retain(|life| !living.contains(life));
                drops_all || !candidate.retire.is_empty()
            });
        }
        (batch.candidates, batch.stage, batch.at) = (candidates, Stage::Waiting, now + after);
        let is_over = batch.candidates.is_empty();
        self.settling.queue.resize(partition, true);
        match round {
            _ if is_over => self.settle_end(now, partition, 0),
            SettleRound::First => self.settle_wake(),
            SettleRound::Second => self.settle_tell(now, partition),
        }
    }

    /// It is proved: tells all owners, and does it here.
    fn settle_tell(&mut self, now: Instant, partition: PartitionId) {
        let Some(batch) = self.settling.batches.get_mut(&partition) else {
            return;
        };
        let (id, all) = (batch.id, std::mem::take(&mut batch.candidates));
        let list: Vec<NodeIndex> = self.config.ring.preference_list(partition).to_vec();
        for node in list {
            let owned = all
                .iter()
                .filter(|candidate| self.owners(&candidate.key).contains(&node));
            let candidates: Vec<Candidate> = owned.cloned().collect();
            if !candidates.is_empty() && node != self.me {
                self.send(node, PeerMessage::Reap(Reap { id, candidates }));
            }
        }
        let settled = all.len();
        self.settle_proved(now, self.me, Reap { id, candidates: all });
        self.settle_end(now, partition, settled);
    }

    /// The batch is over, and so many of its records are settled.
    fn settle_end(&mut self, now: Instant, partition: PartitionId, settled: usize) {
        self.settling.batches.remove(&partition);
        self.settling.queue.looked(now, partition, settled);
        self.settle_wake();
    }

    /// Somebody took too long: next time with fewer records.
    fn settle_late(&mut self, now: Instant, partition: PartitionId) {
        let waiting = match self.settling.batches.get(&partition).map(|batch| &batch.stage) {
            Some(Stage::Asking(_, waiting)) => waiting.first().copied(),
            _ => None,
        };
        self.settle_refused(waiting.unwrap_or(self.me), Objection::Away);
        self.settling.queue.resize(partition, false);
        self.settling.queue.failed(partition);
        self.settle_end(now, partition, 0);
    }

    /// A member has gone: the batch starts over once all are there.
    pub(super) fn settle_postpone(&mut self, now: Instant, partition: PartitionId) {
        let away = self.away().next();
        self.settle_refused(away.unwrap_or(self.me), Objection::Away);
        self.settling.queue.failed(partition);
        self.settle_end(now, partition, 0);
    }

    fn settle_refused(&mut self, node: NodeIndex, objection: Objection) {
        self.counters.settle_refused += 1;
        self.settling.seen.last_objection = Some((node, objection));
    }
}

/// Those at other positions.
fn without(candidates: Vec<Candidate>, positions: &BTreeSet<u16>) -> Vec<Candidate> {
    let kept = candidates.into_iter().enumerate();
    kept.filter(|(at, _)| !positions.contains(&(*at as u16)))
        .map(|(_, candidate)| candidate)
        .collect()
}
