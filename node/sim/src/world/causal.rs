//! A second opinion on records: plain sets of dots, without vectors and without the core's own arithmetic.
//!
//! The history of a dot is the set of dots that its write's context named, written out one by one. Then a record is right if none of its siblings is
//! in the history of a dot that it knows, and every dot that it knows and does not hold is in the history of another one; or was a
//! tombstone, or a copy of a write that it knows otherwise, or had surely expired. This is held against each record on its way to a disk, as long as it knows
//! few dots: an error of the merge shows in the first record that has it, not in what is left after three hundred operations.

use super::log::unseal;
use super::truth::{Identity, identity};
use bytes::Bytes;
use quorate_core::context::Context;
use quorate_core::dot::Dot;
use quorate_core::record::{Record, Sibling};
use std::collections::{BTreeMap, BTreeSet};

/// Dots that a record may know to be checked in this way.
const DOTS_MAX: u64 = 24;

/// So long after its time a value has expired by every node's clock, as the core sees it.
const SURELY_MS: u64 = 60_000;

/// What is known of a dot.
struct Known {
    made: Identity,
    tombstone: bool,
    expires_ms: u64,
    history: BTreeSet<Dot>,
}

impl Known {
    /// A write replaces what has surely expired, as it replaces deletes, though its client has not seen it.
    fn has_expired(&self, wall_ms: u64) -> bool {
        self.expires_ms > 0 && self.expires_ms.saturating_add(SURELY_MS) <= wall_ms
    }
}

/// Everything minted so far.
#[derive(Default)]
pub(super) struct Causal {
    dots: BTreeMap<(usize, Dot), Known>,
}

impl Causal {
    /// A dot is seen for the first time, made by a write with this context.
    pub(super) fn mint(&mut self, key: usize, sibling: &Sibling, sealed: Option<&Bytes>) {
        let history = sealed
            .and_then(|sealed| unseal(sealed))
            .and_then(|seen| written_out(&seen.context))
            .unwrap_or_default();
        self.dots.insert(
            (key, sibling.dot),
            Known {
                made: identity(sibling),
                tombstone: sibling.content.is_tombstone(),
                expires_ms: sibling.expires_ms,
                history,
            },
        );
    }

    /// What is wrong with a record, if anything. `replaces`: blind writes of its bucket take away what they find. `wall_ms`: the latest time by any
    /// node's clock.
    pub(super) fn judge(&self, key: usize, record: &Record, replaces: bool, wall_ms: u64) -> Option<String> {
        let all = written_out(record.context())?;
        let known = |dot: &Dot| self.dots.get(&(key, *dot));
        let overwritten: BTreeSet<Dot> = all
            .iter()
            .filter_map(known)
            .flat_map(|k| k.history.iter().copied())
            .collect();
        if let Some(back) = record.siblings().iter().find(|s| overwritten.contains(&s.dot)) {
            return Some(format!(
                "{:?} is live in a record that knows a write which replaced it",
                back.dot
            ));
        }
        // A dot that was never seen was overwritten before its first sync, and what it replaced is not known.
        if replaces || all.iter().any(|dot| known(dot).is_none()) {
            return None;
        }
        let live: BTreeSet<Dot> = record.siblings().iter().map(|s| s.dot).collect();
        let mut copies: BTreeMap<Identity, u32> = record
            .overwritten()
            .iter()
            .map(|o| ((o.request.unique, o.payload), 1))
            .collect();
        all.iter()
            .filter_map(known)
            .for_each(|k| *copies.entry(k.made).or_default() += 1);
        let missing = all.iter().find(|dot| {
            let excused = |k: &Known| {
                k.tombstone || k.has_expired(wall_ms) || copies.get(&k.made).is_some_and(|&count| count > 1)
            };
            !live.contains(dot) && !overwritten.contains(dot) && !known(dot).is_some_and(excused)
        })?;
        Some(format!(
            "{missing:?} is neither live nor replaced in a record that knows it"
        ))
    }
}

