//! P2 and P11: siblings are exact, and a write has one effect.
//!
//! The lower bound of P2 is P1's. The upper bound is here: of the final siblings, none was overwritten by an acknowledged write whose client had
//! been shown it, and none is there twice. A write that was sent once and came back breaks P2; one that was sent several times breaks
//! P11, unless so many later ids were overwritten that the window of P11 is over.

use super::{Case, broken, describe};
use crate::history::Fate;
use crate::violation::{Promise, Violation};
use crate::world::truth::identity;
use std::collections::BTreeSet;

pub(super) fn check(case: &Case<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for record in &case.facts.state.finals {
        let mut seen = BTreeSet::new();
        for sibling in record.siblings() {
            let Some(index) = case.facts.history.by_identity(&sibling.request, identity(sibling).1) else {
                continue;
            };
            if !seen.insert(index) {
                found.push(broken(Promise::P11, format!("{} is live twice", describe(case, index))));
            }
            let by = case
                .coverers(index)
                .iter()
                .find(|&&by| case.writes()[by].fate() == Fate::Acked && case.is_judged(by) && !case.may_be_cut(by));
            let Some(&by) = by else { continue };
            let again = case.may_be_repeated(index);
            if again && case.may_be_forgotten(index, &case.facts.state.settled) {
                continue;
            }
            let promise = if again { Promise::P11 } else { Promise::P2 };
            found.push(broken(
                promise,
                format!(
                    "{} is live, and was overwritten by {}",
                    describe(case, index),
                    describe(case, by)
                ),
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::ByHand;
    use crate::history::Ending::{Acked, Unknown};
    use crate::history::{Attempt, Need};
    use crate::violation::Promise::{P2, P11};

    #[test]
    fn an_overwritten_write_must_be_gone() {
        let mut case = ByHand::new();
        let first = case.put(0, Acked, &[]);
        let second = case.put(20, Acked, &[first]);
        case.leave(&[first, second]);
        assert_eq!(case.broken(), [P2]);
    }

    #[test]
    fn it_may_be_there_if_the_overwriting_one_is_not_certain() {
        let mut case = ByHand::new();
        let first = case.put(0, Acked, &[]);
        case.put(20, Unknown, &[first]);
        case.leave(&[first]);
        assert_eq!(case.broken(), []);
    }

    /// A write that was sent twice, was overwritten so many times, and is there again.
    fn came_back(mut case: ByHand, overwrites: u64) -> ByHand {
        let first = case.put(0, Acked, &[]);
        case.history.writes[first].attempts.push(Attempt {
            start: 5,
            end: Some(9),
            ending: Acked,
            need: Need::default(),
            retry: true,
            forwarded: false,
        });
        let mut last = first;
        for at in 1..=overwrites {
            last = case.put(20 * at, Acked, &[last]);
        }
        case.leave(&[first, last]);
        case
    }

    #[test]
    fn one_that_was_sent_twice_and_came_back_is_another_promise_until_its_window_is_over() {
        assert_eq!(came_back(ByHand::new(), 7).broken(), [P11]);
        assert_eq!(came_back(ByHand::new(), 8).broken(), []);
    }

    #[test]
    fn the_window_is_long_if_every_copy_says_that_it_may_be_sent_again() {
        for (overwrites, broken) in [(8, true), (63, true), (64, false)] {
            let mut case = ByHand::new();
            case.has_keys = true;
            let case = came_back(case, overwrites);
            assert_eq!(case.broken().contains(&P11), broken, "{overwrites} overwrites");
        }
    }

    #[test]
    fn or_if_one_that_says_so_was_overwritten_and_no_disk_forgets() {
        for (overwrites, forgets, broken) in [(8, false, true), (8, true, false), (64, false, false)] {
            let mut case = came_back(ByHand::new(), overwrites);
            let first = &case.history.writes[0];
            case.resent.insert((first.request.unique, first.payload));
            case.options.forgets = forgets;
            assert_eq!(
                case.broken().contains(&P11),
                broken,
                "{overwrites} overwrites, {forgets}"
            );
        }
    }
}
