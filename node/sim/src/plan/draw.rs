//! From a seed to a plan.
//!
//! First the cluster and the rates, then operations and faults in files of their own ([`super::steps`], [`super::faults`]), each from its own
//! stream. Weights are set so that the common case (three nodes, three copies, quorums that overlap) is the most frequent
//! one, and everything else comes up in a thousand seeds many times.

use super::options::{BucketPlan, ClientPlan, DiskRates, HealingPlan, KeyPlan, LimitsPlan, NetworkRates, Options};
use super::{Plan, faults, steps};
use crate::rng::{Purpose, Stream};
use quorate_core::bucket::{BlindWrites, BucketProperties, Durability};
use quorate_core::request::QuorumKind;

/// Operations in a drawn plan.
const STEPS: u64 = 300;

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Plan {
        let mut options = options(&mut Stream::new(seed, Purpose::Topology));
        relax(&mut Stream::new(seed, Purpose::Durability), &mut options.buckets);
        let steps = steps::draw(&mut Stream::new(seed, Purpose::Workload), &options, STEPS);
        let faults = faults::draw(&mut Stream::new(seed, Purpose::Faults), &options);
        Plan {
            seed,
            options,
            steps,
            faults,
        }
    }
}

fn options(rng: &mut Stream) -> Options {
    let nodes = [1, 2, 3, 4, 5, 6, 7, 8, 9][rng.weighted(&[2, 2, 10, 4, 6, 2, 2, 1, 1])];
    let forgets = nodes >= 2 && rng.chance(250);
    let buckets: Vec<BucketPlan> = (0..rng.range(1, 3))
        .map(|index| bucket(rng, nodes, forgets, index))
        .collect();
    let keys = match rng.weighted(&[3, 4, 3]) {
        0 => rng.range(1, 2),
        1 => rng.range(3, 8),
        _ => rng.range(9, 20),
    };
    let loses = nodes >= 2 && rng.chance(400);
    let stays_away = (nodes >= 2 && rng.chance(60)).then(|| rng.small(0, nodes - 1));
    let mut options = Options {
        nodes,
        partition_bits: [0, 1, 2, 3, 4, 5, 6][rng.weighted(&[6, 6, 6, 4, 2, 1, 1])],
        horizon_ms: horizon(rng),
        keys: (0..keys).map(|index| key(rng, buckets.len(), index)).collect(),
        clients: (0..rng.range(1, 10)).map(|index| client(rng, index)).collect(),
        limits: limits(rng),
        network: network(rng),
        disk: disk(rng),
        lost_replies_pm: zero_or(rng, 500, 1, 100),
        buckets,
        forgets,
        loses,
        stays_away,
        healing: healing(rng, loses),
        node_skews_ms: (0..nodes).map(|_| node_skew(rng)).collect(),
    };
    options.disk.flush_ms = [0, 1_000, 10_000, 60_000][rng.weighted(&[4, 3, 2, 1])];
    options
}

/// Clocks of servers are seldom off by much.
fn node_skew(rng: &mut Stream) -> i64 {
    match rng.chance(100) {
        true => rng.below(10_000) as i64 - 5_000,
        false => rng.below(40) as i64 - 20,
    }
}

fn healing(rng: &mut Stream, loses: bool) -> HealingPlan {
    // What is lost is read again by way of exchanges.
    let exchange = loses || rng.chance(900);
    HealingPlan {
        hints: rng.chance(800),
        hint_bytes_max: if rng.chance(200) { rng.range(0, 2_000) } else { 1 << 30 },
        handoff_window: rng.pick(&[1, 4, 64]),
        repairs_per_second: rng.pick(&[0, 1, 1000]),
        exchange,
        exchange_every_ms: rng.range(3_000, 6_000) as u32,
        settle_age_ms: rng.pick(&[0, 200, 2_000]),
        is_new_cluster: exchange && rng.chance(100),
    }
}

/// Often so short that most operations overlap, mostly long enough for connections to be lost and found, and seldom so long that a node can be
/// away for minutes.
fn horizon(rng: &mut Stream) -> u32 {
    let (low, high) = [(200, 2_000), (2_000, 30_000), (60_000, 180_000)][rng.weighted(&[30, 67, 3])];
    rng.range(low, high) as u32
}

/// Zero, or `per_mille` of the time a number from `low` to `high`.
pub(super) fn zero_or(rng: &mut Stream, per_mille: u16, low: u16, high: u16) -> u16 {
    if rng.chance(per_mille) {
        rng.range(low.into(), high.into()) as u16
    } else {
        0
    }
}

