//! The replica's side: merging and reading for other coordinators.
//!
//! Both answers wait until what they speak of is synced. Both are idempotent, so a coordinator, or a network that repeats
//! itself, may ask as often as it likes.

use super::Engine;
use super::slots::{Waiter, Work};
use super::stored::Stored;
use crate::key::Key;
use crate::message::{Fetch, FetchReply, Held, PeerMessage, RECORD_BYTES_MAX, Refusal, Replicate, ReplicateReply};
use crate::record::Record;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;

impl Engine {
    pub(super) fn replicate(&mut self, now: Instant, from: NodeIndex, message: Replicate) {
        let Replicate { id, key, record, sync } = message;
        match self.admit(&key) {
            Ok(()) => self.with_slot(now, &key, Work::Merge { from, id, record, sync }),
            Err(refusal) => {
                self.send(
                    from,
                    PeerMessage::ReplicateReply(ReplicateReply {
                        id,
                        result: Err(refusal),
                    }),
                );
            }
        }
    }

    pub(super) fn fetch(&mut self, now: Instant, from: NodeIndex, message: Fetch) {
        let Fetch { id, key, have } = message;
        match self.admit(&key) {
            Ok(()) => self.with_slot(now, &key, Work::Fetch { from, id, have }),
            Err(refusal) => self.send_held(from, id, Err(refusal)),
        }
    }

    /// Merges what another coordinator sent into the key, or what a read of this one found.
    pub(super) fn merge(&mut self, from: NodeIndex, id: u64, record: &Bytes, stored: &mut Stored) -> Waiter {
        self.counters.replicated += u64::from(from != self.me);
        Waiter::MergeAck(
            from,
            id,
            stored.merge(record).map(|_changed| ()).map_err(|_| Refusal::Malformed),
        )
    }

    /// The answer to another coordinator's read.
    pub(super) fn answer_fetch(&mut self, from: NodeIndex, id: u64, have: Option<u64>, stored: &Stored) -> Waiter {
        self.counters.fetched += 1;
        let same = have.is_some_and(|hash| hash == Record::hash_encoded(stored.encoded()));
        let held = if same {
            Ok(Held::Same)
        } else if stored.encoded().len() > RECORD_BYTES_MAX {
            Err(Refusal::Overloaded)
        } else {
            Ok(Held::Record(stored.encoded().clone()))
        };
        Waiter::FetchAnswer(from, id, held)
    }

    pub(super) fn send_held(&mut self, to: NodeIndex, id: u64, result: Result<Held, Refusal>) {
        self.send(to, PeerMessage::FetchReply(FetchReply { id, result }));
    }

    /// Whether this node takes part for the key.
    pub(super) fn admit(&self, key: &Key) -> Result<(), Refusal> {
        if !self.owners(key).contains(&self.me) {
            Err(Refusal::NotOwner)
        } else if self.slots.are_full(self.config.limits.slots_max) {
            Err(Refusal::Overloaded)
        } else {
            Ok(())
        }
    }
}
