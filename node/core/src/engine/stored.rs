//! What a node stores under a key: the record, and the local mark "this memory is mine".
//!
//! ```text
//! length of the mark u8 (0: none) ‖ postcard(actor) ‖ the record's canonical bytes          a record
//! 254 u8 ‖ the same                                                                         an incomplete one
//! 255 u8 ‖ wall clock u64 be ‖ the same as above                                            a hint
//! ```
//!
//! The mark never leaves the node. It says under which actor this vnode may go on counting for the key, and it is in the same bytes
//! as the record, so that the two cannot part: a record that is lost, rolled back or overwritten takes its mark with it.
//!
//! A hint is the record as a fallback keeps it for an owner, and says since when. An owner that keeps one for another owner keeps no record in
//! it: it is a *reference* to the record that this owner has itself, which only grows.
//!
//! An incomplete record is what this node has of one that it has lost (see [`heal`](super::heal)).
//!
//! Records are decoded only when somebody looks inside. Most reads by other coordinators compare a hash of the bytes and are done.

use super::settle::Want;
use crate::dot::Actor;
use crate::key::Key;
use crate::record::{MalformedRecord, Record};
use crate::tree;
use bytes::{Buf, Bytes};

/// The first byte of a hint. No mark is this long.
const HINT: u8 = u8::MAX;
/// The first byte of an incomplete record. No mark is this long.
const INCOMPLETE: u8 = 254;
/// The canonical bytes of the empty record. It is compared with several times for each write, so it is not encoded each time.
const NO_RECORD: &[u8] = &[1, 0, 0, 0, 0];

/// A record with its mark, as bytes and, once somebody looked, decoded. Invariant: `encoded` is canonical, and `decoded` is the same record.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    mark: Option<Actor>,
    encoded: Bytes,
    decoded: Option<Record>,
    /// What the record asked for before it was changed; `None` while it is as it was loaded.
    want: Option<Want>,
    /// When it became a hint, by the wall clock; `None` for what is none, and for a hint that is not there.
    since_ms: Option<u64>,
    /// There was more, which is lost.
    incomplete: bool,
}

/// Bytes on disk that are not what [`Stored::payload`] writes.
#[derive(Debug)]
pub(super) struct MalformedPayload;

impl Stored {
    /// Nothing stored yet.
    pub(super) fn empty() -> Stored {
        Stored {
            mark: None,
            encoded: Bytes::from_static(NO_RECORD),
            decoded: Some(Record::default()),
            want: None,
            since_ms: None,
            incomplete: false,
        }
    }

    /// Takes what storage returned.
    pub(super) fn parse(payload: Option<Bytes>) -> Result<Stored, MalformedPayload> {
        let Some(mut payload) = payload else {
            return Ok(Stored::empty());
        };
        let since_ms = hint_since(&payload);
        let incomplete = payload.first() == Some(&INCOMPLETE);
        if since_ms.is_some() {
            payload.advance(9);
        } else if incomplete {
            payload.advance(1);
        }
        let length = usize::from(*payload.first().ok_or(MalformedPayload)?);
        let mark = payload.get(1..=length).ok_or(MalformedPayload)?;
        let mark = match length {
            0 => None,
            _ => Some(postcard::from_bytes(mark).map_err(|_| MalformedPayload)?),
        };
        Ok(Stored {
            mark,
            encoded: payload.slice(length + 1..),
            decoded: None,
            want: None,
            since_ms,
            incomplete,
        })
    }

    /// What storage is to keep.
    pub(super) fn payload(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(30 + self.encoded.len());
        if let Some(since_ms) = self.since_ms {
            bytes.push(HINT);
            bytes.extend_from_slice(&since_ms.to_be_bytes());
        } else if self.incomplete {
            bytes.push(INCOMPLETE);
        }
        let at = bytes.len();
        bytes.push(0);
        if let Some(mark) = &self.mark {
            bytes = postcard::to_extend(mark, bytes).expect("a vector grows, and actors serialize");
            bytes[at] = (bytes.len() - 1 - at) as u8;
        }
        bytes.extend_from_slice(&self.encoded);
        bytes.into()
    }

    /// Whether it is as if nothing had ever been stored.
    pub(super) fn is_empty(&self) -> bool {
        !self.incomplete && self.mark.is_none() && self.since_ms.is_none() && self.has_no_record()
    }

    /// Whether the record is that of a key that was never written.
    pub(super) fn has_no_record(&self) -> bool {
        self.encoded == NO_RECORD
    }

    /// Since when it is a hint, by the wall clock in milliseconds.
    pub(super) fn since_ms(&self) -> Option<u64> {
        self.since_ms
    }

    /// The length of what storage is to keep, if it is a hint; 0 if it is none.
    pub(super) fn hint_bytes(&self) -> usize {
        let mut buffer = [0; 32];
        let mark = |mark: &Actor| postcard::to_slice(mark, &mut buffer).map_or(0, |bytes| bytes.len());
        self.since_ms
            .map_or(0, |_| 10 + self.mark.as_ref().map_or(0, mark) + self.encoded.len())
    }

    /// Makes it a hint, if it is none yet.
    pub(super) fn keep(&mut self, wall_ms: u64) {
        self.since_ms.get_or_insert(wall_ms);
    }

    /// Under which actor this vnode may go on counting, if the actor's life is still its own.
    pub(super) fn mark(&self) -> Option<Actor> {
        self.mark
    }

    /// The same, to be compared with later.
    pub(super) fn outline(&self) -> Stored {
        Stored {
            mark: self.mark,
            encoded: self.encoded.clone(),
            decoded: None,
            want: self.want,
            since_ms: self.since_ms,
            incomplete: self.incomplete,
        }
    }

