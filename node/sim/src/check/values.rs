//! P3 and P12: nothing is there that nobody wrote, and nothing that was certainly not applied.
//!
//! The values of reads are held to this as they come in; here it is the final siblings, and every record that any disk ever held.

use super::{Case, broken, describe};
use crate::history::Fate;
use crate::violation::{Promise, Violation};
use crate::world::truth::identity;

pub(super) fn check(case: &Case<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, record) in case.facts.state.finals.iter().enumerate() {
        for sibling in record.siblings() {
            let index = case.facts.history.by_identity(&sibling.request, identity(sibling).1);
            if index.is_none_or(|index| case.writes()[index].key != key) {
                found.push(broken(
                    Promise::P3,
                    format!("key {key} holds {:?}, which nobody wrote there", sibling.dot),
                ));
            }
        }
    }
    for (index, write) in case.writes().iter().enumerate() {
        if write.fate() == Fate::Failed && case.facts.stored.contains(&(write.request.unique, write.payload)) {
            found.push(broken(
                Promise::P12,
                format!("{} was said not to be applied, and was stored", describe(case, index)),
            ));
        }
    }
    for read in &case.facts.history.reads {
        for &index in read
            .values
            .iter()
            .filter(|&&index| case.writes()[index].fate() == Fate::Failed)
        {
            found.push(broken(
                Promise::P12,
                format!("{} was said not to be applied, and was read", describe(case, index)),
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::ByHand;
    use crate::history::Ending::{Acked, NotApplied};
    use crate::violation::Promise::{P3, P12};

    #[test]
    fn what_was_certainly_not_applied_may_be_nowhere() {
        let mut case = ByHand::new();
        let failed = case.put(0, NotApplied, &[]);
        assert_eq!(case.broken(), []);
        case.read(20, &[failed]);
        assert_eq!(case.broken(), [P12]);
        case.stored.insert((0, case.history.writes[failed].payload));
        assert_eq!(case.broken(), [P12, P12]);
    }

    #[test]
    fn a_sibling_that_nobody_wrote_is_found() {
        let mut case = ByHand::new();
        let write = case.put(0, Acked, &[]);
        case.leave(&[write]);
        case.history = Default::default();
        assert_eq!(case.broken(), [P3]);
    }
}
