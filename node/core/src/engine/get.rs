//! Coordinating a read.
//!
//! ```text
//! local record ──► ask R-1 other owners, with the hash of what we have ──► R answers ──► merged ──► minimum covered? ──► replied
//!                         │                                                   │                        │
//!                         └── slow or gone: ask the others too                └── quorum lost          └── ask all again, later
//! ```
//!
//! The coordinator is an owner, and its own record is one of the R answers. The others say "the same" where their hash agrees, so a value
//! travels only where replicas differ. All answers are of synced records from distinct owners, so with R + W > N a read sees every
//! acknowledged write (promise P7). Dynamo paper, section 4.5.

use super::rules::read_quorum;
use super::tally::{Tally, Verdict};
use super::{Engine, Op, OpId, Origin, Timer, Work, refused};
use crate::context::Context;
use crate::key::Key;
use crate::message::{Fetch, Held, PeerMessage, Refusal};
use crate::record::Record;
use crate::request::{Code, Failure, Operation, Outcome, ReplicaState, Reply};
use crate::time::Instant;
use quorate_ring::NodeIndex;
use std::time::Duration;

/// First and longest pause before a read asks again for a minimum that it has not seen.
const AGAIN_MIN: Duration = Duration::from_millis(5);
const AGAIN_MAX: Duration = Duration::from_millis(200);

/// A read under way.
pub(super) struct GetOp {
    origin: Origin,
    key: Key,
    minimum: Option<Context>,
    deadline: Instant,
    /// The timer beside the deadline: a hedge, or another round.
    timer: Option<(Instant, Timer)>,
    again_after: Duration,
    pub(super) tally: Tally,
    /// Hash of the coordinator's own record, once that is merged.
    local: Option<u64>,
    /// All that was answered, merged.
    merged: Record,
    /// Bytes of the values in it.
    pub(super) held: usize,
}

impl GetOp {
    /// What it is about.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

impl Engine {
    pub(super) fn start_get(&mut self, now: Instant, origin: Origin, operation: Operation, deadline: Instant) {
        match self.check_get(now, origin, operation, deadline) {
            Ok(mut op) => {
                let (id, key) = (self.new_op(), op.key.clone());
                op.tally.ask(self.me);
                self.timers.insert((deadline, id, Timer::Deadline));
                self.set_timer(id, &mut op, now + self.config.limits.hedge_after, Timer::Hedge);
                self.ops.insert(id, Op::Get(Box::new(op)));
                self.with_slot(now, &key, Work::Read(id));
            }
            Err(failure) => self.refuse(origin, failure),
        }
    }

    fn check_get(
        &self,
        now: Instant,
        origin: Origin,
        operation: Operation,
        deadline: Instant,
    ) -> Result<GetOp, Failure> {
        let Operation::Get { key, minimum, options } = operation else {
            unreachable!("start() sends writes elsewhere")
        };
        let need = read_quorum(self.config.buckets.of(key.bucket()), &options)?;
        let minimum = self.open(minimum.as_deref(), &key)?.map(|seen| seen.context);
        let tally = Tally::new(need, self.owners(&key), now);
        self.check_available("answers", &key, &tally)?;
        let again_after = AGAIN_MIN;
        Ok(GetOp {
            origin,
            key,
            minimum,
            deadline,
            timer: None,
            again_after,
            tally,
            local: None,
            merged: Record::default(),
            held: 0,
        })
    }

    /// An owner has answered, or refused to.
    pub(super) fn get_answer(&mut self, now: Instant, id: OpId, from: NodeIndex, result: Result<Held, Refusal>) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let state = match result {
            Err(refusal) => refused(refusal),
            Ok(Held::Same) if op.local.is_some() => ReplicaState::SameDigest,
            // The same as what? It was not told a hash.
            Ok(Held::Same) => ReplicaState::ReadFailed,
            Ok(Held::Record(bytes)) => match Record::decode(&bytes) {
                Ok(record) => {
                    if from == self.me {
                        op.local = Some(Record::hash_encoded(&bytes));
                    } else {
                        self.counters.replicas_differed += u64::from(op.local.is_some());
                    }
                    match op.merged.is_empty() {
                        true => op.merged = record,
                        false => op.merged.merge(&record),
                    }
                    ReplicaState::Acked
                }
                // The checksum held, so this is a newer format, or a bug. The others may have an answer.
                Err(_) => ReplicaState::ReadFailed,
            },
        };
        let is_news = op.tally.settle(now, from, state);
        // "The same" and refusals bring nothing to hold.
        if state == ReplicaState::Acked {
            let held = op.merged.value_bytes();
            self.ops.hold(id, held);
        }
        if is_news {
            self.get_ask(now, id, false);
            self.get_decide(now, id);
        }
    }

