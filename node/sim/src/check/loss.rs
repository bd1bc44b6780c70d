//! P1: no acknowledged write is lost.
//!
//! Each acknowledged value is among the final siblings, or some write that may have been applied was made by a client that had been shown it. In a
//! bucket whose blind writes replace, such a write may have taken it too. A tombstone may be gone as soon as any other write was
//! made: it has nothing to show. And it goes when it is settled.

use super::{Case, broken, describe};
use crate::history::Fate;
use crate::violation::{Promise, Violation};
use crate::world::truth::identity;
use std::collections::BTreeSet;

pub(super) fn check(case: &Case<'_>) -> Vec<Violation> {
    let live: BTreeSet<_> = case
        .facts
        .state
        .finals
        .iter()
        .flat_map(|r| r.siblings())
        .map(identity)
        .collect();
    let mut found = Vec::new();
    for (index, write) in case.writes().iter().enumerate() {
        // What was written after the final state was taken has no later state to be missing from.
        let acked = write.fate() == Fate::Acked && case.is_judged(index);
        if !acked || live.contains(&(write.request.unique, write.payload)) {
            continue;
        }
        let excused = case.may_be_cut(index)
            || if write.is_delete() {
                let is_later = |&&other: &&usize| {
                    let by = &case.writes()[other];
                    other != index && case.may_be_applied(other) && by.over_at() > write.start()
                };
                case.facts.state.settled[write.key] || case.of_key(write.key).iter().filter(is_later).count() > 0
            } else {
                !case.coverers(index).is_empty()
                    || case.may_be_replaced(index)
                    || case.may_expire(index, case.facts.state.at)
            };
        if !excused {
            found.push(broken(
                Promise::P1,
                format!("{} was acknowledged, and is lost", describe(case, index)),
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::ByHand;
    use crate::history::Ending::{Acked, NotApplied, Unknown};
    use crate::violation::Promise::P1;
    use quorate_core::bucket::BlindWrites;

    #[test]
    fn an_acknowledged_write_that_nobody_was_shown_must_be_there() {
        let mut case = ByHand::new();
        let first = case.put(0, Acked, &[]);
        let second = case.put(20, Acked, &[]);
        case.leave(&[second]);
        assert_eq!(case.broken(), [P1]);
        case.leave(&[first]);
        assert_eq!(case.broken(), []);
    }

    #[test]
    fn a_write_is_excused_by_one_whose_client_was_shown_it_and_that_may_have_been_applied() {
        for (ending, stored, broken) in [
            (Acked, true, false),
            (Unknown, true, false),
            (Unknown, false, true),
            (NotApplied, false, true),
        ] {
            let mut case = ByHand::new();
            let first = case.put(0, Acked, &[]);
            let second = case.put(20, ending, &[first]);
            if ending == Acked {
                case.leave(&[second]);
            }
            if !stored {
                case.stored.retain(|&(id, _)| id == 0);
            }
            assert_eq!(case.broken().contains(&P1), broken, "{ending:?}, stored: {stored}");
        }
    }

    #[test]
    fn unknown_and_failed_writes_may_be_missing() {
        let mut case = ByHand::new();
        case.put(0, Unknown, &[]);
        case.put(20, NotApplied, &[]);
        assert_eq!(case.broken(), []);
    }

    #[test]
    fn a_blind_write_excuses_a_loss_only_where_it_replaces_and_only_what_it_can_have_met() {
        for (policy, later, broken) in [
            (BlindWrites::Siblings, 20, true),
            (BlindWrites::Replace, 20, false),
            (BlindWrites::Replace, 100, true),
        ] {
            let mut case = ByHand::new().blind_writes(policy);
            case.put(later, Acked, &[]);
            let replacing = case.put(40, Acked, &[]);
            case.leave(&[replacing]);
            assert_eq!(
                case.broken().contains(&P1),
                broken,
                "{policy:?}, the other one at {later}"
            );
        }
    }

    #[test]
    fn a_tombstone_is_lost_only_if_nothing_was_written_since() {
        let mut case = ByHand::new();
        let first = case.put(0, Acked, &[]);
        case.delete(20, Acked, &[first]);
        assert_eq!(case.broken(), [P1]);
        let third = case.put(40, Acked, &[]);
        case.leave(&[third]);
        assert_eq!(case.broken(), []);
    }

    #[test]
    fn a_power_cut_may_take_what_waited_for_no_disk_and_nothing_else() {
        for (durable, is_cut, broken) in [(0, true, false), (0, false, true), (1, true, true)] {
            let mut case = ByHand::new();
            let write = case.put(0, Acked, &[]);
            let payload = case.history.writes[write].payload;
            case.history.writes[write].attempts[0].need.durable = durable;
            if is_cut {
                case.cut.insert((0, payload));
            }
            assert_eq!(case.broken().contains(&P1), broken, "{durable} durable, cut: {is_cut}");
        }
    }
}
