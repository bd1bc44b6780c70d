//! Records: what is stored under one key, and how two of them become one.
//!
//! A record is a context and its siblings, each an explicit dot with a value or a tombstone. Three operations act on it:
//!
//! - [`Record::merge`] is the pure join. A sibling stays if both sides have it, or if one has it and the other's context does
//!   not cover its dot. It is associative, commutative and idempotent, and knows no id, limit or clock: any rule of that
//!   kind inside it breaks those laws, and replicas that meet in another order would then differ for ever.
//! - [`Record::settle_retries`] removes siblings that are retries of one another. A removal drops the sibling and keeps its dot in the
//!   context, so it only moves up in the join's order, and replicas that do it at different moments still converge.
//! - [`Record::write`] is what a coordinator does for a client. A sibling goes if the client has [`Seen`] its dot, or its write under
//!   another dot.
//!
//! Whole records are shipped, never a lone dot under a united context: the receiver would take the context as word for
//! siblings that it never got. Almeida et al. 2014, section 4 (`sync`, `discard`, `event`); Riak's dotted version vector sets.

use crate::context::Context;
use crate::dot::Dot;
use crate::planted;
use crate::request::{RequestId, Value};
use crate::seen::{Seen, WRITE_IDS_AGAIN_MAX, WRITE_IDS_MAX, WriteId, WriteIds};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// How many ids of overwritten writes a record remembers: the published window of idempotency, in overwritten writes of one key. This is for those
/// that were sent once, as far as their ids know.
pub const OVERWRITTEN_MAX: usize = WRITE_IDS_MAX;

/// The same for writes that were, or may have been, sent [again](RequestId::is_again): how far behind a copy of theirs may be that
/// another coordinator has made.
pub const OVERWRITTEN_AGAIN_MAX: usize = WRITE_IDS_AGAIN_MAX;

/// First byte of an encoded record. A new form of record gets a new number; `docs/wire.md` has the rule.
const RECORD_FORMAT: u8 = 1;

/// First byte of an encoded record in which a value expires. When each sibling expires follows behind what the other form has. A record in which
/// none does has the other form, so equal records still have equal bytes.
const EXPIRING_FORMAT: u8 = 2;

/// What a write left under the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A client's value.
    Value(Value),
    /// A delete.
    Tombstone,
}

impl Content {
    /// Hash of the payload, to tell a retry from a reused request id. XXH3-64.
    pub fn payload_hash(&self) -> u64 {
        match self {
            Content::Value(value) => {
                let seed = 1 + XxHash3_64::oneshot(value.content_type.as_bytes());
                XxHash3_64::oneshot_with_seed(seed, &value.body)
            }
            Content::Tombstone => 0,
        }
    }

    /// Bytes of the value, with its content type; none for a delete.
    pub fn bytes(&self) -> usize {
        match self {
            Content::Value(value) => value.body.len() + value.content_type.len(),
            Content::Tombstone => 0,
        }
    }

    /// Whether it is a delete.
    pub fn is_tombstone(&self) -> bool {
        matches!(self, Content::Tombstone)
    }
}

/// One write that no other has replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// The write's own dot.
    pub dot: Dot,
    /// The client's id for it, the same on each retry.
    pub request: RequestId,
    /// [`Seen::basis`] of what the client sent along, the same on each retry; 0 for a blind write.
    #[serde(with = "postcard::fixint::le")]
    pub basis: u64,
    /// What it left.
    pub content: Content,
    /// From when on it reads as deleted, in milliseconds since 1970; 0 for never. It belongs to the dot: two tries of one write may differ in
    /// it, and the one that stays keeps its own.
    #[serde(skip)]
    pub expires_ms: u64,
}

impl Sibling {
    /// Whether it reads as a value at this time of day.
    pub fn is_live(&self, wall_ms: u64) -> bool {
        !self.content.is_tombstone() && (self.expires_ms == 0 || wall_ms < self.expires_ms)
    }

    /// The name of the write.
    pub fn write_id(&self) -> WriteId {
        WriteId {
            request: self.request,
            payload: self.content.payload_hash(),
            basis: self.basis,
        }
    }
}

/// Everything stored under one key. Invariant: siblings are sorted by dot and their dots are in the context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    context: Context,
    siblings: Vec<Sibling>,
    overwritten: WriteIds,
}

/// What a record already knows of a request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: the write is new.
    New,
    /// The same write is a live sibling with this dot.
    Live(Dot),
    /// The same write was here and has been overwritten.
    Overwritten,
    /// The id was used for another write.
    Reused,
}

/// Bytes that are no record. The replica that holds them has no answer to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a record: {reason}")]
pub struct MalformedRecord {
    reason: &'static str,
}

