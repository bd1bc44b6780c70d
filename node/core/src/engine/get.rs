//! Coordinating a read.
//!
//! ```text
//! local record ──► ask other owners, with the hash of what we have ──► enough answers ──► minimum covered? ──► durable enough? ──► replied
//!                         │                                                │                  │                    │
//!                         └── slow or gone: ask the others too             └── quorum lost    └── ask all again    └── written back
//! ```
//!
//! The coordinator is an owner, and its own record is one of the answers. The others say "the same" where their hash agrees, so a value
//! travels only where replicas differ. All answers are of synced records from distinct owners, so with R + W > N a read sees every
//! acknowledged write (promise P7). A strict read also waits until no later one can see less ([`write_back`]). Owners that are found behind
//! and that nobody waits for are repaired in the background ([`repair`](super::repair)). Dynamo paper, section 4.5.

mod answers;
mod ask;
mod look;
mod write_back;

use super::rules::read_quorum;
use super::tally::{Tally, Verdict};
use super::{Engine, Op, OpId, Origin, Timer, Work, refused};
use crate::context::Context;
use crate::key::Key;
use crate::message::{Held, Refusal};
use crate::record::Record;
use crate::request::{Code, Failure, Operation, Outcome, ReplicaState, Reply};
use crate::time::Instant;
use answers::Answers;
use ask::Whom;
use bytes::Bytes;
use look::Kept;
pub(super) use look::Look;
use quorate_ring::NodeIndex;
use std::time::Duration;
use write_back::WriteBack;

/// First and longest pause before a read asks again for a minimum that it has not seen.
const AGAIN_MIN: Duration = Duration::from_millis(5);
const AGAIN_MAX: Duration = Duration::from_millis(200);

const UNMET: &str =
    "the owners that answered have not seen everything that the given context covers; try again, or read without it";

/// A read under way.
pub(super) struct GetOp {
    origin: Origin,
    key: Key,
    minimum: Option<Context>,
    deadline: Instant,
    /// The timer beside the deadline: a hedge, or another round.
    timer: Option<(Instant, Timer)>,
    again_after: Duration,
    /// Whether it has stopped waiting for those who were asked first.
    hedged: bool,
    tally: Tally,
    /// Of a strict read: owners that have to hold what it returns.
    copies: Option<u8>,
    /// Hash of the coordinator's own record when it first answered: what the others compare theirs with, in every round, so that an answer
    /// "the same" means one thing whenever it comes.
    told: Option<u64>,
    answers: Answers,
    /// What is known of hints of the key.
    kept: Kept,
    /// All that was answered, merged.
    merged: Record,
    /// While what was found is being made durable.
    write_back: Option<WriteBack>,
    /// Bytes of the values in it.
    pub(super) held: usize,
}

impl GetOp {
    /// What it is about.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether an answer of `node` is still to come.
    pub(super) fn waits_for(&self, node: NodeIndex) -> bool {
        self.tally.owes(node) || self.write_back.as_ref().is_some_and(|w| w.waits_for(node))
    }

    /// Whether every owner has answered and all hold just this. If no hint is kept, either, a minimum that is not covered names history that is
    /// settled: what was deleted is dropped one day with all that was known of it, and so are actors that write no more.
    fn do_owners_agree(&self) -> bool {
        self.tally.is_complete() && {
            let hash = Record::hash_encoded(&self.merged.encode());
            self.answers.compare(hash).all(|(_, holds)| holds)
        }
    }

    /// An owner holds the same as it was told.
    fn same(&mut self, from: NodeIndex) -> ReplicaState {
        match self.told {
            Some(told) => {
                if self.tally.stands_for(from).is_none() {
                    self.answers.note(from, told);
                }
                ReplicaState::SameDigest
            }
            // The same as what? It was not told a hash.
            None => ReplicaState::ReadFailed,
        }
    }

    /// An owner holds this.
    fn take(&mut self, from: NodeIndex, is_local: bool, bytes: &Bytes) -> ReplicaState {
        // The checksum held, so bytes that do not parse are a newer format, or a bug. The others may have an answer.
        let Ok(record) = Record::decode(bytes) else {
            return ReplicaState::ReadFailed;
        };
        let hash = Record::hash_encoded(bytes);
        if is_local {
            self.told.get_or_insert(hash);
        }
        match self.tally.stands_for(from) {
            None => self.answers.note(from, hash),
            // A fallback keeps what its owner missed, and mostly nothing. It is not behind.
            Some(_) if record.is_empty() => {}
            Some(_) => self.answers.compare_with(hash),
        }
        match self.merged.is_empty() {
            true => self.merged = record,
            false => self.merged.merge(&record),
        }
        ReplicaState::Acked
    }
}

