//! One node from start to stop: what is opened in which order, which thread runs what, and how it ends.
//!
//! ```text
//! thread "main"      the data loop: engine, storage, QUIC        (shard, transport)
//! thread "sync"      fsyncs the log, over and over               (syncer)
//! thread "gateway"   HTTP and the admin port                     (gateway)
//! ```
//!
//! Each loop is a current-thread runtime; nothing on the data path crosses from one to another but the end of a sync. Rejected: one
//! multi-threaded runtime for all, which costs a fifth more CPU per operation and puts the engine behind a lock.
//!
//! Shutdown, on SIGTERM or SIGINT: the gateway stops taking connections and finishes what it has; then new requests are refused and
//! those under way get [`DRAIN_MAX`] to end; then connections are closed, so that peers and clients know at once; last,
//! what was written is synced. A second signal is not needed: every step has a bound.

use crate::config::NodeConfig;
use crate::data;
use crate::gateway::{self, GatewayOptions, GatewayState};
use crate::handle::NodeHandle;
use crate::metrics::Metrics;
use crate::shard::Shard;
use crate::syncer::Syncer;
use crate::tls::{self, Credentials, Identity, NodeTlsError};
use crate::transport::{self, BlockList, Local, close};
use quorate_client::quic;
use quorate_core::bucket::VALUE_BYTES_MAX;
use quorate_core::message::HEADER_BYTES;
use quorate_storage::{OpenError, StorageError};
use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncBufReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long requests under way may take to end when the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// What a request needs in a frame beside its value: key, context, content type, options.
const REQUEST_BYTES: usize = 64 << 10;

/// How to run, beside the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Take `block ADDRESS,…` and `unblock` from stdin: for `quorate dev`, to cut this node off from others.
    pub control_stdin: bool,
}

/// Why a node did not start, or stopped. Nothing was lost; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Reading or writing the node's own metadata failed.
    #[error("the data directory does not work: {0}")]
    Storage(#[from] StorageError),
    /// Data that are beyond use could not be moved out of the way.
    #[error("cannot set the data in {path} aside: {source}; move them yourself, or correct what is wrong, and start again", path = path.display())]
    SetAside {
        /// The data directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The data directory belongs to another node or cluster.
    #[error(
        "this data directory belongs to {what} {found}, the configuration says {expected}: correct data_dir, or the configuration"
    )]
    Identity {
        /// `node` or `cluster`.
        what: &'static str,
        /// What the directory says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// What a new directory lacks is found by comparing trees.
    #[error(
        "[healing] trees = false: this data directory is new and has to be read from the other owners, which needs the trees; start it with them first"
    )]
    NewWithoutTrees,
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Tls(#[from] NodeTlsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {source}")]
    Listen {
        /// QUIC, HTTP or admin.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The system refused something that every node needs.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Runs a node until SIGTERM or SIGINT. Blocks.
///
/// # Errors
/// See [`NodeError`]; whatever was opened is closed again.
pub fn run(mut config: NodeConfig, options: RunOptions) -> Result<(), NodeError> {
    abort_on_panic();
    let http = listen("HTTP", config.listen.http)?;
    let admin = listen("admin", config.listen.admin)?;
    let (storage, engine) = data::open(&mut config)?;
    let flush_interval = Duration::from_millis(config.limits.flush_interval_ms);
    let syncer = Syncer::start(storage.clone(), flush_interval).map_err(system("starting the sync thread"))?;
    let metrics = Arc::new(Metrics::new());
    let (handle, commands) = NodeHandle::new(engine.config().ring.clone());
    let (stop, stopping) = watch::channel(false);
    let gateway = start_gateway(&config, [http, admin], handle, metrics.clone(), stopping)?;
    let runtime = runtime("starting the data loop")?;
    let shard = Shard::new(
        engine,
        (storage, syncer),
        metrics,
        config.cluster.clone(),
        (config.limits.record_cache_mib << 20) as u64,
    );
    let loops = tokio::task::LocalSet::new();
    let served = loops.block_on(&runtime, async {
        tokio::task::spawn_local(shard.clone().serve_commands(commands));
        tokio::task::spawn_local(shard.clone().serve_syncs());
        tokio::task::spawn_local(shard.clone().serve_clock());
        tokio::task::spawn_local(shard.clone().serve_timers());
        let endpoint = open_transport(&config, &shard, options)?;
        tracing::info!(
            node = config.name, cluster = config.cluster, version = env!("CARGO_PKG_VERSION"),
            quic = %config.listen.quic, http = %config.listen.http, admin = %config.listen.admin, "started"
        );
        wait_for_signal().await.map_err(system("waiting for signals"))?;
        tracing::info!("stopping");
        drain(&shard, &stop, gateway).await;
        endpoint.close(close::GOING, b"the node is stopping");
        // Lets the closes reach the network; peers that miss them find out by their idle timeout.
        let _ = tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
        Ok(())
    });
    shard.stop_syncing();
    drop(loops);
    // Not by dropping it: that waits for the thread that reads stdin, which ends only when somebody writes a line.
    runtime.shutdown_background();
    served
}

/// Makes a panic end the process. It is a bug of ours, and the engine that it passed through may be half changed; a node that limps on with it
/// could acknowledge what it does not keep. After a restart the log says what is there.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        tracing::error!(%panic, "stopping at once: this is a bug; what was acknowledged is safe");
        std::process::abort();
    }));
}

