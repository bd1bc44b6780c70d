//! What clients did and were told: the only thing that most checkers look at.
//!
//! The rule that makes a history honest, after Jepsen: a request whose end is not certain may have happened. A timeout, a lost reply, a node
//! that died: all of them are [`Ending::Unknown`], never [`Ending::NotApplied`]. Taking one for a failure would make
//! the checkers cry wolf, and taking one for a success would make them blind.
//!
//! A write is one client's intention: one request id with one payload. It may be sent many times; each time is an [`Attempt`]. What a
//! write *covers* are the writes whose values its client had been shown when it got the context that it sent. The contexts
//! themselves say nothing here: one that covers too much would excuse the loss that it causes.

use bytes::Bytes;
use quorate_core::bucket::{BucketProperties, Durability};
use quorate_core::context::Context;
use quorate_core::request::{Operation, QuorumKind, ReadOptions, RequestId, Value, WriteOptions};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Index into [`History::writes`].
pub(crate) type WriteIndex = usize;

/// How an attempt ended, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Acknowledged.
    Acked,
    /// Certainly not applied.
    NotApplied,
    /// Anything else.
    Unknown,
}

/// Answers that a request waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// All of them.
    pub(crate) all: u8,
    /// Of these, owners'.
    pub(crate) owners: u8,
    /// Of these, durable ones.
    pub(crate) durable: u8,
    /// Whether only owners count.
    pub(crate) strict: bool,
}

impl Need {
    fn of(kind: QuorumKind, asked: u8, owners: Option<u8>, durable: u8) -> Need {
        let all = asked.max(owners.unwrap_or(0)).max(durable);
        let owners = match kind {
            QuorumKind::Strict => all,
            QuorumKind::Sloppy => owners.unwrap_or(0),
        };
        Need {
            all,
            owners,
            durable,
            strict: kind == QuorumKind::Strict,
        }
    }

    /// What a read waits for.
    pub(crate) fn of_read(properties: &BucketProperties, options: &ReadOptions) -> Need {
        let r = options.r.or(properties.r).unwrap_or(properties.majority());
        let kind = options.quorum.unwrap_or(properties.quorum);
        Need::of(kind, r, options.pr.or(properties.pr), 0)
    }

    /// What a write waits for.
    pub(crate) fn of_write(properties: &BucketProperties, options: &WriteOptions) -> Need {
        let w = options.w.or(properties.w).unwrap_or(properties.majority());
        let kind = options.quorum.unwrap_or(properties.quorum);
        let named = options.dw.or(if options.w.is_some() { None } else { properties.dw });
        let durable = named.unwrap_or(match properties.durability {
            Durability::Durable => w,
            Durability::Relaxed => 0,
        });
        Need::of(kind, w, options.pw.or(properties.pw), durable)
    }
}

/// One time that a write was sent.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) start: u64,
    /// When the reply came; `None` if none did in time.
    pub(crate) end: Option<u64>,
    pub(crate) ending: Ending,
    /// Acks that it asked for.
    pub(crate) need: Need,
    /// Whether it said that it is a retry.
    pub(crate) retry: bool,
    /// Whether the node that got it has passed it on, perhaps more than once.
    pub(crate) forwarded: bool,
}

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: usize,
    pub(crate) request: RequestId,
    /// Hash of the payload, as the core computes it.
    pub(crate) payload: u64,
    /// `None` for a delete.
    pub(crate) value: Option<Value>,
    /// What its client had been shown.
    pub(crate) covers: Rc<[WriteIndex]>,
    /// Whether it had no context at all.
    pub(crate) blind: bool,
    pub(crate) attempts: Vec<Attempt>,
    /// What was sent, to be sent again.
    pub(crate) operation: Operation,
    /// Whether it has to be refused: a forged context, or an option that is not served.
    pub(crate) must_fail: bool,
}

/// How a write ended, all attempts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Acked,
    Failed,
    Unknown,
}

impl Write {
    pub(crate) fn fate(&self) -> Fate {
        if self.attempts.iter().any(|a| a.ending == Ending::Acked) {
            Fate::Acked
        } else if self.attempts.iter().all(|a| a.ending == Ending::NotApplied) {
            Fate::Failed
        } else {
            Fate::Unknown
        }
    }

