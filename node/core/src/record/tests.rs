//! Tests of records: the laws of merging, what removals may do, and the bytes.

#![allow(clippy::unwrap_used)]

mod cases;

use super::*;
use crate::dot::Actor;
use proptest::collection::vec;
use proptest::prelude::*;

/// One thing that happens in a small world of three replicas.
#[derive(Clone, Debug)]
enum Step {
    /// A replica takes a write whose client has seen what some moment's record held, or nothing.
    Write {
        at: usize,
        seen: Option<prop::sample::Index>,
        request: RequestId,
        value: u8,
    },
    /// A replica merges a record of some moment.
    Merge { at: usize, from: prop::sample::Index },
    /// A replica looks for retries.
    Settle { at: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    // Few ids and values, so that there are retries and reused ids; three stamps for an id: a retry says that it is one, and a careless
    // client makes a new one.
    let request = (0u64..12, 0u64..10).prop_map(|(unique, late)| RequestId {
        stamp_ms: 2 * unique + [0, 1, 100].get(late as usize).copied().unwrap_or(0),
        unique,
    });
    prop_oneof![
        4 => (0usize..3, any::<Option<prop::sample::Index>>(), request, 0u8..2)
            .prop_map(|(at, seen, request, value)| Step::Write { at, seen, request, value }),
        3 => (0usize..3, any::<prop::sample::Index>()).prop_map(|(at, from)| Step::Merge { at, from }),
        1 => (0usize..3).prop_map(|at| Step::Settle { at }),
    ]
}

/// Lives the steps. Returns every record there ever was, those of the end last.
fn records_of(steps: &[Step]) -> Vec<Record> {
    let mut replicas = [Record::default(), Record::default(), Record::default()];
    let mut moments = vec![Record::default()];
    for step in steps {
        let at = match *step {
            Step::Write {
                at,
                seen,
                request,
                value,
            } => {
                let seen = seen.map_or(Seen::default(), |index| Seen::all_of(index.get(&moments)));
                let dot = next_dot(&replicas[at], at as u64);
                let mut sibling = sibling(dot, request, content(value));
                // Often the same, so that there are retries, too.
                sibling.basis = seen.basis() % 2;
                // A retry elsewhere expires at another time.
                sibling.expires_ms = dot.counter % 3 * 1000 * u64::from(value);
                replicas[at].write(&seen, sibling);
                at
            }
            Step::Merge { at, from } => {
                replicas[at].merge(from.get(&moments));
                at
            }
            Step::Settle { at } => {
                replicas[at].settle_retries();
                at
            }
        };
        moments.push(replicas[at].clone());
    }
    moments.extend(replicas);
    moments
}

fn any_records() -> impl Strategy<Value = Vec<Record>> {
    vec(any_step(), 0..40).prop_map(|steps| records_of(&steps))
}

fn next_dot(record: &Record, life: u64) -> Dot {
    let actor = Actor { life, epoch: 1 };
    Dot {
        actor,
        counter: record.context().reach(actor) + 1,
    }
}

fn dot(life: u64, counter: u64) -> Dot {
    Dot {
        actor: Actor { life, epoch: 1 },
        counter,
    }
}

/// A value for every number but 0, which is a delete.
fn content(value: u8) -> Content {
    match value {
        0 => Content::Tombstone,
        _ => Content::Value(Value {
            content_type: "text/plain".into(),
            body: vec![value].into(),
        }),
    }
}

fn sibling(dot: Dot, request: RequestId, content: Content) -> Sibling {
    Sibling {
        dot,
        request,
        basis: 0,
        content,
        expires_ms: 0,
    }
}

fn request(n: u64) -> RequestId {
    RequestId::new(2 * n, n)
}

fn merged(a: &Record, b: &Record) -> Record {
    let mut merged = a.clone();
    merged.merge(b);
    merged
}

proptest! {
    #[test]
    fn merge_is_associative_commutative_and_idempotent(
        records in any_records(),
        picks in any::<[prop::sample::Index; 3]>(),
    ) {
        let [a, b, c] = picks.map(|pick| pick.get(&records));
        prop_assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
        prop_assert_eq!(merged(a, b), merged(b, a));
        prop_assert_eq!(&merged(a, a), a);
        prop_assert_eq!(&merged(a, &Record::default()), a);
        prop_assert!(merged(a, b).is_canonical());
    }

    #[test]
    fn a_record_only_moves_up(steps in vec(any_step(), 0..40)) {
        for cut in 0..steps.len() {
            let (before, after) = (records_of(&steps[..cut]), records_of(&steps[..=cut]));
            for (before, after) in before[before.len() - 3..].iter().zip(&after[after.len() - 3..]) {
                prop_assert!(after.context().covers(before.context()));
                prop_assert_eq!(&merged(before, after), after);
            }
        }
    }

    #[test]
    fn removals_keep_the_context_and_need_doing_only_once(records in any_records()) {
        for record in records {
            let mut settled = record.clone();
            prop_assert_eq!(settled.settle_retries(), settled != record);
            prop_assert_eq!(settled.context(), record.context());
            prop_assert_eq!(merged(&settled, &record), settled.clone());
            prop_assert!(!settled.settle_retries());
        }
    }

    #[test]
    fn replicas_that_remove_at_different_moments_end_byte_equal(
        records in any_records(),
        order in vec((0usize..3, 0usize..3, any::<bool>()), 0..12),
    ) {
        let mut replicas: Vec<Record> = records[records.len() - 3..].to_vec();
        let everybody = (0..3).flat_map(|a| (0..3).map(move |b| (a, b, true)));
        for (to, from, settles) in order.into_iter().chain(everybody.clone()).chain(everybody) {
            let from = replicas[from].clone();
            replicas[to].merge(&from);
            if settles {
                replicas[to].settle_retries();
            }
        }
        prop_assert_eq!(replicas[0].encode(), replicas[1].encode());
        prop_assert_eq!(replicas[0].encode(), replicas[2].encode());
    }

    #[test]
    fn no_write_is_live_twice_and_none_that_is_known_as_overwritten(records in any_records()) {
        for record in records {
            let mut record = record;
            record.settle_retries();
            for (at, sibling) in record.siblings().iter().enumerate() {
                let rest = &record.siblings()[at + 1..];
                prop_assert!(!rest.iter().any(|s| s.write_id().same(&sibling.write_id())));
                prop_assert!(!record.overwritten().iter().any(|gone| gone.names(sibling)));
                prop_assert_eq!(record.known(&sibling.write_id()), Known::Live(sibling.dot));
            }
        }
    }

    #[test]
    fn equal_records_have_equal_bytes_and_survive_the_wire(records in any_records()) {
        for a in &records {
            let bytes = a.encode();
            prop_assert_eq!(&Record::decode(&bytes).unwrap(), a);
            for b in &records {
                prop_assert_eq!(a == b, bytes == b.encode());
            }
        }
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_a_record_in_form_or_none(
        records in any_records(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let bytes = records.last().unwrap().encode();
        let at = at.index(bytes.len());
        let mut damaged = bytes.to_vec();
        damaged[at] = byte;
        if let Ok(record) = Record::decode(&damaged) {
            prop_assert!(record.is_canonical());
            prop_assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        }
        prop_assert!(Record::decode(&bytes[..at]).is_err());
        damaged[at] = bytes[at];
        damaged.push(byte);
        prop_assert!(Record::decode(&damaged).is_err());
    }

    #[test]
    fn rubbish_never_panics(bytes in vec(any::<u8>(), 0..64)) {
        let _ = Record::decode(&bytes);
        let _ = Record::decode(&[&[RECORD_FORMAT][..], &bytes].concat());
        let _ = Record::decode(&[&[EXPIRING_FORMAT][..], &bytes].concat());
    }
}
