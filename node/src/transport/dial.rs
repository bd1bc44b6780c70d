//! Dialing the peers with a larger id, and dialing again when a connection is lost.

use super::link::{self, read_first, write_first};
use super::{Local, Outbox, VERSIONS, close};
use crate::shard::Shard;
use bytes::BytesMut;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use quorate_client::quic::HANDSHAKE_TIMEOUT;
use quorate_client::tls::node_server_name;
use quorate_core::message::{Hello, Message, PEER_FRAME_BYTES_MAX, PeerRole, Welcome};
use quorate_ring::{Member, NodeIndex};
use rand::Rng;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Pause before the first redial; it doubles up to the longest, and each is drawn between half and all of itself.
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(2);
/// Largest welcome: a ring of a thousand members.
const WELCOME_BYTES_MAX: usize = 4 << 20;

/// A connection that was let in, and what arrived behind the welcome.
type Dialed = (Connection, (SendStream, RecvStream), BytesMut);

/// Starts a task for each peer that is ours to dial.
pub(crate) fn dial_peers(shard: &Rc<Shard>, endpoint: &Endpoint, config: &quinn::ClientConfig, local: &Rc<Local>) {
    for (at, member) in local.ring.members().iter().enumerate() {
        if local.id < member.id {
            let node = NodeIndex(at as u16);
            tokio::task::spawn_local(keep(
                shard.clone(),
                endpoint.clone(),
                config.clone(),
                local.clone(),
                node,
            ));
        }
    }
}

/// Keeps one peer connected for as long as the node lives.
async fn keep(shard: Rc<Shard>, endpoint: Endpoint, config: quinn::ClientConfig, local: Rc<Local>, node: NodeIndex) {
    let member = local.ring.member(node);
    let mut pause = REDIAL_MIN;
    loop {
        let attempt = timeout(HANDSHAKE_TIMEOUT, dial(&endpoint, &config, &local, member)).await;
        let reason = match attempt.unwrap_or_else(|_| Err("no answer".into())) {
            Ok((connection, streams, buffer)) => {
                pause = REDIAL_MIN;
                let outbox = Outbox::new();
                let sink = shard.peer_up(node, connection.clone(), outbox.clone());
                let reason = link::run(&connection, &outbox, &sink, streams, buffer, PEER_FRAME_BYTES_MAX).await;
                shard.peer_down(&sink, &reason);
                reason
            }
            Err(reason) => reason,
        };
        shard.peer_failed(node, reason);
        let upto = pause.as_micros() as u64;
        sleep(Duration::from_micros(rand::rng().random_range(upto / 2..=upto))).await;
        pause = (pause * 2).min(REDIAL_MAX);
    }
}

async fn dial(
    endpoint: &Endpoint,
    config: &quinn::ClientConfig,
    local: &Local,
    member: &Member,
) -> Result<Dialed, String> {
    let mut addresses = tokio::net::lookup_host(&member.quic)
        .await
        .map_err(|error| format!("{}: {error}", member.quic))?;
    let address = addresses
        .next()
        .ok_or_else(|| format!("{} has no address", member.quic))?;
    let connecting = endpoint.connect_with(config.clone(), address, &node_server_name(member.id));
    let connection = connecting
        .map_err(|error| error.to_string())?
        .await
        .map_err(|error| error.to_string())?;
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
    let hello = Hello {
        cluster: local.cluster.clone(),
        role: PeerRole::Node(local.id),
        versions: VERSIONS,
        ring: (local.ring.version(), local.settings),
    };
    write_first(&mut send, &Message::Hello(hello)).await?;
    let mut buffer = BytesMut::new();
    match read_first(&mut receive, &mut buffer, WELCOME_BYTES_MAX).await? {
        Message::Welcome(Welcome::Accepted { cluster, node, ring })
            if cluster == local.cluster && node == member.id && ring.digest() == local.ring.digest() =>
        {
            Ok((connection, (send, receive), buffer))
        }
        Message::Welcome(Welcome::Refused { reason }) => Err(format!("{} refused: {reason}", member.name)),
        _ => {
            connection.close(close::REFUSED, b"the welcome does not fit the hello");
            Err(format!("{} answered for another cluster, node or ring", member.name))
        }
    }
}
