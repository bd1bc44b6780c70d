//! The other nodes, as far as the choice of whom to ask needs them: who is connected, who is slow, and how long an answer takes.
//!
//! ```text
//!            keeps a request waiting for slow_after
//!   closed ────────────────────────────────────────► open: asked only if there is nobody else
//!     ▲                                                │  ▲
//!     │ a fast answer                 after a pause    ▼  │ no fast answer: the pause doubles
//!     └──────────────────────────────────────────── half-open: one request probes it
//! ```
//!
//! A node can hang, or answer ever more slowly, while its connection lives. Of the requests to each node one read and one write at a time are
//! *watched*: how long they take is how long the node takes. One that is not answered in time opens the node's breaker. Nothing wakes up for
//! that: whether a node is slow is asked only when something happens.
//!
//! A node that made one read ask elsewhere, or let a forwarded request run out, is only *late*: the next requests go to others first until it has
//! answered anything. Rejected: timing every request. It needs an entry for each, and tells no more.

use crate::message::PeerMessage;
use crate::time::Instant;
use quorate_ring::NodeIndex;
use std::time::Duration;

/// First and longest pause before a slow node is probed.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// However slow a node usually is, reads ask others after this long.
const PATIENCE_MAX: Duration = Duration::from_millis(50);

/// How a node is doing, as seen from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerHealth {
    /// Whether there is a connection.
    pub up: bool,
    /// Whether it is routed round because it kept a request waiting.
    pub slow: bool,
    /// If it is slow: from when on the next request to it finds out whether it still is.
    pub probe_at: Option<Instant>,
    /// How long it takes to answer a read, smoothed, in microseconds; 0 if it has answered none.
    pub answer_us: u32,
}

/// What kind of request is timed. Writes wait for a disk and reads do not, so they are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// A node that is routed round.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// From when on one request may probe it.
    probe_at: Instant,
    pause: Duration,
}

/// One other node.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    up: bool,
    /// A request did not wait for it any longer, and it has not answered anything since.
    late: bool,
    answer_us: u32,
    /// When it last said anything.
    heard: Instant,
    /// A read and a write that it was sent: their numbers, and when.
    watched: [Option<(u64, Instant)>; 2],
    open: Option<Open>,
}

/// All other nodes, by index.
#[derive(Debug)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    slow_after: Duration,
    now: Instant,
    /// When the first watched request is due.
    due: Instant,
    /// How many breakers are open.
    open: usize,
    /// How many were opened so far.
    opened: u64,
    turn: usize,
}

impl Peers {
    pub(super) fn new(members: usize, slow_after: Duration) -> Peers {
        Peers {
            peers: vec![Peer::default(); members],
            slow_after,
            now: Instant::default(),
            due: Instant(u64::MAX),
            open: 0,
            opened: 0,
            turn: 0,
        }
    }

    pub(super) fn up(&mut self, node: NodeIndex) {
        self.reset(node, true);
    }

    pub(super) fn down(&mut self, node: NodeIndex) {
        self.reset(node, false);
    }

