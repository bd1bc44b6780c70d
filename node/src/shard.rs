//! The data loop's owner: the engine, the storage and the connections, in one place, on one thread.
//!
//! A burst of input (frames of one connection, requests from the gateway, the end of a sync) is handed to the engine, and what the
//! engine wants done is done at once: reads inline, all stores of the burst as one batch, messages into the outboxes. There is
//! no task, no channel and no lock for a request. Everything here runs to its end without waiting; the only thread it talks
//! to is the [`Syncer`].
//!
//! One shard owns all partitions of a node for now. The engine already speaks in terms of "its" partitions, so more shards (a loop, an
//! engine and a connection to each peer for each core) change this file and the transport, not the protocol.

mod cache;
mod seldom;
mod sinks;
mod status;

pub(crate) use sinks::{ClientSink, PeerSink};

use crate::data::wall_ms;
use crate::handle::Command;
use crate::metrics::{Metrics, OperationKind, Plane};
use crate::rebuild;
use crate::syncer::Syncer;
use crate::transport::{Outbox, close};
use bytes::Bytes;
use cache::RecordCache;
use quorate_core::bucket::Durability;
use quorate_core::engine::{
    Effect, Engine, Input, LoadFailed, LoadId, RequestHandle, Scan, ScanId, ScanPage, StoreTicket,
};
use quorate_core::key::Key;
use quorate_core::message::{
    Message, PeerMessage, Query, QueryAnswer, QueryReply, QueryRequest, Request, RequestReply,
};
use quorate_core::place::{Place, RowName, Shelf};
use quorate_core::request::{Code, Failure, Operation, Response};
use quorate_core::time::Instant;
use quorate_ring::NodeIndex;
use quorate_storage::{Batch, Column, RocksStorage, ScanLimit, Storage, StorageError};
use seldom::Seldom;
use slab::Slab;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// Commands taken from the queue in one go.
const COMMANDS_PER_TURN: usize = 64;

/// The data loop's state. See the module's documentation.
pub(crate) struct Shard {
    inner: RefCell<Inner>,
    /// An earlier timer was set than the one that is slept for.
    timer: Notify,
}

struct Inner {
    engine: Engine,
    storage: Arc<RocksStorage>,
    syncer: Syncer,
    metrics: Arc<Metrics>,
    cluster: String,
    started: std::time::Instant,
    cache: RecordCache,
    /// Stores of this burst, and their numbers and keys.
    batch: Batch,
    stores: Vec<(StoreTicket, Place)>,
    /// Scans of this burst.
    scans: Vec<(ScanId, Scan)>,
    /// The newest store that was applied, or refused.
    applied: StoreTicket,
    /// Lines about stores that were refused.
    refusals: Seldom,
    /// Replies of this burst.
    replies: Vec<(Requester, Response)>,
    peers: Vec<Peer>,
    clients: usize,
    requests: Slab<Requester>,
    sleeping_until: Option<Instant>,
    stopping: bool,
    /// The store has met a damaged file, and the engine was told.
    is_damaged: bool,
}

/// One other node.
#[derive(Default)]
struct Peer {
    /// Counts connections, so that the end of an old one is not taken for the end of the present one.
    generation: u64,
    link: Option<Link>,
    last_error: Option<String>,
}

struct Link {
    connection: quinn::Connection,
    outbox: Rc<Outbox>,
}

/// Who waits for a reply.
enum Requester {
    Client {
        outbox: Rc<Outbox>,
        id: u64,
        kind: OperationKind,
        started: std::time::Instant,
    },
    Gateway(oneshot::Sender<Response>),
}

impl Shard {
    pub(crate) fn new(
        mut engine: Engine,
        (storage, syncer): (Arc<RocksStorage>, Syncer),
        metrics: Arc<Metrics>,
        cluster: String,
        cache_bytes: u64,
    ) -> Rc<Shard> {
        let members = engine.config().ring.members().len();
        // What the disk had to say may have taken minutes.
        engine.set_wall_clock(Instant(0), wall_ms());
        let inner = Inner {
            engine,
            storage,
            syncer,
            metrics,
            cluster,
            started: std::time::Instant::now(),
            batch: Batch::new(),
            stores: Vec::new(),
            scans: Vec::new(),
            applied: StoreTicket::default(),
            refusals: Seldom::default(),
            replies: Vec::new(),
            cache: RecordCache::new(cache_bytes),
            peers: (0..members).map(|_| Peer::default()).collect(),
            clients: 0,
            requests: Slab::new(),
            sleeping_until: None,
            stopping: false,
            is_damaged: false,
        };
        Rc::new(Shard {
            inner: RefCell::new(inner),
            timer: Notify::new(),
        })
    }

