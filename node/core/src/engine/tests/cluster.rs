//! Several engines, their network and their disks, in memory and on a clock that a test turns.

use super::asks::key;
use crate::bucket::BucketProperties;
use crate::dot::Dot;
use crate::engine::{
    Boot, Effect, Engine, EngineConfig, Input, Limits, LoadFailed, LoadId, RequestHandle, Scan, ScanId, ScanPage,
    ScanRows, StoreTicket, stored::Stored,
};
use crate::key::Key;
use crate::message::{Greeting, Met, PeerMessage};
use crate::place::{Place, Shelf};
use crate::record::Record;
use crate::request::{Operation, RequestId, Response};
use crate::seal::{ContextKey, ContextKeys};
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::{Member, NodeId, NodeIndex, Ring, RingVersion};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What every request is given.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);

/// One node's disk, and what a test keeps it from doing.
#[derive(Default)]
pub(super) struct Disk {
    /// What loads see.
    pub(super) applied: BTreeMap<Place, Bytes>,
    /// What survives a crash.
    synced: BTreeMap<Place, Bytes>,
    /// Where the two may differ.
    unsynced: BTreeSet<Place>,
    last: StoreTicket,
    loads: Vec<(LoadId, Place)>,
    pub(super) holds_syncs: bool,
    pub(super) holds_loads: bool,
    pub(super) refuses_stores: bool,
    pub(super) fails_loads: bool,
    /// Rows that do not fit their checksums.
    pub(super) corrupt: BTreeSet<Place>,
    /// Tokens of records that no scan can read.
    pub(super) damaged: Option<std::ops::RangeInclusive<u64>>,
    /// Tokens of keys whose hints no scan can read.
    pub(super) damaged_hints: Option<std::ops::RangeInclusive<u64>>,
    /// Pages are read, and given out later.
    pub(super) holds_scans: bool,
    scans: Vec<(ScanId, Result<ScanPage, LoadFailed>)>,
    /// Rows that were set aside.
    pub(super) aside: Vec<Place>,
    /// The one record that cannot be read.
    pub(super) fails_loads_of: Option<Key>,
    /// Hints are damaged.
    pub(super) corrupts_hints: bool,
    /// How many stores it was asked for, notes not counted.
    pub(super) stores: usize,
}

impl Disk {
    /// How many pages are held.
    pub(super) fn scans_held(&self) -> usize {
        self.scans.len()
    }

    fn hits_damage(&self, what: &Scan) -> bool {
        match (&what.rows, &self.damaged) {
            (ScanRows::Records(tokens), Some(damaged)) => {
                damaged.start() <= tokens.end() && tokens.start() <= damaged.end()
            }
            _ => false,
        }
    }

    fn set_aside(&mut self, place: Place) {
        if !self.refuses_stores {
            self.applied.remove(&place);
            self.corrupt.remove(&place);
            self.unsynced.insert(place.clone());
            self.aside.push(place);
        }
    }
}

/// A cluster. Nodes are named by their index, in the order of the ring's members.
pub(super) struct Cluster {
    pub(super) engines: Vec<Engine>,
    pub(super) disks: Vec<Disk>,
    pub(super) now: Instant,
    /// Everything that was sent but greetings, in order: from, to, what.
    pub(super) sent: Vec<(usize, usize, PeerMessage)>,
    /// The greetings that were sent, in order.
    pub(super) greetings: Vec<(usize, usize, Greeting)>,
    network: VecDeque<(usize, usize, PeerMessage)>,
    linked: BTreeSet<(usize, usize)>,
    /// Links that keep what is sent, and what they keep.
    held: BTreeMap<(usize, usize), Vec<PeerMessage>>,
    replies: BTreeMap<RequestHandle, Response>,
    asked: u64,
    dots: BTreeMap<(Key, Dot), (RequestId, u64)>,
    /// Nodes that asked to be started over, and why.
    pub(super) rebuilds: BTreeMap<usize, String>,
}

/// What seals the contexts of every cluster.
pub(super) fn context_keys() -> ContextKeys {
    ContextKeys::new(ContextKey { id: 1, secret: [9; 32] }, vec![])
}

