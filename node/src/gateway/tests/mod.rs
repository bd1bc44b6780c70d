//! The gateway from outside: raw HTTP over an in-memory stream, and a fake data loop behind it.
#![allow(clippy::unwrap_used)]

mod limits;
mod listen;
mod ports;
mod reads;
mod writes;

use super::connection::drive;
use super::{GatewayOptions, GatewayState, Surface};
use crate::handle::{Command, NodeHandle, NodeStatus, StorageStatus};
use crate::healing::{ExchangeStatus, HealingStatus};
use crate::metrics::Metrics;
use bytes::Bytes;
use quorate_core::request::{
    Code, Failure, Operation, Outcome, ReplicaReport, ReplicaState, Reply, Response, Role, Value, View,
};
use quorate_ring::{Member, NodeId, NodeIndex, Ring, RingVersion};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};

/// Three nodes, n1 to n3, in this order.
pub(super) fn ring() -> Ring {
    let member = |at: u8| Member {
        id: NodeId([at; 16]),
        name: format!("n{at}"),
        zone: format!("z{at}"),
        weight: 1,
        quic: format!("127.0.0.1:77{at}1"),
        http: format!("127.0.0.1:77{at}0"),
    };
    Ring::new(RingVersion(1), 4, (1..=3).map(member).collect()).unwrap()
}

/// A text value.
pub(super) fn value(body: &'static str) -> Value {
    Value {
        content_type: "text/plain".to_string(),
        body: Bytes::from_static(body.as_bytes()),
    }
}

/// A record with the context `ctx`.
fn view(siblings: Vec<Option<Value>>) -> View {
    View {
        context: Some(Bytes::from_static(b"ctx")),
        siblings,
        live_hash: 0xabc,
    }
}

/// `ctx` as it travels.
const CTX: &str = "Y3R4";
/// The tag of [`view`].
const TAG: &str = "\"0000000000000abc\"";

fn replicas() -> Vec<ReplicaReport> {
    let states = [ReplicaState::Acked, ReplicaState::SameDigest, ReplicaState::Waiting];
    let report = |(at, state)| ReplicaReport {
        node: NodeIndex(at),
        role: Role::Primary,
        state,
        elapsed_us: 250,
    };
    (0..).zip(states).map(report).collect()
}

fn found(siblings: Vec<Option<Value>>) -> Response {
    Ok(Reply::Found {
        view: view(siblings),
        replicas: replicas(),
    })
}

fn written(after: Option<View>) -> Response {
    Ok(Reply::Written {
        context: Bytes::from_static(b"new"),
        view: after,
        replicas: replicas(),
    })
}

fn failed(code: Code, outcome: Outcome) -> Response {
    Err(Failure {
        code,
        outcome,
        detail: "it failed".to_string(),
        replicas: replicas(),
    })
}

fn node_status() -> NodeStatus {
    NodeStatus {
        cluster: "test".to_string(),
        id: "id".to_string(),
        name: "n1".to_string(),
        zone: "z1".to_string(),
        version: "0".to_string(),
        uptime_seconds: 1,
        ring_version: 1,
        ring_digest: "d".to_string(),
        default_n: 3,
        default_fallbacks: true,
        peers: Vec::new(),
        operations: 0,
        slots: 0,
        storage: StorageStatus::default(),
        syncs: 0,
        clients: 0,
        healing: HealingStatus {
            exchange: ExchangeStatus {
                enabled: true,
                ..ExchangeStatus::default()
            },
            ..HealingStatus::default()
        },
        counters: Default::default(),
    }
}

/// A gateway over a data loop that gives prepared answers, in order, and remembers what it was asked. Without an answer it
/// hangs.
struct World {
    state: GatewayState,
    answers: Arc<Mutex<VecDeque<Response>>>,
    asked: Arc<Mutex<Vec<Operation>>>,
    shutdown: watch::Sender<bool>,
    /// Whether `status` is answered.
    healthy: watch::Sender<bool>,
}

