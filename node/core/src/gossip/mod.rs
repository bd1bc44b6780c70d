//! Liveness gossip: who is there, as a pure state machine.
//!
//! ```text
//!             answers                 no answer, here or by way of others
//!   Alive ◄──────────── on trial ──────────────────────────────────────────► Suspect
//!     ▲                                                                       │   │
//!     └───────────── refutes it: a higher incarnation ────────────────────────┘   │ keeps silent
//!     └───────────── the same, or it starts again ─────────── Down ◄──────────────┘
//! ```
//!
//! Members take turns at being asked (`turns`). Who does not answer is asked again, directly and by way of others, so that one bad
//! path is no death (`trial`); then it is suspected and told so with every further ping, and has time to refute. What was found out goes along with
//! every frame (`spread`), and each node makes its own view of what it hears (`hear`). SWIM (Das, Gupta and Motivala 2002) with its
//! suspicion and incarnations; from Lifeguard (Dadgar, Phillips and Currey 2018) that an accused node is asked again and again with the accusation
//! before it, and that a node which hears nobody doubts itself.
//!
//! All of this is *advice* about whom to ask. It decides nothing: no data moves, and nobody is taken out of the cluster, because it
//! was called down. Who was taken out, by a change of members, is refused for ever.
//!
//! Beside that each frame says which state of the cluster its sender has, so a node that has missed one finds out within a period.
//!
//! Contract, as of the [engine](crate::engine): [`Gossip::handle`] for what happens, [`Gossip::poll_effect`] until it returns none,
//! [`Gossip::poll_timeout`] for when to hand in [`Input::Tick`]. Same inputs and seed, same effects. Rejected: the crate foca, a good machine
//! of the same kind, and phi-accrual detectors; both were measured or reckoned for three seconds and 5 % loss (ADR 21).

mod frame;
mod hear;
mod member;
mod relay;
mod spread;
mod trial;
mod turns;

#[cfg(test)]
mod tests;

pub use frame::{Frame, News, Saying, StateMark};
pub use member::Liveness;

use crate::time::Instant;
use member::Member;
use quorate_ring::NodeId;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use relay::Relays;
use spread::Spread;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use trial::Trial;
use turns::{Turns, below};

/// Up to so many members everybody is told at once, and asks for itself; beyond it a random few.
const FEW: usize = 16;
/// To how many something new is sent at once where there are many.
const TOLD: usize = 3;

/// How long everything takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between two turns of a node to ask others.
    pub period: Duration,
    /// After this long without an answer others are asked to ask.
    pub ask_others_after: Duration,
    /// After this long without an answer a member is suspected. More than it takes to ask others.
    pub suspect_after: Duration,
    /// Between two pings of a suspect.
    pub again_every: Duration,
    /// How long a suspect has to refute.
    pub refute_within: Duration,
    /// The same for who accuses and has heard nobody meanwhile: it may be cut off itself.
    pub refute_within_if_deaf: Duration,
    /// Who was heard directly within this time is not down because others say so.
    pub recent: Duration,
}

impl Default for Patience {
    /// For round trips of up to 150 ms. A dead node is Down everywhere in a small cluster within 3 seconds of its death.
    fn default() -> Patience {
        Patience {
            period: Duration::from_millis(500),
            ask_others_after: Duration::from_millis(150),
            suspect_after: Duration::from_millis(400),
            again_every: Duration::from_millis(100),
            refute_within: Duration::from_millis(1000),
            refute_within_if_deaf: Duration::from_millis(1500),
            recent: Duration::from_millis(1000),
        }
    }
}

