//! Faults of a plan: what goes wrong, and when.
//!
//! What disks lose for good is bounded when the plan is carried out, not here: a fault that would destroy the last copy of something acknowledged, or
//! hit a second node while the first one reads again what it has lost, does not happen ([`crate::world`]). Single keys are forgotten by the one
//! owner that [`KeyPlan::victim`](super::KeyPlan::victim) names.

use super::options::Options;
use super::{Fault, FaultKind, Rotten};
use crate::rng::Stream;

pub(super) fn draw(rng: &mut Stream, options: &Options) -> Vec<Fault> {
    let mut draw = Draw {
        rng,
        options,
        faults: Vec::new(),
    };
    if options.forgets {
        draw.some(1000, 12, |rng, o| FaultKind::Forget {
            key: rng.below(o.keys.len() as u64) as u8,
        });
    }
    if options.loses && !options.forgets {
        draw.losses();
    }
    if let Some(node) = options.stays_away {
        let horizon_us = u64::from(options.horizon_ms) * 1000;
        let at_us = draw.rng.range(10_000, horizon_us);
        let kind = FaultKind::Leave { node };
        draw.faults.push(Fault { at_us, kind });
    }
    draw.some(450, 6, crash);
    if options.horizon_ms >= 60_000 {
        draw.some(700, 2, long_absence);
    }
    draw.some(150, 2, |rng, o| FaultKind::SyncFails { node: node(rng, o) });
    draw.some(200, 3, |rng, o| FaultKind::Slow {
        node: node(rng, o),
        by_ms: rng.range(50, 2_000) as u32,
        for_ms: duration(rng),
    });
    draw.some(300, 5, |rng, _| FaultKind::PowerCut {
        survive_pm: survive(rng),
        down_ms: rng.range(20, 2_000) as u32,
    });
    draw.some(300, 4, |rng, _| FaultKind::CutAtAck {
        down_ms: rng.range(20, 500) as u32,
    });
    draw.some(200, 4, |rng, o| FaultKind::CrashAtEffect {
        node: node(rng, o),
        effects: rng.range(1, 60) as u32,
        down_ms: rng.range(20, 3_000) as u32,
    });
    draw.some(250, 4, |rng, o| FaultKind::Pause {
        node: node(rng, o),
        for_ms: duration(rng),
    });
    if options.nodes > 1 {
        draw.some(400, 5, partition);
        draw.some(350, 12, reset);
    }
    draw.some(150, 3, |rng, o| FaultKind::DiskFull {
        node: node(rng, o),
        for_ms: duration(rng),
    });
    draw.some(150, 3, |rng, o| FaultKind::Unreadable {
        node: node(rng, o),
        for_ms: duration(rng),
    });
    let mut faults = draw.faults;
    faults.sort_by_key(|fault| fault.at_us);
    faults
}

struct Draw<'a> {
    rng: &'a mut Stream,
    options: &'a Options,
    faults: Vec<Fault>,
}

impl Draw<'_> {
    /// What a disk loses for good. It is one disk of a run and one kind of loss, so that the others keep what was acknowledged: two disks that
    /// lose what they hold, one soon after the other, can take every copy of a write.
    fn losses(&mut self) {
        let victim = node(self.rng, self.options);
        match self.rng.weighted(&[4, 2, 4]) {
            0 => self.some(1000, 2, |rng, _| FaultKind::Crash {
                node: victim,
                survive_pm: survive(rng),
                down_ms: duration(rng),
                wipe: true,
            }),
            1 => self.some(1000, 1, |rng, _| FaultKind::RollBack {
                node: victim,
                starts: rng.small(0, 2),
                down_ms: duration(rng),
            }),
            _ => self.some(1000, 8, |rng, _| FaultKind::Rot {
                node: victim,
                what: [Rotten::Record, Rotten::Hint, Rotten::Leaf][rng.weighted(&[6, 2, 2])],
                row: rng.range(0, 999) as u16,
                bit: rng.range(0, 9_999) as u16,
            }),
        }
    }

    /// In `per_mille` of all runs, one to `most` faults of a kind.
    fn some(&mut self, per_mille: u16, most: u64, kind: impl Fn(&mut Stream, &Options) -> FaultKind) {
        if !self.rng.chance(per_mille) {
            return;
        }
        for _ in 0..self.rng.range(1, most) {
            let at_us = self.rng.range(10_000, u64::from(self.options.horizon_ms) * 1000);
            self.faults.push(Fault {
                at_us,
                kind: kind(self.rng, self.options),
            });
        }
    }
}

fn node(rng: &mut Stream, options: &Options) -> u8 {
    rng.small(0, options.nodes - 1)
}

/// Often nothing of what was not synced survives, sometimes all, else a part.
fn survive(rng: &mut Stream) -> u16 {
    [0, 1000, rng.range(0, 1000) as u16][rng.weighted(&[5, 1, 4])]
}

/// Short ones that nobody notices, and some beyond the patience of every connection.
fn duration(rng: &mut Stream) -> u32 {
    let (low, high) = [(5, 100), (100, 2_000), (2_000, 9_000), (9_000, 30_000)][rng.weighted(&[10, 10, 9, 1])];
    rng.range(low, high) as u32
}

fn crash(rng: &mut Stream, options: &Options) -> FaultKind {
    FaultKind::Crash {
        node: node(rng, options),
        survive_pm: survive(rng),
        down_ms: duration(rng),
        wipe: false,
    }
}

/// A minute and more, through many writes and deletes.
fn long_absence(rng: &mut Stream, options: &Options) -> FaultKind {
    FaultKind::Crash {
        node: node(rng, options),
        survive_pm: survive(rng),
        down_ms: rng.range(30_000, 120_000) as u32,
        wipe: false,
    }
}

fn partition(rng: &mut Stream, options: &Options) -> FaultKind {
    let mut side = |per_mille: u16| {
        (0..options.nodes)
            .filter(|_| rng.chance(per_mille))
            .collect::<Vec<u8>>()
    };
    let from = side(400);
    let to = match rng.chance(800) {
        true => (0..options.nodes).filter(|node| !from.contains(node)).collect(),
        false => (0..options.nodes).filter(|_| rng.chance(400)).collect(),
    };
    FaultKind::Partition {
        from,
        to,
        both_ways: rng.chance(600),
        for_ms: duration(rng),
    }
}

fn reset(rng: &mut Stream, options: &Options) -> FaultKind {
    let a = node(rng, options);
    let b = (a + rng.small(1, options.nodes - 1)) % options.nodes;
    FaultKind::Reset { a, b }
}