/// Every dot of a context; `None` if there are too many.
fn written_out(context: &Context) -> Option<BTreeSet<Dot>> {
    let runs: u64 = context
        .vector()
        .iter()
        .map(|&(_, upto)| upto)
        .fold(0, u64::saturating_add);
    if runs.saturating_add(context.lone().len() as u64) > DOTS_MAX {
        return None;
    }
    let vector = context
        .vector()
        .iter()
        .flat_map(|&(actor, upto)| (1..=upto).map(move |counter| Dot { actor, counter }));
    Some(vector.chain(context.lone().iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use quorate_core::dot::Actor;
    use quorate_core::record::Content;
    use quorate_core::request::{RequestId, Value};
    use quorate_core::seen::Seen;

    const KEY: usize = 0;

    fn dot(life: u64) -> Dot {
        Dot {
            actor: Actor { life, epoch: 1 },
            counter: 1,
        }
    }

    fn id(unique: u64) -> RequestId {
        RequestId::new(0, unique)
    }

    fn value() -> Content {
        Content::Value(Value {
            content_type: "t".into(),
            body: Bytes::from_static(b"v"),
        })
    }

    fn sibling(dot: Dot, unique: u64, content: Content) -> Sibling {
        Sibling {
            dot,
            request: id(unique),
            basis: 0,
            content,
            expires_ms: 0,
        }
    }

    /// Writes under a dot, with what was seen before.
    fn write(record: &mut Record, seen: &[Dot], dot: Dot, unique: u64) {
        let seen = Seen {
            context: seen.iter().copied().collect(),
            ..Seen::default()
        };
        record.write(&seen, sibling(dot, unique, value()));
    }

    /// Dots 1, and 2 that replaced it.
    fn causal() -> Causal {
        let mut causal = Causal::default();
        causal.mint(KEY, &sibling(dot(1), 1, value()), None);
        causal.mint(KEY, &sibling(dot(2), 2, value()), None);
        causal.dots.get_mut(&(KEY, dot(2))).unwrap().history.insert(dot(1));
        causal
    }

    #[test]
    fn a_replaced_sibling_that_is_live_again_is_found() {
        let mut record = Record::default();
        write(&mut record, &[], dot(1), 1);
        assert_eq!(causal().judge(KEY, &record, false, 0), None);
        write(&mut record, &[], dot(2), 2);
        assert!(causal().judge(KEY, &record, false, 0).unwrap().contains("is live"));
    }

    #[test]
    fn a_dot_that_vanished_is_found_unless_the_bucket_replaces() {
        let mut causal = causal();
        let mut record = Record::default();
        write(&mut record, &[dot(1)], dot(2), 2);
        assert_eq!(causal.judge(KEY, &record, false, 0), None);
        causal.mint(KEY, &sibling(dot(3), 3, value()), None);
        causal.mint(KEY, &sibling(dot(4), 4, value()), None);
        write(&mut record, &[dot(3)], dot(4), 4);
        assert!(causal.judge(KEY, &record, false, 0).unwrap().contains("neither"));
        assert_eq!(causal.judge(KEY, &record, true, 0), None);
    }

    #[test]
    fn a_copy_of_a_write_and_a_tombstone_may_vanish() {
        let mut causal = causal();
        let mut record = Record::default();
        causal.mint(KEY, &sibling(dot(3), 3, Content::Tombstone), None);
        causal.mint(KEY, &sibling(dot(4), 4, value()), None);
        causal.mint(KEY, &sibling(dot(5), 4, value()), None);
        write(&mut record, &[dot(3), dot(4)], dot(5), 4);
        assert_eq!(causal.judge(KEY, &record, false, 0), None);
    }

    #[test]
    fn what_has_surely_expired_may_vanish() {
        let mut causal = causal();
        let mut record = Record::default();
        let expiring = Sibling {
            expires_ms: 1_000,
            ..sibling(dot(3), 3, value())
        };
        causal.mint(KEY, &expiring, None);
        causal.mint(KEY, &sibling(dot(4), 4, value()), None);
        // A write that has seen nothing covers it all the same.
        record.write(
            &Seen {
                context: [dot(3)].into_iter().collect(),
                ..Seen::default()
            },
            sibling(dot(4), 4, value()),
        );
        assert!(causal.judge(KEY, &record, false, 60_999).is_some());
        assert_eq!(causal.judge(KEY, &record, false, 61_000), None);
    }
}
