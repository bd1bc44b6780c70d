//! What nodes say to each other about who is alive.
//!
//! Every frame says of its sender who it is now (its incarnation) and which state of the cluster it has, and brings a few
//! [`News`] of others along. So nothing is sent for news alone, but when something has just happened.

use super::member::Liveness;
use quorate_ring::NodeId;
use serde::{Deserialize, Serialize};

/// News in one frame at most. What is beyond goes with the next one.
pub(super) const NEWS_MAX: usize = 8;

/// Which state of the cluster a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateMark {
    /// Its version; 0 for none.
    pub version: u64,
    /// Its digest. Nodes of equal versions and different digests must not go on.
    #[serde(with = "postcard::fixint::le")]
    pub digest: u64,
}

/// What is said about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Which node.
    pub node: NodeId,
    /// Which incarnation of it. Only the node itself raises that, to refute what is said of an earlier one.
    pub incarnation: u64,
    /// How it is.
    pub liveness: Liveness,
}

/// What a frame wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Saying {
    /// Are you there? Answered by [`Saying::Ack`] with the same number.
    Ping(u64),
    /// I am here.
    Ack(u64),
    /// Ask this node whether it is there, since it does not answer me.
    PingFor(u64, NodeId),
    /// The node that you wanted to know about has answered me.
    AckFor(u64, NodeId),
    /// Nothing but the news.
    Tell,
    /// You were taken out of the cluster. Nothing that you say is taken in, ever.
    Gone,
}

/// One message of gossip. Loss, repetition and any order do no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The sender's incarnation.
    pub incarnation: u64,
    /// The state of the cluster that the sender has.
    pub state: StateMark,
    /// What it wants.
    pub saying: Saying,
    /// What it has heard.
    pub news: Vec<News>,
}