    pub(crate) fn is_delete(&self) -> bool {
        self.value.is_none()
    }

    /// When it was sent first.
    pub(crate) fn start(&self) -> u64 {
        self.attempts.first().map_or(u64::MAX, |a| a.start)
    }

    /// When it was acknowledged first.
    pub(crate) fn acked_at(&self) -> Option<u64> {
        self.acks().map(|(at, _)| at).min()
    }

    /// When it was acknowledged, each time, and by how many owners at least.
    pub(crate) fn acks(&self) -> impl Iterator<Item = (u64, u8)> {
        self.attempts
            .iter()
            .filter(|a| a.ending == Ending::Acked)
            .filter_map(|a| a.end.map(|end| (end, a.need.owners)))
    }

    /// Whether it was acknowledged, or may yet be: a client waits two seconds at most.
    pub(crate) fn may_count(&self, now: u64) -> bool {
        let waits = |a: &Attempt| a.end.is_none() && now < a.start + 2_100_000;
        self.attempts.iter().any(|a| a.ending == Ending::Acked || waits(a))
    }

    /// From when on nothing of it can happen any more; `u64::MAX` if that is not known.
    pub(crate) fn over_at(&self) -> u64 {
        let over = |a: &Attempt| {
            if a.ending == Ending::Unknown {
                u64::MAX
            } else {
                a.end.unwrap_or(u64::MAX)
            }
        };
        self.attempts.iter().map(over).max().unwrap_or(u64::MAX)
    }
}

/// The least that a read must return.
#[derive(Clone, Debug, Default)]
pub(crate) struct Minimum {
    pub(crate) context: Context,
    pub(crate) shown: Rc<[WriteIndex]>,
}

/// One read that succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) key: usize,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Answers that it asked for.
    pub(crate) need: Need,
    /// The values it returned.
    pub(crate) values: Vec<WriteIndex>,
    /// The context that it returned.
    pub(crate) context: Context,
    /// The context that it gave as a minimum, and what that had shown.
    pub(crate) minimum: Option<Minimum>,
}

/// Everything that clients did.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    by_identity: BTreeMap<(u64, u64), WriteIndex>,
    by_value: BTreeMap<u64, WriteIndex>,
}

impl History {
    /// Notes a new write, not sent yet.
    pub(crate) fn begin(&mut self, write: Write) -> WriteIndex {
        let index = self.writes.len();
        self.by_identity.insert((write.request.unique, write.payload), index);
        if let Some(id) = write.value.as_ref().and_then(|v| value_id(&v.body)) {
            self.by_value.insert(id, index);
        }
        self.writes.push(write);
        index
    }

    /// The write that left a sibling with this request id and payload.
    pub(crate) fn by_identity(&self, request: &RequestId, payload: u64) -> Option<WriteIndex> {
        self.by_identity.get(&(request.unique, payload)).copied()
    }

    /// The write with this request id and payload.
    pub(crate) fn by_identity_of(&self, identity: (u64, u64)) -> Option<WriteIndex> {
        self.by_identity.get(&identity).copied()
    }

    /// The write of this value to this key; `None` if nobody wrote exactly this there.
    pub(crate) fn by_value(&self, key: usize, value: &Value) -> Option<WriteIndex> {
        let index = *self.by_value.get(&value_id(&value.body)?)?;
        let write = &self.writes[index];
        (write.key == key && write.value.as_ref() == Some(value)).then_some(index)
    }
}

/// A value that nobody else writes: its number, then bytes that follow from it.
pub(crate) fn make_value(id: u64, bytes: u32) -> Value {
    let filler = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let body: Vec<u8> = id
        .to_le_bytes()
        .into_iter()
        .chain(filler.into_iter().cycle())
        .take(bytes.max(8) as usize)
        .collect();
    Value {
        content_type: format!("sim/{}", id % 3),
        body: body.into(),
    }
}

fn value_id(body: &Bytes) -> Option<u64> {
    body.first_chunk::<8>().map(|id| u64::from_le_bytes(*id))
}
