//! P9: a read that is given a context as a minimum returns what had been shown with it, or something that covers that.
//!
//! A client that is a session gives the last context that it holds with each request, waits for each reply before it goes on, and counts as shown
//! whatever it has ever seen of the key: so it must read its own writes, and never go back.

use super::{Case, broken, describe};
use crate::history::Fate;
use crate::violation::{Promise, Violation};

pub(super) fn check(case: &Case<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in &case.facts.history.reads {
        let Some(minimum) = &read.minimum else { continue };
        // What nobody has acknowledged may be lost for good with the one disk that had it.
        let loses = case.facts.options.forgets || case.facts.options.loses;
        let is_cut = case.facts.cut_keys.contains(&read.key);
        if !loses && !is_cut && !case.was_settled(read.key, read.end) && !read.context.covers(&minimum.context) {
            let detail = format!(
                "a read at {} had {:?} as its minimum, and returned {:?}",
                read.start, minimum.context, read.context
            );
            found.push(broken(Promise::P9, detail));
        }
        for &index in minimum.shown.iter() {
            let covered = || {
                case.coverers(index)
                    .iter()
                    .any(|&by| case.writes()[by].start() < read.end)
            };
            let may_be_lost = loses && case.writes()[index].fate() != Fate::Acked;
            let excused = may_be_lost
                || case.may_be_cut(index)
                || case.writes()[index].is_delete()
                || case.may_be_replaced(index)
                || case.may_expire(index, read.end);
            if !read.values.contains(&index) && !covered() && !excused {
                let detail = format!(
                    "a read at {} had {} as its minimum, and did not return it",
                    read.start,
                    describe(case, index)
                );
                found.push(broken(Promise::P9, detail));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::ByHand;
    use crate::history::Ending::{Acked, Unknown};
    use crate::history::Minimum;
    use crate::violation::Promise::P9;

    #[test]
    fn a_read_returns_what_its_minimum_had_shown_or_what_covers_it() {
        let mut case = ByHand::new();
        let write = case.put(0, Unknown, &[]);
        case.read(20, &[]);
        case.history.reads[0].minimum = Some(Minimum {
            shown: [write].into(),
            ..Minimum::default()
        });
        assert_eq!(case.broken(), [P9]);
        let second = case.put(5, Acked, &[write]);
        case.leave(&[second]);
        assert!(!case.broken().contains(&P9));
    }
}
