//! Histories made by hand, for the checkers' own tests.

#![allow(clippy::unwrap_used)]

use super::{Facts, State};
use crate::history::{Attempt, Ending, History, Need, Read, Write, WriteIndex, make_value};
use crate::plan::{Options, Plan};
use crate::violation::{Promise, Violation};
use crate::world::truth::Identity;
use quorate_core::bucket::{BlindWrites, BucketProperties};
use quorate_core::context::Context;
use quorate_core::dot::{Actor, Dot};
use quorate_core::key::Key;
use quorate_core::record::{Content, Record, Sibling};
use quorate_core::request::{Operation, RequestId, WriteOptions};
use quorate_core::seen::Seen;
use std::collections::BTreeSet;

/// Two owners.
const TWO: Need = Need {
    all: 2,
    owners: 2,
    durable: 2,
    strict: true,
};

/// A history of one key with N=3, and what is left of it.
pub(crate) struct ByHand {
    /// Whether ids say from the first try on that a write may be sent again.
    pub(crate) has_keys: bool,
    /// Overwritten writes that some disk remembered as sent again.
    pub(crate) resent: BTreeSet<Identity>,
    pub(crate) options: Options,
    pub(crate) history: History,
    pub(crate) finals: Vec<Record>,
    pub(crate) stored: BTreeSet<Identity>,
    pub(crate) cut: BTreeSet<Identity>,
    pub(crate) taken_away: BTreeSet<Identity>,
    pub(crate) converged_at: u64,
    pub(crate) settled: bool,
}

impl ByHand {
    pub(crate) fn new() -> ByHand {
        let mut options = Plan::draw(0).options;
        options.buckets.truncate(1);
        options.buckets[0].properties = BucketProperties::default();
        options.keys.truncate(1);
        options.keys[0].bucket = 0;
        options.network.duplicate_pm = 0;
        (options.disk.read_error_pm, options.disk.refused_pm) = (0, 0);
        options.forgets = false;
        options.loses = false;
        ByHand {
            has_keys: false,
            resent: BTreeSet::new(),
            options,
            history: History::default(),
            finals: vec![Record::default()],
            stored: BTreeSet::new(),
            cut: BTreeSet::new(),
            taken_away: BTreeSet::new(),
            converged_at: u64::MAX,
            settled: false,
        }
    }

    pub(crate) fn blind_writes(mut self, policy: BlindWrites) -> ByHand {
        self.options.buckets[0].properties.blind_writes = policy;
        self
    }

    /// A put of W=2 from `start` to `start + 10` by a client that had been shown `covers`.
    pub(crate) fn put(&mut self, start: u64, ending: Ending, covers: &[WriteIndex]) -> WriteIndex {
        self.write(start, ending, covers, true)
    }

    /// A delete, likewise.
    pub(crate) fn delete(&mut self, start: u64, ending: Ending, covers: &[WriteIndex]) -> WriteIndex {
        self.write(start, ending, covers, false)
    }

    fn write(&mut self, start: u64, ending: Ending, covers: &[WriteIndex], is_put: bool) -> WriteIndex {
        let number = self.history.writes.len() as u64;
        let value = is_put.then(|| make_value(number, 16));
        let once = RequestId::new(2 * number, number);
        let request = if self.has_keys { once.again() } else { once };
        let payload = value.clone().map_or(Content::Tombstone, Content::Value).payload_hash();
        if ending != Ending::NotApplied {
            self.stored.insert((number, payload));
        }
        let operation = Operation::Delete {
            key: Key::new(b"b", b"k", None).unwrap(),
            context: None,
            request,
            retry: false,
            options: WriteOptions::default(),
        };
        let end = (ending != Ending::Unknown).then_some(start + 10);
        let write = Write {
            key: 0,
            request,
            payload,
            value,
            covers: covers.into(),
            blind: covers.is_empty(),
            attempts: vec![Attempt {
                start,
                end,
                ending,
                need: TWO,
                retry: false,
                forwarded: false,
            }],
            operation,
            must_fail: false,
        };
        self.history.begin(write)
    }

    /// A read of R=2 from `start` to `start + 10`.
    pub(crate) fn read(&mut self, start: u64, values: &[WriteIndex]) {
        let read = Read {
            key: 0,
            start,
            end: start + 10,
            need: TWO,
            values: values.to_vec(),
            context: Context::new(),
            minimum: None,
        };
        self.history.reads.push(read);
    }

    /// What an owner took along that went away for good.
    pub(crate) fn take_away(&mut self, writes: impl IntoIterator<Item = WriteIndex>) {
        let writes = writes.into_iter().map(|index| &self.history.writes[index]);
        self.taken_away.extend(writes.map(|w| (w.request.unique, w.payload)));
    }

    /// The writes that are live at the end.
    pub(crate) fn leave(&mut self, live: &[WriteIndex]) {
        for &index in live {
            let write = &self.history.writes[index];
            let content = write.value.clone().map_or(Content::Tombstone, Content::Value);
            let dot = Dot {
                actor: Actor {
                    life: index as u64 + 1,
                    epoch: 1,
                },
                counter: 1,
            };
            self.finals[0].write(
                &Seen::default(),
                Sibling {
                    dot,
                    request: write.request,
                    basis: 0,
                    content,
                    expires_ms: 0,
                },
            );
        }
    }

    /// What all checkers say.
    pub(crate) fn judge(&self) -> Vec<Violation> {
        super::all(&Facts {
            options: &self.options,
            history: &self.history,
            state: &State {
                at: u64::MAX,
                finals: self.finals.clone(),
                judged: self.history.writes.len(),
                resent: self.resent.clone(),
            },
            converged_at: self.converged_at,
            settled: vec![self.settled],
            stored: &self.stored,
            cut: &self.cut,
            cut_keys: &(0..self.cut.len().min(1)).collect(),
            taken_away: &self.taken_away,
        })
    }

    /// Which promises are broken.
    pub(crate) fn broken(&self) -> Vec<Promise> {
        self.judge().into_iter().map(|v| v.promise).collect()
    }
}
