//! One exchange, as seen by the node that asks.
//!
//! A session holds at most the list of leaves that differ and one page of keys. It has one deadline, which every answer puts off: a peer that
//! does not answer costs one session, which is tried again later.

use super::keys::{ANSWER_BYTES_MAX, Difference, Leaves, Listing, Page, Todo, differences};
use super::schedule::{Class, Entry, Pair};
use super::{BUSY_AFTER, Exchange, FAILED_AFTER, FOLLOW_UP_AFTER, Lister, PAUSE_MAX};
use crate::engine::Engine;
use crate::key::Key;
use crate::message::{KeyEntry, PeerMessage, Refusal, TreeAnswer, TreeAsk, TreeQuestion, TreeReply};
use crate::time::Instant;
use crate::tree::{BRANCHES, LEAVES, TreeId};
use quorate_ring::NodeIndex;
use std::collections::VecDeque;
use std::time::Duration;

/// How long a peer, or this node's own disk, may take for an answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Leaves that are asked for at once.
pub(super) const LEAVES_ASKED_MAX: usize = 512;
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
    entry: Entry,
    /// How often the partition had been noted as dirty when this began.
    marks: Option<u64>,
    peer_was_rebuilding: bool,
}

/// How far a session has come.
pub(super) enum Phase {
    /// Waits for the peer's branches.
    Root { ask: u64 },
    /// Waits for the leaves of branches that differ.
    Leaves { ask: u64, branches: Vec<u8> },
    /// Waits for both lists of the keys in some leaves.
    Keys {
        ask: u64,
        asked: Leaves,
        theirs: Option<Page>,
        mine: Option<Page>,
    },
    /// Deals with the keys of one page that differ.
    Ship { todo: VecDeque<(Key, Todo)>, flying: usize },
}

impl Phase {
    /// Nothing to be shipped yet.
    fn shipping() -> Phase {
        Phase::Ship {
            todo: VecDeque::new(),
            flying: 0,
        }
    }

    fn add(&mut self, key: Key, what: Todo) {
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
    fn is_thorough(&self) -> bool {
        self.entry.class != Class::Usual
    }

    /// The number of the question that it waits for the answer of.
    fn asks(&self) -> Option<u64> {
        match self.phase {
            Phase::Root { ask } | Phase::Leaves { ask, .. } | Phase::Keys { ask, .. } => Some(ask),
            Phase::Ship { .. } => None,
        }
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
            entry,
        };
        self.exchange.sessions.insert(tree, session);
    }

