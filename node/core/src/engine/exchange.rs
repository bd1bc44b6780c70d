//! Merkle anti-entropy: owners compare what they hold, and ship what differs.
//!
//! An *exchange* is one session of this node, which asks, with one peer, which only answers, about one tree that both own:
//!
//! ```text
//! roots ──► branches ──► leaves that differ ──► keys in them, page by page ──► records: send, pull, or both ──► next page … end
//!   └── equal: two messages, and that was it
//! ```
//!
//! Each step looks closer at less, so what travels stays near what differs. An exchange ends when it has dealt with what it listed. It does
//! not go on until the roots are equal: under load they differ at any moment, by the writes that are on their way. One that found something
//! is followed by another a little later, to see whether that was all.
//!
//! `schedule` says when which pair is due, `session` is one exchange, `page` one page of its keys, `round` what happens where these cannot be read, `end` what becomes of it, `keys` lists and compares, `ship` moves records, `serve` answers,
//! `pace` keeps it from getting in the way of clients. All that is shipped has been synced where it comes from, and is merged where it goes: an
//! exchange that breaks off, or runs twice, does no harm.
//!
//! A tree takes part in one exchange at a time on each node, whoever asked: a node that comes back and compares itself with two others at
//! once would be sent the same records twice. Dynamo paper, section 4.7. Rejected: exchanging in both roles at once, which halves the messages and
//! needs an agreement on who ships what.

mod end;
mod hinted;
mod keys;
mod list;
mod pace;
mod page;
mod round;
mod schedule;
mod serve;
mod session;
mod ship;
mod status;

pub(super) use ship::{RowWaiter, RowWork};
pub use status::{ExchangePhase, ExchangeStatus, LastExchange, RunningExchange};

use super::Engine;
use super::background::Task;
use crate::place::Place;
use crate::time::Instant;
use crate::tree::TreeId;
use list::{Lister, Lists};
use pace::{Pace, Recent};
use quorate_ring::{NodeId, NodeIndex, PartitionId};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use schedule::{Class, Entry, Pair, Schedule};
use session::{Ended, Session};
use ship::Flights;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Exchanges that this node has asked for at once.
const SESSIONS_MAX: usize = 4;
/// First exchanges with a node that has come are spread over this long.
const SPREAD: Duration = Duration::from_secs(2);
/// A partition that is noted while its owner is there waits this long, so that what follows is compared with it, and what is on its way arrives.
const DIRTY_AFTER: Duration = Duration::from_secs(1);
/// When to look again whether an exchange was enough. Longer than a write counts as new.
const FOLLOW_UP_AFTER: Duration = Duration::from_secs(2);
/// First pauses after a failure, and after a peer that was busy with the tree.
const FAILED_AFTER: Duration = Duration::from_secs(1);
const BUSY_AFTER: Duration = Duration::from_millis(400);
/// Longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// For this long after a node has come, partitions that it is owed hints of are not compared with it. Longer than bringing them takes, as a rule.
const HINTS_FIRST: Duration = Duration::from_secs(60);
/// How soon shipping is tried again that waits for room in memory.
const ROOM_AFTER: Duration = Duration::from_millis(50);

/// All that an engine knows about exchanges.
pub(super) struct Exchange {
    schedule: Schedule,
    /// Those that this node has asked for.
    sessions: BTreeMap<TreeId, Session>,
    /// Who last asked about a tree that differed, and when.
    served: BTreeMap<TreeId, (NodeIndex, Instant)>,
    lists: Lists,
    flights: Flights,
    pace: Pace,
    recent: Recent,
    /// Nodes that have been connected since this one started.
    met: BTreeSet<NodeIndex>,
    /// When those came that are connected.
    came: BTreeMap<NodeIndex, Instant>,
    /// Partitions that were noted as dirty and are not scheduled yet.
    noted: BTreeSet<(NodeId, PartitionId)>,
    /// For each partition that a peer has missed something of: which of its trees were made equal, in an exchange that began after
    /// so many marks.
    healed: BTreeMap<(NodeIndex, PartitionId), BTreeMap<u8, u64>>,
    in_sync: BTreeSet<Pair>,
    last: BTreeMap<NodeIndex, (Instant, Ended)>,
    rng: ChaCha12Rng,
}

impl Exchange {
    /// Nothing under way. `seed` is the engine's.
    pub(super) fn new(seed: [u8; 32]) -> Exchange {
        let mut rng = ChaCha12Rng::from_seed(seed);
        // Lives and starts are drawn from other streams; these numbers only spread things in time.
        rng.set_stream(2);
        Exchange {
            schedule: Schedule::default(),
            sessions: BTreeMap::new(),
            served: BTreeMap::new(),
            lists: Lists::default(),
            came: BTreeMap::new(),
            flights: Flights::default(),
            pace: Pace::default(),
            recent: Recent::default(),
            met: BTreeSet::new(),
            noted: BTreeSet::new(),
            healed: BTreeMap::new(),
            in_sync: BTreeSet::new(),
            last: BTreeMap::new(),
            rng,
        }
    }

