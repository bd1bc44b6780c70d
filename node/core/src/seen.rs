//! What a client has been shown of a key, and so replaces when it writes.
//!
//! Dots say which *mintings* somebody has seen, and that is nearly all there is to say. But a write whose outcome was unknown may have been sent
//! again to another coordinator, and then it has two dots. The client was told one of them, the record may have kept the
//! other, and a context of dots alone would leave the client's own old value standing beside its new one. So beside the dots [`Seen`] names
//! the writes themselves: request id, payload and basis, the same for all dots of one write. Both lists of names, this one and the one
//! of overwritten writes in a [`Record`], are [`WriteIds`]: bounded, the newest stay, merging them is a join.
//!
//! A name is of use when its write has another copy, under another dot, that comes late: from behind a cut, say. Only a write that was sent more than
//! once can have one, and ids [say](RequestId::is_again) whether that may be. So there are two bounds, a small one for most writes, which
//! makes no record much larger, and one that is eight times as large for those. Each is kept as if the other names were not there, or a burst of the
//! ones would push out the others, and forgetting would not commute with merging.
//!
//! Rejected: keeping with each sibling the dots of all its retries. It makes the siblings themselves a thing to merge, and a
//! record that has not met the retry yet still would not know.

use crate::context::Context;
use crate::planted;
use crate::record::{Record, Sibling};
use crate::request::RequestId;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// How many names a list keeps of writes that were sent once, as far as their ids know.
pub const WRITE_IDS_MAX: usize = 8;

/// How many it keeps of writes that were, or may have been, sent [again](RequestId::is_again).
pub const WRITE_IDS_AGAIN_MAX: usize = 64;

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

    /// Whether both name the same write, and are kept under the same bound.
    fn is_twin_of(&self, other: &WriteId) -> bool {
        self.same(other) && self.request.is_again() == other.request.is_again()
    }

    /// Whether it is the write that left this sibling. Hashes the sibling's payload only if the rest is the same.
    pub fn names(&self, sibling: &Sibling) -> bool {
        self.request.same(&sibling.request)
            && self.basis == sibling.basis
            && self.payload == sibling.content.payload_hash()
    }
}

/// Names of writes. Of all that were put in the newest [`WRITE_IDS_MAX`] whose ids are of writes sent once, and the newest [`WRITE_IDS_AGAIN_MAX`] of the
/// others. Invariant: sorted, and each write once among the ones and once among the others, since its tries may differ in that.
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

    /// Adds names, and forgets the oldest beyond the bounds. Of two for one write under one bound the later stamp stays, so that forgetting
    /// commutes with merging.
    pub fn extend(&mut self, writes: impl IntoIterator<Item = WriteId>) {
        let known = |write: &WriteId| self.0.binary_search(write).is_ok();
        let new: Vec<WriteId> = writes.into_iter().filter(|write| !known(write)).collect();
        if new.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.0);
        all.extend(new);
        all.sort_unstable();
        let mut room = [bound(false), bound(true)];
        let mut kept: Vec<WriteId> = Vec::with_capacity(all.len());
        for write in all.into_iter().rev() {
            let room = &mut room[usize::from(write.request.is_again())];
            if *room > 0 && !kept.iter().any(|later| later.is_twin_of(&write)) {
                *room -= 1;
                kept.push(write);
            }
        }
        kept.reverse();
        self.0 = kept;
    }

    /// Whether the invariant holds; what came from outside is checked before it is believed.
    pub fn is_canonical(&self) -> bool {
        let twice = |(at, write): (usize, &WriteId)| self.0[at + 1..].iter().any(|w| w.is_twin_of(write));
        let again = self.0.iter().filter(|write| write.request.is_again()).count();
        again <= WRITE_IDS_AGAIN_MAX
            && self.0.len() - again <= WRITE_IDS_MAX
            && self.0.is_sorted_by(|a, b| a < b)
            && !self.0.iter().enumerate().any(twice)
    }
}

/// How many names are kept of writes that were sent again, or of the others.
fn bound(again: bool) -> usize {
    if again && !planted::is(25) {
        WRITE_IDS_AGAIN_MAX
    } else {
        WRITE_IDS_MAX
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestCaseError;

    fn any_ids() -> impl Strategy<Value = Vec<WriteId>> {
        let id = (0u64..30, 0u64..8, 0u64..2, 0u64..2).prop_map(|(stamp_ms, unique, payload, basis)| WriteId {
            request: RequestId { stamp_ms, unique },
            payload,
            basis,
        });
        prop::collection::vec(id, 0..20)
    }

    /// Ids of so many writes, with stamps of either kind.
    fn many_ids() -> impl Strategy<Value = Vec<WriteId>> {
        let id = (0u64..1000, 0u64..150).prop_map(|(stamp_ms, unique)| WriteId {
            request: RequestId { stamp_ms, unique },
            payload: 0,
            basis: 0,
        });
        prop::collection::vec(id, 0..200)
    }

    fn commutes(a: Vec<WriteId>, b: Vec<WriteId>, c: Vec<WriteId>) -> Result<(), TestCaseError> {
        let all: WriteIds = [&a[..], &b, &c].concat().into_iter().collect();
        prop_assert!(all.is_canonical());
        let mut in_turn: WriteIds = b.into_iter().collect();
        let other: WriteIds = a.into_iter().chain(c).collect();
        in_turn.extend(other.as_slice().iter().copied());
        prop_assert_eq!(in_turn, all);
        Ok(())
    }

    proptest! {
        #[test]
        fn forgetting_commutes_with_merging(a in any_ids(), b in any_ids(), c in any_ids()) {
            commutes(a, b, c)?;
        }

        #[test]
        fn and_does_when_both_bounds_are_passed(a in many_ids(), b in many_ids(), c in many_ids()) {
            commutes(a, b, c)?;
        }

        #[test]
        fn neither_kind_of_names_pushes_out_the_other(ids in many_ids()) {
            let both: WriteIds = ids.iter().copied().collect();
            for again in [false, true] {
                let kind = |write: &WriteId| write.request.is_again() == again;
                let alone: WriteIds = ids.iter().copied().filter(kind).collect();
                let kept: Vec<WriteId> = both.as_slice().iter().copied().filter(kind).collect();
                prop_assert_eq!(alone.as_slice(), &kept[..]);
            }
        }
    }

    #[test]
    fn the_largest_list_is_canonical_and_fits_a_context_many_times_over() {
        let id = |stamp_ms: u64| WriteId {
            request: RequestId {
                stamp_ms,
                unique: stamp_ms,
            },
            payload: u64::MAX,
            basis: u64::MAX,
        };
        let now = 1_800_000_000_000;
        let writes: WriteIds = (0..1000).map(|n| id(now + n)).collect();
        assert_eq!(writes.as_slice().len(), WRITE_IDS_MAX + WRITE_IDS_AGAIN_MAX);
        assert!(writes.is_canonical());
        let seen = Seen {
            context: Context::new(),
            writes,
        };
        assert!(postcard::to_stdvec(&seen).unwrap().len() < 16 * 1024 / 7);
    }
}
