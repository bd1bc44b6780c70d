//! Operations of a plan: what clients do, and when.
//!
//! Times are drawn over the whole run, and a third of the operations fall right behind the one before, so that requests of different
//! clients overlap at one coordinator, and at several.

use super::draw::zero_or;
use super::options::Options;
use super::{Action, ContextChoice, Step, Target};
use crate::rng::Stream;
use quorate_core::request::QuorumKind;

/// How often each kind of operation comes up in this run.
struct Mix {
    actions: [u32; 6],
    contexts: [u32; 7],
    elsewhere_pm: u16,
    quorums_pm: u16,
    roles_pm: u16,
    minimum_pm: u16,
    large_pm: u16,
    /// At least this many acks for each write: what survives a disk that forgets.
    w_least: u8,
}

pub(super) fn draw(rng: &mut Stream, options: &Options, count: u64) -> Vec<Step> {
    let mix = mix(rng, options);
    let horizon_us = u64::from(options.horizon_ms) * 1000;
    let mut times: Vec<u64> = (0..count).map(|_| rng.range(20_000, horizon_us)).collect();
    for at in 1..times.len() {
        if rng.chance(330) {
            times[at] = times[at - 1] + rng.below(3_000);
        }
    }
    times.sort_unstable();
    times.into_iter().map(|at_us| step(rng, options, &mix, at_us)).collect()
}

fn mix(rng: &mut Stream, options: &Options) -> Mix {
    let mut weight = |low: u64, high: u64| rng.range(low, high) as u32;
    let actions = [
        weight(10, 60),
        weight(20, 80),
        weight(0, 15),
        weight(0, 25),
        weight(0, 2),
        weight(0, 1),
    ];
    let contexts = [
        weight(5, 60),
        weight(20, 80),
        weight(0, 20),
        weight(0, 3),
        weight(0, 3),
        weight(0, 3),
        weight(0, 1),
    ];
    Mix {
        actions,
        contexts,
        elsewhere_pm: zero_or(rng, 600, 50, 500),
        quorums_pm: zero_or(rng, 500, 50, 700),
        roles_pm: zero_or(rng, 500, 50, 500),
        minimum_pm: zero_or(rng, 500, 50, 500),
        large_pm: zero_or(rng, 300, 10, 200),
        w_least: if options.forgets { 2 } else { 1 },
    }
}

fn step(rng: &mut Stream, options: &Options, mix: &Mix, at_us: u64) -> Step {
    let key = rng.below(options.keys.len() as u64) as u8;
    let client = rng.below(options.clients.len() as u64) as u8;
    let target = if rng.chance(mix.elsewhere_pm) {
        Target::Node(rng.small(0, options.nodes - 1))
    } else {
        Target::Owner(rng.small(0, 6))
    };
    let timeout_ms = rng.pick(&[50, 200, 500, 1_000, 2_000]);
    let mut action = action(rng, options, mix, key);
    if options.clients[usize::from(client)].is_session {
        keep_session(&mut action);
    }
    Step {
        at_us,
        client,
        target,
        timeout_ms,
        action,
    }
}

/// In a session every request tells what was seen before.
fn keep_session(action: &mut Action) {
    match action {
        Action::Get { minimum, .. } => *minimum = true,
        Action::Put { context, .. } | Action::Delete { context, .. } => *context = ContextChoice::Last,
        _ => {}
    }
}

fn action(rng: &mut Stream, options: &Options, mix: &Mix, key: u8) -> Action {
    let n = options.properties(key.into()).n;
    let mut quorum = |least: u8| rng.chance(mix.quorums_pm).then(|| rng.small(least.min(n), n));
    let (r, w, dw) = (quorum(1), quorum(mix.w_least), quorum(1).filter(|q| q % 2 == 0));
    let owners = rng.chance(mix.roles_pm / 2).then(|| rng.small(1, n));
    let quorum = rng
        .chance(mix.roles_pm)
        .then(|| rng.pick(&[QuorumKind::Strict, QuorumKind::Sloppy]));
    match rng.weighted(&mix.actions) {
        0 => Action::Get {
            key,
            r: if rng.chance(5) { Some(n + 1) } else { r },
            pr: owners,
            quorum,
            minimum: rng.chance(mix.minimum_pm),
        },
        1 => Action::Put {
            key,
            context: context(rng, mix),
            w,
            pw: owners,
            dw,
            quorum,
            bytes: if rng.chance(mix.large_pm) {
                rng.range(200, 1_500) as u32
            } else {
                rng.range(16, 90) as u32
            },
            representation: rng.chance(100),
        },
        2 => Action::Delete {
            key,
            context: context(rng, mix),
            w,
            pw: owners,
            quorum,
        },
        3 => Action::Again {
            back: rng.small(0, 5),
            retry: rng.chance(800),
        },
        4 => Action::ReuseId { back: rng.small(0, 3) },
        _ => Action::Unsupported {
            key,
            which: rng.small(0, 1),
        },
    }
}

fn context(rng: &mut Stream, mix: &Mix) -> ContextChoice {
    match rng.weighted(&mix.contexts) {
        0 => ContextChoice::None,
        1 => ContextChoice::Last,
        2 => ContextChoice::Stale(rng.small(1, 4)),
        3 => ContextChoice::OtherKey,
        4 => ContextChoice::Flipped(rng.range(0, 999) as u16),
        5 => ContextChoice::Invented,
        _ => ContextChoice::Oversized,
    }
}
