//! P7: strict quorums are regular.
//!
//! Take a read of R and a write of W with R + W > N, acknowledged before the read began. The read returns the write, or something that covers it; and it
//! returns nothing that the write covers. For deletes only the second half can be seen.
//!
//! One sweep by time for each key. It keeps the acknowledged writes that no acknowledged write covers, which are few (they are the siblings), and
//! holds each read against those that were there when it began.

use super::{Case, broken, describe};
use crate::history::{Fate, Read, WriteIndex};
use crate::violation::{Promise, Violation};
use std::collections::BTreeMap;

/// An acknowledged write, and by how many owners.
type Open = BTreeMap<WriteIndex, u8>;

pub(super) fn check(case: &Case<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut reads: Vec<Vec<&Read>> = vec![Vec::new(); case.facts.options.keys.len()];
    case.facts
        .history
        .reads
        .iter()
        .for_each(|read| reads[read.key].push(read));
    for (key, mut reads) in reads.into_iter().enumerate() {
        reads.sort_by_key(|read| read.start);
        let mut acks: Vec<(u64, WriteIndex, u8)> = case
            .of_key(key)
            .iter()
            .flat_map(|&w| case.writes()[w].acks().map(move |(at, acks)| (at, w, acks)))
            .collect();
        acks.sort_unstable();
        let mut acks = acks.into_iter().peekable();
        let (mut open, mut overwritten): (Open, Open) = Default::default();
        for read in reads {
            while let Some((_, write, by)) = acks.next_if(|&(at, ..)| at < read.start) {
                acknowledge(case, write, by, &mut open, &mut overwritten);
            }
            hold(case, read, &open, &overwritten, &mut found);
        }
    }
    found
}

fn acknowledge(case: &Case<'_>, write: WriteIndex, by: u8, open: &mut Open, overwritten: &mut Open) {
    if !overwritten.contains_key(&write) {
        let acks = open.entry(write).or_default();
        *acks = by.max(*acks);
    }
    for covered in case.writes()[write].covers.iter().filter(|&&covered| covered != write) {
        open.remove(covered);
        let acks = overwritten.entry(*covered).or_default();
        *acks = by.max(*acks);
    }
}

fn hold(case: &Case<'_>, read: &Read, open: &Open, overwritten: &Open, found: &mut Vec<Violation>) {
    let properties = case.facts.options.properties(read.key);
    let overlaps = |by: u8| read.need.owners + by > properties.n && case.is_remembered(read.key, by);
    for (&index, _) in open
        .iter()
        .filter(|&(index, &by)| overlaps(by) && !read.values.contains(index))
    {
        let write = &case.writes()[index];
        let covered = case
            .coverers(index)
            .iter()
            .any(|&by| case.writes()[by].start() < read.end);
        if !write.is_delete() && !covered && !case.may_be_replaced(index) && !case.may_expire(index, read.end) {
            let detail = format!(
                "a read at {} of {} owners did not return {}",
                read.start,
                read.need.owners,
                describe(case, index)
            );
            found.push(broken(Promise::P7, detail));
        }
    }
    for &index in read
        .values
        .iter()
        .filter(|&index| overwritten.get(index).is_some_and(|&by| overlaps(by)))
    {
        // A write that was sent again may come back for another reason, which P11 judges.
        let write = &case.writes()[index];
        if !case.may_be_repeated(index) && write.fate() != Fate::Failed {
            let detail = format!(
                "a read at {} of {} owners returned {}, which was overwritten",
                read.start,
                read.need.owners,
                describe(case, index)
            );
            found.push(broken(Promise::P7, detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::ByHand;
    use crate::history::Ending::{Acked, Unknown};
    use crate::violation::Promise::P7;

    fn p7(case: &ByHand) -> usize {
        case.broken().into_iter().filter(|&p| p == P7).count()
    }

    #[test]
    fn a_read_that_starts_after_the_ack_returns_the_write() {
        let mut case = ByHand::new();
        let write = case.put(0, Acked, &[]);
        case.read(5, &[]);
        case.read(20, &[write]);
        assert_eq!(p7(&case), 0);
        case.read(40, &[]);
        assert_eq!(p7(&case), 1);
    }

    #[test]
    fn or_something_that_covers_it() {
        let mut case = ByHand::new();
        let first = case.put(0, Acked, &[]);
        let second = case.put(20, Acked, &[first]);
        case.read(40, &[second]);
        case.delete(60, Acked, &[second]);
        case.read(80, &[]);
        assert_eq!(p7(&case), 0);
    }

    #[test]
    fn and_nothing_that_an_acknowledged_write_replaced() {
        let mut case = ByHand::new();
        let first = case.put(0, Acked, &[]);
        case.delete(20, Acked, &[first]);
        case.read(25, &[first]);
        assert_eq!(p7(&case), 0);
        case.read(40, &[first]);
        assert_eq!(p7(&case), 1);
    }

    #[test]
    fn quorums_that_do_not_overlap_promise_nothing() {
        let mut case = ByHand::new();
        case.put(0, Acked, &[]);
        case.history.writes[0].attempts[0].need.owners = 1;
        case.read(20, &[]);
        assert_eq!(p7(&case), 0);
    }

    #[test]
    fn a_write_of_unknown_outcome_may_cover_or_not() {
        let mut case = ByHand::new();
        let first = case.put(0, Acked, &[]);
        let second = case.put(20, Unknown, &[first]);
        case.read(60, &[first]);
        case.read(80, &[second]);
        assert_eq!(p7(&case), 0);
    }
}