impl Record {
    /// The dots that this record knows of.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Values and tombstones, by dot.
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// The names of overwritten writes, oldest first. They are kept so that a late retry does not bring a write back.
    pub fn overwritten(&self) -> &[WriteId] {
        self.overwritten.as_slice()
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.context.is_empty()
    }

    /// The values among the siblings.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.siblings.iter().filter_map(|sibling| match &sibling.content {
            Content::Value(value) => Some(value),
            Content::Tombstone => None,
        })
    }

    /// When nothing in it is live any more, in milliseconds since 1970: 0 if all of it is deleted, `None` if it holds a value that does not expire.
    pub fn ends_ms(&self) -> Option<u64> {
        let values = self.siblings.iter().filter(|s| !s.content.is_tombstone());
        let mut expire = values.map(|s| Some(s.expires_ms).filter(|&at| at > 0));
        expire.try_fold(0, |latest, at| at.map(|at| at.max(latest)))
    }

    /// The lives of which no sibling is live, in order: the context names them only to tell copies of what was overwritten.
    pub fn idle_lives(&self) -> Vec<u64> {
        let mut lives = self.context.lives();
        lives.retain(|&life| !self.siblings.iter().any(|s| s.dot.actor.life == life));
        lives
    }

    /// Drops lives from the context, but for those of which a sibling is live. Returns how many actors went. This is no removal and
    /// no merge: the context shrinks. Only for what is [proved](crate::engine) to be in no other copy.
    pub fn retire(&mut self, lives: &[u64]) -> usize {
        let mut idle = self.idle_lives();
        idle.retain(|life| lives.contains(life));
        let before = self.context.actors();
        self.context.retire(&idle);
        before - self.context.actors()
    }

    /// Bytes of all values, with their content types.
    pub fn value_bytes(&self) -> usize {
        self.siblings.iter().map(|s| s.content.bytes()).sum()
    }

    /// The pure join of two records.
    pub fn merge(&mut self, other: &Record) {
        let keeps = |context: &Context, dot| planted::is(5) || !context.contains(dot);
        self.siblings
            .retain(|s| other.holds(s.dot) || keeps(&other.context, s.dot));
        for sibling in &other.siblings {
            if let Err(at) = self.position(sibling.dot)
                && keeps(&self.context, sibling.dot)
            {
                self.siblings.insert(at, sibling.clone());
            }
        }
        if planted::is(20) {
            self.siblings.truncate(3);
        }
        self.context.join(&other.context);
        self.overwritten.extend(other.overwritten().iter().copied());
    }

    /// Removes siblings that are retries: of two with the same id, basis and payload the one with the larger dot, and any whose write
    /// was overwritten already. Returns whether anything went.
    pub fn settle_retries(&mut self) -> bool {
        if planted::is(18) {
            return false;
        }
        let before = self.siblings.len();
        let Record {
            siblings, overwritten, ..
        } = self;
        let mut at = 0;
        while at < siblings.len() {
            let (earlier, rest) = siblings.split_at(at);
            let this = &rest[0];
            let again =
                |e: &Sibling| e.request.same(&this.request) && e.basis == this.basis && e.content == this.content;
            let retried = earlier.iter().any(again) || overwritten.name(this);
            if retried {
                siblings.remove(at);
            } else {
                at += 1;
            }
        }
        before != self.siblings.len()
    }

    /// What this record knows of a write, looked up before a dot is minted for it.
    pub fn known(&self, write: &WriteId) -> Known {
        if planted::is(18) {
            return Known::New;
        }
        if let Some(live) = self.siblings.iter().find(|s| write.names(s)) {
            return Known::Live(live.dot);
        }
        if self.overwritten().iter().any(|gone| gone.same(write)) {
            return Known::Overwritten;
        }
        let live = self.siblings.iter().map(|s| &s.request);
        let gone = self.overwritten().iter().map(|w| &w.request);
        match live.chain(gone).any(|request| request.same(&write.request)) {
            true => Known::Reused,
            false => Known::New,
        }
    }

    /// Applies a client's write, under a fresh dot. What the client has `seen` goes, and so do all tombstones held here, since any
    /// write wins over a delete that it did not see (the delete's own coverage stays in the context). All that it has seen is known
    /// as overwritten from now on, held here or not. The caller has looked the request up with [`Record::known`], and checked limits against
    /// [`Record::left_by`].
    pub fn write(&mut self, seen: &Seen, sibling: Sibling) {
        let mut gone: Vec<WriteId> = seen.writes.as_slice().to_vec();
        self.siblings.retain(|s| {
            let stays = !seen.replaces(s);
            if !stays {
                gone.push(s.write_id());
            }
            stays
        });
        // A client that sends a write again may have seen it. It does not overwrite itself.
        let this = sibling.write_id();
        self.overwritten
            .extend(gone.into_iter().filter(|write| !write.same(&this)));
        self.context.join(&seen.context);
        self.context.insert(sibling.dot);
        let at = self
            .position(sibling.dot)
            .expect_err("a fresh dot is not among the siblings");
        self.siblings.insert(at, sibling);
        self.settle_retries();
    }

    /// The siblings that a write by somebody who has `seen` this would leave beside itself.
    pub fn left_by(&self, seen: &Seen) -> impl Iterator<Item = &Sibling> {
        self.siblings.iter().filter(move |s| !seen.replaces(s))
    }

    /// A hash of the live dots: the same for equal sets of siblings, whatever the contexts say. For ETags.
    pub fn live_hash(&self) -> u64 {
        let mut bytes = Vec::with_capacity(self.siblings.len() * 24);
        for Sibling { dot, .. } in &self.siblings {
            for part in [dot.actor.life, dot.actor.epoch, dot.counter] {
                bytes.extend_from_slice(&part.to_le_bytes());
            }
        }
        XxHash3_64::oneshot(&bytes)
    }

    /// The canonical bytes: equal records have equal bytes.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(96 + self.value_bytes());
        self.encode_into(&mut bytes);
        bytes.into()
    }

    /// Appends the canonical bytes to `bytes`.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        let expires = self.siblings.iter().any(|s| s.expires_ms > 0);
        bytes.push(if expires { EXPIRING_FORMAT } else { RECORD_FORMAT });
        let mut taken = std::mem::take(bytes);
        taken = postcard::to_extend(self, taken).expect("a vector grows, and records hold no unserializable type");
        if expires {
            let times: Vec<u64> = self.siblings.iter().map(|s| s.expires_ms).collect();
            taken = postcard::to_extend(&times, taken).expect("a vector grows, and numbers serialize");
        }
        *bytes = taken;
    }

    /// Reads canonical bytes, and checks the invariant: what comes from the wire or from disk may be anything.
    pub fn decode(bytes: &[u8]) -> Result<Record, MalformedRecord> {
        let refused = |reason| MalformedRecord { reason };
        let (&format, body) = bytes.split_first().ok_or(refused("empty"))?;
        if format != RECORD_FORMAT && format != EXPIRING_FORMAT {
            return Err(refused("its format is newer than this build; upgrade the node"));
        }
        let unparsed = |_| refused("it does not parse");
        let (mut record, mut rest): (Record, _) = postcard::take_from_bytes(body).map_err(unparsed)?;
        if format == EXPIRING_FORMAT {
            let (times, left): (Vec<u64>, _) = postcard::take_from_bytes(rest).map_err(unparsed)?;
            if times.len() != record.siblings.len() || times.iter().all(|&at| at == 0) {
                return Err(refused("it is not in canonical form"));
            }
            let siblings = record.siblings.iter_mut().zip(times);
            siblings.for_each(|(sibling, at)| sibling.expires_ms = at);
            rest = left;
        }
        if rest.is_empty() && record.is_canonical() {
            Ok(record)
        } else {
            Err(refused("it is not in canonical form"))
        }
    }

    /// The bytes of the context within canonical bytes, without a look at the rest; `None` if they do not start like a record.
    pub fn context_bytes(encoded: &[u8]) -> Option<&[u8]> {
        let (format, body) = encoded.split_first()?;
        if ![RECORD_FORMAT, EXPIRING_FORMAT].contains(format) {
            return None;
        }
        let (_, rest) = postcard::take_from_bytes::<Context>(body).ok()?;
        body.get(..body.len() - rest.len())
    }

    /// [`XxHash3_64`] of encoded bytes: how replicas compare records without shipping them.
    pub fn hash_encoded(encoded: &[u8]) -> u64 {
        XxHash3_64::oneshot(encoded)
    }

    fn holds(&self, dot: Dot) -> bool {
        self.position(dot).is_ok()
    }

    fn position(&self, dot: Dot) -> Result<usize, usize> {
        self.siblings.binary_search_by_key(&dot, |s| s.dot)
    }

    fn is_canonical(&self) -> bool {
        let is_sound = |s: &Sibling| s.dot.counter > 0 && self.context.contains(s.dot);
        self.siblings.is_sorted_by(|a, b| a.dot < b.dot)
            && self.siblings.iter().all(is_sound)
            && self.overwritten.is_canonical()
    }
}

#[cfg(test)]
mod tests;