fn bucket(rng: &mut Stream, nodes: u8, forgets: bool, index: u64) -> BucketPlan {
    let n = [1, 2, 3, 4, 5][rng.weighted(&[2, 2, 10, 1, 3])];
    let n = if rng.chance(900) { n.min(nodes) } else { n };
    let n = if forgets { n.max(2) } else { n };
    let some_quorum = |rng: &mut Stream| rng.chance(350).then(|| rng.small(1, n));
    let (r, w, dw) = (
        some_quorum(rng),
        some_quorum(rng),
        rng.chance(150).then(|| rng.small(1, n)),
    );
    let w = if forgets {
        Some(w.unwrap_or(n / 2 + 1).max(2))
    } else {
        w
    };
    let properties = BucketProperties {
        n,
        r,
        w,
        dw,
        blind_writes: [BlindWrites::Siblings, BlindWrites::Require, BlindWrites::Replace][rng.weighted(&[7, 1, 2])],
        siblings_max: if rng.chance(200) { rng.range(2, 5) as u16 } else { 100 },
        value_bytes_max: if rng.chance(300) { 300 } else { 1 << 20 },
        record_bytes_max: if rng.chance(150) { 1_200 } else { 8 << 20 },
        quorum: rng.pick(&[QuorumKind::Strict, QuorumKind::Sloppy]),
        pr: rng.chance(80).then(|| rng.small(1, n)),
        pw: rng.chance(80).then(|| rng.small(1, n)),
        ttl_seconds: rng.chance(60).then(|| rng.range(1, 20) as u32),
        ..BucketProperties::default()
    };
    BucketPlan {
        name: format!("b{index}"),
        properties,
    }
}

/// Lets a few buckets acknowledge what is not on disk yet.
fn relax(rng: &mut Stream, buckets: &mut [BucketPlan]) {
    for bucket in buckets.iter_mut().filter(|_| rng.chance(80)) {
        bucket.properties.durability = Durability::Relaxed;
    }
}

fn key(rng: &mut Stream, buckets: usize, index: u64) -> KeyPlan {
    // Some have a sort key, and then the partition key of another one.
    let sorted = rng.chance(300);
    KeyPlan {
        bucket: rng.below(buckets as u64) as u8,
        name: format!("k{}", if sorted { index / 2 } else { index }),
        sort: sorted.then(|| format!("s{index}")),
        victim: rng.small(0, 7),
    }
}

fn client(rng: &mut Stream, index: u64) -> ClientPlan {
    let skew = if rng.chance(400) {
        rng.below(7_200_000) as i64 - 3_600_000
    } else {
        rng.below(200) as i64 - 100
    };
    ClientPlan {
        skew_ms: skew,
        is_session: rng.chance(200),
        has_keys: index % 2 == 1,
    }
}

fn limits(rng: &mut Stream) -> LimitsPlan {
    LimitsPlan {
        operations_max: if rng.chance(150) {
            rng.range(1, 8) as u32
        } else {
            16_384
        },
        slots_max: if rng.chance(150) {
            rng.range(2, 7) as u32
        } else {
            65_536
        },
        hedge_after_us: if rng.chance(200) {
            rng.range(500, 100_000) as u32
        } else {
            20_000
        },
    }
}

fn network(rng: &mut Stream) -> NetworkRates {
    let reliable = rng.chance(650);
    NetworkRates {
        reliable,
        loss_pm: zero_or(rng, 400, 1, 300),
        duplicate_pm: if reliable { 0 } else { zero_or(rng, 700, 10, 500) },
        delay_us: rng.pick(&[100, 200, 1_000, 5_000]),
        jitter_us: rng.pick(&[50, 500, 5_000, 50_000]),
        straggler_pm: zero_or(rng, 300, 1, 50),
    }
}

fn disk(rng: &mut Stream) -> DiskRates {
    DiskRates {
        read_error_pm: zero_or(rng, 300, 1, 100),
        refused_pm: zero_or(rng, 250, 1, 100),
        slow_read_pm: zero_or(rng, 500, 10, 900),
        read_us: rng.pick(&[200, 2_000, 20_000]),
        sync_us: rng.pick(&[200, 2_000, 10_000, 100_000]),
        slow_sync_pm: zero_or(rng, 300, 1, 100),
        flush_ms: 0,
    }
}