    fn ask_tree(&mut self, to: NodeIndex, tree: TreeId, question: TreeQuestion) -> u64 {
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
            Ok(TreeAnswer::Same) => self.end_session(now, tree, End::Done),
            Ok(TreeAnswer::Branches(hashes)) => self.compare_branches(now, tree, &hashes),
            Ok(TreeAnswer::Leaves(hashes)) => self.compare_leaves(now, tree, &hashes),
            Ok(TreeAnswer::Keys { entries, done }) => self.take_theirs(now, tree, entries, done.into()),
            Err(Refusal::Overloaded) => self.end_session(now, tree, End::Busy),
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

    /// Asks for the keys of the next leaves, and lists this node's own; or ends, if there are none.
    pub(super) fn next_page(&mut self, now: Instant, tree: TreeId) {
        let Some(session) = self.exchange.sessions.get_mut(&tree) else {
            return;
        };
        if session.leaves.is_empty() {
            return self.end_session(now, tree, End::Done);
        }
        session.deadline = now + ANSWER_MAX;
        let (id, peer, after) = (session.id, session.peer, session.after.clone());
        let leaves: Vec<u16> = session.leaves.iter().take(LEAVES_ASKED_MAX).copied().collect();
        let asked = Leaves {
            tree,
            at: leaves.clone(),
        };
        let question = TreeQuestion::Keys {
            leaves,
            after: after.clone(),
        };
        let ask = self.ask_tree(peer, tree, question);
        // A little more than the peer's list may be, so that both mostly end together.
        let listing = Listing::new(asked.clone(), after, ANSWER_BYTES_MAX * 3 / 2);
        self.set_phase(
            tree,
            Phase::Keys {
                ask,
                asked,
                theirs: None,
                mine: None,
            },
        );
        self.list(now, Lister::Session(tree, id), listing);
    }

    fn set_phase(&mut self, tree: TreeId, phase: Phase) {
        if let Some(session) = self.exchange.sessions.get_mut(&tree) {
            session.phase = phase;
        }
    }

    fn take_theirs(&mut self, now: Instant, tree: TreeId, entries: Vec<KeyEntry>, done: usize) {
        let ring = &self.config.ring;
        let Some(session) = self.exchange.sessions.get_mut(&tree) else {
            return;
        };
        let Phase::Keys { asked, theirs, .. } = &mut session.phase else {
            return self.end_session(now, tree, End::Failed);
        };
        let partition_of = |key: &Key| ring.partition_of(key.token());
        let upto = asked.check(&self.trees, partition_of, session.after.as_ref(), &entries, done);
        let Some(upto) = upto else {
            return self.end_session(now, tree, End::Failed);
        };
        *theirs = Some(Page {
            entries,
            upto,
            damaged: Default::default(),
        });
        self.compare_keys(now, tree);
    }

    /// This node's own list is complete, or could not be made.
    pub(super) fn take_mine(&mut self, now: Instant, tree: TreeId, id: u64, page: Result<Page, Refusal>) {
        let Some(session) = self.exchange.sessions.get_mut(&tree) else {
            return;
        };
        match (&mut session.phase, page) {
            _ if session.id != id => {}
            (Phase::Keys { mine, .. }, Ok(page)) => {
                *mine = Some(page);
                self.compare_keys(now, tree);
            }
            _ => self.end_session(now, tree, End::Failed),
        }
    }

    /// Compares the two lists as far as both go, once both are there.
    fn compare_keys(&mut self, now: Instant, tree: TreeId) {
        let Exchange { sessions, recent, .. } = &mut self.exchange;
        let Some(session) = sessions.get_mut(&tree) else { return };
        if !matches!(
            &session.phase,
            Phase::Keys {
                theirs: Some(_),
                mine: Some(_),
                ..
            }
        ) {
            return;
        }
        let Phase::Keys {
            asked,
            theirs: Some(theirs),
            mine: Some(mine),
            ..
        } = std::mem::replace(&mut session.phase, Phase::shipping())
        else {
            return;
        };
        let upto = mine.upto.min(theirs.upto);
        let is_listed = |key: &Key| asked.is_listed(&self.trees, key, &upto);
        let listed = |entries: Vec<KeyEntry>| entries.into_iter().filter(|entry| is_listed(&entry.key)).collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = (listed(mine.entries), listed(theirs.entries));
        session.ended.failed += mine.damaged.iter().filter(|key| is_listed(key)).count() as u64;
        recent.turn(now);
        for Difference {
            key,
            todo,
            is_new_there,
        } in differences(&ours, &theirs)
        {
            let is_new = is_new_there || recent.has(key.token());
            if is_new && !session.is_thorough() {
                session.ended.skipped += 1;
            } else if !mine.damaged.contains(&key) {
                session.ended.differing += 1;
                session.phase.add(key, todo);
            }
        }
        session.leaves.drain(..upto.done);
        session.after = upto.last;
        if session.phase.is_done() {
            self.next_page(now, tree);
        }
    }

    /// Ends sessions that have waited too long.
    pub(super) fn drop_overdue(&mut self, now: Instant) {
        let sessions = self.exchange.sessions.values();
        let overdue: Vec<TreeId> = sessions.filter(|s| s.deadline <= now).map(|s| s.tree).collect();
        overdue
            .into_iter()
            .for_each(|tree| self.end_session(now, tree, End::Failed));
    }

    pub(super) fn end_session(&mut self, now: Instant, tree: TreeId, end: End) {
        let Some(session) = self.exchange.sessions.remove(&tree) else {
            return;
        };
        let (peer, ended) = (session.peer, session.ended);
        self.exchange.flights.leave(session.id);
        let lister = Lister::Session(tree, session.id);
        self.exchange.listings.retain(|_, (for_whom, _)| *for_whom != lister);
        if end == End::Done {
            self.counters.exchanges += 1;
            self.counters.exchanges_differed += u64::from(ended.differing > 0);
            self.exchange.last.insert(peer, (now, ended));
        }
        match end {
            End::Done if ended.failed == 0 => _ = self.exchange.in_sync.insert((peer, tree)),
            End::Busy => {}
            End::Done | End::Failed => _ = self.exchange.in_sync.remove(&(peer, tree)),
        }
        if end == End::Done && ended.skipped + ended.failed == 0 {
            self.note_healed(peer, tree, session.marks);
            self.exchanged(now, peer, tree, session.peer_was_rebuilding);
        }
        self.reschedule(now, &session, end);
    }

    /// The tree holds all that the peer has missed up to the `marks`-th note of it. When all trees of the partition do, the notes are done with.
    fn note_healed(&mut self, peer: NodeIndex, tree: TreeId, marks: Option<u64>) {
        let at = (peer, tree.partition);
        let current = self.marks_of(peer, tree);
        let (Some(marks), Some(_)) = (marks, current) else {
            self.exchange.healed.remove(&at);
            return;
        };
        let healed = self.exchange.healed.entry(at).or_default();
        healed.insert(tree.n, marks);
        let healed = &self.exchange.healed[&at];
        let all = self
            .shared_in(peer, tree.partition)
            .all(|tree| healed.get(&tree.n).copied() == current);
        if all {
            self.exchange.healed.remove(&at);
            let node = self.config.ring.member(peer).id;
            self.clear_dirty(node, tree.partition, marks);
        }
    }

    /// Says when the pair is compared again, if by this node.
    fn reschedule(&mut self, now: Instant, session: &Session, end: End) {
        let (peer, tree, ended) = (session.peer, session.tree, session.ended);
        let class = self.class_of(peer, tree);
        let Entry {
            failures, follow_ups, ..
        } = session.entry;
        let limits = &self.config.limits;
        let grown = |pause: Duration, times: u32| (pause * (1 << times.min(6))).min(PAUSE_MAX);
        let looks_again = ended.differing > 0 || (ended.skipped > 0 && follow_ups == 0);
        let failed = end == End::Failed || ended.failed > 0;
        let (pause, failures, follow_ups) = match end {
            End::Busy => (grown(BUSY_AFTER, failures.min(3)), failures + 1, follow_ups),
            _ if failed => (grown(FAILED_AFTER, failures), failures + 1, follow_ups),
            _ if class != Class::Usual => (grown(FAILED_AFTER, failures), failures + 1, 0),
            _ if looks_again => (grown(FOLLOW_UP_AFTER, follow_ups), 0, follow_ups + 1),
            _ if limits.exchange && self.me < peer => (limits.exchange_every, 0, 0),
            _ => return,
        };
        let at = now + self.exchange.about(pause.min(self.config.limits.exchange_every));
        let entry = Entry {
            class,
            at,
            failures,
            follow_ups,
        };
        self.exchange.schedule.put((peer, tree), entry);
    }
}
