//! One page of an exchange: the keys of some leaves, listed on both sides and compared as far as both lists go.
//!
//! Both sides list at the same time. What was written a moment ago, here or there, is left out: it is on its way to all owners. It differs again
//! next time if it got lost.

use super::keys::{ANSWER_BYTES_MAX, Difference, Leaves, Listing, Page, Todo, differences};
use super::round::Side;
use super::session::{ANSWER_MAX, End, Phase, TwoLists};
use super::{Exchange, Lister};
use crate::engine::Engine;
use crate::key::Key;
use crate::message::{KeyEntry, Refusal, TreeQuestion};
use crate::time::Instant;
use crate::tree::TreeId;

impl Engine {
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
        let leaves: Vec<u16> = session.leaves.iter().take(session.at_once).copied().collect();
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
                lists: Box::new(TwoLists {
                    asked,
                    theirs: None,
                    mine: None,
                    is_mine_damaged: false,
                }),
            },
        );
        self.list(Lister::Session(tree, id), listing);
        self.wake_exchange(now);
    }

    /// The peer's list has come.
    pub(super) fn take_theirs(&mut self, now: Instant, tree: TreeId, entries: Vec<KeyEntry>, done: usize) {
        let ring = &self.config.ring;
        let Some(session) = self.exchange.sessions.get_mut(&tree) else {
            return;
        };
        let Phase::Keys { lists, .. } = &mut session.phase else {
            return self.end_session(now, tree, End::Failed);
        };
        let partition_of = |key: &Key| ring.partition_of(key.token());
        let upto = lists
            .asked
            .check(&self.trees, partition_of, session.after.as_ref(), &entries, done);
        let Some(upto) = upto else {
            return self.end_session(now, tree, End::Failed);
        };
        lists.theirs = Some(Page {
            entries,
            upto,
            damaged: Default::default(),
        });
        match lists.is_mine_damaged {
            true => self.go_round(now, tree, Side::Mine),
            false => self.compare_keys(now, tree),
        }
    }

    /// This node's own list is complete, or could not be made.
    pub(super) fn take_mine(&mut self, now: Instant, tree: TreeId, id: u64, page: Result<Page, Refusal>) {
        let Some(session) = self.exchange.sessions.get_mut(&tree) else {
            return;
        };
        match (&mut session.phase, page) {
            _ if session.id != id => {}
            (Phase::Keys { lists, .. }, Ok(page)) => {
                lists.mine = Some(page);
                self.compare_keys(now, tree);
            }
            // The peer makes its list all the same: it is asked again when it has come.
            (Phase::Keys { lists, .. }, Err(Refusal::ReadFailed)) if lists.theirs.is_none() => {
                lists.is_mine_damaged = true
            }
            (Phase::Keys { .. }, Err(Refusal::ReadFailed)) => self.go_round(now, tree, Side::Mine),
            _ => self.end_session(now, tree, End::Failed),
        }
    }

    /// Compares the two lists as far as both go, once both are there.
    pub(super) fn compare_keys(&mut self, now: Instant, tree: TreeId) {
        let is_leaving = self.start_over.is_leaving();
        let Exchange { sessions, recent, .. } = &mut self.exchange;
        let Some(session) = sessions.get_mut(&tree) else { return };
        let Phase::Keys { lists, .. } = &mut session.phase else {
            return;
        };
        if lists.theirs.is_none() || lists.mine.is_none() {
            return;
        }
        let (Some(mine), Some(theirs)) = (lists.mine.take(), lists.theirs.take()) else {
            return;
        };
        let asked = lists.asked.clone();
        session.phase = Phase::shipping();
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
            // What is about to be forgotten is given, and nothing is fetched.
            let todo = match todo {
                Todo::Pull if is_leaving => continue,
                Todo::Both if is_leaving => Todo::Send,
                todo => todo,
            };
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
        session.grow();
        if session.phase.is_done() {
            self.next_page(now, tree);
        }
    }
}
