//! The client: joins the ring, keeps one connection to each member, and follows the ring when it changes.
//!
//! [`Client::connect`] dials the configured endpoints, 100 ms apart, and takes the ring from the first that answers.
//! From then on each member of the ring has a keeper, a task that dials, serves the connection until it ends, and dials
//! again, with exponential backoff, full jitter and a cap. A newer ring, which a welcome may bring, replaces the older
//! one: keepers of members that are gone end, those of new members start, the others go on with their connections.
//!
//! Rejected: dialing when a request needs it. The first request after a node's return would pay for the handshake, and
//! a request is the wrong place to find out that a node is still down.

use crate::config::{ClientConfig, Patience};
use crate::connection::{self, Established, Target};
use crate::error::{ConnectError, DialError, Error, NamedReplica};
use crate::exchange::{Answer, NotTaken};
use crate::quic;
use crate::topology::{Node, Topology};
use quinn::{Endpoint, VarInt};
use quorate_core::message::{Message, Query, QueryAnswer, QueryRequest};
use quorate_core::request::{ReplicaReport, RequestId};
use quorate_ring::{NodeId, Ring};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

/// First and largest pause between two dials of one node.
const REDIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Between two dials when the client looks for a first node.
const STAGGER: Duration = Duration::from_millis(100);
/// How long [`Client::close`] gives its last datagrams.
const GOODBYE: Duration = Duration::from_millis(10);

/// A connection to a cluster. Clones share it; the last one to be dropped closes it. Runs on the tokio runtime that
/// [`Client::connect`] was called on, and may be used from any task or thread.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("ring", &self.ring()).finish()
    }
}

/// What ends the keepers when the last clone goes.
struct Inner {
    shared: Arc<Shared>,
}

impl Inner {
    fn end(&self) {
        for keeper in lock(&self.shared.keepers).values() {
            keeper.abort();
        }
        self.shared.endpoint.close(VarInt::from_u32(0), b"the client is done");
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the keepers and the callers share.
pub(crate) struct Shared {
    pub(crate) patience: Patience,
    cluster: String,
    endpoint: Endpoint,
    topology: RwLock<Arc<Topology>>,
    keepers: Mutex<BTreeMap<NodeId, AbortHandle>>,
    /// Told when a connection has come up.
    pub(crate) connected: Notify,
    rng: Mutex<StdRng>,
    turn: AtomicUsize,
    origin: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Connects to the cluster: returns as soon as one node has answered with the ring. The other members are dialed in
    /// the background.
    pub async fn connect(config: ClientConfig) -> Result<Client, ConnectError> {
        if config.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoints);
        }
        let tls = config.tls.rustls_config()?;
        let dialing = quic::client_config(tls, config.mtu).map_err(crate::tls::TlsError::from)?;
        let mut endpoint = quic::endpoint(local_address(&config.endpoints).await, None)?;
        endpoint.set_default_client_config(dialing);
        let first = tokio::time::timeout(config.patience.connect, first_answer(&endpoint, &config)).await;
        let first = first.unwrap_or_else(|_| {
            let reasons = vec![format!("nobody within {} ms", config.patience.connect.as_millis())];
            Err(ConnectError::NoneAnswered { reasons })
        })?;
        let shared = Arc::new(Shared::new(&config, endpoint, &first.ring));
        shared.begin(first);
        Ok(Client {
            inner: Arc::new(Inner { shared }),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The ring as this client knows it.
    pub fn ring(&self) -> Ring {
        self.shared().topology().ring.clone()
    }

    /// How an operation behaves in time.
    pub fn patience(&self) -> Patience {
        self.shared().patience
    }

    /// The members to which a connection is up at the moment.
    pub fn connected(&self) -> Vec<NodeId> {
        let topology = self.shared().topology();
        topology
            .nodes
            .iter()
            .filter(|node| node.connection().is_some())
            .map(|node| node.id)
            .collect()
    }

    /// The member of that name.
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.shared()
            .topology()
            .nodes
            .iter()
            .find(|node| node.name == name)
            .map(|node| node.id)
    }

    /// Mints the id of one logical write. Each retry of that write carries the same; [`Client::execute`] sees to that, and says of each that it is
    /// one. A program that means to send a write again by itself takes [`RequestId::again`] of the id from the first time on.
    pub fn request_id(&self) -> RequestId {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        RequestId::new(stamp_ms, lock(&self.shared().rng).random())
    }

    /// Puts names to the replicas of an answer.
    pub fn name_replicas(&self, replicas: &[ReplicaReport]) -> Vec<NamedReplica> {
        self.shared().name_replicas(replicas)
    }

    /// Asks one node about itself. No other node is asked in its place, and nothing is retried.
    pub async fn query(&self, node: NodeId, query: Query, timeout: Duration) -> Result<QueryAnswer, Error> {
        let topology = self.shared().topology();
        let Some(member) = topology.node(node) else {
            return Err(Error::Unreachable { node: node.to_string() });
        };
        let unreachable = || Error::Unreachable {
            node: member.name.clone(),
        };
        let connection = member.connection().ok_or_else(unreachable)?;
        let mut message = Message::Query(QueryRequest { id: 0, query });
        let call = connection.exchange.call(&mut message).map_err(|error| match error {
            NotTaken::Full { pending } => Error::Overloaded {
                node: member.name.clone(),
                pending,
            },
            NotTaken::Closed => unreachable(),
        })?;
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(Answer::Query(answer))) => Ok(answer),
            Ok(Ok(Answer::Response(_))) => Err(Error::WrongAnswer {
                node: member.name.clone(),
            }),
            Ok(Err(_)) | Err(_) => Err(unreachable()),
        }
    }

