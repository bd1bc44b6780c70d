//! The network of these tests: one queue of frames and ticks, and a list of what nodes came to believe.

use crate::gossip::{Effect, Frame, Gossip, GossipConfig, Input, Liveness, Patience, StateMark};
use crate::time::Instant;
use quorate_ring::NodeId;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

/// How frames travel.
#[derive(Clone, Copy)]
pub(super) struct Ways {
    pub(super) loss_pm: u64,
    pub(super) delay_us: u64,
    pub(super) jitter_us: u64,
}

/// A quick network that loses nothing.
pub(super) const CALM: Ways = Ways {
    loss_pm: 0,
    delay_us: 500,
    jitter_us: 500,
};

/// One frame in twenty is lost, and others take up to 50 ms.
pub(super) const ROUGH: Ways = Ways {
    loss_pm: 50,
    delay_us: 500,
    jitter_us: 50_000,
};

/// A node came to believe something of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Belief {
    pub(super) at: Instant,
    pub(super) by: usize,
    pub(super) of: usize,
    pub(super) liveness: Liveness,
}

enum Event {
    Frame { from: usize, to: usize, frame: Frame },
    Tick(usize),
}

/// Nodes and what is between them.
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) ways: Ways,
    nodes: Vec<Option<Gossip>>,
    /// Nodes that handle nothing; what comes in meanwhile.
    paused: BTreeMap<usize, Vec<(usize, Frame)>>,
    /// Directions in which nothing gets through.
    pub(super) cut: BTreeSet<(usize, usize)>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    ticks: Vec<Option<Instant>>,
    rng: ChaCha8Rng,
    pub(super) beliefs: Vec<Belief>,
    /// Effects that are neither frames nor beliefs, and whose.
    pub(super) other: Vec<(usize, Effect)>,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// Whether bytes are counted.
    pub(super) weighs: bool,
}

pub(super) fn id(node: usize) -> NodeId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&(node as u64).to_be_bytes());
    NodeId(id)
}

pub(super) fn number(id: NodeId) -> usize {
    u64::from_be_bytes(id.0[..8].try_into().unwrap()) as usize
}

impl Net {
    /// So many nodes that know each other.
    pub(super) fn new(nodes: usize, seed: u64, ways: Ways) -> Net {
        let mut net = Net {
            now: Instant(1_000_000),
            ways,
            nodes: (0..nodes).map(|_| None).collect(),
            paused: BTreeMap::new(),
            cut: BTreeSet::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            ticks: vec![None; nodes],
            rng: ChaCha8Rng::seed_from_u64(seed),
            beliefs: Vec::new(),
            other: Vec::new(),
            frames: 0,
            bytes: 0,
            weighs: false,
        };
        (0..nodes).for_each(|node| net.start(node, 1));
        net
    }