    /// A row is being changed.
    pub(super) fn note_change(&mut self, now: Instant, place: &Place) {
        if let Place::Record(key) = place {
            self.recent.note(now, key.token());
        }
    }

    /// A partition was noted as dirty.
    pub(super) fn note_dirty(&mut self, node: NodeId, partition: PartitionId) {
        self.noted.insert((node, partition));
    }

    /// About `duration`: between three quarters and five quarters of it.
    fn about(&mut self, duration: Duration) -> Duration {
        duration * 3 / 4 + self.within(duration / 2)
    }

    /// A moment within `duration`.
    fn within(&mut self, duration: Duration) -> Duration {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.rng.next_u64() % micros)
    }
}

impl Engine {
    /// Compares every tree that this node shares with a connected peer now, whatever its schedule says.
    pub fn exchange_now(&mut self, now: Instant) {
        for peer in self.connected() {
            for tree in self.shared_trees(peer).collect::<Vec<_>>() {
                let class = self.class_of(peer, tree);
                let (at, failures, follow_ups) = (now, 0, 0);
                let entry = Entry {
                    class,
                    at,
                    failures,
                    follow_ups,
                };
                self.exchange.schedule.put((peer, tree), entry);
            }
        }
        self.wake_exchange(now);
        self.run_tasks(now);
    }

    /// Compares what is wanted now with the peers that have it: this node has found out that it lost its memory.
    pub(super) fn exchange_wanted(&mut self, now: Instant) {
        for peer in self.connected() {
            self.schedule_peer(now, peer, Class::Wanted);
        }
        self.wake_exchange(now);
    }

    /// A node has come.
    pub(super) fn exchange_peer_up(&mut self, now: Instant, peer: NodeIndex) {
        self.exchange.came.insert(peer, now);
        // Of two that meet again one asks; one that has just started asks everybody, for it is the one that has missed something. One that has
        // lost its memory asks in any case.
        let is_first = self.exchange.met.insert(peer);
        let least = match is_first || self.me < peer {
            _ if !self.config.limits.exchange => Class::Wanted,
            true => Class::Usual,
            false => Class::Dirty,
        };
        self.schedule_peer(now, peer, least);
        self.wake_exchange(now);
    }

    /// A node is gone, and all that was under way with it.
    pub(super) fn exchange_peer_down(&mut self, now: Instant, peer: NodeIndex) {
        let exchange = &mut self.exchange;
        exchange.schedule.forget(peer);
        exchange.sessions.retain(|_, session| session.peer != peer);
        exchange.served.retain(|_, (node, _)| *node != peer);
        exchange.healed.retain(|&(node, _), _| node != peer);
        exchange.in_sync.retain(|&(node, _)| node != peer);
        exchange.flights.lose(peer);
        exchange.came.remove(&peer);
        let sessions = &exchange.sessions;
        exchange.lists.retain(|lister| match *lister {
            Lister::Session(tree, id) => sessions.get(&tree).is_some_and(|session| session.id == id),
            Lister::Peer(node, _) => node != peer,
        });
        self.wake_exchange(now);
    }

    /// Does what is due: ends what hangs, begins what is to begin, ships what there is room for.
    pub(super) fn run_exchanges(&mut self, now: Instant) {
        self.look_at_pace(now);
        self.exchange.recent.turn(now);
        self.drop_overdue(now);
        self.schedule_noted(now);
        while self.exchange.sessions.len() < SESSIONS_MAX
            && let Some((pair, entry)) = self.exchange.schedule.take_due(now)
        {
            self.try_session(now, pair, entry);
        }
        self.run_lists(now);
        self.ship(now);
        self.sleep_exchange(now);
    }

    fn look_at_pace(&mut self, now: Instant) {
        let counters = &self.counters;
        let requests = counters.gets + counters.puts + counters.deletes + counters.replicated + counters.fetched;
        self.exchange.pace.look(now, requests);
    }

    /// How many of at most `full` records healing may have on its way to or from one node, as busy as this node is with clients.
    pub(super) fn healing_window(&mut self, now: Instant, full: u16) -> u16 {
        self.look_at_pace(now);
        u16::try_from(self.exchange.pace.window(full)).unwrap_or(full)
    }

    /// Lets the task run before this input has been dealt with.
    fn wake_exchange(&mut self, now: Instant) {
        self.background.wake(now, Task::Exchange);
    }

