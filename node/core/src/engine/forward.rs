//! Passing a request on: what a node does that is asked for a key that it does not own, or for a write that its disk would refuse.
//!
//! It goes to one connected owner, and the answer comes back the way it went. A second hop would let two nodes with different rings pass a
//! request to and fro.
//!
//! When the connection to that owner is lost, the request goes to another one, once to each: a write as a retry under its request id, so that it is
//! one write whatever became of the first try. A read goes to another owner, too, when the first keeps it waiting; whoever answers first is heard.
//!
//! So does a write, but only when nothing at all has been heard of the first one meanwhile: it is suspended, or cut off. The first try may still be
//! carried out when it wakes, and then two owners have minted a dot for one write, as when a client sends it again. Replicas see that by its
//! id and keep one (ADR 9). Until the first try is answered or its connection is gone it is *pending*, so that nothing that it could slip under
//! is settled. A blind write of a bucket that replaces is not sent on: a second try replaces nothing there. Rejected: to send on whatever waits for
//! long. An owner that is only slow has the write, and would be given more to do.

use super::{Engine, Op, OpId, Origin, RequestHandle, Timer};
use crate::bucket::BlindWrites;
use crate::key::Key;
use crate::message::{Forward, PeerMessage};
use crate::request::{Code, Failure, Operation, Outcome, ReplicaReport, ReplicaState, Response, Role};
use crate::time::Instant;
use quorate_ring::NodeIndex;

/// A request that another node is carrying out for a client of ours.
pub(super) struct ForwardOp {
    handle: RequestHandle,
    operation: Operation,
    /// Who has it and has not answered. Never empty.
    has_it: Vec<NodeIndex>,
    /// Who has, or had, it.
    tried: Vec<NodeIndex>,
    /// Why one of those who had it failed, while another still has it.
    failure: Option<Failure>,
    deadline: Instant,
    /// When it goes to one more owner, if those who have it keep it waiting.
    hedge_at: Option<Instant>,
}

impl ForwardOp {
    /// What it is about.
    pub(super) fn key(&self) -> &Key {
        self.operation.key()
    }

    /// Whether an answer of `node` is still to come.
    pub(super) fn waits_for(&self, node: NodeIndex) -> bool {
        self.has_it.contains(&node)
    }

    /// Bytes of the value that it holds.
    pub(super) fn held(&self) -> usize {
        match &self.operation {
            Operation::Put { value, .. } => value.body.len(),
            Operation::Get { .. } | Operation::Delete { .. } => 0,
        }
    }

    /// The failure as far as it is certain: a try before this one may have been carried out.
    fn certain(&self, mut failure: Failure) -> Failure {
        if self.operation.is_write() && self.tried.len() > 1 {
            failure.outcome = Outcome::Unknown;
        }
        failure
    }
}

impl Engine {
    pub(super) fn start_forward(
        &mut self,
        now: Instant,
        handle: RequestHandle,
        operation: Operation,
        deadline: Instant,
    ) {
        let owners = self.owners(operation.key()).to_vec();
        let ranked = self.peers.rank(owners.iter().copied());
        let Some(&to) = ranked.first() else {
            let down = |&node| ReplicaReport {
                node,
                role: Role::Primary,
                state: ReplicaState::Down,
                elapsed_us: 0,
            };
            let detail = if owners.contains(&self.me) {
                self.why_writes_are_left(now)
            } else {
                "this node does not own the key, and has no connection to a node that does"
            };
            let mut failure = Failure::not_applied(Code::Unavailable, detail);
            failure.replicas = owners.iter().map(down).collect();
            return self.refuse(Origin::Client(handle), failure);
        };
        let id = self.new_op();
        self.counters.forwarded += 1;
        self.timers.insert((deadline, id, Timer::Deadline));
        let hedge_at = self
            .may_go_twice(&operation)
            .then(|| now + self.config.limits.slow_after);
        let op = ForwardOp {
            handle,
            operation,
            has_it: Vec::with_capacity(1),
            tried: Vec::with_capacity(1),
            failure: None,
            deadline,
            hedge_at,
        };
        self.timers.extend(hedge_at.map(|at| (at, id, Timer::Hedge)));
        self.ops.insert(id, Op::Forward(Box::new(op)));
        self.forward_to(now, id, to);
    }

    /// Whether two owners may be carrying it out at once.
    fn may_go_twice(&self, operation: &Operation) -> bool {
        let replaces = self.config.buckets.of(operation.key().bucket()).blind_writes == BlindWrites::Replace;
        !(replaces && matches!(operation, Operation::Put { context: None, .. }))
    }

