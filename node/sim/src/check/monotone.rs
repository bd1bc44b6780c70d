//! P8: strict reads are monotone. If one read has ended before another begins, the later one's context is at least the earlier one's.
//!
//! One sweep by time for each key, with a running join of the contexts that reads have returned. A read of R is sure of what it returns on N - R + 1
//! owners, and so only a read of as many answers has to meet it: there is one join for each R. Where history has been settled, contexts have
//! become smaller; there the values are held against each other instead.

use super::{Case, broken, describe};
use crate::history::{Read, WriteIndex};
use crate::violation::{Promise, Violation};
use quorate_core::bucket::{Durability, N_MAX};
use quorate_core::context::Context;
use std::collections::BTreeSet;

/// What reads of the same number of answers have returned so far.
#[derive(Clone, Default)]
struct Seen {
    context: Context,
    values: BTreeSet<WriteIndex>,
    until: u64,
}

pub(super) fn check(case: &Case<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for key in 0..case.facts.options.keys.len() {
        let is_meant = |read: &&Read| read.key == key && is_promised(case, read);
        let mut by_end: Vec<&Read> = case.facts.history.reads.iter().filter(is_meant).collect();
        let mut by_start = by_end.clone();
        by_end.sort_by_key(|read| read.end);
        by_start.sort_by_key(|read| read.start);
        let mut ended = by_end.into_iter().peekable();
        let mut seen = vec![Seen::default(); usize::from(N_MAX) + 1];
        for read in by_start {
            while let Some(earlier) = ended.next_if(|earlier| earlier.end < read.start) {
                let seen = &mut seen[usize::from(earlier.need.all)];
                seen.context.join(&earlier.context);
                seen.values.extend(&earlier.values);
                seen.until = earlier.end;
            }
            for seen in &seen[..=usize::from(read.need.all)] {
                found.extend(hold(case, read, seen));
            }
        }
    }
    found
}

/// Whether the read is one that must not go back: strict, on owners that forget nothing that reads have seen.
fn is_promised(case: &Case<'_>, read: &Read) -> bool {
    let options = case.facts.options;
    let properties = options.properties(read.key);
    // What a read of R was sure of is on N - R + 1 owners; one that lost its disk meets it again if it reads from as many as R.
    let survives = !options.loses || read.need.all <= case.sources(read.key);
    read.need.strict && !options.forgets && survives && properties.durability == Durability::Durable
}

fn hold(case: &Case<'_>, read: &Read, seen: &Seen) -> Option<Violation> {
    if !case.was_settled(read.key, read.end) {
        return (!read.context.covers(&seen.context)).then(|| {
            let detail = format!(
                "a read of key {} at {} with r={} returned {:?}, and one that ended at {} had returned more: {:?}",
                read.key, read.start, read.need.all, read.context, seen.until, seen.context
            );
            broken(Promise::P8, detail)
        });
    }
    let lost = seen.values.iter().find(|&&index| {
        let covered = || {
            let mut by = case.coverers(index).iter();
            by.any(|&by| case.writes()[by].start() < read.end)
        };
        !read.values.contains(&index) && !covered() && !case.may_be_replaced(index) && !case.may_expire(index, read.end)
    })?;
    let detail = format!(
        "a read at {} with r={} did not return {}, which an earlier one had returned",
        read.start,
        read.need.all,
        describe(case, *lost)
    );
    Some(broken(Promise::P8, detail))
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::ByHand;
    use crate::history::Ending::Unknown;
    use crate::violation::Promise::P8;
    use quorate_core::dot::{Actor, Dot};

    fn dot(counter: u64) -> Dot {
        let actor = Actor { life: 1, epoch: 1 };
        Dot { actor, counter }
    }

    #[test]
    fn a_read_that_goes_back_is_found_and_one_that_overlaps_may() {
        for (start, broken) in [(25, true), (15, false)] {
            let mut case = ByHand::new();
            let write = case.put(0, Unknown, &[]);
            case.read(10, &[write]);
            case.history.reads[0].context = [dot(1)].into_iter().collect();
            case.read(start, &[]);
            assert_eq!(case.broken().contains(&P8), broken, "from {start}");
        }
    }

    #[test]
    fn fewer_answers_promise_less() {
        let mut case = ByHand::new();
        let write = case.put(0, Unknown, &[]);
        case.read(10, &[write]);
        case.history.reads[0].context = [dot(1)].into_iter().collect();
        case.read(40, &[]);
        case.history.reads[1].need.all = 1;
        assert!(!case.broken().contains(&P8));
    }

    #[test]
    fn where_history_was_settled_values_count() {
        let mut case = ByHand::new();
        case.settled = true;
        let write = case.put(0, Unknown, &[]);
        case.read(10, &[write]);
        case.history.reads[0].context = [dot(1)].into_iter().collect();
        case.read(40, &[write]);
        assert!(!case.broken().contains(&P8));
        case.read(60, &[]);
        assert!(case.broken().contains(&P8));
    }
}
