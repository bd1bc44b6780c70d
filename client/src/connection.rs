//! One connection to a node: dialing, the hello, and the tasks that keep it going.
//!
//! The client opens one bidirectional stream, says [`Hello`] and is told [`Welcome`] with the ring. From then on both
//! sides send frames as they like. A frame above [`SHARED_FRAME_BYTES`](crate::quic::SHARED_FRAME_BYTES) goes on a
//! unidirectional stream of its own, in either direction. A writer and a reader serve the shared stream, a third task
//! takes in the others. The calls themselves are in [`Exchange`].
//!
//! Bytes that are no frame end the connection: there is no way to tell where the next frame begins. Every call on it is
//! then lost, which its caller takes as an unknown outcome. Rejected: a stream for each request, which costs twice the
//! CPU.

use crate::error::DialError;
use crate::exchange::{Answer, Exchange, Outgoing};
use crate::quic::HANDSHAKE_TIMEOUT;
use crate::tls::{NODE_SERVER_NAME, node_server_name};
use bytes::{Bytes, BytesMut};
use quinn::{Endpoint, RecvStream, SendStream, VarInt};
use quorate_core::message::{FrameError, Hello, Message, PEER_FRAME_BYTES_MAX, PeerRole, WIRE_VERSION, Welcome};
use quorate_ring::{NodeId, Ring, RingVersion};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

/// Largest frame that is taken from the shared stream: a ring of a thousand members, with room to spare.
const SHARED_FRAME_MAX: usize = 1 << 20;
/// How many large frames are read at the same time.
const BULK_READS_MAX: usize = 16;
const READ_BYTES: usize = 64 << 10;
/// What the node is told when it sends what it must not.
const PROTOCOL_VIOLATION: VarInt = VarInt::from_u32(1);

/// A connection as callers see it.
pub(crate) struct Connection {
    pub(crate) exchange: Arc<Exchange>,
    quic: quinn::Connection,
    origin: Instant,
    heard_us: AtomicU64,
}

impl Connection {
    /// Microseconds since an arbitrary origin.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether nothing has come from the node since then (as [`Connection::now_us`] has it).
    pub(crate) fn silent_since(&self, us: u64) -> bool {
        self.heard_us.load(Ordering::Relaxed) < us
    }

    fn heard(&self) {
        self.heard_us.store(self.now_us(), Ordering::Relaxed);
    }

    fn close(&self, code: VarInt, reason: &str) {
        self.exchange.close(reason);
        self.quic.close(code, reason.as_bytes());
    }
}

/// A connection whose node said welcome, not yet running.
pub(crate) struct Established {
    pub(crate) connection: Arc<Connection>,
    pub(crate) node: NodeId,
    pub(crate) ring: Ring,
    send: SendStream,
    receive: RecvStream,
    buffer: BytesMut,
}

/// Where to dial, and who should be there.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) address: String,
    /// The name of the cluster; empty if any will do.
    pub(crate) cluster: String,
    /// Which node; `None` if any will do. Its certificate has to say so.
    pub(crate) node: Option<NodeId>,
}

/// Dials, and exchanges hello and welcome.
pub(crate) async fn dial(endpoint: &Endpoint, target: &Target) -> Result<Established, DialError> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(endpoint, target)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::TimedOut {
            after: HANDSHAKE_TIMEOUT,
        }),
    }
}

async fn handshake(endpoint: &Endpoint, target: &Target) -> Result<Established, DialError> {
    let address = resolve(&target.address).await?;
    let name = target
        .node
        .map_or_else(|| NODE_SERVER_NAME.to_owned(), node_server_name);
    let failed = |reason: String| DialError::Handshake { reason };
    let quic = endpoint
        .connect(address, &name)
        .map_err(|error| failed(error.to_string()))?;
    let quic = quic.await.map_err(|error| failed(error.to_string()))?;
    let (mut send, mut receive) = quic.open_bi().await.map_err(|error| failed(error.to_string()))?;
    let hello = Message::Hello(Hello {
        cluster: target.cluster.clone(),
        role: PeerRole::Client,
        versions: (WIRE_VERSION, WIRE_VERSION),
        ring: (RingVersion(0), 0),
    });
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    hello.encode(&mut buffer);
    send.write_all(&buffer)
        .await
        .map_err(|error| failed(error.to_string()))?;
    buffer.clear();
    let (node, ring) = welcome(&quic, &mut receive, &mut buffer, target)
        .await
        .inspect_err(|error| {
            quic.close(PROTOCOL_VIOLATION, error.to_string().as_bytes());
        })?;
    let connection = Connection {
        exchange: Arc::default(),
        quic,
        origin: Instant::now(),
        heard_us: AtomicU64::new(0),
    };
    Ok(Established {
        connection: Arc::new(connection),
        node,
        ring,
        send,
        receive,
        buffer,
    })
}

pub(crate) async fn resolve(address: &str) -> Result<SocketAddr, DialError> {
    let failed = |reason: String| DialError::Resolve {
        address: address.to_owned(),
        reason,
    };
    let mut found = tokio::net::lookup_host(address)
        .await
        .map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("no address".to_owned()))
}

