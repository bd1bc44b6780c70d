#![allow(clippy::unwrap_used)]
use super::*;
use crate::tree::TreeId;
use proptest::prelude::*;

type Disk = BTreeMap<(u64, Vec<u8>), Vec<u8>>;

/// What happens to trees.
#[derive(Clone, Debug)]
enum Step {
    /// A record comes or goes, in a batch of its own.
    Change {
        token: u64,
        n: u8,
        by: u64,
    },
    /// Some in one batch, which is refused.
    Refused(Vec<(u64, u64)>),
    Many(Vec<(u64, u64)>),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    // Few tokens, so that branches change again and again.
    let token = || (0u64..40).prop_map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let many = || prop::collection::vec((token(), 1u64..), 1..12);
    prop_oneof![
        8 => (token(), 2u8..4, 1u64..).prop_map(|(token, n, by)| Step::Change { token, n, by }),
        2 => many().prop_map(Step::Many),
        2 => many().prop_map(Step::Refused),
        1 => Just(Step::Restart),
    ]
}

fn batch(trees: &mut Trees) -> Disk {
    let mut rows = Disk::new();
    trees.write(|token, key, payload| {
        let twice = rows.insert((token, key.to_vec()), payload.to_vec());
        assert!(twice.is_none() || !key.is_empty(), "a row of the log is written once");
    });
    rows
}

fn rows(disk: &Disk) -> Vec<LeafRow> {
    let row = |((token, key), payload): (&(u64, Vec<u8>), &Vec<u8>)| LeafRow {
        token: *token,
        key: Bytes::copy_from_slice(key),
        payload: Some(Bytes::copy_from_slice(payload)),
    };
    disk.iter().map(row).collect()
}

fn restored(bits: u8, generation: u64, disk: &Disk) -> Trees {
    let mut trees = Trees::of_start(bits, generation, 6);
    assert_eq!(trees.restore(rows(disk)), Ok(vec![]));
    trees
}

fn roots(trees: &Trees) -> BTreeMap<TreeId, u64> {
    let roots = trees.ids().into_iter().map(|id| (id, trees.root(id)));
    roots.filter(|&(_, root)| root != 0).collect()
}

proptest! {
    #[test]
    fn what_is_on_disk_is_what_was_in_memory_after_every_batch(
        bits in 0u8..=16, steps in prop::collection::vec(step(), 1..120),
    ) {
        let (mut disk, mut generation) = (Disk::new(), 1);
        let mut trees = Trees::of_start(bits, generation, 6);
        for step in steps {
            match step {
                Step::Change { token, n, by } => {
                    trees.change(trees.leaf_at(token, n), 0, by);
                    disk.extend(batch(&mut trees));
                }
                Step::Many(changes) => {
                    changes.iter().for_each(|&(token, by)| trees.change(trees.leaf_at(token, 3), 0, by));
                    disk.extend(batch(&mut trees));
                }
                Step::Refused(changes) => {
                    changes.iter().for_each(|&(token, by)| trees.change(trees.leaf_at(token, 3), 0, by));
                    batch(&mut trees);
                    for &(token, by) in &changes {
                        trees.refused();
                        trees.change(trees.leaf_at(token, 3), by, 0);
                    }
                }
                Step::Restart => {
                    generation += 1;
                    trees = restored(bits, generation, &disk);
                }
            }
            prop_assert_eq!(roots(&restored(bits, generation, &disk)), roots(&trees));
        }
    }

    #[test]
    fn rubbish_is_refused_or_restored_and_never_panics(
        bits in 0u8..=16,
        found in prop::collection::vec((any::<u64>(), prop::collection::vec(0u8..70, 0..3), prop::collection::vec(any::<u8>(), 0..60)), 0..8),
    ) {
        let row = |(token, key, payload): (u64, Vec<u8>, Vec<u8>)| LeafRow { token, key: key.into(), payload: Some(payload.into()) };
        let mut trees = Trees::of_start(bits, 1, 6);
        let _ = trees.restore(found.into_iter().map(row));
        let _ = batch(&mut trees);
    }
}

#[test]
fn a_branch_is_written_for_many_leaves_that_change_and_the_log_stays_short() {
    let (mut disk, mut trees) = (Disk::new(), Trees::of_start(4, 1, 1000));
    let (mut logged, mut branches) = (0, 0);
    for at in 0..20_000_u64 {
        let token = (at % 300).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        trees.change(trees.leaf_at(token, 3), 0, at);
        let rows = batch(&mut trees);
        logged += rows.keys().filter(|(_, key)| key.is_empty()).count();
        branches += rows.keys().filter(|(_, key)| !key.is_empty()).count();
        assert!(rows.len() <= 3, "in even steps");
        disk.extend(rows);
    }
    assert_eq!(logged, 20_000);
    assert!(branches <= 300 * 21, "{branches}");
    let rows = disk.keys().filter(|(_, key)| key.is_empty()).count();
    assert!(rows <= 2100, "{rows}");
}

#[test]
fn a_branch_that_cannot_be_read_is_named_and_without_the_log_all_is_lost() {
    let mut trees = Trees::of_start(4, 1, 1);
    let leaf = trees.leaf_at(5 << 50, 3);
    trees.change(leaf, 0, 7);
    let mut disk = batch(&mut trees);
    trees.change(trees.leaf_at(9 << 59, 3), 0, 7);
    disk.extend(batch(&mut trees));
    let spoil = |is_log: bool| {
        let mut rows = rows(&disk);
        let spoiled = rows.iter_mut().find(|row| row.key.is_empty() == is_log).unwrap();
        spoiled.payload = None;
        rows
    };
    let mut again = Trees::of_start(4, 2, 1);
    let suspects = again.restore(spoil(false)).unwrap();
    assert_eq!(suspects.len(), LEAVES);
    assert!(suspects.contains(&leaf), "{suspects:?}");
    assert_eq!(again.restore(spoil(true)), Err(LeavesLost));
    let mut rows = rows(&disk);
    rows[0].key = Bytes::from_static(&[3]);
    assert_eq!(again.restore(rows), Err(LeavesLost), "another format");
}