    /// Takes requests and questions from other threads, until the last handle is gone.
    pub(crate) async fn serve_commands(self: Rc<Self>, mut commands: mpsc::Receiver<Command>) {
        let mut burst = Vec::new();
        while commands.recv_many(&mut burst, COMMANDS_PER_TURN).await > 0 {
            self.turn(|inner| burst.drain(..).for_each(|command| inner.command(command)));
        }
    }

    /// Tells the engine what has become durable, as it does.
    pub(crate) async fn serve_syncs(self: Rc<Self>) {
        loop {
            let progress = self.inner.borrow().syncer.progress();
            progress.await;
            self.turn(|inner| {
                let durable = inner.syncer.durable();
                inner.engine.handle(inner.now(), Input::Durable(durable));
                if let Some(reason) = inner.syncer.damage() {
                    inner.damaged(&reason);
                }
            });
        }
    }

    /// Wakes the engine when its timers are due.
    pub(crate) async fn serve_timers(self: Rc<Self>) {
        loop {
            let wait = {
                let mut inner = self.inner.borrow_mut();
                inner.sleeping_until = inner.engine.poll_timeout();
                inner.sleeping_until.map(|at| at.since(inner.now()))
            };
            let sleep = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(3600)));
            tokio::select! {
                () = sleep => self.turn(|inner| inner.engine.handle(inner.now(), Input::Tick)),
                () = self.timer.notified() => {}
            }
        }
    }

    /// Tells the engine the time of day, now and every second.
    pub(crate) async fn serve_clock(self: Rc<Self>) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            let inner = &mut *self.inner.borrow_mut();
            inner.engine.set_wall_clock(inner.now(), wall_ms());
        }
    }

    /// A connection to a node is ready. What comes in on it goes to the returned sink. An older connection to the same node is closed.
    pub(crate) fn peer_up(
        self: &Rc<Self>,
        node: NodeIndex,
        connection: quinn::Connection,
        outbox: Rc<Outbox>,
    ) -> PeerSink {
        let generation = self.turn(|inner| {
            let now = inner.now();
            let peer = &mut inner.peers[usize::from(node.0)];
            if let Some(old) = peer.link.take() {
                old.connection.close(close::GOING, b"replaced by a newer connection");
                inner.engine.handle(now, Input::PeerDown(node));
            }
            peer.generation += 1;
            peer.last_error = None;
            tracing::info!(peer = inner.engine.config().ring.member(node).name, address = %connection.remote_address(), "connected");
            peer.link = Some(Link { connection, outbox });
            inner.engine.handle(now, Input::PeerUp(node));
            peer.generation
        });
        PeerSink::new(self.clone(), node, generation)
    }

    /// The connection that `sink` belongs to is gone.
    pub(crate) fn peer_down(&self, sink: &PeerSink, reason: &str) {
        self.turn(|inner| {
            let now = inner.now();
            let peer = &mut inner.peers[usize::from(sink.node.0)];
            if peer.generation == sink.generation && peer.link.take().is_some() {
                tracing::warn!(
                    peer = inner.engine.config().ring.member(sink.node).name,
                    reason,
                    "lost the connection"
                );
                peer.last_error = Some(reason.to_string());
                inner.engine.handle(now, Input::PeerDown(sink.node));
            }
        });
    }

    /// Dialing a node failed.
    pub(crate) fn peer_failed(&self, node: NodeIndex, reason: String) {
        let inner = &mut *self.inner.borrow_mut();
        let peer = &mut inner.peers[usize::from(node.0)];
        if peer.link.is_none() && peer.last_error.as_ref() != Some(&reason) {
            let name = &inner.engine.config().ring.member(node).name;
            tracing::info!(peer = name, reason, "cannot connect, and goes on trying");
            peer.last_error = Some(reason);
        }
    }

    /// A client's connection is ready.
    pub(crate) fn client_up(self: &Rc<Self>, outbox: Rc<Outbox>, frame_max: usize) -> ClientSink {
        self.inner.borrow_mut().clients += 1;
        ClientSink::new(self.clone(), outbox, frame_max)
    }

    /// A client's connection is gone. What it asked for goes on; the replies go nowhere.
    pub(crate) fn client_down(&self, _sink: ClientSink) {
        self.inner.borrow_mut().clients -= 1;
    }

    /// How many clients are connected.
    pub(crate) fn clients(&self) -> usize {
        self.inner.borrow().clients
    }

    /// From now on new requests are refused. Returns how many are under way.
    pub(crate) fn stop_accepting(&self) -> usize {
        let mut inner = self.inner.borrow_mut();
        inner.stopping = true;
        inner.requests.len()
    }

    /// Syncs what is left and ends the sync thread.
    pub(crate) fn stop_syncing(&self) {
        self.inner.borrow_mut().syncer.stop();
    }

    /// Hands input to the engine and carries out what it wants.
    fn turn<T>(&self, input: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.borrow_mut();
        let result = input(&mut inner);
        inner.carry_out();
        let next = inner.engine.poll_timeout();
        if next.is_some_and(|next| inner.sleeping_until.is_none_or(|until| next < until)) {
            inner.sleeping_until = next;
            self.timer.notify_one();
        }
        result
    }
}