/// What a node's gossip needs to know.
#[derive(Clone, Debug)]
pub struct GossipConfig {
    /// This node.
    pub me: NodeId,
    /// Where its incarnations begin: above all of its earlier processes, as far as is known. If that turns out to be too low it is raised when somebody
    /// remembers more. At most 2^63 - 1.
    pub incarnation: u64,
    /// Seed of its randomness.
    pub seed: [u8; 32],
    /// How long everything takes.
    pub patience: Patience,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A frame has come. The shell has checked who sent it.
    Frame {
        /// Who.
        from: NodeId,
        /// What it says.
        frame: Frame,
    },
    /// Who is a member from now on, and who was taken out. What was taken out once stays out, whatever is said later.
    Members {
        /// All members; this node may be among them.
        members: BTreeSet<NodeId>,
        /// All that were ever taken out.
        gone: BTreeSet<NodeId>,
    },
    /// This node has this state of the cluster now.
    State(StateMark),
    /// Something else has come from a member, over its own connection.
    Heard(NodeId),
    /// The connection to a member is gone. It is asked at once.
    Lost(NodeId),
    /// This node stops: the others are told.
    Stop,
    /// Nothing but the time.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame, if there is a connection. It need not arrive.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        frame: Frame,
    },
    /// A member is seen differently from now on.
    Changed {
        /// Which.
        node: NodeId,
        /// How.
        liveness: Liveness,
    },
    /// A node has a newer state of the cluster than this one, which should ask it for that.
    Behind(NodeId),
    /// A node has another state of the cluster under the same version. That must not be.
    Differs(NodeId),
    /// A member says that this node was taken out of the cluster.
    Expelled(NodeId),
}

/// One node's gossip. See the module's documentation for its contract.
pub struct Gossip {
    patience: Patience,
    me: NodeId,
    now: Instant,
    incarnation: u64,
    state: StateMark,
    /// This node stops: it asks nobody, and answers nobody.
    stopped: bool,
    members: BTreeMap<NodeId, Member>,
    /// Members that are being asked whether they are there.
    trials: BTreeMap<NodeId, Trial>,
    gone: BTreeSet<NodeId>,
    /// When each of those was last told so.
    dismissed: BTreeMap<NodeId, Instant>,
    turns: Turns,
    spread: Spread,
    relays: Relays,
    next_number: u64,
    /// When this node's next turn is.
    period_at: Option<Instant>,
    /// When anything was last heard of anybody.
    heard_any: Instant,
    rng: ChaCha12Rng,
    effects: VecDeque<Effect>,
}

impl Gossip {
    /// Knows nobody yet.
    pub fn new(config: GossipConfig) -> Gossip {
        let mut rng = ChaCha12Rng::from_seed(config.seed);
        // The engine may have been given the same seed, and draws from the streams before this one.
        rng.set_stream(3);
        let next_number = rng.next_u64() >> 1;
        Gossip {
            patience: config.patience,
            me: config.me,
            now: Instant::default(),
            incarnation: config.incarnation.min(hear::INCARNATION_MAX),
            state: StateMark::default(),
            stopped: false,
            members: BTreeMap::new(),
            trials: BTreeMap::new(),
            gone: BTreeSet::new(),
            dismissed: BTreeMap::new(),
            turns: Turns::default(),
            spread: Spread::default(),
            relays: Relays::default(),
            next_number,
            period_at: None,
            heard_any: Instant::default(),
            rng,
            effects: VecDeque::new(),
        }
    }