/// Opens the QUIC endpoint and starts to accept and dial.
fn open_transport(config: &NodeConfig, shard: &Rc<Shard>, options: RunOptions) -> Result<quinn::Endpoint, NodeError> {
    let credentials = Credentials::load(&config.tls, &Identity::Node(config.id))?;
    let blocked = options.control_stdin.then(BlockList::default);
    if let Some(blocked) = blocked.clone() {
        tokio::task::spawn_local(take_control(blocked));
    }
    let server = tls::server_config(credentials.server()?, config.limits.datagram_bytes)?;
    let address = config.listen.quic;
    let endpoint =
        transport::open_endpoint(address, server, credentials.reset_secret(), blocked).map_err(|source| {
            NodeError::Listen {
                what: "QUIC",
                address,
                source,
            }
        })?;
    let local = Rc::new(Local {
        cluster: config.cluster.clone(),
        id: config.id,
        ring: Arc::new(config.ring()),
        settings: config.settings_digest(),
        client_frame_max: VALUE_BYTES_MAX as usize + REQUEST_BYTES + HEADER_BYTES,
        clients_max: config.limits.client_connections_max,
    });
    let dialing = credentials.dialing().rustls_config().map_err(NodeTlsError::from)?;
    let dialing = quic::client_config(dialing, config.limits.datagram_bytes).map_err(NodeTlsError::from)?;
    transport::dial_peers(shard, &endpoint, &dialing, &local);
    tokio::task::spawn_local(transport::accept(shard.clone(), endpoint.clone(), local));
    Ok(endpoint)
}

/// Starts the thread that serves HTTP. It ends after `stopping` turns true and its connections have drained.
fn start_gateway(
    config: &NodeConfig,
    [http, admin]: [TcpListener; 2],
    handle: NodeHandle,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
) -> Result<std::thread::JoinHandle<()>, NodeError> {
    let runtime = runtime("starting the gateway")?;
    let options = GatewayOptions {
        buckets: config.bucket_table(),
        connections_max: config.limits.http_connections_max,
        drain_limit: DRAIN_MAX,
        ..GatewayOptions::default()
    };
    let state = GatewayState::new(handle, metrics, options);
    let serve = move || {
        runtime.block_on(async move {
            let [http, admin] = [http, admin].map(tokio::net::TcpListener::from_std);
            match (http, admin) {
                (Ok(http), Ok(admin)) => {
                    let http = gateway::serve_http(http, state.clone(), stopping.clone());
                    let admin = gateway::serve_admin(admin, state, stopping);
                    tokio::join!(http, admin);
                }
                (http, admin) => tracing::error!(?http, ?admin, "the gateway cannot use its sockets"),
            }
        });
    };
    std::thread::Builder::new()
        .name("gateway".into())
        .spawn(serve)
        .map_err(system("starting the gateway"))
}

/// Lets what is under way end.
async fn drain(shard: &Shard, stop: &watch::Sender<bool>, gateway: std::thread::JoinHandle<()>) {
    let deadline = Instant::now() + DRAIN_MAX;
    stop.send_replace(true);
    while !gateway.is_finished() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while shard.stop_accepting() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn wait_for_signal() -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Takes lines from `quorate dev`: `block ADDRESS,…` cuts off exactly these, `unblock` none. Ends with stdin.
async fn take_control(blocked: BlockList) {
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let (verb, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let addresses: Result<BTreeSet<SocketAddr>, _> =
            rest.split(',').filter(|a| !a.is_empty()).map(str::parse).collect();
        match (verb, addresses) {
            ("block", Ok(addresses)) => blocked.set(addresses),
            ("unblock", _) => blocked.set(BTreeSet::new()),
            _ => tracing::warn!(line, "not a control line"),
        }
    }
}

fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, NodeError> {
    let listening = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listening.map_err(|source| NodeError::Listen { what, address, source })
}

fn runtime(what: &'static str) -> Result<tokio::runtime::Runtime, NodeError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system(what))
}

pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> NodeError {
    move |source| NodeError::System { what, source }
}
