//! Which node to ask: the ring, the state of each member's connection, and the choice between them.
//!
//! Any owner of a key can coordinate a request for it, so a request goes straight to one: connected, not in a pause
//! after a failure, and with the fewest requests waiting; equals take turns. If no owner will do, another member is
//! asked, which forwards. The client does not know a bucket's N; it takes the first [`OWNERS_ASSUMED`] of the
//! preference list for owners. With a smaller N some requests are forwarded once; with a larger one nothing is lost.
//!
//! Rejected: always the first owner (a hot partition would heat one node), and a random one (a slow node would get its
//! full share).

use crate::circuit::{Advice, Circuit};
use crate::connection::Connection;
use quorate_core::key::Key;
use quorate_ring::{Member, NodeId, NodeIndex, Ring};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// N unless a bucket says otherwise.
pub(crate) const OWNERS_ASSUMED: u8 = 3;

/// One member of the ring, as this client sees it.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// `host:port` of its QUIC endpoint.
    pub(crate) address: String,
    pub(crate) circuit: Circuit,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Node {
    pub(crate) fn new(member: &Member) -> Node {
        Node {
            id: member.id,
            name: member.name.clone(),
            address: member.quic.clone(),
            circuit: Circuit::default(),
            connection: Mutex::default(),
        }
    }

    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_connection(&self, connection: Option<Arc<Connection>>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// Requests that wait for it, if it is connected.
    fn pending(&self) -> Option<usize> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.as_ref().map(|connection| connection.exchange.pending())
    }
}

/// A ring with the state of its members. `nodes` is parallel to the ring's members.
pub(crate) struct Topology {
    pub(crate) ring: Ring,
    pub(crate) nodes: Vec<Arc<Node>>,
}

/// Where a request goes.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) node: Arc<Node>,
    pub(crate) connection: Arc<Connection>,
}

/// The circumstances of a choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// The node that was asked just now and should not be asked again, unless there is no other.
    pub(crate) avoid: Option<NodeId>,
    /// Time, as the circuits have it.
    pub(crate) now_us: u64,
    /// How long a node pauses while its probe is under way.
    pub(crate) cooling: Duration,
    /// Changes from request to request, so that equals take turns.
    pub(crate) turn: usize,
}

impl Topology {
    /// The best node for `key`; `None` if no connection to any node of the key's preference list is up.
    pub(crate) fn route(&self, key: &Key, choice: Choice) -> Option<Route> {
        let partition = self.ring.partition_of(key.token());
        let owners = self.ring.owners(partition, OWNERS_ASSUMED);
        let others = &self.ring.preference_list(partition)[owners.len()..];
        self.healthy(owners, choice)
            .or_else(|| self.healthy(others, choice))
            .or_else(|| self.any(owners, choice))
            .or_else(|| self.any(others, choice))
            .or_else(|| {
                choice
                    .avoid
                    .and_then(|_| self.route(key, Choice { avoid: None, ..choice }))
            })
    }

    /// The one with the fewest requests waiting, of those that are not in a pause.
    fn healthy(&self, list: &[NodeIndex], choice: Choice) -> Option<Route> {
        let fit = |node: &Node| node.circuit.advice(choice.now_us) != Advice::Avoid;
        let node = self.least_busy(list, choice, fit)?;
        match node.circuit.advice(choice.now_us) {
            Advice::Probe if !node.circuit.claim(choice.now_us, choice.cooling) => None,
            _ => self.routed(node),
        }
    }

    fn any(&self, list: &[NodeIndex], choice: Choice) -> Option<Route> {
        self.least_busy(list, choice, |_| true)
            .and_then(|node| self.routed(node))
    }

    fn least_busy(&self, list: &[NodeIndex], choice: Choice, fit: impl Fn(&Node) -> bool) -> Option<&Arc<Node>> {
        let mut best: Option<(usize, &Arc<Node>)> = None;
        for at in 0..list.len() {
            let node = &self.nodes[list[(at + choice.turn) % list.len()].get()];
            if choice.avoid == Some(node.id) || !fit(node) {
                continue;
            }
            if let Some(pending) = node.pending()
                && best.is_none_or(|(least, _)| pending < least)
            {
                best = Some((pending, node));
            }
        }
        best.map(|(_, node)| node)
    }

    fn routed(&self, node: &Arc<Node>) -> Option<Route> {
        Some(Route {
            connection: node.connection()?,
            node: node.clone(),
        })
    }

    /// The member's state, if it is a member.
    pub(crate) fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.ring.index_of(id).map(|at| &self.nodes[at.get()])
    }
}
