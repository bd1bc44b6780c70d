//! Deletes: what they leave goes when all owners have it, and not before.

use super::{NODES, home_with, step};
use crate::support::bulk::Bulk;
use crate::support::{eventually, within};
use std::time::{Duration, Instant};

const BULK: Bulk = Bulk {
    bucket: "deletes",
    bytes: 100,
};
const KEYS: usize = 200;
const REAPED: &str = "quorate_settle_reaped_total";

#[test]
fn all_deletes_are_settled_when_all_nodes_are_up_and_none_while_one_is_away() {
    let home = home_with(3, "");
    let mut dev = home.dev();
    BULK.write(&dev, 0..2 * KEYS, Some(0));
    step("delete with all nodes up");
    BULK.write(&dev, 0..KEYS, None);
    dev.wait_until_settled();
    BULK.check(&dev, NODES, 0..KEYS, None);
    eventually("each owner has dropped each", || {
        // More is possible: who dropped it first can get it once more from one that has not, and drops that, too.
        let reaped = NODES.map(|node| dev.metric(node, REAPED).unwrap());
        reaped.iter().all(|reaped| *reaped >= KEYS as f64).then_some(())
    });
    step("kill node 3, and delete the others");
    dev.tell("kill 3", "n3 killed");
    BULK.write(&dev, KEYS..2 * KEYS, None);
    let before = dev.sum(REAPED);
    // Twice the time that the proof takes when it can be had.
    let until = Instant::now() + Duration::from_secs(16);
    within(Duration::from_secs(20), "the time to pass", || {
        assert_eq!(dev.sum(REAPED), before, "dropped while an owner is away");
        (Instant::now() >= until).then_some(())
    });
    eventually("the deletes wait", || {
        let waiting = dev.healing(1)?["settling"]["waiting"].as_u64()?;
        (waiting > 0).then_some(())
    });
    step("start it");
    dev.tell("start 3", "n3 started");
    dev.wait_until_whole();
    dev.wait_until_settled();
    BULK.check(&dev, NODES, 0..2 * KEYS, None);
    eventually("each owner that was there has dropped each", || {
        let reaped = [1, 2].map(|node| dev.metric(node, REAPED).unwrap());
        (reaped.iter().all(|reaped| *reaped >= 2.0 * KEYS as f64)).then_some(())
    });
    println!("node 3 dropped {:?} since its start", dev.metric(3, REAPED));
    dev.stop();
}