    /// Starts a node's process.
    pub(super) fn start(&mut self, node: usize, incarnation: u64) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let config = GossipConfig {
            me: id(node),
            incarnation,
            seed,
            patience: Patience::default(),
        };
        self.nodes[node] = Some(Gossip::new(config));
        let members = (0..self.nodes.len()).map(id).collect();
        self.hand(
            node,
            Input::Members {
                members,
                gone: BTreeSet::new(),
            },
        );
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
        self.paused.remove(&node);
    }

    pub(super) fn pause(&mut self, node: usize) {
        self.paused.insert(node, Vec::new());
    }

    pub(super) fn resume(&mut self, node: usize) {
        for (from, frame) in self.paused.remove(&node).unwrap_or_default() {
            self.hand(node, Input::Frame { from: id(from), frame });
        }
        self.hand(node, Input::Tick);
    }

    /// Cuts these off from all others.
    pub(super) fn isolate(&mut self, nodes: &[usize]) {
        for other in (0..self.nodes.len()).filter(|other| !nodes.contains(other)) {
            for &node in nodes {
                self.cut.extend([(node, other), (other, node)]);
            }
        }
    }

    /// Hands an input in, and carries out what follows.
    pub(super) fn hand(&mut self, node: usize, input: Input) {
        let now = self.now;
        let Some(gossip) = &mut self.nodes[node] else { return };
        gossip.handle(now, input);
        while let Some(effect) = self.nodes[node].as_mut().unwrap().poll_effect() {
            match effect {
                Effect::Send { to, frame } => self.send(node, number(to), frame),
                Effect::Changed { node: of, liveness } => self.beliefs.push(Belief {
                    at: now,
                    by: node,
                    of: number(of),
                    liveness,
                }),
                other => self.other.push((node, other)),
            }
        }
        let due = self.nodes[node].as_ref().unwrap().poll_timeout();
        if let Some(due) = due.map(|due| due.max(now))
            && self.ticks[node].is_none_or(|at| due < at || at <= now)
        {
            self.ticks[node] = Some(due);
            self.push(due, Event::Tick(node));
        }
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse((at.0, self.next_event)));
        self.events.insert(self.next_event, event);
    }

    fn send(&mut self, from: usize, to: usize, frame: Frame) {
        self.frames += 1;
        if self.weighs {
            // Ten bytes of a frame's head.
            self.bytes += 10 + postcard::to_stdvec(&frame).unwrap().len() as u64;
        }
        let Ways {
            loss_pm,
            delay_us,
            jitter_us,
        } = self.ways;
        if self.cut.contains(&(from, to)) || self.rng.next_u64() % 1000 < loss_pm {
            return;
        }
        let delay = delay_us + self.rng.next_u64() % jitter_us.max(1);
        self.push(Instant(self.now.0 + delay), Event::Frame { from, to, frame });
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(&Reverse((at, number))) = self.queue.peek()
            && at <= until.0
        {
            self.queue.pop();
            self.now = Instant(at);
            match self.events.remove(&number).unwrap() {
                Event::Frame { from, to, frame } => match self.paused.get_mut(&to) {
                    Some(inbox) => inbox.push((from, frame)),
                    None => self.hand(to, Input::Frame { from: id(from), frame }),
                },
                Event::Tick(node) if self.ticks[node] == Some(self.now) => {
                    self.ticks[node] = None;
                    if !self.paused.contains_key(&node) {
                        self.hand(node, Input::Tick);
                    }
                }
                Event::Tick(_) => {}
            }
        }
        self.now = until;
    }

    pub(super) fn gossip(&self, node: usize) -> &Gossip {
        self.nodes[node].as_ref().unwrap()
    }

    pub(super) fn sees(&self, by: usize, of: usize) -> Liveness {
        self.gossip(by).liveness(id(of)).unwrap()
    }

    /// Whether all that run see just those as alive that run and are not cut off from them, and the others as Down or Left.
    pub(super) fn is_right(&self) -> bool {
        let pairs = (0..self.nodes.len()).flat_map(|by| (0..self.nodes.len()).map(move |of| (by, of)));
        pairs
            .filter(|&(by, of)| by != of && self.nodes[by].is_some())
            .all(|(by, of)| {
                let is_there = self.nodes[of].is_some() && !self.cut.contains(&(by, of));
                (self.sees(by, of) == Liveness::Alive) == is_there && self.sees(by, of) != Liveness::Suspect
            })
    }

    /// When the last of the others came to believe so of a node, if all have.
    pub(super) fn all_believe(&self, of: usize, liveness: Liveness) -> Option<Instant> {
        let others = (0..self.nodes.len()).filter(|&by| by != of && self.nodes[by].is_some());
        let first = |by| {
            self.beliefs
                .iter()
                .find(|b| b.by == by && b.of == of && b.liveness == liveness)
        };
        others
            .map(|by| first(by).map(|belief| belief.at))
            .max_by_key(|at| at.map_or(u64::MAX, |at| at.0))?
    }

    pub(super) fn state(&mut self, node: usize, version: u64) {
        let state = StateMark {
            version,
            digest: version,
        };
        self.hand(node, Input::State(state));
    }
}
