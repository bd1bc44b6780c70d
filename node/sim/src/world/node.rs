//! One node: its disk, and a process that starts, stops, crashes and is suspended.
//!
//! What a process does with its engine is in [`super::shell`]. Here is what happens to it. A crash takes everything from memory, and of what
//! the disk had not synced all but the oldest part. A suspended process handles nothing; what comes in waits, and its clock
//! has moved on when it wakes.

use super::disk::Disk;
use super::event::{Event, NodeNo};
use super::rows::target_of;
use super::{World, micros};
use crate::probes::Probe;
use quorate_core::engine::{Counters, Engine, EngineConfig, Input};
use quorate_core::place::{Place, Shelf};
use quorate_storage::Column;
use std::collections::{BTreeSet, VecDeque};

/// The wall clock at virtual time 0, in milliseconds since 1970: some time in 2023.
pub(super) const WALL_MS: i64 = 1_700_000_000_000;

/// One node.
#[derive(Default)]
pub(super) struct Node {
    pub(super) engine: Option<Engine>,
    pub(super) disk: Disk,
    /// Counts its processes.
    life: u32,
    /// Added to the time that its engine sees: each process has an origin of its own.
    pub(super) origin: u64,
    /// What comes in while it is paused.
    pub(super) inbox: VecDeque<Input>,
    pub(super) paused: bool,
    pause: u32,
    /// When it was last paused or resumed.
    pub(super) disturbed_at: u64,
    pub(super) tick_at: Option<u64>,
    /// When what nobody waits for is synced, if there is something.
    pub(super) flush_at: Option<u64>,
    /// Effects until it crashes between two of them, and for how long.
    pub(super) crash_after: Option<(u32, u32)>,
    /// Handles of writes that were handed in and not replied to.
    pub(super) puts: BTreeSet<u64>,
    pub(super) seen: Counters,
    /// Added to the time that each of its messages takes.
    pub(super) slow_us: u64,
    /// It has gone and will not come back.
    pub(super) has_left: bool,
    /// It has lost its disk, or what was written to it since an earlier start, and has not read everything again.
    pub(super) has_amnesia: bool,
    /// It may find out that its directory is not the one that its peers remember.
    pub(super) is_rolled_back: bool,
    /// It was put over an older copy of its disk, and has not found out yet.
    pub(super) is_put_back: bool,
    /// Its process began with a directory from which something is missing.
    pub(super) is_new: bool,
    /// Its data were set aside, and the disk began anew.
    pub(super) is_replaced: bool,
    /// A file of its disk is damaged.
    pub(super) is_damaged: bool,
    /// Keys whose records have rotted on its disk and were not written again since.
    pub(super) rotten: BTreeSet<usize>,
}