    fn sleep_exchange(&mut self, now: Instant) {
        let sessions = &self.exchange.sessions;
        let next = match sessions.len() < SESSIONS_MAX {
            true => self.exchange.schedule.next(),
            false => None,
        };
        let overdue = sessions.values().map(|session| session.deadline).min();
        let hungry = sessions.values().any(Session::waits_for_room).then(|| now + ROOM_AFTER);
        let lists = self.exchange.lists.next();
        if let Some(at) = [next, overdue, hungry, lists].into_iter().flatten().min() {
            self.background
                .wake(at.max(now + Duration::from_millis(1)), Task::Exchange);
        }
    }

    fn connected(&self) -> Vec<NodeIndex> {
        self.others().filter(|&node| self.peers.is_up(node)).collect()
    }

    /// The trees that both this node and a peer own.
    fn shared_trees(&self, peer: NodeIndex) -> impl Iterator<Item = TreeId> + '_ {
        let partitions = self.config.ring.partition_ids();
        partitions.flat_map(move |partition| self.shared_in(peer, partition))
    }

    /// The same, of one partition.
    pub(super) fn shared_in(&self, peer: NodeIndex, partition: PartitionId) -> impl Iterator<Item = TreeId> + '_ {
        let buckets = &self.config.buckets;
        let mut copies: BTreeSet<u8> = buckets.named.values().map(|bucket| bucket.n).collect();
        copies.insert(buckets.defaults.n);
        let ring = &self.config.ring;
        let both = move |tree: &TreeId| {
            [self.me, peer]
                .iter()
                .all(|&node| ring.owns(node, tree.partition, tree.n))
        };
        copies.into_iter().map(move |n| TreeId { partition, n }).filter(both)
    }

    /// Why two owners would be compared now.
    fn class_of(&self, peer: NodeIndex, tree: TreeId) -> Class {
        if self.needs_source(peer, tree) {
            Class::Wanted
        } else if self.marks_of(peer, tree).is_some() {
            Class::Dirty
        } else {
            Class::Usual
        }
    }

    /// How often the tree's partition was noted as one that the peer has missed something of.
    fn marks_of(&self, peer: NodeIndex, tree: TreeId) -> Option<u64> {
        let node = self.config.ring.member(peer).id;
        self.dirty.mark_of(node, tree.partition)
    }

    /// Schedules the trees shared with a peer that are at least this urgent.
    fn schedule_peer(&mut self, now: Instant, peer: NodeIndex, least: Class) {
        for tree in self.shared_trees(peer).collect::<Vec<_>>() {
            let class = self.class_of(peer, tree);
            let spread = match class {
                Class::Usual => SPREAD,
                Class::Wanted | Class::Dirty => SPREAD / 10,
            };
            if class <= least {
                let at = now + self.exchange.within(spread.min(self.config.limits.exchange_every));
                self.exchange.schedule.hasten((peer, tree), class, at);
            }
        }
    }

    /// Schedules what was noted as dirty since this was last called.
    fn schedule_noted(&mut self, now: Instant) {
        for (node, partition) in std::mem::take(&mut self.exchange.noted) {
            let peer = self.config.ring.index_of(node).filter(|&peer| self.peers.is_up(peer));
            let is_on = self.config.limits.exchange || self.start_over.is_leaving();
            let Some(peer) = peer.filter(|_| is_on) else {
                continue;
            };
            for tree in self.shared_in(peer, partition).collect::<Vec<_>>() {
                let at = now + self.exchange.about(DIRTY_AFTER);
                self.exchange.schedule.hasten((peer, tree), Class::Dirty, at);
            }
        }
    }

    /// Begins an exchange, or puts it off while the tree takes part in another one, or hints bring what it would find.
    fn try_session(&mut self, now: Instant, pair: Pair, entry: Entry) {
        let (peer, tree) = pair;
        if !self.peers.is_up(peer) || !self.config.limits.trees {
            return;
        }
        let is_taken = self.exchange.sessions.contains_key(&tree) || self.serves(now, tree).is_some();
        if is_taken || (entry.class == Class::Usual && self.hints_go_first(now, peer, tree.partition)) {
            let at = now + self.exchange.about(BUSY_AFTER);
            return self.exchange.schedule.put(pair, Entry { at, ..entry });
        }
        self.begin_session(now, pair, entry);
    }

    /// Whether hints for a node that came a moment ago are on their way to it: they bring what an exchange would find, and it would come twice.
    fn hints_go_first(&self, now: Instant, peer: NodeIndex, partition: PartitionId) -> bool {
        let came = self.exchange.came.get(&peer);
        let is_new = came.is_some_and(|&came| now.since(came) < HINTS_FIRST);
        is_new && self.has_hints(peer, partition)
    }
}
