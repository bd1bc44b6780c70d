//! Coordinating a write: a put or a delete.
//!
//! ```text
//! checked ──► waiting for the record ──► dot minted, record stored and sent to all owners ──► W acks ──► replied ──► tail
//!    │                   │                          │                                │
//!    └── not applied ◄───┘             away or slow: fallbacks         quorum lost or deadline: unknown
//! ```
//!
//! Until the dot is minted a failure is certain: nothing left this node. From then on the record is on its way to every owner, and
//! a failure can only say "unknown". [`send`] is about who gets the record, and [`tail`] about what is owed after the reply: an owner that has not
//! acknowledged gets a hint. Dynamo paper, sections 4.5 and 4.6.
//!
//! Request ids are looked up before minting: a retry of a write that is here already is only sent to the owners again.

mod pass_on;
mod send;
mod tail;

pub(super) use tail::TailOp;

use super::rules::{Refused, check_room, check_size, covered, disk_refuses, expires_ms, hints_full, write_quorum};
use super::stored::Stored;
use super::tally::Tally;
use super::{Engine, Op, OpId, Origin, Timer};
use crate::context::Context;
use crate::key::Key;
use crate::planted;
use crate::record::{Content, Known, Record, Sibling};
use crate::request::{Code, Failure, Operation, ReplicaState, View, WriteOptions};
use crate::seen::{Seen, WriteId};
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;

/// A write under way.
pub(super) struct PutOp {
    origin: Origin,
    key: Key,
    is_delete: bool,
    /// What to write; taken when it is written.
    content: Option<Content>,
    /// What the client has seen; `None` for a blind write.
    seen: Option<Seen>,
    /// What the request is, on each try of it.
    write: WriteId,
    retry: bool,
    options: WriteOptions,
    deadline: Instant,
    pub(super) tally: Tally,
    /// Whether acks wait for the disk even in a bucket where they do not have to.
    sync: bool,
    stage: Stage,
    /// Bytes of the value.
    pub(super) held: usize,
}

/// How far a write has come.
enum Stage {
    /// Nothing has left this node.
    Loading,
    /// Written here. Holds what the reply will say.
    Written { context: Bytes, view: Option<View> },
    /// On its way to the owners.
    Sent(Sent),
}

/// A write on its way.
struct Sent {
    /// What the reply will say.
    context: Bytes,
    view: Option<View>,
    /// What was sent, for fallbacks that are asked later.
    record: Bytes,
    /// Owners that have not acknowledged by then are slow.
    slow_at: Instant,
}

impl PutOp {
    /// What it is about.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

impl Engine {
    /// Begins a write, as an owner of the key or as a fallback for the owner `home`.
    pub(super) fn start_put(
        &mut self,
        now: Instant,
        origin: Origin,
        operation: Operation,
        deadline: Instant,
        home: Option<NodeIndex>,
    ) {
        match self.check_put(now, origin, operation, deadline) {
            Ok(mut op) => {
                let (id, place) = (self.new_op(), self.place_of(&op.key, home));
                if let Some(home) = home {
                    op.tally.stand_in(self.me, home);
                }
                self.timers.insert((deadline, id, Timer::Deadline));
                self.ops.insert(id, Op::Put(Box::new(op)));
                self.with_place(now, place, super::Work::Coordinate(id));
            }
            Err(failure) => self.refuse(origin, failure),
        }
    }

    /// Everything about a write that can be checked without the record.
    fn check_put(
        &self,
        now: Instant,
        origin: Origin,
        operation: Operation,
        deadline: Instant,
    ) -> Result<PutOp, Failure> {
        let (key, sealed, content, request, retry, options) = match operation {
            Operation::Put {
                key,
                context,
                value,
                request,
                retry,
                options,
            } => (key, context, Content::Value(value), request, retry, options),
            Operation::Delete {
                key,
                context,
                request,
                retry,
                options,
            } => (key, context, Content::Tombstone, request, retry, options),
            Operation::Get { .. } => unreachable!("start() sends reads elsewhere"),
        };
        let properties = self.config.buckets.of(key.bucket());
        let quorum = write_quorum(properties, &options)?;
        check_size(properties, &content)?;
        let seen = self.open(sealed.as_deref(), &key)?;
        if seen.is_none() && content.is_tombstone() {
            let detail = "a delete needs the context of what it deletes: read the key, and send back the context that comes with it";
            return Err(Failure::not_applied(Code::ContextRequired, detail));
        }
        let write = WriteId {
            request: if retry { request.again() } else { request },
            payload: content.payload_hash(),
            basis: seen.as_ref().map_or(0, Seen::basis),
        };
        let tally = Tally::new(quorum, self.owners(&key), now);
        self.check_available("acks", &key, &tally)?;
        Ok(PutOp {
            origin,
            key,
            is_delete: content.is_tombstone(),
            held: content.bytes(),
            content: Some(content),
            seen,
            write,
            retry,
            options,
            deadline,
            tally,
            sync: quorum.durable > 0,
            stage: Stage::Loading,
        })
    }