impl World {
    fn new() -> World {
        World::with(GatewayOptions::default())
    }

    fn with(options: GatewayOptions) -> World {
        let (node, commands) = NodeHandle::new(Arc::new(ring()));
        let answers = Arc::<Mutex<VecDeque<Response>>>::default();
        let asked = Arc::<Mutex<Vec<Operation>>>::default();
        let (healthy, watch) = watch::channel(true);
        tokio::spawn(data_loop(commands, answers.clone(), asked.clone(), watch));
        let state = GatewayState::new(node, Arc::new(Metrics::new()), options);
        World {
            state,
            answers,
            asked,
            shutdown: watch::channel(false).0,
            healthy,
        }
    }

    /// Prepares an answer.
    fn will(self, answer: Response) -> World {
        self.answers.lock().unwrap().push_back(answer);
        self
    }

    /// A client's connection.
    fn connect(&self, surface: Surface) -> DuplexStream {
        self.connect_over(surface, 1 << 20)
    }

    fn connect_over(&self, surface: Surface, buffer: usize) -> DuplexStream {
        let (client, server) = duplex(buffer);
        tokio::spawn(drive(server, self.state.0.clone(), surface, self.shutdown.subscribe()));
        client
    }

    /// One request (`GET /path`) on a connection of its own; `headers` are whole lines.
    async fn ask(&self, request: &str, headers: &str, body: &str) -> Got {
        let mut client = self.connect(Surface::Public);
        client.write_all(&text(request, headers, body)).await.unwrap();
        read_response(&mut client, request.starts_with("HEAD")).await
    }

    fn last_asked(&self) -> Operation {
        self.asked.lock().unwrap().last().cloned().unwrap()
    }
}

async fn data_loop(
    mut commands: mpsc::Receiver<Command>,
    answers: Arc<Mutex<VecDeque<Response>>>,
    asked: Arc<Mutex<Vec<Operation>>>,
    healthy: watch::Receiver<bool>,
) {
    // Dropping a reply's sender would be an answer too.
    let mut hanging: Vec<Box<dyn Any + Send>> = Vec::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Request { operation, reply, .. } => {
                asked.lock().unwrap().push(operation);
                match answers.lock().unwrap().pop_front() {
                    Some(answer) => drop(reply.send(answer)),
                    None => hanging.push(Box::new(reply)),
                }
            }
            Command::Ping(reply) if *healthy.borrow() => drop(reply.send(())),
            Command::Ping(reply) => hanging.push(Box::new(reply)),
            Command::Repair(reply) => drop(reply.send(node_status())),
            Command::Status(reply) if *healthy.borrow() => drop(reply.send(node_status())),
            Command::Status(reply) => hanging.push(Box::new(reply)),
        }
    }
}

/// A request as it travels. Content-Length is added for a body; one that comes later, or in chunks, is up to the caller.
fn text(request: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    format!("{request} HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n{body}").into_bytes()
}

/// A response, read.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of a problem document, having checked what all of them have in common.
    fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let document = self.json();
        assert_eq!(document["status"], self.status);
        let code = document["code"].as_str().unwrap();
        assert_eq!(document["type"], format!("urn:quorate:problem:{code}"));
        assert!(document["title"].is_string() && document["detail"].is_string() && document["retryable"].is_boolean());
        assert!(["not_applied", "unknown"].contains(&document["outcome"].as_str().unwrap()));
        assert!(document["replicas"].is_array());
        assert_eq!(self.header("retry-after").is_some(), self.status == 503);
        code.to_string()
    }
}

/// Reads one response; `bodiless` for the answer to a HEAD.
async fn read_response(stream: &mut DuplexStream, bodiless: bool) -> Got {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")));
    let headers = headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
        .collect();
    let mut got = Got {
        status,
        headers,
        body: Vec::new(),
    };
    let length = if bodiless {
        0
    } else {
        got.header("content-length").map_or(0, |length| length.parse().unwrap())
    };
    got.body = vec![0; length];
    stream.read_exact(&mut got.body).await.unwrap();
    got
}
