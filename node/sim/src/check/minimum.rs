//! P9, as far as it goes without sessions: a read that is given a context as a minimum returns what had been shown with it, or something that
//! covers that.

use super::{Case, broken, describe};
use crate::violation::{Promise, Violation};

pub(super) fn check(case: &Case<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in &case.facts.history.reads {
        for &index in read.minimum.iter().flat_map(|shown| shown.iter()) {
            let covered = || {
                case.coverers(index)
                    .iter()
                    .any(|&by| case.writes()[by].start() < read.end)
            };
            let excused = case.writes()[index].is_delete() || case.may_be_replaced(index);
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
    use crate::violation::Promise::P9;

    #[test]
    fn a_read_returns_what_its_minimum_had_shown_or_what_covers_it() {
        let mut case = ByHand::new();
        let write = case.put(0, Unknown, &[]);
        case.read(20, &[]);
        case.history.reads[0].minimum = Some([write].into());
        assert_eq!(case.broken(), [P9]);
        let second = case.put(5, Acked, &[write]);
        case.leave(&[second]);
        assert!(!case.broken().contains(&P9));
    }
}
