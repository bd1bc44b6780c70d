//! What a client has been shown of a key, and so replaces when it writes.
//!
//! Dots say which *mintings* somebody has seen, and that is nearly all there is to say. But a write whose outcome was unknown may have been sent
//! again to another coordinator, and then it has two dots. The client was told one of them, the record may have kept the
//! other, and a context of dots alone would leave the client's own old value standing beside its new one. So beside the dots [`Seen`] names
//! the writes themselves: request id, payload and basis, the same for all dots of one write. Both lists of names, this one and the one
//! of overwritten writes in a [`Record`], are [`WriteIds`]: bounded, the newest stay, merging them is a join.
//!
//! Rejected: keeping with each sibling the dots of all its retries. It makes the siblings themselves a thing to merge, and a
//! record that has not met the retry yet still would not know.

use crate::context::Context;
use crate::record::{Record, Sibling};
use crate::request::RequestId;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// How many names a list of writes keeps.
pub const WRITE_IDS_MAX: usize = 8;

/// The name of a write, whatever its dots: the client's id for it, what it wrote, and what it built on. Ordered by age, oldest first.
///
/// All tries of one write come with the same context. If a second one came with a newer context, its dot could cover the
/// first one's, and replicas that settle the two in different orders would remove both. So that is another write: refused where it is
/// noticed, kept beside the first where it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriteId {
    /// The request's id; its stamp comes first in the order.
    pub request: RequestId,
    /// [`Content::payload_hash`](crate::record::Content::payload_hash) of what was written.
    #[serde(with = "postcard::fixint::le")]
    pub payload: u64,
    /// [`Seen::basis`] of what the client sent along; 0 for a blind write.
    #[serde(with = "postcard::fixint::le")]
    pub basis: u64,
}

impl WriteId {
    /// Whether both name the same write, whatever their stamps say.
    pub fn same(&self, other: &WriteId) -> bool {
        self.request.same(&other.request) && (self.payload, self.basis) == (other.payload, other.basis)
    }

    /// Whether it is the write that left this sibling. Hashes the sibling's payload only if the rest is the same.
    pub fn names(&self, sibling: &Sibling) -> bool {
        self.request.same(&sibling.request)
            && self.basis == sibling.basis
            && self.payload == sibling.content.payload_hash()
    }
}

/// Names of writes, the newest [`WRITE_IDS_MAX`] of all that were put in. Invariant: sorted, each write once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteIds(Vec<WriteId>);

impl WriteIds {
    /// Oldest first.
    pub fn as_slice(&self) -> &[WriteId] {
        &self.0
    }

    /// Whether the write that left this sibling is among them.
    pub fn name(&self, sibling: &Sibling) -> bool {
        self.0.iter().any(|write| write.names(sibling))
    }

    /// Adds names, and forgets the oldest beyond the bound. Of two for one write the later stamp stays, so that forgetting commutes
    /// with merging.
    pub fn extend(&mut self, writes: impl IntoIterator<Item = WriteId>) {
        let list = &mut self.0;
        list.extend(writes);
        list.sort_unstable();
        let mut at = 0;
        while at < list.len() {
            let write = list[at];
            if list[at + 1..].iter().any(|w| w.same(&write)) {
                list.remove(at);
            } else {
                at += 1;
            }
        }
        list.drain(..list.len().saturating_sub(WRITE_IDS_MAX));
    }

    /// Whether the invariant holds; what came from outside is checked before it is believed.
    pub fn is_canonical(&self) -> bool {
        let again = |(at, write): (usize, &WriteId)| self.0[at + 1..].iter().any(|w| w.same(write));
        self.0.len() <= WRITE_IDS_MAX && self.0.is_sorted_by(|a, b| a < b) && !self.0.iter().enumerate().any(again)
    }
}

impl FromIterator<WriteId> for WriteIds {
    fn from_iter<I: IntoIterator<Item = WriteId>>(writes: I) -> WriteIds {
        let mut list = WriteIds::default();
        list.extend(writes);
        list
    }
}

/// What a client has been shown. Clients carry it [sealed](crate::seal).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The dots.
    pub context: Context,
    /// The newest of the writes behind them.
    pub writes: WriteIds,
}

impl Seen {
    /// All of a record.
    pub fn all_of(record: &Record) -> Seen {
        Seen {
            context: record.context().clone(),
            writes: record.siblings().iter().map(Sibling::write_id).collect(),
        }
    }

    /// A hash of it, to tell whether two requests came with the same context. XXH3-64.
    pub fn basis(&self) -> u64 {
        let bytes = postcard::to_stdvec(self).expect("a vector grows, and contexts serialize");
        XxHash3_64::oneshot(&bytes)
    }

    /// Whether a write by somebody who has seen this replaces the sibling: a value that was seen, or any tombstone.
    pub fn replaces(&self, sibling: &Sibling) -> bool {
        sibling.content.is_tombstone() || self.context.contains(sibling.dot) || self.writes.name(sibling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_ids() -> impl Strategy<Value = Vec<WriteId>> {
        let id = (0u64..30, 0u64..8, 0u64..2, 0u64..2).prop_map(|(stamp_ms, unique, payload, basis)| WriteId {
            request: RequestId { stamp_ms, unique },
            payload,
            basis,
        });
        prop::collection::vec(id, 0..20)
    }

    proptest! {
        #[test]
        fn forgetting_commutes_with_merging(a in any_ids(), b in any_ids(), c in any_ids()) {
            let all: WriteIds = [&a[..], &b, &c].concat().into_iter().collect();
            prop_assert!(all.is_canonical());
            let mut in_turn: WriteIds = b.into_iter().collect();
            let other: WriteIds = a.into_iter().chain(c).collect();
            in_turn.extend(other.as_slice().iter().copied());
            prop_assert_eq!(in_turn, all);
        }
    }
}