    fn forward_to(&mut self, now: Instant, id: OpId, to: NodeIndex) {
        let Some(Op::Forward(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let mut operation = op.operation.clone();
        if !op.tried.is_empty()
            && let Operation::Put { retry, .. } | Operation::Delete { retry, .. } = &mut operation
        {
            *retry = true;
        }
        op.has_it.push(to);
        op.tried.push(to);
        let timeout_us = u32::try_from(op.deadline.since(now).as_micros()).unwrap_or(u32::MAX);
        let id = id.0;
        self.send(
            to,
            PeerMessage::Forward(Forward {
                id,
                timeout_us,
                operation,
            }),
        );
    }

    /// The best owner that has not had the request.
    fn next_for(&mut self, id: OpId) -> Option<NodeIndex> {
        let Some(Op::Forward(op)) = self.ops.get(&id) else {
            return None;
        };
        let owners = self.owners(op.key()).iter().copied();
        let untried: Vec<NodeIndex> = owners.filter(|node| !op.tried.contains(node)).collect();
        self.peers.rank(untried.into_iter()).first().copied()
    }

    pub(super) fn forward_answer(&mut self, from: NodeIndex, id: OpId, response: Response) {
        let Some(Op::Forward(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let Some(at) = op.has_it.iter().position(|&node| node == from) else {
            return;
        };
        op.has_it.remove(at);
        match response {
            // Another one may do better.
            Err(failure) if !op.has_it.is_empty() && failure.code.retryable() => op.failure = Some(failure),
            response => {
                let response = response.map_err(|failure| op.certain(failure));
                let handle = op.handle;
                self.end_forward(id);
                self.reply(Origin::Client(handle), response);
            }
        }
    }

    pub(super) fn forward_lost(&mut self, now: Instant, id: OpId, node: NodeIndex) {
        let Some(Op::Forward(op)) = self.ops.get_mut(&id) else {
            return;
        };
        op.has_it.retain(|&has_it| has_it != node);
        if !op.has_it.is_empty() {
            return;
        }
        if let Some(next) = self.next_for(id) {
            return self.forward_to(now, id, next);
        }
        let name = &self.config.ring.member(node).name;
        let detail = format!("the connection to {name}, which had the request, was lost");
        self.fail_forward(id, Code::QuorumNotMet, detail, node, ReplicaState::Lost);
    }

    /// Whoever has it keeps it waiting: it goes to one more owner. A write only if they are silent.
    pub(super) fn forward_hedge(&mut self, now: Instant, id: OpId) {
        let next = self.next_for(id);
        let slow_after = self.config.limits.slow_after;
        let Some(Op::Forward(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let since = op
            .hedge_at
            .map_or(now, |at| Instant(at.0.saturating_sub(slow_after.as_micros() as u64)));
        op.hedge_at = next.map(|_| now + slow_after);
        self.timers.extend(op.hedge_at.map(|at| (at, id, Timer::Hedge)));
        let is_write = op.operation.is_write();
        if is_write && op.has_it.iter().any(|&node| self.peers.was_heard_since(node, since)) {
            return;
        }
        op.has_it.iter().for_each(|&node| self.peers.is_late(node));
        if let Some(next) = next {
            self.counters.hedged += u64::from(!is_write);
            self.forward_to(now, id, next);
        }
    }

    pub(super) fn forward_deadline(&mut self, id: OpId) {
        let Some(Op::Forward(op)) = self.ops.get(&id) else {
            return;
        };
        op.has_it.iter().for_each(|&to| self.peers.is_late(to));
        let Some(&to) = op.has_it.first() else { return };
        let detail = "the node that had the request gave no answer in time".to_string();
        self.fail_forward(id, Code::DeadlineExceeded, detail, to, ReplicaState::TimedOut);
    }

    /// Ends a request that nobody has any more, or in time.
    fn fail_forward(&mut self, id: OpId, code: Code, detail: String, node: NodeIndex, state: ReplicaState) {
        let Some(mut op) = self.end_forward(id) else { return };
        self.counters.quorum_failures += 1;
        let report = ReplicaReport {
            node,
            role: Role::Primary,
            state,
            elapsed_us: 0,
        };
        let failure = op.failure.take().unwrap_or_else(|| Failure {
            code,
            outcome: match op.operation.is_write() {
                true => Outcome::Unknown,
                false => Outcome::NotApplied,
            },
            detail,
            replicas: vec![report],
        });
        self.reply(Origin::Client(op.handle), Err(op.certain(failure)));
    }

    fn end_forward(&mut self, id: OpId) -> Option<Box<ForwardOp>> {
        let Some(Op::Forward(op)) = self.ops.remove(&id) else {
            return None;
        };
        if op.operation.is_write() {
            // Where it was not answered it may still arrive.
            op.has_it.iter().for_each(|&to| self.pending.sent(to, id.0, op.key()));
        }
        self.timers.remove(&(op.deadline, id, Timer::Deadline));
        if let Some(at) = op.hedge_at {
            self.timers.remove(&(at, id, Timer::Hedge));
        }
        Some(op)
    }
}