    /// The connection to an owner is gone.
    pub(super) fn get_lost(&mut self, now: Instant, id: OpId, node: NodeIndex) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        if op.tally.settle(now, node, ReplicaState::Lost) {
            self.get_ask(now, id, false);
            self.get_decide(now, id);
        }
    }

    /// Asks as many owners as are needed for the quorum, or all of them.
    fn get_ask(&mut self, now: Instant, id: OpId, all: bool) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let missing = if all {
            usize::MAX
        } else {
            usize::from(op.tally.need()).saturating_sub(op.tally.promised())
        };
        if missing == 0 {
            return;
        }
        let ranked = self.peers.rank(op.tally.unasked());
        let have = op.local;
        for &to in ranked.iter().take(missing) {
            op.tally.ask(to);
            let message = PeerMessage::Fetch(Fetch {
                id: id.0,
                key: op.key.clone(),
                have,
            });
            self.effects.push_back(super::Effect::Send { to, message });
        }
        if ranked.len() < missing {
            // Nobody else is connected: those who are left give no answer.
            let down: Vec<NodeIndex> = op.tally.unasked().collect();
            for node in down {
                op.tally.settle(now, node, ReplicaState::Down);
            }
        }
    }

    fn get_decide(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get(&id) else { return };
        match op.tally.verdict() {
            Verdict::Pending => {}
            Verdict::Met => self.get_met(now, id),
            Verdict::Lost => self.get_fail(now, id, Code::QuorumNotMet, ReplicaState::Waiting),
        }
    }

    /// Enough owners answered. Replies, unless the client wants to see more than they have.
    fn get_met(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get(&id) else { return };
        let seen = op.merged.context();
        if op.minimum.as_ref().is_none_or(|minimum| seen.covers(minimum)) {
            return self.get_reply(now, id);
        }
        self.get_ask(now, id, true);
        let Some(Op::Get(mut op)) = self.ops.remove(&id) else {
            return;
        };
        // Without waiting for all: one that never answers would keep the others from being asked again.
        if op.timer.is_none_or(|(_, timer)| timer != Timer::Again) {
            let at = now + op.again_after;
            op.again_after = (op.again_after * 2).min(AGAIN_MAX);
            self.set_timer(id, &mut op, at, Timer::Again);
        }
        self.ops.insert(id, Op::Get(op));
    }

    fn get_reply(&mut self, now: Instant, id: OpId) {
        let Some(mut op) = self.end_get(id) else { return };
        op.merged.settle_retries();
        let view = self.view(&op.merged, &op.key);
        self.counters.gets += 1;
        self.counters.siblings_returned += u64::from(view.values().nth(1).is_some());
        let replicas = op.tally.reports(now, ReplicaState::Waiting);
        self.reply(op.origin, Ok(Reply::Found { view, replicas }));
    }

    fn get_fail(&mut self, now: Instant, id: OpId, code: Code, late: ReplicaState) {
        let Some(op) = self.end_get(id) else { return };
        let replicas = op.tally.reports(now, late);
        let detail = match code {
            Code::MinimumUnmet => {
                "the owners that answered have not seen everything that the given context covers; try again, or read without it".into()
            }
            _ => op.tally.explain("answers", &replicas, &self.config.ring),
        };
        self.counters.quorum_failures += 1;
        self.reply(
            op.origin,
            Err(Failure {
                code,
                outcome: Outcome::NotApplied,
                detail,
                replicas,
            }),
        );
    }

    pub(super) fn get_deadline(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let seen = op.again_after > AGAIN_MIN || op.tally.verdict() == Verdict::Met;
        let code = if seen { Code::MinimumUnmet } else { Code::QuorumNotMet };
        self.get_fail(now, id, code, ReplicaState::TimedOut);
    }

    /// The first owners asked are slow: asks the others, and remembers who was slow.
    pub(super) fn get_hedge(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        op.timer = None;
        let owing: Vec<NodeIndex> = op.tally.owing().collect();
        owing.into_iter().for_each(|node| self.peers.keeps_waiting(node));
        self.counters.hedged += 1;
        self.get_ask(now, id, true);
        self.get_decide(now, id);
    }

    /// Another round for a minimum that was not met.
    pub(super) fn get_again(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        op.timer = None;
        op.tally.reset();
        op.tally.ask(self.me);
        let key = op.key.clone();
        self.get_ask(now, id, true);
        self.with_slot(now, &key, Work::Read(id));
    }

    fn set_timer(&mut self, id: OpId, op: &mut GetOp, at: Instant, timer: Timer) {
        if let Some((at, timer)) = op.timer.replace((at, timer)) {
            self.timers.remove(&(at, id, timer));
        }
        self.timers.insert((at, id, timer));
    }

    fn end_get(&mut self, id: OpId) -> Option<Box<GetOp>> {
        let Some(Op::Get(op)) = self.ops.remove(&id) else {
            return None;
        };
        self.timers.remove(&(op.deadline, id, Timer::Deadline));
        if let Some((at, timer)) = op.timer {
            self.timers.remove(&(at, id, timer));
        }
        Some(op)
    }
}
