//! One exchange, as seen by the node that asks, from the roots to the leaves that differ.
//!
//! A session holds at most the list of leaves that differ and one page of keys. It has one deadline, which every answer puts off: a peer that
//! does not answer costs one session, which is tried again later.

use super::keys::{Leaves, Page, Todo};
use super::round::{LEAVES_ASKED_MAX, LeftOut, Side};
use super::schedule::{Class, Entry, Pair};
use crate::engine::Engine;
use crate::key::Key;
use crate::message::{PeerMessage, Refusal, TreeAnswer, TreeAsk, TreeQuestion, TreeReply};
use crate::time::Instant;
use crate::tree::{BRANCHES, LEAVES, TreeId};
use quorate_ring::NodeIndex;
use std::collections::VecDeque;
use std::time::Duration;

/// How long a peer, or this node's own disk, may take for an answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Failures after which a session is given up: the disk is full, say, and each further record would only show it again.
pub(super) const FAILED_MAX: u64 = 16;

/// One exchange under way.
pub(super) struct Session {
    /// Its number; unlike the tree never used again.
    pub(super) id: u64,
    pub(super) peer: NodeIndex,
    pub(super) tree: TreeId,
    pub(super) deadline: Instant,
    pub(super) phase: Phase,
    /// Leaves that differ and are not listed to their end, in order.
    pub(super) leaves: Vec<u16>,
    /// Up to where the first of them has been listed.
    pub(super) after: Option<Key>,
    pub(super) ended: Ended,
    pub(super) entry: Entry,
    /// How often the partition had been noted as dirty when this began.
    pub(super) marks: Option<u64>,
    pub(super) peer_was_rebuilding: bool,
    /// Leaves that are asked for at once: fewer around damage.
    pub(super) at_once: usize,
    /// Leaves that could not be read were left out.
    pub(super) left_out: LeftOut,
    /// The peer has said that the roots are equal.
    pub(super) agreed: bool,
}

/// How far a session has come.
pub(super) enum Phase {
    /// Waits for the peer's branches.
    Root { ask: u64 },
    /// Waits for the leaves of branches that differ.
    Leaves { ask: u64, branches: Vec<u8> },
    /// Waits for both lists of the keys in some leaves.
    Keys { ask: u64, lists: Box<TwoLists> },
    /// Deals with the keys of one page that differ.
    Ship { todo: VecDeque<(Key, Todo)>, flying: usize },
}

/// Two lists of the keys in some leaves, as they come.
#[derive(Debug)]
pub(super) struct TwoLists {
    pub(super) asked: Leaves,
    pub(super) theirs: Option<Page>,
    pub(super) mine: Option<Page>,
    /// This node's own list met damage where it began.
    pub(super) is_mine_damaged: bool,
}

impl Phase {
    /// Nothing to be shipped yet.
    pub(super) fn shipping() -> Phase {
        Phase::Ship {
            todo: VecDeque::new(),
            flying: 0,
        }
    }

    pub(super) fn add(&mut self, key: Key, what: Todo) {
        if let Phase::Ship { todo, .. } = self {
            todo.push_back((key, what));
        }
    }

    /// Whether all that was to be shipped is.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Phase::Ship { todo, flying: 0 } if todo.is_empty())
    }
}

/// What became of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    /// Keys that differed.
    pub(super) differing: u64,
    pub(super) sent: u64,
    /// Records that came and changed something.
    pub(super) received: u64,
    /// Keys that were left out, because they were written a moment ago.
    pub(super) skipped: u64,
    /// Keys that could not be made equal.
    pub(super) failed: u64,
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It came to its end.
    Done,
    /// The tree takes part in another exchange.
    Busy,
    /// It broke off.
    Failed,
}

impl Session {
    /// What is known to be behind is compared to the last key; otherwise what was written a moment ago is left out.
    pub(super) fn is_thorough(&self) -> bool {
        self.entry.class != Class::Usual
    }

    /// The number of the question that it waits for the answer of.
    fn asks(&self) -> Option<u64> {
        match self.phase {
            Phase::Root { ask } | Phase::Leaves { ask, .. } | Phase::Keys { ask, .. } => Some(ask),
            Phase::Ship { .. } => None,
        }
    }

    /// Whether it has records to ship that are not under way.
    pub(super) fn has_todo(&self) -> bool {
        matches!(&self.phase, Phase::Ship { todo, .. } if !todo.is_empty())
    }

    /// Whether it has records to ship and none is under way whose end would let it go on.
    pub(super) fn waits_for_room(&self) -> bool {
        matches!(&self.phase, Phase::Ship { todo, flying: 0 } if !todo.is_empty())
    }
}

