//! A coordinator that cannot read its own record.
//!
//! It does not know what it would overwrite, so it writes nothing. If a client of its own asked, another owner can do it instead: the request
//! is passed on as it came, once. A request that was passed on already is refused, or two nodes with bad disks would pass it to and fro.

use super::PutOp;
use crate::engine::{Engine, OpId, Origin};
use crate::record::Content;
use crate::request::{Code, Failure, Operation, ReplicaState};
use crate::time::Instant;

impl Engine {
    /// The local record cannot be read.
    pub(in crate::engine) fn cannot_coordinate(&mut self, now: Instant, id: OpId) {
        let Some(op) = self.end_put(id) else { return };
        if let Origin::Client(handle) = op.origin
            && self.owners(&op.key).iter().any(|&node| self.peers.is_up(node))
        {
            let (deadline, operation) = (op.deadline, self.as_it_came(*op));
            return self.start_forward(now, handle, operation, deadline);
        }
        let mut tally = op.tally;
        tally.settle(now, self.me, ReplicaState::ReadFailed);
        let detail = "this node could not read its disk, so it cannot coordinate the write; nothing was written, ask another node";
        let mut failure = Failure::not_applied(Code::Unavailable, detail);
        failure.replicas = tally.reports(now, ReplicaState::Waiting);
        self.refuse(op.origin, failure);
    }

    /// The request of a write that has not begun.
    fn as_it_came(&self, op: PutOp) -> Operation {
        let PutOp {
            key,
            seen,
            write,
            retry,
            options,
            ..
        } = op;
        let context = seen.map(|seen| self.config.context_keys.seal(&seen, &key));
        let request = write.request;
        match op.content.expect("what is to be written is taken when it is") {
            Content::Value(value) => Operation::Put {
                key,
                context,
                value,
                request,
                retry,
                options,
            },
            Content::Tombstone => Operation::Delete {
                key,
                context,
                request,
                retry,
                options,
            },
        }
    }
}
