//! The way into the data loop for everything that runs on another thread: the HTTP gateway, the admin port.
//!
//! A request is put into a bounded queue; when that is full the caller gets `Overloaded` at once and nothing was done. The data
//! loop takes what has queued up in one go, so under load a thread hop is shared by many requests.

use crate::healing::HealingStatus;
use quorate_core::engine::Counters;
use quorate_core::request::{Code, Failure, Operation, Outcome, Response};
use quorate_ring::Ring;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for the data loop.
const QUEUE_MAX: usize = 4096;

/// What is asked of the data loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// Carry out a request.
    Request {
        /// What is wanted.
        operation: Operation,
        /// How long the client waits.
        timeout: Duration,
        /// Where the answer goes.
        reply: oneshot::Sender<Response>,
    },
    /// Say how things stand.
    Status(oneshot::Sender<NodeStatus>),
    /// Compare everything with all peers now, and say how things stand.
    Repair(oneshot::Sender<NodeStatus>),
    /// Say that the data loop runs. Reads nothing.
    Ping(oneshot::Sender<()>),
}

/// How one peer stands, as this node sees it.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Its name in the ring.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its zone.
    pub zone: String,
    /// Its QUIC address.
    pub quic: String,
    /// Whether a connection is up.
    pub connected: bool,
    /// Why there is none, if known.
    pub last_error: Option<String>,
    /// Smoothed round-trip time in microseconds, if connected.
    pub rtt_us: Option<u64>,
    /// Whether it keeps requests waiting, and is routed round.
    pub slow: bool,
}

/// Sizes that the storage reports, in bytes (keys: a count). Estimates.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StorageStatus {
    /// Rows, about: hints and trees too, and overwritten ones until they are compacted away.
    pub keys: u64,
    /// Sorted tables on disk.
    pub table_bytes: u64,
    /// Unflushed writes in memory.
    pub memtable_bytes: u64,
    /// Bytes waiting for compaction.
    pub pending_compaction_bytes: u64,
    /// Bytes free on the disk; none if the system does not say.
    pub free_bytes: Option<u64>,
    /// Whether stores are refused because there is less free than the reserve.
    pub refusing: bool,
    /// Stores that are applied and not on disk yet.
    pub unsynced_stores: u64,
    /// How long the oldest of them waits for that, in seconds, about.
    pub unsynced_seconds: f64,
    /// Directories in which data were set aside.
    pub asides: u64,
    /// Bytes in them.
    pub aside_bytes: u64,
}

/// How a node stands: for `quorate status`, `/metrics` and `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// Cluster name.
    pub cluster: String,
    /// This node's id.
    pub id: String,
    /// This node's name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Build version.
    pub version: String,
    /// Seconds since start.
    pub uptime_seconds: u64,
    /// Ring version in use.
    pub ring_version: u64,
    /// The ring's digest, in hexadecimal; equal on all nodes that agree.
    pub ring_digest: String,
    /// Copies of each record in a bucket without properties of its own.
    pub default_n: u8,
    /// Whether fallbacks alone may stand in for owners in such a bucket.
    pub default_fallbacks: bool,
    /// The other members.
    pub peers: Vec<PeerStatus>,
    /// Requests under way.
    pub operations: usize,
    /// Keys held in memory until they are loaded or synced.
    pub slots: usize,
    /// Storage sizes.
    pub storage: StorageStatus,
    /// Syncs of the log so far.
    pub syncs: u64,
    /// Client connections over QUIC.
    pub clients: usize,
    /// How far it has come with healing.
    pub healing: HealingStatus,
    /// The engine's counters.
    #[serde(skip)]
    pub counters: Counters,
}

/// A handle on the data loop; cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    queue: mpsc::Sender<Command>,
    ring: Arc<Ring>,
}

impl NodeHandle {
    pub(crate) fn new(ring: Arc<Ring>) -> (NodeHandle, mpsc::Receiver<Command>) {
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        (NodeHandle { queue, ring }, commands)
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Carries out a request. Ends a little before `timeout` at the latest.
    pub async fn request(&self, operation: Operation, timeout: Duration) -> Response {
        let outcome = if operation.is_write() {
            Outcome::Unknown
        } else {
            Outcome::NotApplied
        };
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Command::Request {
            operation,
            timeout,
            reply,
        }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                let detail =
                    format!("{QUEUE_MAX} requests are waiting for this node already; try again, or ask another node");
                return Err(Failure::not_applied(Code::Overloaded, detail));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(Failure::not_applied(
                    Code::Stopping,
                    "the node is stopping; ask another node",
                ));
            }
        }
        answer.await.unwrap_or_else(|_| {
            let detail = "the node stopped before it had an answer; ask another node".to_string();
            Err(Failure {
                code: Code::Stopping,
                outcome,
                detail,
                replicas: Vec::new(),
            })
        })
    }

    /// How the node stands; `None` if its data loop is gone.
    pub async fn status(&self) -> Option<NodeStatus> {
        self.ask(Command::Status).await
    }

    /// Has the node compare everything with all its peers now, and says how it stands; `None` if its data loop is gone.
    pub async fn repair(&self) -> Option<NodeStatus> {
        self.ask(Command::Repair).await
    }

    /// Whether the data loop answers. Costs it nothing.
    pub async fn ping(&self) -> bool {
        self.ask(Command::Ping).await.is_some()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