impl Engine {
    pub(super) fn begin_session(&mut self, now: Instant, (peer, tree): Pair, entry: Entry) {
        let root = self.trees.root(tree);
        let ask = self.ask_tree(peer, tree, TreeQuestion::Root(root));
        let session = Session {
            id: ask,
            peer,
            tree,
            deadline: now + ANSWER_MAX,
            phase: Phase::Root { ask },
            leaves: Vec::new(),
            after: None,
            ended: Ended::default(),
            marks: self.marks_of(peer, tree),
            peer_was_rebuilding: self.is_rebuilding(peer),
            at_once: LEAVES_ASKED_MAX,
            left_out: LeftOut::default(),
            agreed: false,
            entry,
        };
        self.exchange.sessions.insert(tree, session);
    }

    pub(super) fn ask_tree(&mut self, to: NodeIndex, tree: TreeId, question: TreeQuestion) -> u64 {
        let id = self.new_op().0;
        let ask = TreeAsk {
            id,
            partition: tree.partition,
            n: tree.n,
            question,
        };
        self.send(to, PeerMessage::TreeAsk(ask));
        id
    }

    /// A peer has answered.
    pub(in crate::engine) fn tree_reply(&mut self, now: Instant, from: NodeIndex, message: TreeReply) {
        let mut sessions = self.exchange.sessions.values_mut();
        let asked = sessions.find(|session| session.peer == from && session.asks() == Some(message.id));
        let Some(session) = asked else { return };
        session.deadline = now + ANSWER_MAX;
        let tree = session.tree;
        match message.result {
            Ok(TreeAnswer::Same) if matches!(session.phase, Phase::Root { .. }) => {
                session.agreed = true;
                self.end_session(now, tree, End::Done);
            }
            Ok(TreeAnswer::Same) => self.end_session(now, tree, End::Failed),
            Ok(TreeAnswer::Branches(hashes)) => self.compare_branches(now, tree, &hashes),
            Ok(TreeAnswer::Leaves(hashes)) => self.compare_leaves(now, tree, &hashes),
            Ok(TreeAnswer::Keys { entries, done }) => self.take_theirs(now, tree, entries, done.into()),
            Err(Refusal::Overloaded) => self.end_session(now, tree, End::Busy),
            Err(Refusal::Rebuilding) => {
                self.peer_leaves(now, from);
                self.end_session(now, tree, End::Busy);
            }
            Err(Refusal::ReadFailed) => self.go_round(now, tree, Side::Theirs),
            Err(_) => self.end_session(now, tree, End::Failed),
        }
        self.wake_exchange(now);
    }

    fn compare_branches(&mut self, now: Instant, tree: TreeId, theirs: &[u64]) {
        let mine = self.trees.branches(tree);
        let Some(session) = self.exchange.sessions.get(&tree) else {
            return;
        };
        if !matches!(session.phase, Phase::Root { .. }) || theirs.len() != BRANCHES {
            return self.end_session(now, tree, End::Failed);
        }
        let peer = session.peer;
        let differ = (0..BRANCHES).filter(|&at| mine[at] != theirs[at]);
        let branches: Vec<u8> = differ.map(|at| at as u8).collect();
        if branches.is_empty() {
            return self.end_session(now, tree, End::Done);
        }
        let ask = self.ask_tree(peer, tree, TreeQuestion::Leaves(branches.clone()));
        self.set_phase(tree, Phase::Leaves { ask, branches });
    }

    fn compare_leaves(&mut self, now: Instant, tree: TreeId, theirs: &[u64]) {
        let Some(session) = self.exchange.sessions.get_mut(&tree) else {
            return;
        };
        let branches = match &session.phase {
            Phase::Leaves { branches, .. } if theirs.len() == branches.len() * LEAVES => branches,
            _ => return self.end_session(now, tree, End::Failed),
        };
        let mut leaves = Vec::new();
        for (&branch, theirs) in branches.iter().zip(theirs.chunks_exact(LEAVES)) {
            let mine = self.trees.leaves(tree, branch);
            let differ = (0..LEAVES).filter(|&at| mine[at] != theirs[at]);
            leaves.extend(differ.map(|at| (usize::from(branch) * LEAVES + at) as u16));
        }
        session.leaves = leaves;
        self.next_page(now, tree);
    }

    pub(super) fn set_phase(&mut self, tree: TreeId, phase: Phase) {
        if let Some(session) = self.exchange.sessions.get_mut(&tree) {
            session.phase = phase;
        }
    }
}