/// A configuration of `nodes` nodes, as node `me` has it.
pub(super) fn config(nodes: usize, me: usize, seed: u8) -> EngineConfig {
    let id = |node: usize| NodeId([node as u8 + 1; 16]);
    let member = |node: usize| Member {
        id: id(node),
        name: format!("n{}", node + 1),
        zone: format!("z{}", node + 1),
        weight: 100,
        quic: String::new(),
        http: String::new(),
    };
    let ring = Ring::new(RingVersion(1), 4, (0..nodes).map(member).collect()).unwrap();
    EngineConfig {
        me: id(me),
        ring: Arc::new(ring),
        seed: [seed; 32],
        context_keys: context_keys(),
        buckets: Default::default(),
        limits: Limits {
            exchange: false,
            scrub_per_second: 0,
            ..Limits::default()
        },
        wall_ms: 1_800_000_000_000,
        is_replaced: false,
        boot: Boot {
            generation: 1,
            ..Boot::default()
        },
    }
}

impl Cluster {
    /// Nodes that are all connected.
    pub(super) fn new(nodes: usize) -> Cluster {
        Cluster::with(nodes, |_| {})
    }

    /// The same, with the properties of all buckets changed.
    pub(super) fn with_bucket(nodes: usize, change: impl Fn(&mut BucketProperties)) -> Cluster {
        Cluster::with(nodes, |config| change(&mut config.buckets.defaults))
    }

    /// The same, where no hints are kept: owners that are behind stay behind.
    pub(super) fn without_hints(nodes: usize) -> Cluster {
        Cluster::with_bucket_without_hints(nodes, |_| {})
    }

    /// The same, with the properties of all buckets changed.
    pub(super) fn with_bucket_without_hints(nodes: usize, change: impl Fn(&mut BucketProperties)) -> Cluster {
        Cluster::with(nodes, |config| {
            config.limits.hints = false;
            change(&mut config.buckets.defaults);
        })
    }

    /// The same, with each configuration changed.
    pub(super) fn with(nodes: usize, change: impl Fn(&mut EngineConfig)) -> Cluster {
        let engine = |me| {
            let mut config = config(nodes, me, me as u8);
            change(&mut config);
            Engine::new(config)
        };
        let mut cluster = Cluster {
            engines: (0..nodes).map(engine).collect(),
            disks: (0..nodes).map(|_| Disk::default()).collect(),
            now: Instant(1_000_000),
            sent: Vec::new(),
            greetings: Vec::new(),
            network: VecDeque::new(),
            linked: BTreeSet::new(),
            held: BTreeMap::new(),
            replies: BTreeMap::new(),
            asked: 0,
            dots: BTreeMap::new(),
            rebuilds: BTreeMap::new(),
        };
        for node in 0..nodes {
            let own = cluster.engines[node].config().boot.note();
            cluster.disks[node].applied.insert(Place::Own, own.clone());
            cluster.disks[node].synced.insert(Place::Own, own);
        }
        for a in 0..nodes {
            (0..a).for_each(|b| cluster.connect(a, b));
        }
        cluster
    }

