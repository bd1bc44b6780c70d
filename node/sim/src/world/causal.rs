//! A second opinion on records: plain sets of dots, without vectors and without the core's own arithmetic.
//!
//! The history of a dot is the set of dots that its write's context named, written out one by one. Then a record is right if none of its siblings is
//! in the history of a dot that it knows, and every dot that it knows and does not hold is in the history of another one; or was a
//! tombstone, or a copy of a write that it knows otherwise. This is held against each record on its way to a disk, as long as it knows
//! few dots: an error of the merge shows in the first record that has it, not in what is left after three hundred operations.

use super::log::unseal;
use super::truth::Identity;
use bytes::Bytes;
use quorate_core::context::Context;
use quorate_core::dot::Dot;
use quorate_core::record::Record;
use std::collections::{BTreeMap, BTreeSet};

/// Dots that a record may know to be checked in this way.
const DOTS_MAX: u64 = 24;

/// What is known of a dot.
struct Known {
    made: Identity,
    tombstone: bool,
    history: BTreeSet<Dot>,
}

/// Everything minted so far.
#[derive(Default)]
pub(super) struct Causal {
    dots: BTreeMap<(usize, Dot), Known>,
}

impl Causal {
    /// A dot is seen for the first time, made by a write with this context.
    pub(super) fn mint(&mut self, key: usize, dot: Dot, made: Identity, tombstone: bool, sealed: Option<&Bytes>) {
        let history = sealed
            .and_then(|sealed| unseal(sealed))
            .and_then(|seen| written_out(&seen.context))
            .unwrap_or_default();
        self.dots.insert(
            (key, dot),
            Known {
                made,
                tombstone,
                history,
            },
        );
    }

    /// What is wrong with a record, if anything. `replaces`: blind writes of its bucket take away what they find.
    pub(super) fn judge(&self, key: usize, record: &Record, replaces: bool) -> Option<String> {
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
            let excused = |k: &Known| k.tombstone || copies.get(&k.made).is_some_and(|&count| count > 1);
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
    use quorate_core::record::{Content, Sibling};
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

    /// Writes under a dot, with what was seen before.
    fn write(record: &mut Record, seen: &[Dot], dot: Dot, unique: u64) {
        let seen = Seen {
            context: seen.iter().copied().collect(),
            ..Seen::default()
        };
        record.write(
            &seen,
            Sibling {
                dot,
                request: id(unique),
                basis: 0,
                content: value(),
                expires_ms: 0,
            },
        );
    }

    /// Dots 1, and 2 that replaced it.
    fn causal() -> Causal {
        let mut causal = Causal::default();
        causal.mint(KEY, dot(1), (1, 0), false, None);
        causal.mint(KEY, dot(2), (2, 0), false, None);
        causal.dots.get_mut(&(KEY, dot(2))).unwrap().history.insert(dot(1));
        causal
    }

    #[test]
    fn a_replaced_sibling_that_is_live_again_is_found() {
        let mut record = Record::default();
        write(&mut record, &[], dot(1), 1);
        assert_eq!(causal().judge(KEY, &record, false), None);
        write(&mut record, &[], dot(2), 2);
        assert!(causal().judge(KEY, &record, false).unwrap().contains("is live"));
    }

    #[test]
    fn a_dot_that_vanished_is_found_unless_the_bucket_replaces() {
        let mut causal = causal();
        let mut record = Record::default();
        write(&mut record, &[dot(1)], dot(2), 2);
        assert_eq!(causal.judge(KEY, &record, false), None);
        causal.mint(KEY, dot(3), (3, 0), false, None);
        causal.mint(KEY, dot(4), (4, 0), false, None);
        write(&mut record, &[dot(3)], dot(4), 4);
        assert!(causal.judge(KEY, &record, false).unwrap().contains("neither"));
        assert_eq!(causal.judge(KEY, &record, true), None);
    }

    #[test]
    fn a_copy_of_a_write_and_a_tombstone_may_vanish() {
        let mut causal = causal();
        let mut record = Record::default();
        causal.mint(KEY, dot(3), (3, 0), true, None);
        causal.mint(KEY, dot(4), (4, 0), false, None);
        causal.mint(KEY, dot(5), (4, 0), false, None);
        write(&mut record, &[dot(3), dot(4)], dot(5), 4);
        assert_eq!(causal.judge(KEY, &record, false), None);
    }
}