    /// It is `now`. Opens the breakers of those that keep a request waiting.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
        if now < self.due {
            return;
        }
        self.due = Instant(u64::MAX);
        for at in 0..self.peers.len() {
            let Peer { watched, open, .. } = self.peers[at];
            let due = watched.iter().flatten().map(|&(_, sent)| sent + self.slow_after).min();
            match due {
                Some(due) if due > now => self.due = self.due.min(due),
                Some(_) if open.is_none() => self.open(at),
                _ => {}
            }
        }
    }

    /// A message leaves for the node.
    pub(super) fn sent(&mut self, node: NodeIndex, message: &PeerMessage) {
        let (kind, id) = match message {
            PeerMessage::Fetch(m) => (Kind::Read, m.id),
            PeerMessage::FetchHint(m) => (Kind::Read, m.id),
            PeerMessage::Replicate(m) => (Kind::Write, m.id),
            PeerMessage::StoreHint(m) => (Kind::Write, m.id),
            _ => return,
        };
        let now = self.now;
        let Some(peer) = self.peers.get_mut(usize::from(node.0)) else {
            return;
        };
        let is_probe = peer.open.as_ref().is_some_and(|open| open.probe_at <= now);
        if let Some(open) = peer.open.as_mut().filter(|_| is_probe) {
            open.pause = (open.pause * 2).min(PAUSE_MAX);
            open.probe_at = now + open.pause;
        }
        let watched = &mut peer.watched[kind as usize];
        if is_probe || watched.is_none_or(|(_, sent)| sent + self.slow_after <= now) {
            *watched = Some((id, now));
            self.due = self.due.min(now + self.slow_after);
        }
    }

    /// The node has answered a request.
    pub(super) fn answered(&mut self, node: NodeIndex, kind: Kind, id: u64) {
        self.heard_of(node);
        let (now, at) = (self.now, usize::from(node.0));
        let Some(peer) = self.peers.get_mut(at) else { return };
        let Some((_, sent)) = peer.watched[kind as usize].take_if(|(watched, _)| *watched == id) else {
            return;
        };
        let took = now.since(sent);
        if kind == Kind::Read {
            peer.answer_us = smoothed(peer.answer_us, took);
        }
        if took < self.slow_after {
            self.close(at);
        } else if peer.open.is_none() {
            self.open(at);
        }
    }

    /// The node has said something: it is there.
    pub(super) fn heard_of(&mut self, node: NodeIndex) {
        if let Some(peer) = self.peers.get_mut(usize::from(node.0)) {
            peer.late = false;
        }
    }

    /// A message of the node has come.
    pub(super) fn heard(&mut self, node: NodeIndex) {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(usize::from(node.0)) {
            peer.heard = now;
        }
    }

    /// Whether the node has said anything since then.
    pub(super) fn was_heard_since(&self, node: NodeIndex, since: Instant) -> bool {
        let peer = self.peers.get(usize::from(node.0));
        peer.is_some_and(|peer| peer.heard >= since)
    }

    /// A request has stopped waiting for the node alone.
    pub(super) fn is_late(&mut self, node: NodeIndex) {
        if let Some(peer) = self.peers.get_mut(usize::from(node.0)) {
            peer.late = true;
        }
    }

    pub(super) fn is_up(&self, node: NodeIndex) -> bool {
        self.peers.get(usize::from(node.0)).is_some_and(|peer| peer.up)
    }

    /// Whether the node is connected and not slow, or it is time to see whether it still is.
    pub(super) fn is_usable(&self, node: NodeIndex) -> bool {
        let is_due = |open: Open| open.probe_at <= self.now;
        self.peers
            .get(usize::from(node.0))
            .is_some_and(|peer| peer.up && peer.open.is_none_or(is_due))
    }

    /// Whether the node is routed round.
    pub(super) fn is_slow(&self, node: NodeIndex) -> bool {
        self.peers
            .get(usize::from(node.0))
            .is_some_and(|peer| peer.open.is_some())
    }

    /// A slow node among `nodes` that it is time to probe.
    pub(super) fn to_probe(&self, mut nodes: impl Iterator<Item = NodeIndex>) -> Option<NodeIndex> {
        if self.open == 0 {
            return None;
        }
        nodes.find(|&node| self.is_slow(node) && self.is_usable(node))
    }

    /// The connected nodes among `nodes`, best first: those that answer before those that were late, these before the slow ones, and taking turns.
    pub(super) fn rank(&mut self, nodes: impl Iterator<Item = NodeIndex>) -> Vec<NodeIndex> {
        let mut up: Vec<NodeIndex> = nodes.filter(|&node| self.is_up(node)).collect();
        if up.len() > 1 {
            self.turn = self.turn.wrapping_add(1);
            let shift = self.turn % up.len();
            up.rotate_left(shift);
            up.sort_by_key(|&node| (self.is_slow(node), self.peers[usize::from(node.0)].late));
        }
        up
    }

    /// How long a read waits for those of `nodes` that are not slow before it asks others: twice as long as they usually take, within bounds.
    pub(super) fn patience(&self, nodes: &[NodeIndex], at_least: Duration) -> Duration {
        let usual = nodes.iter().filter(|&&node| !self.is_slow(node));
        let usual = usual.filter_map(|node| self.peers.get(usize::from(node.0)));
        let longest = usual.map(|peer| peer.answer_us).max().unwrap_or(0);
        let twice = Duration::from_micros(2 * u64::from(longest));
        twice.clamp(at_least, PATIENCE_MAX.max(at_least))
    }

    /// How often a node was found slow.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    pub(super) fn health(&self, node: NodeIndex) -> PeerHealth {
        self.peers
            .get(usize::from(node.0))
            .map_or_else(PeerHealth::default, |peer| PeerHealth {
                up: peer.up,
                slow: peer.open.is_some(),
                probe_at: peer.open.map(|open| open.probe_at),
                answer_us: peer.answer_us,
            })
    }

    fn open(&mut self, at: usize) {
        self.peers[at].open = Some(Open {
            probe_at: self.now + PAUSE_MIN,
            pause: PAUSE_MIN,
        });
        self.open += 1;
        self.opened += 1;
    }

    fn close(&mut self, at: usize) {
        self.open -= usize::from(self.peers[at].open.take().is_some());
    }

    fn reset(&mut self, node: NodeIndex, up: bool) {
        let at = usize::from(node.0);
        if at < self.peers.len() {
            self.close(at);
            let answer_us = self.peers[at].answer_us;
            self.peers[at] = Peer {
                up,
                answer_us,
                ..Peer::default()
            };
        }
    }
}

