//! Requests on their way: from a client to a node, and the history of it.

use super::clients::Chosen;
use super::event::Event;
use super::node::WALL_MS;
use super::{World, micros};
use crate::history::{Attempt, Ending, Minimum, Need, Read, Write, WriteIndex, make_value};
use crate::plan::{Step, Target};
use crate::probes::Probe;
use quorate_core::context::Context;
use quorate_core::engine::{Input, RequestHandle};
use quorate_core::record::Content;
use quorate_core::request::{Operation, RequestId, Value, WriteOptions};
use std::time::Duration;

/// What a request is, for the history.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// A write, and which of its attempts.
    Write { index: WriteIndex, attempt: usize },
    /// A read of so many answers, and what its minimum had shown.
    Read { need: Need, minimum: Option<Minimum> },
}

/// A request on its way.
pub(super) struct Pending {
    pub(super) client: usize,
    pub(super) node: usize,
    pub(super) key: usize,
    pub(super) start: u64,
    pub(super) timeout_us: u64,
    pub(super) what: What,
    pub(super) must_fail: bool,
    /// Sent, and not yet handed in.
    operation: Option<Operation>,
    /// When it was handed in, and to which process of the node.
    pub(super) handed_in: Option<(u64, u32)>,
    /// Replies that the engine gave.
    pub(super) replies: u32,
    /// Whether the client still waits.
    pub(super) waiting: bool,
    /// Whether it succeeded.
    pub(super) succeeded: bool,
}

/// A write that is about to begin.
pub(super) struct NewWrite {
    pub(super) client: usize,
    pub(super) key: usize,
    pub(super) chosen: Chosen,
    /// `None` for a delete.
    pub(super) value: Option<Value>,
    pub(super) request: RequestId,
    pub(super) options: WriteOptions,
    pub(super) must_fail: bool,
}

impl World {
    pub(super) fn new_value(&mut self, bytes: u32) -> Value {
        self.next_value += 1;
        make_value(self.next_value, bytes)
    }

    pub(super) fn new_request(&mut self, client: usize) -> RequestId {
        let plan = &self.plan.options.clients[client];
        let clock = WALL_MS + (self.now / 1000) as i64 + plan.skew_ms;
        let request = RequestId::new(clock as u64, self.client_rng.next());
        if plan.has_keys { request.again() } else { request }
    }

    /// Notes a write in the history. It is sent by [`World::send_write`].
    pub(super) fn begin_write(&mut self, new: NewWrite) -> WriteIndex {
        let NewWrite {
            client,
            key,
            chosen,
            value,
            request,
            options,
            must_fail,
        } = new;
        let (name, context) = (self.key_names[key].clone(), chosen.sealed.clone());
        let operation = match value.clone() {
            Some(value) => Operation::Put {
                key: name,
                context,
                value,
                request,
                retry: false,
                options,
            },
            None => Operation::Delete {
                key: name,
                context,
                request,
                retry: false,
                options,
            },
        };
        let index = self.history.begin(Write {
            key,
            request,
            payload: value.clone().map_or(Content::Tombstone, Content::Value).payload_hash(),
            value,
            covers: chosen.shown,
            blind: chosen.sealed.is_none(),
            attempts: Vec::new(),
            operation,
            must_fail,
        });
        self.clients[client].writes.push(index);
        index
    }

    /// Sends a write, for the first time or again.
    pub(super) fn send_write(&mut self, step: &Step, index: WriteIndex, is_retry: bool) -> u64 {
        let write = &self.history.writes[index];
        let (key, must_fail) = (write.key, write.must_fail);
        let mut operation = write.operation.clone();
        let need = match &mut operation {
            Operation::Put { retry, options, .. } | Operation::Delete { retry, options, .. } => {
                *retry = is_retry;
                Need::of_write(self.plan.options.properties(key), options)
            }
            Operation::Get { .. } => unreachable!("a write's operation is a put or a delete"),
        };
        let attempt = Attempt {
            start: self.now,
            end: None,
            ending: Ending::Unknown,
            need,
            retry: is_retry,
            forwarded: false,
        };
        let attempts = &mut self.history.writes[index].attempts;
        attempts.push(attempt);
        let what = What::Write {
            index,
            attempt: attempts.len() - 1,
        };
        self.ask(step, key, operation, what, must_fail)
    }

