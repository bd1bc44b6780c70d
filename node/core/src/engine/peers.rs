//! The other nodes, as far as the choice of whom to ask needs them: who is connected, and who is slow to answer.

use quorate_ring::NodeIndex;

/// One other node.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    up: bool,
    /// It was asked, took longer than a hedge waits or a forwarded request lasts, and has not answered anything since.
    slow: bool,
}

/// All other nodes, by index.
#[derive(Debug)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    turn: usize,
}

impl Peers {
    pub(super) fn new(members: usize) -> Peers {
        Peers {
            peers: vec![Peer::default(); members],
            turn: 0,
        }
    }

    pub(super) fn up(&mut self, node: NodeIndex) {
        self.change(node, |peer| *peer = Peer { up: true, slow: false });
    }

    pub(super) fn down(&mut self, node: NodeIndex) {
        self.change(node, |peer| peer.up = false);
    }

    /// The node has answered something: it is there.
    pub(super) fn answered(&mut self, node: NodeIndex) {
        self.change(node, |peer| peer.slow = false);
    }

    /// The node keeps a request waiting.
    pub(super) fn keeps_waiting(&mut self, node: NodeIndex) {
        self.change(node, |peer| peer.slow = true);
    }

    pub(super) fn is_up(&self, node: NodeIndex) -> bool {
        self.peers.get(usize::from(node.0)).is_some_and(|peer| peer.up)
    }

    /// The connected nodes among `nodes`, best first: those that answer before the slow ones, and taking turns.
    pub(super) fn rank(&mut self, nodes: impl Iterator<Item = NodeIndex>) -> Vec<NodeIndex> {
        let mut up: Vec<NodeIndex> = nodes.filter(|&node| self.is_up(node)).collect();
        if up.len() > 1 {
            self.turn = self.turn.wrapping_add(1);
            let shift = self.turn % up.len();
            up.rotate_left(shift);
            up.sort_by_key(|node| self.peers[usize::from(node.0)].slow);
        }
        up
    }

    fn change(&mut self, node: NodeIndex, change: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.peers.get_mut(usize::from(node.0)) {
            change(peer);
        }
    }
}