impl Engine {
    /// Begins a read, as an owner of the key or as a fallback for the owner `home`.
    pub(super) fn start_get(
        &mut self,
        now: Instant,
        origin: Origin,
        operation: Operation,
        deadline: Instant,
        home: Option<NodeIndex>,
    ) {
        match self.check_get(now, origin, operation, deadline) {
            Ok(mut op) => {
                let (id, place) = (self.new_op(), self.place_of(&op.key, home));
                match home {
                    Some(home) => op.tally.stand_in(self.me, home),
                    None => op.tally.ask(self.me),
                }
                self.timers.insert((deadline, id, Timer::Deadline));
                let hedge_at = now + self.patience(&op.key);
                self.set_timer(id, &mut op, hedge_at, Timer::Hedge);
                self.ops.insert(id, Op::Get(Box::new(op)));
                self.with_place(now, place, Work::Read(id));
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
        let properties = self.config.buckets.of(key.bucket());
        let asked = read_quorum(properties, &options)?;
        let minimum = self.open(minimum.as_deref(), &key)?.map(|seen| seen.context);
        let owners = self.owners(&key);
        let (quorum, copies) = write_back::quorum(asked, owners.len());
        let tally = Tally::new(quorum, owners, now);
        self.check_available("answers", &key, &tally)
            .map_err(|failure| write_back::explain_need(failure, asked.need, copies))?;
        let again_after = AGAIN_MIN;
        Ok(GetOp {
            origin,
            key,
            minimum,
            deadline,
            timer: None,
            again_after,
            hedged: false,
            tally,
            copies,
            told: None,
            answers: Answers::none(),
            kept: Kept::Unknown,
            merged: Record::default(),
            write_back: None,
            held: 0,
        })
    }

    /// An owner has answered, or refused to.
    pub(super) fn get_answer(&mut self, now: Instant, id: OpId, from: NodeIndex, result: Result<Held, Refusal>) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        if op.write_back.is_some() {
            return self.late_answer(now, id, from, result);
        }
        if !op.tally.owes(from) {
            return;
        }
        let state = match result {
            Err(refusal) => refused(refusal),
            Ok(Held::Same) => op.same(from),
            Ok(Held::Record(bytes)) => op.take(from, from == self.me, &bytes),
        };
        op.tally.settle(now, from, state);
        // "The same" and refusals bring nothing to hold.
        if state == ReplicaState::Acked {
            let held = op.merged.value_bytes();
            self.ops.hold(id, held);
        }
        self.get_ask(now, id, Whom::Needed);
        self.get_decide(now, id);
    }

    /// The connection to an owner is gone.
    pub(super) fn get_lost(&mut self, now: Instant, id: OpId, node: NodeIndex) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        if op.write_back.is_some() {
            return self.write_back_answer(now, id, node, ReplicaState::Lost);
        }
        if op.tally.settle(now, node, ReplicaState::Lost) {
            self.get_ask(now, id, Whom::Needed);
            self.get_decide(now, id);
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

    /// Enough owners answered. Goes on with what they have, unless the client wants to see more.
    fn get_met(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let seen = op.merged.context();
        if op.minimum.as_ref().is_none_or(|minimum| seen.covers(minimum)) {
            return self.get_found(now, id);
        }
        if op.do_owners_agree() {
            if matches!(op.kept, Kept::Nothing) || self.fallbacks_are_none(id) {
                return self.get_found(now, id);
            }
            self.look_for_hints(id);
        }
        self.get_ask(now, id, Whom::All);
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

    /// What was found is enough for the client.
    fn get_found(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        // As replicas do after merging. What is returned is what is compared, written back and repaired.
        let has_changed = op.merged.settle_retries();
        match op.answers.agree() && !has_changed {
            true => self.get_reply(now, id),
            false => self.get_differing(now, id),
        }
    }

    fn get_reply(&mut self, now: Instant, id: OpId) {
        let Some(op) = self.end_get(id) else { return };
        let view = self.view(&op.merged, &op.key);
        self.counters.gets += 1;
        self.counters.siblings_returned += u64::from(view.values().nth(1).is_some());
        let replicas = op.tally.reports(now, ReplicaState::Waiting);
        self.reply(op.origin, Ok(Reply::Found { view, replicas }));
    }

    fn get_fail(&mut self, now: Instant, id: OpId, code: Code, late: ReplicaState) {
        let Some(op) = self.end_get(id) else { return };
        let (replicas, detail) = match &op.write_back {
            Some(write_back) => self.explain_write_back(now, write_back, late),
            None => {
                let replicas = op.tally.reports(now, late);
                let detail = match code {
                    Code::MinimumUnmet => UNMET.into(),
                    _ => op.tally.explain("answers", &replicas, &self.config.ring),
                };
                (replicas, detail)
            }
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
        let is_unmet = op.again_after > AGAIN_MIN || op.tally.verdict() == Verdict::Met;
        let code = match is_unmet && op.write_back.is_none() {
            true => Code::MinimumUnmet,
            false => Code::QuorumNotMet,
        };
        self.get_fail(now, id, code, ReplicaState::TimedOut);
    }

    /// Another round for a minimum that was not met.
    pub(super) fn get_again(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        op.timer = None;
        self.end_looks(id);
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let home = op.tally.stands_for(self.me);
        op.tally.reset();
        match home {
            Some(home) => op.tally.stand_in(self.me, home),
            None => op.tally.ask(self.me),
        }
        let key = op.key.clone();
        self.get_ask(now, id, Whom::All);
        self.with_place(now, self.place_of(&key, home), Work::Read(id));
    }

    fn set_timer(&mut self, id: OpId, op: &mut GetOp, at: Instant, timer: Timer) {
        if let Some((at, timer)) = op.timer.replace((at, timer)) {
            self.timers.remove(&(at, id, timer));
        }
        self.timers.insert((at, id, timer));
    }

    fn end_get(&mut self, id: OpId) -> Option<Box<GetOp>> {
        self.end_looks(id);
        let Some(Op::Get(op)) = self.ops.remove(&id) else {
            return None;
        };
        self.timers.remove(&(op.deadline, id, Timer::Deadline));
        if let Some((at, timer)) = op.timer {
            self.timers.remove(&(at, id, timer));
        }
        for node in op
            .write_back
            .iter()
            .flat_map(WriteBack::owing)
            .filter(|&node| node != self.me)
        {
            self.pending.sent(node, id.0, &op.key);
        }
        Some(op)
    }
}