    /// Sends a request on its way to a node. Returns its handle.
    pub(super) fn ask(&mut self, step: &Step, key: usize, operation: Operation, what: What, must_fail: bool) -> u64 {
        let node = match step.target {
            Target::Node(node) => usize::from(node),
            Target::Owner(rank) => {
                let owners = self.truth.owners(key);
                owners[usize::from(rank) % owners.len()]
            }
        };
        let handle = self.pending.len() as u64;
        let timeout_us = micros(step.timeout_ms.into());
        let client = step.client;
        self.note(|| {
            format!(
                "client {client} asks node {node}, request {handle}: {}",
                super::log::operation(&operation)
            )
        });
        self.clients[usize::from(client)].waits_for += 1;
        self.pending.push(Pending {
            client: client.into(),
            node,
            key,
            start: self.now,
            timeout_us,
            what,
            must_fail,
            operation: Some(operation),
            handed_in: None,
            replies: 0,
            waiting: true,
            succeeded: false,
        });
        let delay = self.net.range(20, 500);
        self.queue.push(self.now + delay, Event::Request(handle));
        self.queue.push(self.now + timeout_us + 2_000, Event::GiveUp(handle));
        handle
    }

    /// The request has reached its node. If nobody is there, the client is left waiting: it cannot know.
    pub(super) fn request(&mut self, handle: u64) {
        let pending = &mut self.pending[handle as usize];
        let node = pending.node;
        let Some(operation) = pending.operation.take() else {
            return;
        };
        // A directory that was put back is to meet its peers before clients meet it: what is not promised is in the documentation.
        let is_put_back = self.nodes[node].is_put_back && !self.healed;
        if !self.nodes[node].is_running() || is_put_back {
            return;
        }
        pending.handed_in = Some((self.now, self.nodes[node].life()));
        let timeout = Duration::from_micros(pending.timeout_us);
        let what = pending.what.clone();
        if let What::Write { index, .. } = what {
            self.nodes[node].puts.insert(handle);
            self.count_duplicates(node, index);
        }
        let before = self.nodes[node].forwarded();
        self.feed(
            node,
            Input::Request {
                handle: RequestHandle(handle),
                operation,
                timeout,
            },
        );
        if let What::Write { index, attempt } = what {
            // Whoever passes a write on may pass it on again, to another owner.
            let node = &self.nodes[node];
            self.history.writes[index].attempts[attempt].forwarded = node.is_paused() || node.forwarded() != before;
        }
    }

    fn count_duplicates(&mut self, node: usize, index: WriteIndex) {
        let write = &self.history.writes[index];
        let Some(record) = self.truth.record(node, write.key).filter(|_| write.attempts.len() > 1) else {
            return;
        };
        let live = record.siblings().iter().any(|s| s.request.same(&write.request));
        let gone = record.overwritten().iter().any(|o| o.request.same(&write.request));
        self.probes.hit_if(live, Probe::DuplicateMetLive);
        self.probes.hit_if(gone, Probe::DuplicateMetOverwritten);
    }

    /// Notes what a successful read returned.
    pub(super) fn note_read(
        &mut self,
        handle: u64,
        values: Vec<WriteIndex>,
        context: Context,
        (need, minimum): (Need, Option<Minimum>),
    ) {
        let pending = &self.pending[handle as usize];
        let (key, start) = (pending.key, pending.start);
        self.history.reads.push(Read {
            key,
            start,
            end: self.now,
            need,
            values,
            context,
            minimum,
        });
    }
}