    /// The record is here: writes into it. Returns whether it is to be sent to the owners.
    pub(super) fn coordinate(&mut self, now: Instant, id: OpId, key: &Key, stored: &mut Stored) -> bool {
        // The deadline may have passed while the record was loading; then nothing is written, as the client was told.
        let Some(Op::Put(mut op)) = self.ops.remove(&id) else {
            return false;
        };
        // Owners may have gone while the record was loading, or the disk may have filled up. Up to here that is no harm.
        let is_full = op.tally.stands_for(self.me).is_some() && !self.has_room(key, op.held);
        self.counters.hints_refused += u64::from(is_full);
        let may_write = match self.gate.is_closed(now) {
            true => Err(disk_refuses()),
            false if is_full => Err(hints_full()),
            false => self.check_available("acks", key, &op.tally),
        };
        let written = match may_write {
            Ok(()) => self.write(&mut op, key, stored),
            Err(failure) => Err(Refused::Because(failure)),
        };
        match written {
            Ok(mut seen) => {
                let record = stored.record().expect("it was written a moment ago");
                if planted::is(4) {
                    seen = Seen::all_of(record);
                }
                let context = self.config.context_keys.seal(&seen, key);
                let view = op.options.return_representation.then(|| self.view(record, key));
                op.stage = Stage::Written { context, view };
                op.tally.ask(self.me);
                self.ops.insert(id, Op::Put(op));
                true
            }
            Err(Refused::Unreadable) => {
                self.ops.insert(id, Op::Put(op));
                self.cannot_coordinate(now, id);
                false
            }
            Err(Refused::Because(failure)) => {
                self.timers.remove(&(op.deadline, id, Timer::Deadline));
                self.refuse(op.origin, failure);
                false
            }
        }
    }

    /// Applies the write to the record, unless it is there already. Returns what the writer has seen then: the dots that it had, the
    /// new one, and its own write. (What it had seen before is known as overwritten, wherever its write is.)
    fn write(&mut self, op: &mut PutOp, key: &Key, stored: &mut Stored) -> Result<Seen, Refused> {
        let write = op.write;
        let mut context = op.seen.as_ref().map_or_else(Context::new, |seen| seen.context.clone());
        let properties = self.config.buckets.of(key.bucket());
        let record = stored.record()?;
        let content = op.content.take().expect("a write is coordinated once");
        match record.known(&write) {
            Known::Live(dot) => context.insert(dot),
            Known::Overwritten => {}
            Known::Reused => {
                let detail = "this idempotency key was used for another write under this key: another value, or the same one with another context; \
                     send a retry exactly as its first try, and use a new idempotency key for a new write";
                return Err(Refused::Because(Failure::not_applied(Code::IdempotencyReuse, detail)));
            }
            Known::New => {
                let covered = covered(properties, op.seen.as_ref(), op.retry, record, self.wall_ms)?;
                check_room(properties, record, &covered, &content)?;
                let partition = self.config.ring.partition_of(key.token());
                let dot = self.vnodes.mint(partition, stored)?;
                let mut record = stored.record()?.clone();
                let (request, basis) = (write.request, write.basis);
                let sibling = Sibling {
                    dot,
                    request,
                    basis,
                    expires_ms: expires_ms(properties, &content, self.wall_ms),
                    content,
                };
                record.write(&covered, sibling);
                stored.replace(record, Some(dot.actor));
                context.insert(dot);
            }
        }
        let writes = [write].into_iter().collect();
        Ok(Seen { context, writes })
    }

    pub(super) fn put_deadline(&mut self, now: Instant, id: OpId) {
        let Some(Op::Put(op)) = self.ops.get(&id) else { return };
        if !matches!(op.stage, Stage::Loading) {
            return self.put_fail(now, id, ReplicaState::TimedOut);
        }
        let detail = "this node's disk did not answer in time; nothing was written";
        let failure = Failure::not_applied(Code::DeadlineExceeded, detail);
        if let Some(op) = self.end_put(id) {
            self.refuse(op.origin, failure);
        }
    }

    /// Whether the local ack of a write waits for the disk even where it need not.
    pub(super) fn put_waits_for_sync(&self, id: OpId) -> bool {
        matches!(self.ops.get(&id), Some(Op::Put(op)) if op.sync)
    }

    fn end_put(&mut self, id: OpId) -> Option<Box<PutOp>> {
        let Some(Op::Put(op)) = self.ops.remove(&id) else {
            return None;
        };
        self.timers.remove(&(op.deadline, id, Timer::Deadline));
        self.forget_slow();
        Some(op)
    }

    /// The record as clients see it.
    pub(super) fn view(&self, record: &Record, key: &Key) -> View {
        // What has expired reads as deleted.
        let value = |sibling: &Sibling| match &sibling.content {
            Content::Value(value) if sibling.is_live(self.wall_ms) => Some(value.clone()),
            _ => None,
        };
        View {
            context: (!record.is_empty()).then(|| self.config.context_keys.seal(&Seen::all_of(record), key)),
            siblings: record.siblings().iter().map(value).collect(),
            live_hash: record.live_hash(),
        }
    }
}
