//! Letting connections in: peers with a smaller id, and clients.

use super::link::{self, read_first, write_first};
use super::{Local, Outbox, VERSIONS, close};
use crate::shard::Shard;
use crate::tls::{Identity, peer_identity};
use bytes::BytesMut;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use quorate_client::quic::HANDSHAKE_TIMEOUT;
use quorate_core::message::{Hello, Message, PEER_FRAME_BYTES_MAX, PeerRole, Welcome};
use quorate_ring::NodeIndex;
use std::cell::Cell;
use std::rc::Rc;
use tokio::time::timeout;

/// Handshakes under way at once. From half of it on, an address has to prove itself first; beyond it, newcomers are refused.
const HANDSHAKES_MAX: usize = 256;
/// Largest hello.
const HELLO_BYTES_MAX: usize = 4096;

/// Who was let in.
enum Guest {
    Peer(NodeIndex),
    Client,
}

/// Accepts connections until the endpoint closes.
pub(crate) async fn accept(shard: Rc<Shard>, endpoint: Endpoint, local: Rc<Local>) {
    let handshakes = Rc::new(Cell::new(0_usize));
    while let Some(incoming) = endpoint.accept().await {
        if handshakes.get() >= HANDSHAKES_MAX {
            incoming.refuse();
        } else if handshakes.get() >= HANDSHAKES_MAX / 2 && incoming.may_retry() {
            // Makes the sender show that it receives at the address it names; costs us no state. It cannot fail: may_retry() said so.
            let _ = incoming.retry();
        } else {
            handshakes.set(handshakes.get() + 1);
            tokio::task::spawn_local(serve(shard.clone(), incoming, local.clone(), handshakes.clone()));
        }
    }
}

async fn serve(shard: Rc<Shard>, incoming: Incoming, local: Rc<Local>, handshakes: Rc<Cell<usize>>) {
    let address = incoming.remote_address();
    let admitted = timeout(HANDSHAKE_TIMEOUT, admit(&shard, incoming, &local)).await;
    handshakes.set(handshakes.get() - 1);
    let (connection, streams, guest, buffer) = match admitted {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(reason)) => return tracing::warn!(%address, %reason, "refused a connection"),
        Err(_) => return tracing::warn!(%address, "refused a connection: its handshake took too long"),
    };
    let outbox = Outbox::new();
    match guest {
        Guest::Peer(node) => {
            let sink = shard.peer_up(node, connection.clone(), outbox.clone());
            let reason = link::run(&connection, &outbox, &sink, streams, buffer, PEER_FRAME_BYTES_MAX).await;
            shard.peer_down(&sink, &reason);
        }
        Guest::Client => {
            let sink = shard.client_up(outbox.clone(), local.client_frame_max);
            let reason = link::run(&connection, &outbox, &sink, streams, buffer, local.client_frame_max).await;
            shard.client_down(sink);
            tracing::debug!(%address, %reason, "a client left");
        }
    }
}

type Admitted = (Connection, (SendStream, RecvStream), Guest, BytesMut);

/// Handshake, hello, welcome.
async fn admit(shard: &Shard, incoming: Incoming, local: &Local) -> Result<Admitted, String> {
    let connection = incoming
        .accept()
        .map_err(|error| error.to_string())?
        .await
        .map_err(|error| error.to_string())?;
    let identity = peer_identity(&connection).map_err(|error| {
        connection.close(close::REFUSED, error.to_string().as_bytes());
        error.to_string()
    })?;
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|error| error.to_string())?;
    let mut buffer = BytesMut::new();
    let first = read_first(&mut receive, &mut buffer, HELLO_BYTES_MAX).await;
    let checked = match first {
        Ok(Message::Hello(hello)) => check(shard, &identity, &hello, local),
        Ok(_) => Err("a connection starts with a hello".into()),
        Err(reason) => Err(reason),
    };
    match checked {
        Ok(guest) => {
            let (cluster, ring) = (local.cluster.clone(), (*local.ring).clone());
            write_first(
                &mut send,
                &Message::Welcome(Welcome::Accepted {
                    cluster,
                    node: local.id,
                    ring,
                }),
            )
            .await?;
            Ok((connection, (send, receive), guest, buffer))
        }
        Err(reason) => {
            let refused = Message::Welcome(Welcome::Refused { reason: reason.clone() });
            // The refusal is a courtesy: it has to reach the other side before the close does, but nothing depends on it.
            if write_first(&mut send, &refused).await.is_ok() && send.finish().is_ok() {
                let _ = send.stopped().await;
            }
            connection.close(close::REFUSED, reason.as_bytes());
            Err(reason)
        }
    }
}

/// Whether the hello fits the certificate and this cluster.
fn check(shard: &Shard, identity: &Identity, hello: &Hello, local: &Local) -> Result<Guest, String> {
    let (low, high) = hello.versions;
    if low > VERSIONS.1 || high < VERSIONS.0 {
        return Err(format!(
            "no common wire version: {low} to {high} there, {} to {} here; upgrade the older",
            VERSIONS.0, VERSIONS.1
        ));
    }
    if !hello.cluster.is_empty() && hello.cluster != local.cluster {
        return Err(format!("this is cluster {:?}, not {:?}", local.cluster, hello.cluster));
    }
    match (hello.role, identity) {
        (PeerRole::Client, Identity::Client(_) | Identity::Admin(_)) if shard.clients() >= local.clients_max => {
            Err(format!(
                "{} clients are connected to this node already; use another",
                local.clients_max
            ))
        }
        (PeerRole::Client, Identity::Client(_) | Identity::Admin(_)) => Ok(Guest::Client),
        (PeerRole::Node(id), Identity::Node(certified)) if id == *certified => {
            let node = local
                .ring
                .index_of(id)
                .ok_or_else(|| format!("node {id} is not a member of the ring"))?;
            let ours = (local.ring.version(), local.settings);
            if hello.ring != ours {
                return Err(format!(
                    "the settings differ (ring version {} digest {:016x} there, {} {:016x} here): give all nodes the same members, buckets and context key",
                    hello.ring.0, hello.ring.1, ours.0, ours.1
                ));
            }
            if id >= local.id {
                return Err("of two nodes the one with the smaller id dials".into());
            }
            Ok(Guest::Peer(node))
        }
        (role, identity) => Err(format!("the hello says {role:?}, the certificate says {identity:?}")),
    }
}