async fn welcome(
    quic: &quinn::Connection,
    receive: &mut RecvStream,
    buffer: &mut BytesMut,
    target: &Target,
) -> Result<(NodeId, Ring), DialError> {
    let violated = |reason: String| DialError::Protocol { reason };
    let message = loop {
        if let Some(message) =
            Message::decode(buffer, SHARED_FRAME_MAX).map_err(|error: FrameError| violated(error.to_string()))?
        {
            break message;
        }
        buffer.reserve(READ_BYTES);
        match receive.read_buf(buffer).await {
            Ok(0) => return Err(violated("it closed the stream".to_owned())),
            Ok(_) => {}
            // The reason why the connection ended says more than that the stream did: a refused certificate shows up
            // here.
            Err(error) => {
                let reason = quic
                    .close_reason()
                    .map_or_else(|| error.to_string(), |reason| reason.to_string());
                return Err(DialError::Handshake { reason });
            }
        }
    };
    let stranger = |expected: &str, got: String| DialError::Stranger {
        expected: expected.to_owned(),
        got,
    };
    match message {
        Message::Welcome(Welcome::Accepted { cluster, node, ring }) => {
            if !target.cluster.is_empty() && target.cluster != cluster {
                return Err(stranger(
                    &format!("cluster {}", target.cluster),
                    format!("cluster {cluster}"),
                ));
            }
            match target.node {
                Some(expected) if expected != node => Err(stranger(&expected.to_string(), node.to_string())),
                _ => Ok((node, ring)),
            }
        }
        Message::Welcome(Welcome::Refused { reason }) => Err(DialError::Refused { reason }),
        _ => Err(violated("it sent something else first".to_owned())),
    }
}

/// Closes the connection on every way out, the cancellation of the task included, so that no caller waits in vain.
struct Closing(Arc<Connection>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close(VarInt::from_u32(0), "closed by the client");
    }
}

impl Established {
    /// Serves the connection until it ends, and says why it did. Cancel safe: dropping it closes the connection.
    pub(crate) async fn run(self) -> Arc<str> {
        let Established {
            connection,
            send,
            mut receive,
            mut buffer,
            ..
        } = self;
        let closing = Closing(connection.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(write(connection.clone(), send));
        tasks.spawn(take_bulk(connection.clone()));
        let reason = read(&connection, &mut receive, &mut buffer).await;
        connection.close(PROTOCOL_VIOLATION, &reason);
        drop(closing);
        // The first reason is the true one: after a violation, the reader only sees that we closed the connection
        // ourselves.
        connection.exchange.close_reason().unwrap_or_else(|| reason.into())
    }
}

async fn write(connection: Arc<Connection>, mut send: SendStream) {
    let mut bulk = JoinSet::new();
    loop {
        match connection.exchange.take() {
            Outgoing::Shared(bytes) => {
                if let Err(error) = send.write_chunk(bytes).await {
                    return connection.close(VarInt::from_u32(0), &format!("cannot write: {error}"));
                }
            }
            Outgoing::Bulk(frame) => {
                while bulk.try_join_next().is_some() {}
                bulk.spawn(send_bulk(connection.clone(), frame));
            }
            Outgoing::Nothing => connection.exchange.more().await,
            Outgoing::Closed => return,
        }
    }
}

/// Sends one large frame. If that fails, the connection has failed, and the reader says so to everyone.
async fn send_bulk(connection: Arc<Connection>, frame: Bytes) {
    let bytes = frame.len();
    if let Ok(mut stream) = connection.quic.open_uni().await
        && stream.write_chunk(frame).await.is_ok()
    {
        let _ = stream.finish();
    }
    connection.exchange.bulk_sent(bytes);
}

/// Reads frames until the connection ends; says why.
async fn read(connection: &Connection, receive: &mut RecvStream, buffer: &mut BytesMut) -> String {
    loop {
        if let Err(reason) = deliver(connection, buffer, SHARED_FRAME_MAX) {
            return reason;
        }
        buffer.reserve(READ_BYTES);
        match receive.read_buf(buffer).await {
            Ok(0) => return "the node closed the stream".to_owned(),
            Ok(_) => connection.heard(),
            Err(error) => {
                return connection
                    .quic
                    .close_reason()
                    .map_or_else(|| error.to_string(), |reason| reason.to_string());
            }
        }
    }
}

/// Hands out all whole frames of the buffer.
fn deliver(connection: &Connection, buffer: &mut BytesMut, max: usize) -> Result<(), String> {
    while let Some(message) = Message::decode(buffer, max).map_err(|error| error.to_string())? {
        match message {
            Message::RequestReply(reply) => connection.exchange.answer(reply.id, Answer::Response(reply.response)),
            Message::QueryReply(reply) => connection.exchange.answer(reply.id, Answer::Query(reply.answer)),
            _ => return Err("the node sent what only clients and nodes send to nodes".to_owned()),
        }
    }
    Ok(())
}

/// Takes in large frames, some at a time.
async fn take_bulk(connection: Arc<Connection>) {
    let mut reads = JoinSet::new();
    while let Ok(stream) = connection.quic.accept_uni().await {
        if reads.len() >= BULK_READS_MAX {
            reads.join_next().await;
        }
        while reads.try_join_next().is_some() {}
        reads.spawn(read_bulk(connection.clone(), stream));
    }
}

async fn read_bulk(connection: Arc<Connection>, mut stream: RecvStream) {
    let reason = match stream.read_to_end(PEER_FRAME_BYTES_MAX).await {
        Ok(bytes) => {
            connection.heard();
            let mut buffer = BytesMut::from(Bytes::from(bytes));
            match deliver(&connection, &mut buffer, PEER_FRAME_BYTES_MAX) {
                Ok(()) if buffer.is_empty() => return,
                Ok(()) => "a large frame ended too early".to_owned(),
                Err(reason) => reason,
            }
        }
        Err(error) => format!("cannot read a large frame: {error}"),
    };
    connection.close(PROTOCOL_VIOLATION, &reason);
}