    /// Ends all connections, also those of other clones, and tells the nodes so. Without it, a program that exits right
    /// after dropping its client leaves the nodes to find out by themselves, some seconds later. Whatever is under way
    /// fails with an unknown outcome. Takes some milliseconds.
    pub async fn close(self) {
        self.inner.end();
        let _ = tokio::time::timeout(GOODBYE, self.shared().endpoint.wait_idle()).await;
    }

    /// Waits until every member of the ring is connected, or `timeout` has passed; says whether they all are.
    pub async fn wait_connected(&self, timeout: Duration) -> bool {
        let all = async {
            loop {
                let changed = self.shared().connected.notified();
                if self.connected().len() == self.shared().topology().nodes.len() {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(timeout, all).await.is_ok()
    }
}

/// IPv4 unless the first endpoint is IPv6. An IPv6 socket takes IPv4 addresses too, but some machines have none.
async fn local_address(endpoints: &[String]) -> SocketAddr {
    match connection::resolve(&endpoints[0]).await {
        Ok(SocketAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        _ => (Ipv4Addr::UNSPECIFIED, 0).into(),
    }
}

/// Dials the endpoints in random order, each a little after the one before; the first welcome wins. Usually that is the
/// first one's, and no other node has to do half a handshake for nothing.
async fn first_answer(endpoint: &Endpoint, config: &ClientConfig) -> Result<Established, ConnectError> {
    let mut dials = JoinSet::new();
    let mut endpoints: Vec<&String> = config.endpoints.iter().collect();
    endpoints.shuffle(&mut StdRng::from_os_rng());
    let mut head_start = Duration::ZERO;
    for address in endpoints {
        let wait = head_start;
        head_start += STAGGER;
        let target = Target {
            address: address.clone(),
            cluster: config.cluster.clone(),
            node: None,
        };
        let endpoint = endpoint.clone();
        dials.spawn(async move {
            tokio::time::sleep(wait).await;
            let result = connection::dial(&endpoint, &target).await;
            result.map_err(|error| format!("{}: {error}", target.address))
        });
    }
    let mut reasons = Vec::new();
    while let Some(dial) = dials.join_next().await {
        match dial {
            Ok(Ok(established)) => return Ok(established),
            Ok(Err(reason)) => reasons.push(reason),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    reasons.sort_unstable();
    Err(ConnectError::NoneAnswered { reasons })
}

impl Shared {
    fn new(config: &ClientConfig, endpoint: Endpoint, ring: &Ring) -> Shared {
        let nodes = ring
            .members()
            .iter()
            .map(|member| Arc::new(Node::new(member)))
            .collect();
        Shared {
            patience: config.patience,
            cluster: config.cluster.clone(),
            endpoint,
            topology: RwLock::new(Arc::new(Topology {
                ring: ring.clone(),
                nodes,
            })),
            keepers: Mutex::default(),
            connected: Notify::new(),
            rng: Mutex::new(StdRng::from_os_rng()),
            turn: AtomicUsize::new(0),
            origin: Instant::now(),
        }
    }

    pub(crate) fn topology(&self) -> Arc<Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Microseconds on the clock of the circuits.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A number that grows from request to request.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Between nothing and `limit`, evenly: full jitter.
    pub(crate) fn jitter(&self, limit: Duration) -> Duration {
        limit.mul_f64(lock(&self.rng).random::<f64>())
    }

    pub(crate) fn name_replicas(&self, replicas: &[ReplicaReport]) -> Vec<NamedReplica> {
        let topology = self.topology();
        let name = |report: &ReplicaReport| {
            topology
                .nodes
                .get(report.node.get())
                .map_or_else(|| format!("node {}", report.node), |n| n.name.clone())
        };
        let named = |report: &ReplicaReport| NamedReplica {
            node: name(report),
            role: report.role,
            state: report.state,
            elapsed: Duration::from_micros(report.elapsed_us.into()),
        };
        replicas.iter().map(named).collect()
    }

    /// Starts the keepers of the first ring; the one of the node that answered goes on with its connection.
    fn begin(self: &Arc<Shared>, first: Established) {
        let mut first = Some(first);
        for node in &self.topology().nodes {
            let adopted = first.take_if(|first| first.node == node.id);
            if let Some(established) = &adopted {
                node.set_connection(Some(established.connection.clone()));
            }
            self.start_keeper(node.clone(), adopted);
        }
    }

    fn start_keeper(self: &Arc<Shared>, node: Arc<Node>, adopted: Option<Established>) {
        let id = node.id;
        let keeper = tokio::spawn(keep(self.clone(), node, adopted)).abort_handle();
        if let Some(previous) = lock(&self.keepers).insert(id, keeper) {
            previous.abort();
        }
    }

    /// Takes over a ring if it is newer than the known one.
    fn install(self: &Arc<Shared>, ring: Ring) {
        let mut current = self.topology.write().unwrap_or_else(PoisonError::into_inner);
        if ring.version() <= current.ring.version() {
            if ring.version() == current.ring.version() && ring.digest() != current.ring.digest() {
                tracing::warn!(version = %ring.version(), "two nodes have different rings of one version");
            }
            return;
        }
        let kept = |id: NodeId, address: &str| current.node(id).filter(|node| node.address == address).cloned();
        let mut started = Vec::new();
        let mut nodes = Vec::with_capacity(ring.members().len());
        for member in ring.members() {
            let node = kept(member.id, &member.quic).unwrap_or_else(|| {
                started.push(Arc::new(Node::new(member)));
                started[started.len() - 1].clone()
            });
            nodes.push(node);
        }
        tracing::info!(version = %ring.version(), members = nodes.len(), "took over a newer ring");
        *current = Arc::new(Topology { ring, nodes });
        let topology = current.clone();
        drop(current);
        lock(&self.keepers).retain(|id, keeper| {
            let stays = topology.node(*id).is_some();
            if !stays {
                keeper.abort();
            }
            stays
        });
        started.into_iter().for_each(|node| self.start_keeper(node, None));
    }

    async fn dial_patiently(&self, node: &Node) -> Established {
        let target = Target {
            address: node.address.clone(),
            cluster: self.cluster.clone(),
            node: Some(node.id),
        };
        let (mut pause, longest) = REDIAL;
        loop {
            match connection::dial(&self.endpoint, &target).await {
                Ok(established) => return established,
                Err(error @ (DialError::Refused { .. } | DialError::Stranger { .. })) => {
                    tracing::warn!(node = node.name, %error, "dial");
                    pause = longest;
                }
                Err(error) => tracing::debug!(node = node.name, %error, "dial"),
            }
            tokio::time::sleep(self.jitter(pause)).await;
            pause = (pause * 2).min(longest);
        }
    }
}

/// Keeps one node connected, for ever.
async fn keep(shared: Arc<Shared>, node: Arc<Node>, mut adopted: Option<Established>) {
    loop {
        let established = match adopted.take() {
            Some(established) => established,
            None => shared.dial_patiently(&node).await,
        };
        shared.install(established.ring.clone());
        node.set_connection(Some(established.connection.clone()));
        node.circuit.succeeded();
        shared.connected.notify_waiters();
        let reason = established.run().await;
        tracing::debug!(node = node.name, %reason, "connection ended");
        node.set_connection(None);
        tokio::time::sleep(shared.jitter(REDIAL.0)).await;
    }
}