    /// Connects two nodes, and lets them greet each other.
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.linked.insert((from, to));
            self.input(from, Input::PeerUp(index(to)));
        }
        self.run();
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.held.remove(&(from, to));
            self.network.retain(|m| (m.0, m.1) != (from, to));
            if self.linked.remove(&(from, to)) {
                self.input(from, Input::PeerDown(index(to)));
            }
        }
        self.run();
    }

    /// Cuts a node off from all others.
    pub(super) fn isolate(&mut self, node: usize) {
        (0..self.engines.len())
            .filter(|&other| other != node)
            .for_each(|other| self.disconnect(node, other));
    }

    /// The process ends: what was not synced is gone. It comes back at once with fresh entropy, and connects to all.
    pub(super) fn crash(&mut self, node: usize, seed: u8) {
        let rows = std::mem::take(&mut self.disks[node].synced);
        self.restart(node, seed, rows);
    }

    /// What is on a node's disk, to be put back later.
    pub(super) fn copy_of(&self, node: usize) -> BTreeMap<Place, Bytes> {
        self.disks[node].synced.clone()
    }

    /// The process ends, and another one starts over a disk with these rows. It connects to all.
    pub(super) fn restart(&mut self, node: usize, seed: u8, rows: BTreeMap<Place, Bytes>) {
        self.restart_alone(node, seed, rows);
        (0..self.engines.len())
            .filter(|&other| other != node)
            .for_each(|other| self.connect(node, other));
    }

    /// The same, as the shell starts one, without connecting it.
    pub(super) fn restart_alone(&mut self, node: usize, seed: u8, mut rows: BTreeMap<Place, Bytes>) {
        self.isolate(node);
        let mut config = self.engines[node].config().clone();
        config.seed = [seed; 32];
        config.boot = Boot::next(rows.get(&Place::Own).map(|own| &own[..])).unwrap();
        rows.insert(Place::Own, config.boot.note());
        self.engines[node] = Engine::new(config);
        for (place, payload) in &rows {
            if Place::note_in(&place.row().key).is_some() {
                self.engines[node].restore_note(place.clone(), payload).unwrap();
            }
            if let Place::Hint(target, key) = place {
                self.engines[node].restore_hint(*target, key, payload);
            }
        }
        self.disks[node] = Disk {
            applied: rows.clone(),
            synced: rows,
            ..Disk::default()
        };
        self.restore_leaves(node);
    }

    /// Hands a new engine the Merkle trees of what is on its disk.
    fn restore_leaves(&mut self, node: usize) {
        let engine = &mut self.engines[node];
        for (place, payload) in &self.disks[node].applied {
            let Place::Record(key) = place else { continue };
            // Bytes that a test spoiled are in no tree.
            engine.restore_record(key, payload.clone());
        }
    }

    /// Keeps what is sent from one node to another until [`Cluster::release`].
    pub(super) fn hold(&mut self, from: usize, to: usize) {
        self.held.entry((from, to)).or_default();
    }

    /// What was held is lost, and nothing is held from now on.
    pub(super) fn lose(&mut self, from: usize, to: usize) {
        self.held.remove(&(from, to));
    }

    pub(super) fn release(&mut self, from: usize, to: usize) {
        for message in self.held.remove(&(from, to)).unwrap_or_default() {
            self.network.push_back((from, to, message));
        }
        self.run();
    }

    /// The disk syncs what it holds, and again at once from now on.
    pub(super) fn release_syncs(&mut self, node: usize) {
        self.disks[node].holds_syncs = false;
        self.sync(node);
        self.run();
    }

    /// The disk gives out the pages that it holds, and again at once from now on.
    pub(super) fn release_scans(&mut self, node: usize) {
        self.disks[node].holds_scans = false;
        for (scan, result) in std::mem::take(&mut self.disks[node].scans) {
            self.input(node, Input::Scanned { scan, result });
        }
        self.run();
    }

    /// The disk answers the loads that it holds, and again at once from now on.
    pub(super) fn release_loads(&mut self, node: usize) {
        self.disks[node].holds_loads = false;
        for (load, place) in std::mem::take(&mut self.disks[node].loads) {
            self.answer_load(node, load, &place);
        }
        self.run();
    }

    /// The disk answers the first of the loads that it holds.
    pub(super) fn release_load(&mut self, node: usize) {
        let (load, place) = self.disks[node].loads.remove(0);
        self.answer_load(node, load, &place);
        self.run();
    }

    /// Sends a request to a node, and lets everything happen that can happen without time passing.
    pub(super) fn begin(&mut self, node: usize, operation: Operation) -> RequestHandle {
        let handle = self.begin_quietly(node, operation);
        self.run();
        handle
    }

    /// The same, but lets nothing happen yet.
    pub(super) fn begin_quietly(&mut self, node: usize, operation: Operation) -> RequestHandle {
        self.asked += 1;
        let (handle, timeout) = (RequestHandle(self.asked), TIMEOUT);
        self.input(
            node,
            Input::Request {
                handle,
                operation,
                timeout,
            },
        );
        handle
    }

    /// The reply to a request, if it has come.
    pub(super) fn reply(&self, handle: RequestHandle) -> Option<Response> {
        self.replies.get(&handle).cloned()
    }

    /// Sends a request whose reply comes without time passing.
    pub(super) fn ask(&mut self, node: usize, operation: Operation) -> Response {
        let handle = self.begin(node, operation);
        self.reply(handle).expect("the reply comes at once")
    }

    /// Sends a request, and turns the clock until its reply comes.
    pub(super) fn wait(&mut self, node: usize, operation: Operation) -> Response {
        let handle = self.begin(node, operation);
        self.wait_for(handle)
    }

    pub(super) fn wait_for(&mut self, handle: RequestHandle) -> Response {
        let limit = self.now + 2 * TIMEOUT;
        while self.reply(handle).is_none() {
            let next = self.engines.iter().filter_map(Engine::poll_timeout).min();
            self.advance_to(next.expect("somebody waits for something"));
            assert!(self.now < limit, "no reply in time");
        }
        self.reply(handle).unwrap()
    }

    /// Lets time pass. Timers fire when they are due.
    pub(super) fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.engines.iter().filter_map(Engine::poll_timeout).min()
            && next <= end
        {
            self.advance_to(next);
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, at: Instant) {
        self.now = self.now.max(at);
        (0..self.engines.len()).for_each(|node| self.input(node, Input::Tick));
        self.run();
    }

    pub(super) fn input(&mut self, node: usize, input: Input) {
        self.engines[node].handle(self.now, input);
    }

    /// Carries out effects until there are none.
    pub(super) fn run(&mut self) {
        loop {
            for node in 0..self.engines.len() {
                while let Some(effect) = self.engines[node].poll_effect() {
                    self.carry_out(node, effect);
                }
            }
            let Some((from, to, message)) = self.network.pop_front() else {
                return;
            };
            let from = index(from);
            self.input(to, Input::Message { from, message });
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(node, usize::from(to.0), message),
            Effect::Reply { handle, response } => {
                assert!(self.replies.insert(handle, response).is_none(), "one reply a request");
            }
            Effect::Load { load, place } if self.disks[node].holds_loads => {
                self.disks[node].loads.push((load, place));
            }
            Effect::Load { load, place } => self.answer_load(node, load, &place),
            Effect::Scan { scan, what } => self.answer_scan(node, scan, &what),
            Effect::Store { ticket, place, payload } => self.store(node, ticket, place, payload),
            Effect::SetAside { place } => self.disks[node].set_aside(place),
            Effect::Rebuild { reason } => {
                assert!(self.rebuilds.insert(node, reason).is_none(), "it is asked for once");
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        if let PeerMessage::Replicate(m) = &message {
            self.check_dots(&m.key, &Record::decode(&m.record).unwrap());
        }
        match &message {
            PeerMessage::Greeting(greeting) => self.greetings.push((from, to, *greeting)),
            _ => self.sent.push((from, to, message.clone())),
        }
        if let Some(held) = self.held.get_mut(&(from, to)) {
            held.push(message);
        } else if self.linked.contains(&(from, to)) {
            self.network.push_back((from, to, message));
        }
    }

    fn answer_load(&mut self, node: usize, load: LoadId, place: &Place) {
        let disk = &self.disks[node];
        let is_lost = matches!(place, Place::Record(key) if disk.fails_loads_of.as_ref() == Some(key));
        let result = match disk.fails_loads || is_lost {
            true => Err(LoadFailed::Unreadable),
            false if disk.corrupts_hints && matches!(place, Place::Hint(..)) => Err(LoadFailed::Corrupt),
            false if disk.corrupt.contains(place) => Err(LoadFailed::Corrupt),
            false => Ok(disk.applied.get(place).cloned()),
        };
        self.input(node, Input::Loaded { load, result });
    }

    fn answer_scan(&mut self, node: usize, scan: ScanId, what: &Scan) {
        let disk = &self.disks[node];
        let is_asked_for = |place: &Place| match (&what.rows, place) {
            (ScanRows::Records(tokens), Place::Record(key)) | (ScanRows::Settle(tokens), Place::Settle(key)) => {
                tokens.contains(&key.token().0)
            }
            (ScanRows::Hints(target, from), Place::Hint(node, key)) => target == node && *from <= key.token(),
            _ => false,
        };
        // Places of one kind sort by their keys.
        let wanted = disk.applied.iter().filter(|(place, _)| is_asked_for(place));
        let row = |(place, payload): (&Place, &Bytes)| match disk.corrupt.contains(place) {
            true => (place.key().unwrap().clone(), Err(LoadFailed::Corrupt)),
            false => (place.key().unwrap().clone(), Ok(payload.clone())),
        };
        let rows = wanted.map(row);
        let rows = rows.filter(|(key, _)| what.after.as_ref().is_none_or(|after| key > after));
        let mut rows: Vec<(Key, Result<Bytes, LoadFailed>)> = rows.collect();
        let met = disk.damaged_hints.as_ref().filter(|hit| match what.rows {
            ScanRows::Hints(_, from) => from.0.max(what.after.as_ref().map_or(0, |key| key.token().0)) <= *hit.end(),
            _ => false,
        });
        let before = rows
            .iter()
            .take_while(|(key, _)| met.is_none_or(|met| key.token().0 < *met.start()));
        let before = before.count();
        rows.truncate(before);
        let hits_damage = met.is_some() && rows.is_empty();
        let done = rows.len() <= what.rows_max && met.is_none();
        rows.truncate(what.rows_max);
        let is_damaged = disk.corrupts_hints && matches!(what.rows, ScanRows::Hints(..));
        if is_damaged {
            rows.iter_mut().for_each(|row| row.1 = Err(LoadFailed::Corrupt));
        }
        let result = match disk.fails_loads {
            true => Err(LoadFailed::Unreadable),
            false if hits_damage || disk.hits_damage(what) => Err(LoadFailed::Damaged),
            false => Ok(ScanPage { rows, done }),
        };
        match self.disks[node].holds_scans {
            true => self.disks[node].scans.push((scan, result)),
            false => self.input(node, Input::Scanned { scan, result }),
        }
    }

    fn store(&mut self, node: usize, ticket: StoreTicket, place: Place, payload: Option<Bytes>) {
        if let (Place::Record(key), Some(payload)) = (&place, &payload) {
            self.check_dots(key, &stored(payload));
        }
        let disk = &mut self.disks[node];
        disk.stores += usize::from(place.row().shelf != Shelf::Note);
        assert!(ticket > disk.last, "tickets rise");
        disk.last = ticket;
        if disk.refuses_stores {
            return self.input(node, Input::StoreFailed(ticket));
        }
        disk.unsynced.insert(place.clone());
        disk.corrupt.remove(&place);
        match payload {
            Some(payload) => disk.applied.insert(place, payload),
            None => disk.applied.remove(&place),
        };
        self.input(node, Input::Applied(ticket));
        if !self.disks[node].holds_syncs {
            self.sync(node);
        }
    }

    fn sync(&mut self, node: usize) {
        let disk = &mut self.disks[node];
        for place in std::mem::take(&mut disk.unsynced) {
            match disk.applied.get(&place) {
                Some(payload) => disk.synced.insert(place, payload.clone()),
                None => disk.synced.remove(&place),
            };
        }
        let last = disk.last;
        self.input(node, Input::Durable(last));
    }

    /// No dot of a key stands for two writes.
    fn check_dots(&mut self, key: &Key, record: &Record) {
        for sibling in record.siblings() {
            let write = (sibling.request, sibling.content.payload_hash());
            let first = *self.dots.entry((key.clone(), sibling.dot)).or_insert(write);
            assert_eq!(first, write, "{:?} was minted twice", sibling.dot);
        }
    }

    /// The owners of the test's key, and a node that is none.
    pub(super) fn owners_and_stranger(&self) -> (Vec<usize>, usize) {
        let ring = &self.engines[0].config().ring;
        let owners = ring.owners(ring.partition_of(key().token()), 3);
        let owners: Vec<usize> = owners.iter().map(|node| usize::from(node.0)).collect();
        let stranger = (0..self.engines.len()).find(|node| !owners.contains(node));
        (owners, stranger.expect("there are more nodes than owners"))
    }

    /// The owners of the test's key and its fallbacks, each in the order of the preference list.
    pub(super) fn owners_and_fallbacks(&self) -> (Vec<usize>, Vec<usize>) {
        let ring = &self.engines[0].config().ring;
        let list = ring.preference_list(ring.partition_of(key().token()));
        let mut owners: Vec<usize> = list.iter().map(|node| usize::from(node.0)).collect();
        let fallbacks = owners.split_off(3);
        (owners, fallbacks)
    }

    /// The hints on a node's disk: for whom, the key, and the record; the empty record for a reference.
    pub(super) fn hints(&self, node: usize) -> Vec<(usize, Key, Record)> {
        let hint = |(place, payload): (&Place, &Bytes)| match place {
            Place::Hint(target, key) => Some((usize::from(target.0[0] - 1), key.clone(), stored(payload))),
            _ => None,
        };
        self.disks[node].applied.iter().filter_map(hint).collect()
    }

    /// For whom a node keeps hints of the test's key.
    pub(super) fn hinted(&self, node: usize) -> Vec<usize> {
        let hints = self.hints(node);
        assert_eq!(self.counted(node), hints.len() as u64, "node {node} counts its hints");
        hints
            .into_iter()
            .filter(|(_, k, _)| *k == key())
            .map(|(target, ..)| target)
            .collect()
    }

    /// How many hints a node says that it keeps.
    pub(super) fn counted(&self, node: usize) -> u64 {
        self.engines[node].hints().iter().map(|hints| hints.count).sum()
    }

    /// To whom `from` sent messages that `is` picks, in order.
    pub(super) fn sent_to(&self, from: usize, is: impl Fn(&PeerMessage) -> bool) -> Vec<usize> {
        let picked = self.sent.iter().filter(|(sender, _, m)| *sender == from && is(m));
        picked.map(|&(_, to, _)| to).collect()
    }

    /// What a node's disk holds under the test's key.
    pub(super) fn record(&self, node: usize) -> Record {
        match self.disks[node].applied.get(&Place::Record(key())) {
            Some(payload) => stored(payload),
            None => Record::default(),
        }
    }

    /// The bytes of the record on a node's disk, with its mark.
    pub(super) fn record_bytes(&self, node: usize) -> &[u8] {
        &self.disks[node].applied[&Place::Record(key())]
    }

    /// Whether no node has anything of any key: no record, hint or row of a queue.
    pub(super) fn is_empty(&self) -> bool {
        let mut rows = self.disks.iter().flat_map(|disk| disk.applied.keys());
        rows.all(|place| place.key().is_none())
    }

    /// Nothing is under way any more, and nobody waits for a timer.
    pub(super) fn assert_idle(&self) {
        for (node, engine) in self.engines.iter().enumerate() {
            assert_eq!(engine.in_flight(), (0, 0), "node {node}");
            assert_eq!(engine.poll_timeout(), None, "node {node}");
        }
    }
}

/// Connects an engine that stands alone to a node, as if at time 0, and plays that node's part until it is up.
pub(super) fn let_up(engine: &mut Engine, node: usize) {
    engine.handle(Instant(0), Input::PeerUp(index(node)));
    let greeting = Greeting {
        me: Met {
            generation: 1,
            start: node as u64,
        },
        remembers: None,
        accepts: true,
        rebuilding: false,
        asks: false,
    };
    let (from, message) = (index(node), PeerMessage::Greeting(greeting));
    engine.handle(Instant(0), Input::Message { from, message });
    engine.handle(Instant(0), Input::Durable(StoreTicket(u64::MAX)));
}

pub(super) fn index(node: usize) -> NodeIndex {
    NodeIndex(node as u16)
}

fn stored(payload: &Bytes) -> Record {
    let mut stored = Stored::parse(Some(payload.clone())).unwrap();
    stored.record().unwrap().clone()
}
