//! How a write ends, and what is still owed then.
//!
//! The reply leaves as soon as W nodes have acknowledged. What stays is a *tail*: who has not acknowledged yet, without the value. It
//! ends when all have, or when it is clear who will not soon: lost, refused, or slow. For each owner that is behind then, and for which no
//! fallback keeps a hint, this node keeps one itself, in strict and sloppy quorums alike: hints are no votes. A write that failed leaves the same
//! hints at once, since it may be somewhere and has to be everywhere or overwritten in the end.
//!
//! An ack that comes after the tail finds nobody waiting. The hint goes home all the same and changes nothing there.
//!
//! Rejected: hints for all owners that are down when the write is sent. An owner may be lost a moment later, and the hint it needs is found by
//! looking at who has acknowledged.

use super::{PutOp, Sent, Stage};
use crate::engine::tally::Tally;
use crate::engine::{Engine, Op, OpId, Timer};
use crate::key::Key;
use crate::request::{Code, Failure, Outcome, ReplicaState, Reply, Role};
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;

/// What a write that was replied to still owes.
pub(in crate::engine) struct TailOp {
    pub(in crate::engine) key: Key,
    pub(in crate::engine) tally: Tally,
    /// The record, if this node coordinated as a fallback: as such it keeps it once for each owner that is behind.
    record: Option<Bytes>,
}

impl TailOp {
    /// What is left of a write that was replied to.
    pub(in crate::engine) fn of(op: &mut PutOp, record: Option<Bytes>) -> TailOp {
        TailOp {
            key: op.key.clone(),
            tally: op.tally.take(),
            record,
        }
    }
}

impl PutOp {
    /// What has to be kept for owners that are behind: an owner refers to its own record, and a fallback has none.
    fn record_to_keep(&self, me: NodeIndex, sent: &Sent) -> Option<Bytes> {
        let is_fallback = self.tally.stands_for(me).is_some();
        is_fallback.then(|| sent.record.clone())
    }
}

impl Engine {
    pub(super) fn put_reply(&mut self, now: Instant, id: OpId) {
        let Some(Op::Put(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let Stage::Sent(sent) = std::mem::replace(&mut op.stage, Stage::Loading) else {
            return;
        };
        let record = op.record_to_keep(self.me, &sent);
        let Sent {
            context, view, slow_at, ..
        } = sent;
        let replicas = op.tally.reports(now, ReplicaState::Waiting);
        let is_ack = |state| matches!(state, ReplicaState::Acked | ReplicaState::Accepted);
        let of_fallbacks = replicas
            .iter()
            .filter(|report| report.role == Role::Fallback && is_ack(report.state));
        self.counters.fallback_acks += of_fallbacks.count() as u64;
        match op.is_delete {
            true => self.counters.deletes += 1,
            false => self.counters.puts += 1,
        }
        let (origin, deadline, is_over) = (op.origin, op.deadline, op.tally.is_settled() || slow_at <= now);
        self.timers.remove(&(deadline, id, Timer::Deadline));
        self.reply(
            origin,
            Ok(Reply::Written {
                context,
                view,
                replicas,
            }),
        );
        if !is_over {
            self.ops.leave_tail(id, record);
        } else if let Some(op) = self.end_put(id) {
            self.leave_hints(now, id, &op.key, &op.tally, record);
        }
    }

    /// Too few acks: what became of the write is unknown. `late` is how those are reported who have not answered.
    pub(super) fn put_fail(&mut self, now: Instant, id: OpId, late: ReplicaState) {
        let Some(op) = self.end_put(id) else { return };
        let replicas = op.tally.reports(now, late);
        let mut detail = op.tally.explain("acks", &replicas, &self.config.ring);
        detail
            .push_str("; the write may have been applied, so send it again under the same id or read before you go on");
        self.counters.quorum_failures += 1;
        self.reply(
            op.origin,
            Err(Failure {
                code: Code::QuorumNotMet,
                outcome: Outcome::Unknown,
                detail,
                replicas,
            }),
        );
        let record = match &op.stage {
            Stage::Sent(sent) => op.record_to_keep(self.me, sent),
            _ => None,
        };
        self.leave_hints(now, id, &op.key, &op.tally, record);
    }

    /// A node has answered, or will not answer any more, after the reply.
    pub(super) fn tail_answer(&mut self, now: Instant, id: OpId, from: NodeIndex, state: ReplicaState) {
        if let Some(Op::Tail(tail)) = self.ops.get_mut(&id)
            && tail.tally.settle(now, from, state)
            && tail.tally.is_settled()
        {
            self.end_tail(now, id);
        }
    }

    pub(in crate::engine) fn end_tail(&mut self, now: Instant, id: OpId) {
        if let Some(Op::Tail(tail)) = self.ops.remove(&id) {
            self.forget_slow();
            self.leave_hints(now, id, &tail.key, &tail.tally, tail.record);
        }
    }

    /// Keeps hints for the owners that are behind, and remembers who may still receive the write.
    fn leave_hints(&mut self, now: Instant, id: OpId, key: &Key, tally: &Tally, record: Option<Bytes>) {
        for node in tally.owing().filter(|&node| node != self.me) {
            self.pending.sent(node, id.0, key);
        }
        let behind: Vec<NodeIndex> = tally.behind().filter(|&node| node != self.me).collect();
        for owner in behind {
            self.keep_hint(now, key, owner, record.clone());
        }
    }
}
