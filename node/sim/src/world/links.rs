//! Connections between nodes, as QUIC gives them to the real node.
//!
//! Each pair has at most one connection, numbered by an epoch. On it a message arrives once, in any order, or the connection is
//! lost; each side notices that in its own time, and until it does, what it sends goes nowhere. Frames of an earlier epoch are dropped.
//! The node with the smaller id dials, and tries again after a pause; the other one takes a new connection in place of an old one.
//!
//! A cut that is shorter than the connection's patience only delays messages: QUIC sends them again. Where a plan says that
//! the network is not `reliable`, messages are lost and repeated on a connection that stays up. QUIC never does
//! that, and the protocol must not care.

use super::event::{Event, NodeNo};
use super::{World, micros};
use crate::probes::Probe;
use bytes::Bytes;
use quorate_core::engine::Input;
use quorate_ring::NodeIndex;

/// One direction between two nodes, and one side of the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// The connection as the sending side sees it: its epoch, or `None` if it is down.
    up: Option<u32>,
    /// Running cuts of this direction.
    cuts: u32,
    /// Counts the cuts, so that a later one is not taken for an earlier one.
    cut_number: u32,
    /// Frames that wait for the end of a cut.
    stalled: Vec<(u32, Bytes)>,
    /// Whether a dial is to come.
    dialing: bool,
}

/// All directions.
pub(super) struct Links {
    links: Vec<Link>,
    nodes: usize,
    epoch: u32,
}

/// Where a frame has its type, and the types that are never repeated: see `quorate_core::message`.
const FRAME_TYPE_AT: usize = 5;
const FORWARD: u8 = 36;
const FORWARD_REPLY: u8 = 37;

/// How long a side waits for a silent peer: quinn's idle timeout, and less where a stateless reset arrives first.
const PATIENCE_US: (u64, u64) = (3_000_000, 5_000_000);

impl Links {
    pub(super) fn new(nodes: usize) -> Links {
        Links {
            links: vec![Link::default(); nodes * nodes],
            nodes,
            epoch: 0,
        }
    }

    fn at(&mut self, from: NodeNo, to: NodeNo) -> &mut Link {
        &mut self.links[from * self.nodes + to]
    }

    pub(super) fn is_cut(&self, from: NodeNo, to: NodeNo) -> bool {
        self.links[from * self.nodes + to].cuts > 0
    }
}

impl World {
    /// Sends a frame over the present connection, if there is one.
    pub(super) fn send(&mut self, from: NodeNo, to: NodeNo, bytes: Bytes) {
        let Some(epoch) = self.links.at(from, to).up else {
            return;
        };
        let rates = &self.network;
        let lost = self.net.chance(rates.loss_pm);
        if lost && !rates.reliable {
            self.probes.hit(Probe::LostFrame);
            return;
        }
        // Requests are repeated by clients, who know that they are; between nodes a request is sent once, and QUIC does not repeat it.
        let twice = self.net.chance(rates.duplicate_pm)
            && !matches!(bytes.get(FRAME_TYPE_AT), Some(&(FORWARD | FORWARD_REPLY)));
        self.probes.hit_if(twice, Probe::DuplicateFrame);
        for _ in 0..1 + u8::from(twice) {
            let delay = self.way(lost) + self.nodes[from].slow_us;
            self.queue.push(
                self.now + delay,
                Event::Frame {
                    from,
                    to,
                    epoch,
                    bytes: bytes.clone(),
                },
            );
        }
    }

    /// How long one frame takes. A lost packet is sent again after a probe timeout.
    fn way(&mut self, lost: bool) -> u64 {
        let rates = &self.network;
        let mut delay = u64::from(rates.delay_us) + self.net.below(rates.jitter_us.into());
        if lost {
            delay += 3 * u64::from(rates.delay_us) + self.net.range(1_000, 200_000);
        }
        if self.net.chance(rates.straggler_pm) {
            delay += self.net.range(100_000, 3_000_000);
        }
        delay
    }

    pub(super) fn frame(&mut self, from: NodeNo, to: NodeNo, epoch: u32, bytes: Bytes) {
        if self.links.is_cut(from, to) {
            if self.network.reliable {
                self.links.at(from, to).stalled.push((epoch, bytes));
            }
            return;
        }
        if self.links.at(to, from).up != Some(epoch) || !self.nodes[to].is_running() {
            self.probes.hit(Probe::StaleFrame);
            return;
        }
        let Some(message) = self.decode_peer(bytes) else { return };
        self.feed(
            to,
            Input::Message {
                from: index(from),
                message,
            },
        );
    }

    /// Both nodes are told to find each other: at the start of a node.
    pub(super) fn dial_all(&mut self, node: NodeNo) {
        for peer in (0..self.nodes.len()).filter(|&peer| peer != node) {
            self.dial_later(node.min(peer), node.max(peer), (0, 3_000));
        }
    }

    fn dial_later(&mut self, from: NodeNo, to: NodeNo, (low, high): (u64, u64)) {
        if std::mem::replace(&mut self.links.at(from, to).dialing, true) {
            return;
        }
        let delay = self.net.range(low, high);
        self.queue.push(self.now + delay, Event::Dial { from, to });
    }