impl Inner {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Request {
                operation,
                timeout,
                reply,
            } => self.request(operation, timeout, Requester::Gateway(reply)),
            Command::Status(reply) => {
                // Whoever asked may have gone away; then nobody misses the answer.
                let _ = reply.send(self.status());
            }
            Command::Repair(reply) => {
                self.repair();
                let _ = reply.send(self.status());
            }
            Command::Ping(reply) => {
                let _ = reply.send(());
            }
        }
    }

    fn client_request(&mut self, outbox: &Rc<Outbox>, request: Request) {
        let Request {
            id,
            timeout_ms,
            operation,
        } = request;
        let kind = OperationKind::of(&operation);
        let requester = Requester::Client {
            outbox: outbox.clone(),
            id,
            kind,
            started: std::time::Instant::now(),
        };
        self.request(operation, Duration::from_millis(timeout_ms.into()), requester);
    }

    fn request(&mut self, operation: Operation, timeout: Duration, requester: Requester) {
        if self.stopping {
            return self.answer(
                requester,
                Err(Failure::not_applied(
                    Code::Stopping,
                    "the node is stopping; ask another node",
                )),
            );
        }
        let handle = RequestHandle(self.requests.insert(requester) as u64);
        self.engine.handle(
            self.now(),
            Input::Request {
                handle,
                operation,
                timeout,
            },
        );
    }

    fn query(&mut self, outbox: &Outbox, request: QueryRequest) {
        let answer = match request.query {
            Query::Ring => QueryAnswer::Ring((*self.engine.config().ring).clone()),
            Query::Status => self.status_answer(),
            Query::Repair => {
                self.repair();
                self.status_answer()
            }
        };
        outbox.push(&Message::QueryReply(QueryReply { id: request.id, answer }));
    }

    fn status_answer(&self) -> QueryAnswer {
        QueryAnswer::Status(serde_json::to_string(&self.status()).expect("a status is plain data"))
    }

    /// Has the engine compare everything with all peers now. Where that is configured off nothing is compared; the status says so.
    fn repair(&mut self) {
        if !self.engine.config().limits.exchange {
            return tracing::warn!(
                "somebody asked to compare everything with all peers, and exchange is off in the configuration"
            );
        }
        tracing::info!("comparing everything with all peers, as somebody asked");
        self.engine.exchange_now(self.now());
    }

    /// Carries out effects until there are none, the stores among them as one batch.
    fn carry_out(&mut self) {
        loop {
            while let Some(effect) = self.engine.poll_effect() {
                self.effect(effect);
            }
            if self.stores.is_empty() && self.scans.is_empty() {
                break;
            }
            if !self.stores.is_empty() {
                self.apply();
            }
            // Not earlier: a scan sees what was stored before it, and a burst is one batch, which the disk takes or refuses as a whole.
            for (scan, what) in std::mem::take(&mut self.scans) {
                self.scan(scan, &what);
            }
        }
        self.syncer.request(self.applied, self.engine.sync_wanted());
        // Not earlier: an ack that does not wait for the disk speaks of what is applied.
        let mut replies = std::mem::take(&mut self.replies);
        for (requester, response) in replies.drain(..) {
            self.answer(requester, response);
        }
        self.replies = replies;
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(to, message),
            Effect::Reply { handle, response } => {
                if let Some(requester) = self.requests.try_remove(handle.0 as usize) {
                    self.replies.push((requester, response));
                }
            }
            Effect::Load { load, place } => self.load(load, &place),
            Effect::Scan { scan, what } => self.scans.push((scan, what)),
            Effect::Store { ticket, place, payload } => self.store(ticket, place, payload),
            Effect::SetAside { place } => self.set_aside(&place),
            Effect::Rebuild { reason } => rebuild::start_over(self.storage.path(), &reason),
        }
    }

    fn store(&mut self, ticket: StoreTicket, place: Place, payload: Option<Bytes>) {
        let RowName { shelf, token, key } = place.row();
        match &payload {
            Some(payload) => self.batch.put(column(shelf), token, &key, payload),
            None => self.batch.delete(column(shelf), token, &key),
        }
        if let Place::Record(key) = &place {
            match payload {
                Some(payload) => self.cache.insert(key.clone(), payload),
                None => self.cache.remove(key),
            }
        }
        self.stores.push((ticket, place));
    }

    /// Moves a corrupt record to where only people find it, in the batch of this burst.
    fn set_aside(&mut self, place: &Place) {
        if let Place::Record(key) = place {
            let RowName { token, key: name, .. } = place.row();
            tracing::error!(%key, "a record does not fit its checksum: it is set aside, and read again from the other owners");
            self.batch.set_aside(token, &name);
            self.cache.remove(key);
        }
    }

    /// Reads rows in order.
    fn scan(&mut self, scan: ScanId, what: &Scan) {
        let (shelf, tokens, after) = what.bounds();
        let after = after.as_ref().map(|row| (row.token, &row.key[..]));
        let limit = ScanLimit {
            rows: what.rows_max,
            bytes: what.bytes_max,
        };
        let result = match self.storage.scan(column(shelf), tokens, after, limit) {
            Ok(page) => {
                let row = |row: quorate_storage::ScanRow| {
                    let key = Place::key_in(shelf, &row.key)?;
                    Some((key, row.payload.map_err(|error| load_failed(&error))))
                };
                Ok(ScanPage {
                    rows: page.rows.into_iter().filter_map(row).collect(),
                    done: page.done,
                })
            }
            Err(error) => {
                tracing::error!(%error, ?what, "cannot read rows");
                Err(load_failed(&error))
            }
        };
        self.engine.handle(self.now(), Input::Scanned { scan, result });
    }

    fn send(&mut self, to: NodeIndex, message: PeerMessage) {
        if let Some(link) = &self.peers[usize::from(to.0)].link {
            link.outbox.push(&Message::Peer(message));
        }
    }

    fn answer(&self, requester: Requester, response: Response) {
        match requester {
            Requester::Client {
                outbox,
                id,
                kind,
                started,
            } => {
                self.metrics.observe(Plane::Quic, kind, &response, started.elapsed());
                outbox.push(&Message::RequestReply(RequestReply { id, response }));
            }
            Requester::Gateway(reply) => {
                // The gateway gave up waiting; it has told its client what is known.
                let _ = reply.send(response);
            }
        }
    }

    /// Reads inline. The engine never loads a row whose last store is not durable, unless that store was refused; so it
    /// does not matter here that the stores of this burst are not applied yet.
    fn load(&mut self, load: LoadId, place: &Place) {
        let cached = match place {
            Place::Record(key) => self.cache.get(key),
            _ => None,
        };
        let result = match cached {
            Some(payload) => Ok(Some(payload)),
            None => self.read(place),
        };
        self.engine.handle(self.now(), Input::Loaded { load, result });
    }

    fn read(&mut self, place: &Place) -> Result<Option<Bytes>, LoadFailed> {
        let RowName { shelf, token, key } = place.row();
        match self.storage.get_row(column(shelf), token, &key) {
            Ok(Some(payload)) => {
                if let Place::Record(key) = place {
                    self.cache.insert(key.clone(), payload.clone());
                }
                Ok(Some(payload))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                tracing::error!(?place, %error, "cannot read a row; this replica gives no answer for it");
                Err(load_failed(&error))
            }
        }
    }

    /// Buckets of relaxed durability acknowledge what the system has, and not only this process; and nothing before that.
    fn hand_over(&mut self, stores: &[(StoreTicket, Place)], last: StoreTicket) {
        let buckets = &self.engine.config().buckets;
        let is_relaxed = |key: &Key| buckets.of(key.bucket()).durability == Durability::Relaxed;
        if !stores.iter().any(|(_, place)| place.key().is_some_and(is_relaxed)) {
            return;
        }
        match self.storage.hand_over() {
            Ok(()) => self.engine.handle(self.now(), Input::Applied(last)),
            Err(error @ StorageError::Damaged { .. }) => self.damaged(&error.to_string()),
            Err(error) => {
                tracing::error!(%error, "stopping at once: what was acknowledged last may be lost");
                std::process::abort();
            }
        }
    }

    /// Nothing of this batch is on disk.
    fn refused(&mut self, stores: &[(StoreTicket, Place)]) {
        self.batch.clear();
        let now = self.now();
        for (ticket, place) in stores {
            if let Place::Record(key) = place {
                self.cache.remove(key);
            }
            self.engine.handle(now, Input::StoreFailed(*ticket));
        }
    }

    /// The store takes no writes any more. The engine says when it may be given up, but for a node that is alone: that one ends, and says why
    /// when it is started again.
    fn damaged(&mut self, reason: &str) {
        if self.peers.len() == 1 {
            rebuild::start_over(self.storage.path(), reason);
        }
        if !std::mem::replace(&mut self.is_damaged, true) {
            tracing::error!(
                reason,
                "this node takes no writes any more; it starts over with an empty directory when all others are up and whole, and have their hints"
            );
            self.engine.handle(self.now(), Input::Damaged);
        }
    }

    /// Applies the stores of this burst. Notes of who is who are stored also where the disk is nearly full: without them this node and its peers do
    /// not talk to each other, and it could not even be read from.
    fn apply(&mut self) {
        let mut stores = std::mem::take(&mut self.stores);
        let last = stores.last().expect("apply is called with stores").0;
        self.engine
            .write_leaves(|token, key, payload| self.batch.put(Column::Leaf, token, key, payload));
        let is_worth_the_reserve = |place: &Place| matches!(place, Place::Own | Place::Peer(_));
        let applied = match stores.iter().all(|(_, place)| is_worth_the_reserve(place)) {
            true => self.storage.apply_in_reserve(&mut self.batch),
            false => self.storage.apply(&mut self.batch),
        };
        match applied {
            Ok(()) => self.hand_over(&stores, last),
            Err(error) if error.is_certainly_not_applied() => {
                if let Some(stores) = self.refusals.happened(std::time::Instant::now(), stores.len() as u64) {
                    tracing::warn!(%error, stores, "the disk takes no writes now; so many stores were refused since the last such line");
                }
                self.refused(&stores);
            }
            Err(error @ StorageError::Damaged { .. }) => {
                self.damaged(&error.to_string());
                self.refused(&stores);
            }
            Err(error) => {
                tracing::error!(%error, "stopping at once: it is not certain what of the last write is on disk");
                std::process::abort();
            }
        }
        self.applied = last;
        stores.clear();
        self.stores = stores;
    }
}

/// The column of the store that holds a shelf.
fn column(shelf: Shelf) -> Column {
    match shelf {
        Shelf::Record => Column::Record,
        Shelf::Hint => Column::Hint,
        Shelf::Settle => Column::Settle,
        Shelf::Note => Column::Meta,
    }
}

/// What the engine is told about a failed read. Damage is for good, anything else may pass.
fn load_failed(error: &StorageError) -> LoadFailed {
    match error {
        StorageError::Corrupt { .. } | StorageError::CorruptMeta { .. } => LoadFailed::Corrupt,
        StorageError::Damaged { .. } => LoadFailed::Damaged,
        _ => LoadFailed::Unreadable,
    }
}
