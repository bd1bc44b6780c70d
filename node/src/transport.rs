//! Connections: who may come in, who is dialed, and what runs on each.
//!
//! Every pair of nodes shares one connection, dialed by the one with the smaller id, with one long-lived stream of frames ([`Outbox`]
//! on the way out, one reader on the way in), and with short streams for frames that are large or that nobody waits for. Clients dial any node and use theirs the same way. A connection starts with a hello
//! and a welcome; the certificate says who somebody is, and the hello has to agree with it. What comes after is handed to
//! the [`Shard`](crate::shard::Shard) a burst at a time.
//!
//! Nothing here retries a message. When a connection is lost, so is all that was under way on it, and the engine is told.

mod block;
mod bulk;
mod dial;
mod endpoint;
mod link;
mod outbox;
mod serve;

pub(crate) use block::BlockList;
pub(crate) use bulk::IN_FLIGHT_MAX as BULK_IN_FLIGHT_MAX;
pub(crate) use dial::dial_peers;
pub(crate) use endpoint::open as open_endpoint;
pub(crate) use link::Sink;
pub(crate) use outbox::Outbox;
pub(crate) use serve::accept;

use quorate_core::message::WIRE_VERSION;
use quorate_ring::{NodeId, Ring};
use std::sync::Arc;

/// What a node says of itself, and expects of others, when a connection starts.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// This node.
    pub(crate) id: NodeId,
    /// The ring.
    pub(crate) ring: Arc<Ring>,
    /// Digest of what all nodes must agree on: ring, buckets, context keys.
    pub(crate) settings: u64,
    /// Largest frame that a client may send.
    pub(crate) client_frame_max: usize,
    /// Client connections at once.
    pub(crate) clients_max: usize,
}

/// The wire versions that this build speaks.
const VERSIONS: (u8, u8) = (WIRE_VERSION, WIRE_VERSION);

/// Application error codes of a closed connection: why it was closed, for the logs of the other side.
pub(crate) mod close {
    use quinn::VarInt;

    /// The node is stopping, or replaces the connection by a newer one.
    pub(crate) const GOING: VarInt = VarInt::from_u32(0);
    /// Hello, certificate or ring were not acceptable.
    pub(crate) const REFUSED: VarInt = VarInt::from_u32(1);
    /// What came was no frame, or not one that this peer may send.
    pub(crate) const PROTOCOL: VarInt = VarInt::from_u32(2);
    /// It did not take what was sent.
    pub(crate) const TOO_SLOW: VarInt = VarInt::from_u32(3);
}
