//! Passing a request on: what a node does that is asked for a key that it does not own, or for a write that its disk would refuse.
//!
//! It goes to one connected owner, once, and the answer comes back the way it went. A second hop would let two nodes with different
//! rings pass a request to and fro; a second try at another owner is the client's to make, under the same request id.

use super::{Engine, Op, OpId, Origin, RequestHandle, Timer};
use crate::key::Key;
use crate::message::{Forward, PeerMessage};
use crate::request::{Code, Failure, Operation, Outcome, ReplicaReport, ReplicaState, Response, Role};
use crate::time::Instant;
use quorate_ring::NodeIndex;

/// A request that another node is carrying out for a client of ours.
pub(super) struct ForwardOp {
    handle: RequestHandle,
    key: Key,
    pub(super) to: NodeIndex,
    is_write: bool,
    deadline: Instant,
}

impl ForwardOp {
    /// What it is about.
    pub(super) fn key(&self) -> &Key {
        &self.key
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
        let is_write = operation.is_write();
        self.ops.insert(
            id,
            Op::Forward(ForwardOp {
                handle,
                key: operation.key().clone(),
                to,
                is_write,
                deadline,
            }),
        );
        let timeout_us = u32::try_from(deadline.since(now).as_micros()).unwrap_or(u32::MAX);
        self.send(
            to,
            PeerMessage::Forward(Forward {
                id: id.0,
                timeout_us,
                operation,
            }),
        );
    }

    pub(super) fn forward_answer(&mut self, from: NodeIndex, id: OpId, response: Response) {
        if let Some(Op::Forward(op)) = self.ops.get(&id)
            && op.to == from
        {
            let op = self.end_forward(id).expect("it was there a line ago");
            self.reply(Origin::Client(op.handle), response);
        }
    }

    pub(super) fn forward_lost(&mut self, id: OpId, node: NodeIndex) {
        let name = &self.config.ring.member(node).name;
        let detail = format!("the connection to {name}, which had the request, was lost");
        self.fail_forward(id, Code::QuorumNotMet, detail, ReplicaState::Lost);
    }

    pub(super) fn forward_deadline(&mut self, id: OpId) {
        if let Some(Op::Forward(op)) = self.ops.get(&id) {
            if op.is_write {
                // It may still arrive.
                self.pending.sent(op.to, id.0, &op.key);
            }
            self.peers.is_late(op.to);
        }
        let detail = "the node that had the request gave no answer in time".to_string();
        self.fail_forward(id, Code::DeadlineExceeded, detail, ReplicaState::TimedOut);
    }

    fn fail_forward(&mut self, id: OpId, code: Code, detail: String, state: ReplicaState) {
        let Some(op) = self.end_forward(id) else { return };
        self.counters.quorum_failures += 1;
        let outcome = if op.is_write {
            Outcome::Unknown
        } else {
            Outcome::NotApplied
        };
        let replicas = vec![ReplicaReport {
            node: op.to,
            role: Role::Primary,
            state,
            elapsed_us: 0,
        }];
        self.reply(
            Origin::Client(op.handle),
            Err(Failure {
                code,
                outcome,
                detail,
                replicas,
            }),
        );
    }

    fn end_forward(&mut self, id: OpId) -> Option<ForwardOp> {
        let Some(Op::Forward(op)) = self.ops.remove(&id) else {
            return None;
        };
        self.timers.remove(&(op.deadline, id, Timer::Deadline));
        Some(op)
    }
}