    /// Whether something else is to be stored for it than for `other`.
    pub(super) fn differs(&self, other: &Stored) -> bool {
        self.encoded != other.encoded
            || self.since_ms != other.since_ms
            || self.mark != other.mark
            || self.incomplete != other.incomplete
    }

    /// Whether there was more, which is lost.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// What was here is lost.
    pub(super) fn lose(&mut self) {
        *self = Stored {
            incomplete: true,
            ..Stored::empty()
        };
    }

    /// What was lost is here again.
    pub(super) fn complete(&mut self) {
        self.incomplete = false;
    }

    /// The record's part in the hash of its leaf; zero for no record. That of an incomplete one is like no record's.
    pub(super) fn leaf_entry(&self, key: &Key) -> u64 {
        let entry = tree::entry_of(key, &self.encoded, self.has_no_record());
        match self.incomplete {
            true => entry.wrapping_add(u64::from_le_bytes(*b"scarred!")),
            false => entry,
        }
    }

    /// The record's canonical bytes.
    pub(super) fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The record.
    pub(super) fn record(&mut self) -> Result<&Record, MalformedRecord> {
        let record = match self.decoded.take() {
            Some(record) => record,
            None => Record::decode(&self.encoded)?,
        };
        Ok(self.decoded.insert(record))
    }

    /// Changes the record, and the mark with it.
    pub(super) fn replace(&mut self, record: Record, mark: Option<Actor>) {
        self.note_want();
        self.encoded = record.encode();
        self.decoded = Some(record);
        self.mark = mark;
    }

    /// Merges a record that another node sent. Returns whether anything changed.
    pub(super) fn merge(&mut self, encoded: &Bytes) -> Result<bool, MalformedRecord> {
        if *encoded == self.encoded {
            return Ok(false);
        }
        let incoming = Record::decode(encoded)?;
        let mut merged = self.record()?.clone();
        self.note_want();
        merged.merge(&incoming);
        merged.settle_retries();
        let before = std::mem::replace(&mut self.encoded, merged.encode());
        self.decoded = Some(merged);
        Ok(before != self.encoded)
    }

    /// What the record asks for now, and what it asked for when this was last asked, or when it was loaded.
    pub(super) fn wants(&mut self) -> (Want, Want) {
        let now = self.record().map_or(Want::Nothing, Want::of);
        let before = self.want.replace(now).unwrap_or(now);
        (before, now)
    }

    /// Takes note of what the record asks for before it is changed for the first time.
    fn note_want(&mut self) {
        if self.want.is_none() {
            self.want = Some(self.record().map_or(Want::Nothing, Want::of));
        }
    }
}

/// Since when a payload is a hint, in milliseconds since 1970; `None` if it is none.
pub(super) fn hint_since(payload: &[u8]) -> Option<u64> {
    let (&first, rest) = payload.split_first()?;
    let since = rest.first_chunk().filter(|_| first == HINT)?;
    Some(u64::from_be_bytes(*since))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_record_is_what_the_empty_record_encodes_to() {
        assert_eq!(Record::default().encode(), NO_RECORD);
        let mut stored = Stored::empty();
        assert!(stored.record().unwrap().is_empty() && stored.has_no_record());
    }

    #[test]
    fn the_mark_survives_storage_and_is_not_in_the_record() {
        let mut stored = Stored::empty();
        let mark = Some(Actor {
            life: u64::MAX,
            epoch: u64::MAX,
        });
        stored.replace(Record::default(), mark);
        let again = Stored::parse(Some(stored.payload())).unwrap();
        assert_eq!(again.mark(), mark);
        assert_eq!(again.encoded(), Stored::empty().encoded());
    }

    #[test]
    fn a_hint_keeps_the_time_at_which_it_was_made_and_a_reference_holds_no_record() {
        let mut stored = Stored::empty();
        assert!(stored.is_empty());
        stored.keep(7);
        stored.keep(8);
        assert!(!stored.is_empty() && stored.has_no_record());
        let payload = stored.payload();
        assert_eq!(hint_since(&payload), Some(7));
        assert_eq!(hint_since(&Stored::empty().payload()), None);
        let mut again = Stored::parse(Some(payload)).unwrap();
        assert_eq!(again.since_ms(), Some(7));
        let mark = Some(Actor { life: 1, epoch: 2 });
        again.replace(Record::default(), mark);
        let again = Stored::parse(Some(again.payload())).unwrap();
        assert_eq!((again.since_ms(), again.mark()), (Some(7), mark));
        assert_eq!(again.hint_bytes(), again.payload().len());
        assert_eq!(Stored::empty().hint_bytes(), 0);
    }

    #[test]
    fn an_incomplete_record_is_one_after_storage_too_and_its_entry_is_another() {
        let key = Key::new(b"bucket", b"key", None).unwrap();
        let mut stored = Stored::empty();
        let whole = stored.leaf_entry(&key);
        assert_eq!(whole, 0);
        stored.lose();
        assert!(!stored.is_empty());
        stored.replace(Record::default(), Some(Actor { life: 1, epoch: 300 }));
        let mut again = Stored::parse(Some(stored.payload())).unwrap();
        assert!(again.is_incomplete());
        assert_eq!(again.mark(), stored.mark());
        assert_ne!(again.leaf_entry(&key), whole);
        again.complete();
        assert_eq!(again.leaf_entry(&key), whole);
        assert!(!Stored::parse(Some(again.payload())).unwrap().is_incomplete());
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(mut stored) = Stored::parse(Some(bytes.into())) {
                let _ = stored.record();
            }
        }
    }
}
