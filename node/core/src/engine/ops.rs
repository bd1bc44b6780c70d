//! Operations under way, and how many bytes of values they hold in memory.
//!
//! Their number alone is no bound: sixteen thousand reads of a megabyte each would be sixteen gigabytes, asked for with a few
//! hundred kilobytes. So the bytes are counted too, and new requests are refused while there are too many.

use super::forward::ForwardOp;
use super::get::{GetOp, Look};
use super::put::{PutOp, TailOp};
use crate::key::Key;
use bytes::Bytes;
use quorate_ring::NodeIndex;
use std::collections::BTreeMap;

/// The engine's number for an operation. Also the id in the messages sent for it, so it starts at a random number: an answer to a former
/// process of this node must not be taken for an answer to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpId(pub(super) u64);

/// An operation under way.
pub(super) enum Op {
    Put(Box<PutOp>),
    Tail(Box<TailOp>),
    Get(Box<GetOp>),
    Forward(Box<ForwardOp>),
    Look(Look),
}

impl Op {
    /// Whether an answer of `node` is still to come.
    pub(super) fn waits_for(&self, node: NodeIndex) -> bool {
        match self {
            Op::Put(op) => op.tally.owes(node),
            Op::Tail(op) => op.tally.owes(node),
            Op::Get(op) => op.waits_for(node),
            Op::Forward(op) => op.waits_for(node),
            Op::Look(op) => op.node == node,
        }
    }

    /// The key that it is about.
    pub(super) fn key(&self) -> &Key {
        match self {
            Op::Put(op) => op.key(),
            Op::Tail(op) => &op.key,
            Op::Get(op) => op.key(),
            Op::Forward(op) => op.key(),
            Op::Look(op) => &op.key,
        }
    }

    /// Bytes of values that it holds.
    fn held(&self) -> usize {
        match self {
            Op::Put(op) => op.held,
            Op::Get(op) => op.held,
            Op::Forward(op) => op.held(),
            Op::Tail(_) | Op::Look(_) => 0,
        }
    }
}

/// All operations, by number. Invariant: `bytes` is the sum of what each holds.
#[derive(Default)]
pub(super) struct Ops {
    ops: BTreeMap<OpId, Op>,
    bytes: usize,
}

impl Ops {
    pub(super) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Bytes of values that all of them hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, id: &OpId) -> Option<&Op> {
        self.ops.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &OpId) -> Option<&mut Op> {
        self.ops.get_mut(id)
    }

    pub(super) fn insert(&mut self, id: OpId, op: Op) {
        self.bytes += op.held();
        let before = self.ops.insert(id, op);
        debug_assert!(before.is_none(), "an operation's number is not used twice at a time");
    }

    pub(super) fn remove(&mut self, id: &OpId) -> Option<Op> {
        let op = self.ops.remove(id)?;
        self.bytes -= op.held();
        Some(op)
    }

    /// Leaves of a write that was replied to what is still owed.
    pub(super) fn leave_tail(&mut self, id: OpId, record: Option<Bytes>) {
        if let Some(op) = self.ops.get_mut(&id)
            && let Op::Put(put) = op
        {
            self.bytes -= put.held;
            let tail = TailOp::of(put, record);
            *op = Op::Tail(Box::new(tail));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&OpId, &Op)> {
        self.ops.iter()
    }

    /// Notes that a read now holds so many bytes.
    pub(super) fn hold(&mut self, id: OpId, bytes: usize) {
        if let Some(Op::Get(op)) = self.ops.get_mut(&id) {
            self.bytes = self.bytes - op.held + bytes;
            op.held = bytes;
        }
    }
}