/// An eighth of the way from what it was to what it is now, as TCP smooths its round-trip time (RFC 6298).
fn smoothed(before: u32, took: Duration) -> u32 {
    let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
    match before {
        0 => took,
        _ => before - before / 8 + took / 8,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::key::Key;
    use crate::message::Fetch;

    const A: NodeIndex = NodeIndex(0);
    const B: NodeIndex = NodeIndex(1);
    const SLOW: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Instant {
        Instant(ms * 1000)
    }

    fn fetch(id: u64) -> PeerMessage {
        let key = Key::new(b"bucket", b"key", None).unwrap();
        PeerMessage::Fetch(Fetch { id, key, have: None })
    }

    /// Two nodes; `A` was sent read 1 at 0 ms.
    fn asked() -> Peers {
        let mut peers = Peers::new(2, SLOW);
        [A, B].into_iter().for_each(|node| peers.up(node));
        peers.sent(A, &fetch(1));
        peers
    }

    #[test]
    fn a_node_that_keeps_a_request_waiting_is_asked_last() {
        let mut peers = asked();
        peers.tick(ms(99));
        assert!(peers.is_usable(A));
        peers.tick(ms(100));
        assert!(!peers.is_usable(A) && peers.is_up(A));
        for _ in 0..4 {
            assert_eq!(peers.rank([A, B].into_iter()), [B, A]);
        }
        assert_eq!(peers.opened(), 1);
    }

    #[test]
    fn an_answer_in_time_closes_it_and_one_out_of_time_does_not() {
        let mut peers = asked();
        peers.tick(ms(150));
        peers.answered(A, Kind::Read, 1);
        assert!(peers.is_slow(A), "it took 150 ms");
        peers.sent(A, &fetch(2));
        peers.tick(ms(151));
        peers.answered(A, Kind::Write, 2);
        peers.answered(A, Kind::Read, 3);
        assert!(peers.is_slow(A), "of other requests nobody knows how long they took");
        peers.answered(A, Kind::Read, 2);
        assert!(!peers.is_slow(A) && peers.is_usable(A));
    }

    #[test]
    fn a_late_answer_opens_it_even_if_nothing_happened_meanwhile() {
        let mut peers = asked();
        peers.tick(ms(100));
        assert_eq!(peers.opened(), 1);
        let mut peers = asked();
        peers.now = ms(130);
        peers.answered(A, Kind::Read, 1);
        assert!(peers.is_slow(A));
    }

    #[test]
    fn probes_become_rarer_up_to_a_bound() {
        let mut peers = asked();
        let mut now = 100;
        peers.tick(ms(now));
        for (id, pause) in [100, 200, 400, 800, 1600, 2000, 2000].into_iter().enumerate() {
            peers.tick(ms(now + pause - 1));
            assert_eq!(peers.to_probe([A, B].into_iter()), None);
            now += pause;
            peers.tick(ms(now));
            assert_eq!(peers.to_probe([A, B].into_iter()), Some(A));
            peers.sent(A, &fetch(10 + id as u64));
            assert_eq!(peers.to_probe([A, B].into_iter()), None, "one probe at a time");
        }
        assert_eq!(peers.opened(), 1);
    }

    #[test]
    fn a_new_connection_is_taken_to_be_fast() {
        let mut peers = asked();
        peers.tick(ms(100));
        peers.down(A);
        assert!(!peers.is_slow(A) && !peers.is_usable(A));
        peers.up(A);
        peers.tick(ms(500));
        assert!(
            peers.is_usable(A),
            "what the old connection owed is nobody's fault any more"
        );
    }

    #[test]
    fn reads_wait_twice_as_long_as_a_node_usually_takes_but_not_for_ever() {
        let (hedge, mut peers) = (Duration::from_millis(20), Peers::new(2, SLOW));
        [A, B].into_iter().for_each(|node| peers.up(node));
        assert_eq!(peers.patience(&[A, B], hedge), hedge);
        for (id, took, patience) in [(1, 15, 30), (2, 15, 30), (3, 95, 50)] {
            peers.sent(A, &fetch(id));
            peers.tick(Instant(peers.now.0 + took * 1000));
            peers.answered(A, Kind::Read, id);
            let waits = peers.patience(&[A, B], hedge).as_micros() as i64;
            assert!((waits - patience * 1000).abs() < 10, "{waits}");
        }
        assert_eq!(peers.patience(&[B], hedge), hedge);
    }
}