    /// Takes in one thing that happened at `now`.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.now = now;
        if self.stopped {
            return;
        }
        self.look_at_time();
        match input {
            Input::Frame { from, frame } => self.hear(from, frame),
            Input::Members { members, gone } => self.set_members(members, gone),
            Input::State(state) => self.set_state(state),
            Input::Heard(node) => self.heard(node),
            Input::Lost(node) => self.begin_trial(node),
            Input::Stop => self.stop(),
            Input::Tick => {}
        }
        if !self.stopped {
            self.run_trials();
            self.run_period();
        }
    }

    /// The next thing to do, if there is one.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to hand in [`Input::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let trials = self.trials.values().map(|trial| trial.next);
        let next = trials.chain(self.period_at).min();
        next.filter(|_| !self.stopped)
    }

    /// How a node is, as seen from here. This node itself is alive; who is no member is `None`.
    pub fn liveness(&self, node: NodeId) -> Option<Liveness> {
        match node == self.me {
            true => Some(Liveness::Alive),
            false => self.members.get(&node).map(|member| member.view),
        }
    }

    /// All other members, and how they are.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, Liveness)> + '_ {
        self.members.iter().map(|(&node, member)| (node, member.view))
    }

    /// This node's incarnation.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn set_members(&mut self, members: BTreeSet<NodeId>, gone: BTreeSet<NodeId>) {
        self.gone.extend(gone);
        let is_in = |node: &NodeId| members.contains(node) && !self.gone.contains(node) && *node != self.me;
        for node in self.members.keys().filter(|node| !is_in(node)) {
            self.spread.forget(*node);
        }
        self.members.retain(|node, _| is_in(node));
        self.trials.retain(|node, _| is_in(node));
        let newcomers = members.iter().copied().filter(is_in);
        for node in newcomers {
            self.members.entry(node).or_insert_with(|| Member::new(node));
        }
        let all: BTreeSet<NodeId> = self.members.keys().copied().collect();
        self.turns.set(&all, &mut self.rng);
        if self.period_at.is_none() && !all.is_empty() {
            // Nodes that start together do not ask together.
            let within = below(&mut self.rng, self.patience.period.as_micros() as usize);
            self.period_at = Some(self.now + Duration::from_micros(within as u64));
            self.heard_any = self.now;
        }
        if all.is_empty() {
            self.period_at = None;
        }
    }

    /// A new state of the cluster is here: others hear of it at once.
    fn set_state(&mut self, state: StateMark) {
        let is_newer = state.version > self.state.version;
        self.state = state;
        if is_newer {
            self.tell_some();
        }
    }

    /// Says goodbye.
    fn stop(&mut self) {
        let goodbye = News {
            node: self.me,
            incarnation: self.incarnation,
            liveness: Liveness::Left,
        };
        self.spread.add(goodbye, true);
        self.tell_some();
        self.stopped = true;
    }

    /// Tells everybody, or some of many, what is new.
    fn tell_some(&mut self) {
        let mut here: Vec<NodeId> = self
            .members
            .values()
            .filter(|m| m.is_here())
            .map(|m| m.claim.node)
            .collect();
        if here.len() > FEW {
            for at in 0..TOLD {
                let other = at + below(&mut self.rng, here.len() - at);
                here.swap(at, other);
            }
            here.truncate(TOLD);
        }
        here.into_iter().for_each(|node| self.send(node, Saying::Tell));
    }

    /// Sends a frame, with what its receiver has to hear in any case: what is claimed of it, and of whom the frame is about.
    fn send(&mut self, to: NodeId, saying: Saying) {
        let about = match saying {
            Saying::PingFor(_, node) | Saying::AckFor(_, node) => Some(node),
            Saying::Ping(_) | Saying::Ack(_) | Saying::Tell | Saying::Gone => None,
        };
        let claims = [Some(to), about].into_iter().flatten();
        let known = claims.filter_map(|node| self.members.get(&node));
        let due = known.filter(|member| member.is_accused() || about == Some(member.claim.node));
        let news = self.spread.take(self.members.len() + 1, due.map(|member| member.claim));
        let frame = Frame {
            incarnation: self.incarnation,
            state: self.state,
            saying,
            news,
        };
        self.effects.push_back(Effect::Send { to, frame });
    }

    fn new_number(&mut self) -> u64 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }

    /// Sees a member differently.
    fn see(&mut self, node: NodeId, liveness: Liveness) {
        if let Some(member) = self.members.get_mut(&node)
            && member.view != liveness
        {
            member.view = liveness;
            self.effects.push_back(Effect::Changed { node, liveness });
        }
    }
}