impl Node {
    pub(super) fn is_running(&self) -> bool {
        self.engine.is_some()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn life(&self) -> u32 {
        self.life
    }

    /// Requests that its process has passed on.
    pub(super) fn forwarded(&self) -> u64 {
        self.engine.as_ref().map_or(0, |engine| engine.counters().forwarded)
    }

    pub(super) fn puts_pending(&self) -> usize {
        self.puts.len()
    }

    pub(super) fn in_flight(&self) -> (usize, usize) {
        self.engine.as_ref().map_or((0, 0), Engine::in_flight)
    }
}

impl World {
    /// Starts a node's process over its disk.
    pub(super) fn start(&mut self, at: NodeNo) {
        if self.nodes[at].has_left {
            return;
        }
        let seed = self.clocks.bytes32();
        let origin = self.clocks.below(1 << 40);
        let skew_ms = self.plan.options.node_skews_ms.get(at).copied().unwrap_or(0);
        // The engine's clock counts from its own origin.
        let wall_ms = WALL_MS + skew_ms - (origin / 1000) as i64;
        let node = &mut self.nodes[at];
        if self.plan.options.loses {
            node.disk.remember();
        }
        let boot = node.disk.boot();
        let config = EngineConfig {
            me: crate::plan::node_id(at as u8),
            ring: self.ring.clone(),
            seed,
            context_keys: self.context_keys.clone(),
            buckets: self.buckets.clone(),
            limits: self.limits.clone(),
            wall_ms: wall_ms as u64,
            boot,
            is_replaced: node.is_replaced && boot.is_new,
        };
        let mut engine = Engine::new(config);
        for (place, note) in node.disk.notes() {
            engine
                .restore_note(place, &note)
                .expect("the note is what an engine wrote");
        }
        for row in node.disk.rows(Column::Hint) {
            // One that has rotted is there, too, until it is removed.
            let payload = row.payload.unwrap_or_default();
            if let Some(key) = Place::key_in(Shelf::Hint, &row.key) {
                engine.restore_hint(target_of(row.token, &row.key), &key, &payload);
            }
        }
        if engine.restore_leaves(node.disk.leaves()).is_err() {
            node.disk.drop_leaves();
            for row in node.disk.rows(Column::Record) {
                // What cannot be read is left out: to its owners it looks like something that is missing here.
                if let (Some(key), Ok(payload)) = (Place::key_in(Shelf::Record, &row.key), row.payload) {
                    engine.restore_record(&key, payload);
                }
            }
            engine.write_leaves(|token, key, payload| node.disk.stage_leaf(token, key, payload));
            node.disk.commit_start();
        }
        node.engine = Some(engine);
        node.is_new = boot.is_new;
        // That all is read again is on disk, though the process crashed in that very moment. What was put back says so of another time.
        node.has_amnesia &= boot.is_new || node.is_put_back;
        node.origin = origin;
        node.seen = Counters::default();
        (node.tick_at, node.flush_at) = (None, None);
        self.note(|| format!("node {at} starts"));
        self.feed(at, Input::Tick);
        self.dial_all(at);
    }

    /// Ends a node's process: what it had in memory is gone, and what its disk had not synced, but for a part.
    pub(super) fn crash(&mut self, at: NodeNo, survive_pm: u16) {
        if !self.nodes[at].is_running() {
            return;
        }
        let node = &mut self.nodes[at];
        node.engine = None;
        node.life += 1;
        node.paused = false;
        node.crash_after = None;
        node.inbox.clear();
        node.puts.clear();
        let lost = node.disk.crash(survive_pm);
        if node.is_put_back {
            // It would be put back again. Left alone it would catch up with what its peers remember of it.
            node.disk.put_back_again();
        }
        self.probes.hit_if(lost > 0, Probe::CrashLostTail);
        self.note(|| format!("node {at} crashes, {lost} stores lost"));
        let options = &self.plan.options;
        self.truth
            .crashed(&self.keys, at, &self.nodes[at].disk, |key| options.is_relaxed(key));
        self.drop_connections(at);
    }

    pub(super) fn pause(&mut self, at: NodeNo, for_us: u64) {
        let node = &mut self.nodes[at];
        if !node.is_running() || node.paused {
            return;
        }
        node.paused = true;
        node.pause += 1;
        node.disturbed_at = self.now;
        let (life, pause) = (node.life, node.pause);
        self.queue
            .push(self.now + for_us, Event::Resume { node: at, life, pause });
        let patience = self.net.range(micros(3_000), micros(5_000));
        self.queue
            .push(self.now + patience, Event::Silent { node: at, life, pause });
        self.note(|| format!("node {at} is paused"));
    }

    /// Whether this is still the same pause of the same process.
    pub(super) fn pause_lasts(&self, at: NodeNo, life: u32, pause: u32) -> bool {
        let node = &self.nodes[at];
        node.paused && node.life == life && node.pause == pause
    }

    pub(super) fn resume(&mut self, at: NodeNo) {
        let node = &mut self.nodes[at];
        node.paused = false;
        node.disturbed_at = self.now;
        self.note(|| format!("node {at} goes on"));
        let inbox = std::mem::take(&mut self.nodes[at].inbox);
        inbox.into_iter().for_each(|input| self.feed(at, input));
        self.feed(at, Input::Tick);
    }

    pub(super) fn tick(&mut self, at: NodeNo) {
        let node = &mut self.nodes[at];
        if node.tick_at == Some(self.now) {
            node.tick_at = None;
            if !node.paused {
                self.feed(at, Input::Tick);
            }
        }
    }
}