    pub(super) fn dial(&mut self, from: NodeNo, to: NodeNo) {
        self.links.at(from, to).dialing = false;
        if self.links.at(from, to).up.is_some() || !self.nodes[from].is_running() {
            return;
        }
        let open = !self.links.is_cut(from, to) && !self.links.is_cut(to, from);
        if !open || !self.nodes[to].is_running() || self.nodes[from].is_paused() || self.nodes[to].is_paused() {
            return self.dial_later(from, to, (50_000, 1_000_000));
        }
        self.side_down(to, from);
        if !self.nodes[to].is_running() {
            // It crashed while it took note of that.
            return self.dial_later(from, to, (50_000, 1_000_000));
        }
        self.links.epoch += 1;
        let epoch = self.links.epoch;
        self.links.at(to, from).up = Some(epoch);
        // Before the other side says anything: what it says must not come before the connection is there.
        let delay = u64::from(self.network.delay_us);
        let life = self.nodes[from].life();
        self.queue.push(
            self.now + delay,
            Event::Connected {
                node: from,
                life,
                peer: to,
                epoch,
            },
        );
        self.links.at(from, to).dialing = true;
        self.feed(to, Input::PeerUp(index(from)));
    }

    pub(super) fn connected(&mut self, node: NodeNo, life: u32, peer: NodeNo, epoch: u32) {
        self.links.at(node, peer).dialing = false;
        if !self.nodes[node].is_running() {
            return;
        }
        // Meanwhile the other side may be gone, or this process another one.
        if self.nodes[node].life() != life || self.links.at(peer, node).up != Some(epoch) {
            return self.dial_later(node, peer, (50_000, 1_000_000));
        }
        self.links.at(node, peer).up = Some(epoch);
        self.feed(node, Input::PeerUp(index(peer)));
    }

    /// One side's connection is gone: the engine is told, if there is one.
    fn side_down(&mut self, node: NodeNo, peer: NodeNo) {
        if self.links.at(node, peer).up.take().is_some() {
            self.probes
                .hit_if(self.nodes[node].puts_pending() > 0, Probe::PutLostConnection);
            self.feed(node, Input::PeerDown(index(peer)));
        }
    }

    pub(super) fn lost(&mut self, node: NodeNo, peer: NodeNo, epoch: u32) {
        if self.links.at(node, peer).up != Some(epoch) {
            return;
        }
        self.side_down(node, peer);
        if node < peer {
            self.dial_later(node, peer, (50_000, 1_000_000));
        } else if self.links.at(peer, node).up == Some(epoch) {
            // The dialing side learns it too, sooner or later.
            self.notice_later(peer, node, epoch, (0, PATIENCE_US.1));
        }
    }

    /// A side of a dead connection notices, within this range of microseconds.
    fn notice_later(&mut self, node: NodeNo, peer: NodeNo, epoch: u32, (low, high): (u64, u64)) {
        let delay = self.net.range(low, high);
        self.queue.push(self.now + delay, Event::Lost { node, peer, epoch });
    }

    /// The connection dies, and each side notices within this range of microseconds.
    pub(super) fn kill_connection(&mut self, a: NodeNo, b: NodeNo, within: (u64, u64)) {
        for (node, peer) in [(a, b), (b, a)] {
            if let Some(epoch) = self.links.at(node, peer).up {
                self.notice_later(node, peer, epoch, within);
            }
        }
    }

    /// Every connection dies.
    pub(super) fn lose_all_connections(&mut self) {
        for a in 0..self.nodes.len() {
            for b in 0..a {
                self.kill_connection(a, b, (0, 200_000));
            }
        }
    }

    /// A node is gone: its side of all connections is, at once, and its peers notice in time.
    pub(super) fn drop_connections(&mut self, node: NodeNo) {
        for peer in (0..self.nodes.len()).filter(|&peer| peer != node) {
            self.links.at(node, peer).up = None;
            if let Some(epoch) = self.links.at(peer, node).up {
                self.notice_later(peer, node, epoch, (0, PATIENCE_US.1));
            }
        }
    }

    pub(super) fn cut(&mut self, from: NodeNo, to: NodeNo) {
        let patience = self.net.range(PATIENCE_US.0, PATIENCE_US.1);
        let link = self.links.at(from, to);
        link.cuts += 1;
        if link.cuts == 1 {
            link.cut_number += 1;
            let since = link.cut_number;
            self.queue.push(self.now + patience, Event::Cut { from, to, since });
        }
    }

    /// A direction has been cut for as long as a connection waits, if it still is the same cut.
    pub(super) fn cut_too_long(&mut self, from: NodeNo, to: NodeNo, since: u32) {
        let link = self.links.at(from, to);
        if link.cuts > 0 && link.cut_number == since {
            link.stalled.clear();
            self.probes.hit(Probe::PartitionBeyondPatience);
            self.kill_connection(from, to, (0, micros(1_000)));
        }
    }

    pub(super) fn mend(&mut self, from: NodeNo, to: NodeNo) {
        let link = self.links.at(from, to);
        link.cuts = link.cuts.saturating_sub(1);
        if link.cuts > 0 {
            return;
        }
        for (epoch, bytes) in std::mem::take(&mut link.stalled) {
            let delay = self.way(true);
            self.queue
                .push(self.now + delay, Event::Frame { from, to, epoch, bytes });
        }
    }

    /// A node has been silent for as long as its peers wait.
    pub(super) fn silent(&mut self, node: NodeNo) {
        self.probes.hit(Probe::PausedBeyondPatience);
        for peer in (0..self.nodes.len()).filter(|&peer| peer != node) {
            self.kill_connection(node, peer, (0, 500_000));
        }
    }
}

/// The ring's name of a node: they are sorted by id, and ids go by number.
pub(super) fn index(node: NodeNo) -> NodeIndex {
    NodeIndex(node as u16)
}
