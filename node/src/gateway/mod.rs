//! The HTTP gateway: keys and values for anything that can speak HTTP, health for probes, and an admin port beside it.
//!
//! A request goes through these files, top down: [`listen`] accepts connections and caps them, [`connection`] gives each one
//! its time limits and lends it to hyper, [`route`] finds the handler. For keys that is [`kv`], which reads the request with [`path`],
//! [`query`], [`headers`] and [`body`], asks the data loop through [`NodeHandle`], and answers with [`render`] or
//! [`problem`]. [`health`] and [`admin`] are small.
//!
//! All of it runs on one thread of its own, so a slow client costs the data loop nothing. Everything is bounded: connections,
//! header bytes, body bytes of one request and of all together, and the time for each step.
//!
//! Rejected: axum. Its router decodes the path as text, and our keys are bytes in which `%2F` is not `/`; its `serve` has no time
//! limits for headers; and what is left of it here is a match over five paths.

mod admin;
mod body;
mod connection;
mod headers;
mod health;
mod kv;
mod listen;
mod path;
mod precondition;
mod problem;
mod query;
mod render;
mod route;
#[cfg(test)]
mod tests;
mod trace;

use crate::handle::NodeHandle;
use crate::metrics::Metrics;
use quorate_core::bucket::BucketTable;
use quorate_core::request::{Code, Failure, Operation, Outcome, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long the gateway waits for the data loop beyond the request's own timeout. The data loop answers earlier; if it does not,
/// it hangs, and the client is told rather than kept.
const GRACE: Duration = Duration::from_secs(1);

/// Bounds of the gateway. All have defaults.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Properties of buckets: their value limits are the body limits.
    pub buckets: BucketTable,
    /// Timeout of a request that names none.
    pub timeout: Duration,
    /// Connections at once, on each of the two ports. One more is answered 503 and closed.
    pub connections_max: usize,
    /// Bytes of request bodies held at once, over all connections. Beyond: 503 `overloaded`.
    pub body_bytes_max: usize,
    /// From a request's first byte (or the connection's start) to the end of its headers.
    pub header_limit: Duration,
    /// From the end of the headers to the end of the body.
    pub body_limit: Duration,
    /// How long a response may be stuck because the client does not read it.
    pub write_limit: Duration,
    /// How long a connection may stay without a request after its first one.
    pub idle_limit: Duration,
    /// How long requests under way may take to finish after the shutdown began.
    pub drain_limit: Duration,
}

impl Default for GatewayOptions {
    fn default() -> GatewayOptions {
        GatewayOptions {
            buckets: BucketTable::default(),
            timeout: Duration::from_secs(5),
            connections_max: 1024,
            body_bytes_max: 256 << 20,
            header_limit: Duration::from_secs(10),
            body_limit: Duration::from_secs(30),
            write_limit: Duration::from_secs(30),
            idle_limit: Duration::from_secs(75),
            drain_limit: Duration::from_secs(5),
        }
    }
}

/// What both listeners share; cheap to clone.
#[derive(Clone, Debug)]
pub struct GatewayState(Arc<Gateway>);

impl GatewayState {
    /// A gateway in front of `node` that counts in `metrics`.
    pub fn new(node: NodeHandle, metrics: Arc<Metrics>, options: GatewayOptions) -> GatewayState {
        let bodies = body::Budget::new(options.body_bytes_max);
        GatewayState(Arc::new(Gateway {
            node,
            metrics,
            options,
            bodies,
            draining: AtomicBool::new(false),
        }))
    }

    /// Makes `/readyz` say no (or yes again) while everything is still served: the first step of a shutdown behind a load balancer.
    pub fn set_draining(&self, draining: bool) {
        self.0.draining.store(draining, Ordering::Relaxed);
    }
}

/// The state behind [`GatewayState`].
#[derive(Debug)]
struct Gateway {
    node: NodeHandle,
    metrics: Arc<Metrics>,
    options: GatewayOptions,
    bodies: body::Budget,
    draining: AtomicBool,
}

impl Gateway {
    /// Asks the data loop, and gives up on it a little after `timeout`.
    async fn request(&self, operation: Operation, timeout: Duration) -> Response {
        let outcome = if operation.is_write() {
            Outcome::Unknown
        } else {
            Outcome::NotApplied
        };
        match tokio::time::timeout(timeout + GRACE, self.node.request(operation, timeout)).await {
            Ok(response) => response,
            Err(_) => {
                let detail = "the node did not answer in time, not even with an error; ask another node".to_string();
                Err(Failure {
                    code: Code::DeadlineExceeded,
                    outcome,
                    detail,
                    replicas: Vec::new(),
                })
            }
        }
    }
}

/// Which of the two ports a connection came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Surface {
    /// Keys and health.
    Public,
    /// Metrics, cluster state and health.
    Admin,
}

/// Serves keys and health on `listener` until `shutdown` turns true, then lets requests under way finish for up to
/// [`GatewayOptions::drain_limit`].
pub async fn serve_http(listener: TcpListener, state: GatewayState, shutdown: watch::Receiver<bool>) {
    listen::serve(listener, state, Surface::Public, shutdown).await;
}

/// Serves metrics, cluster state and health on `listener`; ends as [`serve_http`] does.
pub async fn serve_admin(listener: TcpListener, state: GatewayState, shutdown: watch::Receiver<bool>) {
    listen::serve(listener, state, Surface::Admin, shutdown).await;
}
