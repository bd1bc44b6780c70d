//! How far the hints for each node have got on their way home.

use crate::detour::Detour;
use crate::engine::sizes::Sizes;
use crate::key::Key;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// First and longest pause after a refusal, or after a pass that brought nothing home.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How a target's hints get on.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Progress {
    pub(in crate::engine) delivered: u64,
    pub(in crate::engine) rate_per_second: u32,
    pub(in crate::engine) under_way: u32,
}

/// One hint under way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) key: Key,
    /// Hash of the record that was sent; `None` for a reference.
    pub(super) hash: Option<u64>,
    /// Of the record that was sent; 0 until it was.
    pub(super) bytes: usize,
    /// Another reference was made since.
    pub(super) again: bool,
}

/// One pass over the hints for a node.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub(super) number: u64,
    /// Rows are being read behind here.
    pub(super) after: Option<Key>,
    pub(super) is_reading: bool,
    pub(super) has_read_all: bool,
    /// Rows of keys before this token are damaged, and passed over.
    pub(super) from: u64,
    pub(super) detour: Detour,
    /// Some are damaged.
    pub(super) went_round: bool,
    /// Some could be read, and were not brought home.
    pub(super) left_some: bool,
    /// Read and not sent: keys, and records where it is no reference.
    pub(super) queue: VecDeque<(Key, Option<Bytes>)>,
    pub(super) under_way: BTreeMap<u64, Sent>,
    pub(super) credit: u16,
    pub(super) sizes: Sizes,
    pub(super) delivered: u64,
    /// Nothing is sent before then. Set once something was refused.
    pub(super) paused_until: Option<Instant>,
}

/// What is remembered of a node between passes.
#[derive(Debug, Default)]
pub(super) struct Home {
    pub(super) pass: Option<Pass>,
    pub(super) pause: Duration,
    /// The last pass has read all that can be read, and brought it home: what is left is lost, but for what came since.
    pub(super) is_rest_lost: bool,
    pub(super) delivered: u64,
    pub(super) rate_per_second: u32,
    /// Of the rate: since when, and how many.
    pub(super) counted_since: Instant,
    pub(super) counted: u32,
}

impl Pass {
    /// How many bytes were sent and are not answered.
    pub(super) fn bytes_sent(&self) -> usize {
        self.under_way.values().map(|sent| sent.bytes).sum()
    }

    /// Goes on behind what is damaged.
    pub(super) fn go_round(&mut self) {
        let at = self
            .after
            .take()
            .map_or(self.from, |last| self.from.max(last.token().0));
        self.went_round = true;
        match self.detour.beyond(at) {
            Some(from) => self.from = from,
            None => self.has_read_all = true,
        }
    }
}

impl Home {
    /// The next pause, twice as long as the last one.
    pub(super) fn lengthen_pause(&mut self) -> Duration {
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.pause
    }

    /// One more is home.
    pub(super) fn count(&mut self, now: Instant) {
        self.delivered += 1;
        self.counted += 1;
        let elapsed = now.since(self.counted_since).as_millis();
        if elapsed >= 1000 {
            let rate = u128::from(self.counted) * 1000 / elapsed;
            let before = u128::from(self.rate_per_second);
            let mixed = if before == 0 { rate } else { (before + rate) / 2 };
            self.rate_per_second = u32::try_from(mixed).unwrap_or(u32::MAX);
            (self.counted_since, self.counted) = (now, 0);
        }
    }
}

/// All passes, by node.
#[derive(Debug, Default)]
pub(in crate::engine) struct Handoffs {
    pub(super) homes: BTreeMap<NodeIndex, Home>,
    pub(super) passes: u64,
}

impl Handoffs {
    pub(in crate::engine) fn progress(&self, node: NodeIndex) -> Progress {
        let Some(home) = self.homes.get(&node) else {
            return Progress::default();
        };
        let under_way = home.pass.as_ref().map_or(0, |pass| pass.under_way.len());
        Progress {
            delivered: home.delivered,
            rate_per_second: home.rate_per_second,
            under_way: under_way as u32,
        }
    }

    /// The connection to a node is gone: all that was under way is a hint as before.
    pub(in crate::engine) fn lost(&mut self, node: NodeIndex) {
        if let Some(home) = self.homes.get_mut(&node) {
            (home.pass, home.rate_per_second) = (None, 0);
        }
    }

    /// There is a new hint for a node.
    pub(in crate::engine) fn is_new(&mut self, node: Option<NodeIndex>) {
        if let Some(home) = node.and_then(|node| self.homes.get_mut(&node)) {
            home.is_rest_lost = false;
        }
    }

    /// Whether what is left of the hints for a node is damaged.
    pub(in crate::engine) fn is_rest_lost(&self, node: NodeIndex) -> bool {
        self.homes.get(&node).is_some_and(|home| home.is_rest_lost)
    }

    /// A reference was made again that may be under way.
    pub(in crate::engine) fn again(&mut self, node: Option<NodeIndex>, key: &Key) {
        let home = node.and_then(|node| self.homes.get_mut(&node));
        let Some(pass) = home.and_then(|home| home.pass.as_mut()) else {
            return;
        };
        pass.under_way
            .values_mut()
            .filter(|sent| sent.key == *key)
            .for_each(|sent| sent.again = true);
    }

    /// Whether a record of the key is under way to its owner.
    pub(in crate::engine) fn may_hold(&self, key: &Key) -> bool {
        let passes = self.homes.values().filter_map(|home| home.pass.as_ref());
        passes
            .flat_map(|pass| pass.under_way.values())
            .any(|sent| sent.key == *key)
    }

    pub(super) fn pass(&mut self, node: NodeIndex) -> Option<&mut Pass> {
        self.homes.get_mut(&node)?.pass.as_mut()
    }
}
