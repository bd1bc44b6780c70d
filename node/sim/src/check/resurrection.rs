//! P4: what an acknowledged delete covered does not come back.
//!
//! Once replicas have converged, no read returns a value that the client of an acknowledged delete had been shown, and no disk holds one. While faults
//! last, a read may still return it, from an owner that the delete has not reached. A value that has expired reads as deleted at any time.
//!
//! A delete that needed one ack may be on one disk, and that node may go away for good before anybody else has it. The other owners converge without it,
//! to what they hold, so a read returns what it covered. What is left on *all* disks is judged all the same: should the node ever
//! come back, so does the delete.

use super::{Case, broken, describe};
use crate::history::{Fate, WriteIndex};
use crate::violation::{Promise, Violation};
use crate::world::truth::identity;

pub(super) fn check(case: &Case<'_>) -> Vec<Violation> {
    let mut found = check_state(case);
    for read in &case.facts.history.reads {
        for &index in read.values.iter().filter(|&&index| case.must_expire(index, read.start)) {
            let detail = format!(
                "a read at {} returned {}, which had expired",
                read.start,
                describe(case, index)
            );
            found.push(broken(Promise::P4, detail));
        }
        let after = read.start.min(case.facts.converged_at);
        for &index in read.values.iter().filter(|_| read.start >= case.facts.converged_at) {
            if let Some(by) = deleted_by(case, index, after, |by| !case.is_taken_away(by)) {
                let detail = format!(
                    "a read at {} returned {}, which was deleted by {}",
                    read.start,
                    describe(case, index),
                    describe(case, by)
                );
                found.push(broken(Promise::P4, detail));
            }
        }
    }
    found
}

/// What is left on disks.
pub(super) fn check_state(case: &Case<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for sibling in case.facts.state.finals.iter().flat_map(|record| record.siblings()) {
        let index = case.facts.history.by_identity(&sibling.request, identity(sibling).1);
        let by = index.and_then(|index| Some((index, deleted_by(case, index, case.facts.state.at, |_| true)?)));
        if let Some((index, by)) = by {
            let detail = format!(
                "{} is there, and was deleted by {}",
                describe(case, index),
                describe(case, by)
            );
            found.push(broken(Promise::P4, detail));
        }
    }
    found
}

/// The delete that covered a write and was acknowledged by then, of those that are `there`. A copy of a write that was sent again may come when
/// everybody has forgotten its name: that is the end of P11's window.
fn deleted_by(
    case: &Case<'_>,
    index: WriteIndex,
    before: u64,
    there: impl Fn(WriteIndex) -> bool,
) -> Option<WriteIndex> {
    if case.writes()[index].is_delete() || (case.may_be_repeated(index) && case.may_be_forgotten(index)) {
        return None;
    }
    case.coverers(index).iter().copied().find(|&by| {
        let write = &case.writes()[by];
        let is_acked = write.fate() == Fate::Acked && !case.may_be_cut(by);
        write.is_delete() && is_acked && there(by) && write.acked_at().is_some_and(|at| at < before)
    })
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::ByHand;
    use crate::history::Ending::{Acked, Unknown};
    use crate::violation::Promise::P4;

    #[test]
    fn a_read_after_convergence_returns_nothing_that_was_deleted() {
        for (ending, converged_at, broken) in [(Acked, 50, true), (Acked, 100, false), (Unknown, 50, false)] {
            let mut case = ByHand::new();
            let first = case.put(0, Acked, &[]);
            case.delete(20, ending, &[first]);
            case.read(60, &[first]);
            case.converged_at = converged_at;
            assert_eq!(
                case.broken().contains(&P4),
                broken,
                "{ending:?}, converged at {converged_at}"
            );
        }
    }

    #[test]
    fn and_no_disk_holds_it() {
        for is_taken_away in [false, true] {
            let mut case = ByHand::new();
            let first = case.put(0, Acked, &[]);
            let delete = case.delete(20, Acked, &[first]);
            case.take_away(is_taken_away.then_some(delete));
            case.leave(&[first]);
            assert!(case.broken().contains(&P4), "taken away: {is_taken_away}");
        }
    }

    #[test]
    fn a_delete_that_only_a_node_knew_that_went_away_for_good_is_seen_by_no_read() {
        for (is_taken_away, broken) in [(false, true), (true, false)] {
            let mut case = ByHand::new();
            let first = case.put(0, Acked, &[]);
            let delete = case.delete(20, Acked, &[first]);
            case.take_away(is_taken_away.then_some(delete));
            case.read(60, &[first]);
            case.converged_at = 50;
            assert_eq!(case.broken().contains(&P4), broken, "taken away: {is_taken_away}");
        }
    }
}
