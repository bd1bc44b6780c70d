//! Answering the peers that ask: hashes from memory, keys by scans, records when they are synced.
//!
//! A node that answers keeps nothing of an exchange but who asks about which tree: another that asks about the same one is told to come back
//! later, or both would send it what it lacks.

use super::Lister;
use super::keys::{ANSWER_BYTES_MAX, Leaves, Listing, Page, entry_bytes};
use super::session::{End, Phase};
use super::ship::RowWork;
use crate::engine::Engine;
use crate::engine::heal::HealWork;
use crate::engine::slots::Work;
use crate::key::Key;
use crate::message::{PeerMessage, Pull, PullReply, Refusal, TreeAnswer, TreeAsk, TreeQuestion, TreeReply};
use crate::time::Instant;
use crate::tree::{BRANCHES, LEAVES, TreeId};
use quorate_ring::NodeIndex;
use std::time::Duration;

/// Lists that are made for one peer at once.
const LISTS_MAX: usize = 4;
/// For this long after a question about it a tree is kept for the peer that asked.
const KEPT: Duration = Duration::from_secs(1);
/// Bytes of a hash on the wire, at most.
const HASH_BYTES: usize = 10;

impl Engine {
    pub(in crate::engine) fn tree_ask(&mut self, now: Instant, from: NodeIndex, ask: TreeAsk) {
        let TreeAsk { partition, n, id, .. } = ask;
        let tree = TreeId { partition, n };
        let ring = &self.config.ring;
        let result = match ask.question {
            _ if ![self.me, from].iter().all(|&node| ring.owns(node, partition, n)) => Err(Refusal::NotOwner),
            // That it has no trees must not be taken for that it has nothing.
            _ if !self.config.limits.trees => Err(Refusal::ReadFailed),
            _ if self.start_over.is_leaving() => Err(Refusal::Rebuilding),
            _ if self.has_only_forgotten(tree) => Err(Refusal::Rebuilding),
            TreeQuestion::Root(_) if self.is_rebuilding(from) && self.is_suspected(partition) => {
                Err(Refusal::Overloaded)
            }
            TreeQuestion::Root(root) => self.serve_root(now, from, tree, root),
            TreeQuestion::Leaves(branches) => self.serve_leaves(now, from, tree, &branches),
            TreeQuestion::Keys { leaves, after } => match self.serve_keys(now, from, id, tree, leaves, after) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
        };
        self.answer_tree(from, id, result);
    }

    fn answer_tree(&mut self, to: NodeIndex, id: u64, result: Result<TreeAnswer, Refusal>) {
        if let Ok(TreeAnswer::Branches(hashes) | TreeAnswer::Leaves(hashes)) = &result {
            self.counters.exchange_bytes_sent += (HASH_BYTES * hashes.len()) as u64;
        }
        self.send(to, PeerMessage::TreeReply(TreeReply { id, result }));
    }

    fn serve_root(&mut self, now: Instant, from: NodeIndex, tree: TreeId, root: u64) -> Result<TreeAnswer, Refusal> {
        if root == self.trees.root(tree) {
            self.exchange.in_sync.insert((from, tree));
            return Ok(TreeAnswer::Same);
        }
        self.exchange.in_sync.remove(&(from, tree));
        let is_taken = self.serves(now, tree).is_some_and(|node| node != from);
        if is_taken || (!self.is_rebuilding(from) && self.hints_go_first(now, from, tree.partition)) {
            return Err(Refusal::Overloaded);
        }
        if let Some(session) = self.exchange.sessions.get(&tree) {
            // Two that ask each other at once would both be refused, so one of them gives way.
            let gives_way = session.peer == from && from < self.me && matches!(session.phase, Phase::Root { .. });
            if !gives_way {
                return Err(Refusal::Overloaded);
            }
            self.end_session(now, tree, End::Busy);
            self.wake_exchange(now);
        }
        self.keep_for(now, from, tree);
        Ok(TreeAnswer::Branches(self.trees.branches(tree).to_vec()))
    }

    fn serve_leaves(
        &mut self,
        now: Instant,
        from: NodeIndex,
        tree: TreeId,
        branches: &[u8],
    ) -> Result<TreeAnswer, Refusal> {
        if branches.len() > BRANCHES || branches.iter().any(|&branch| usize::from(branch) >= BRANCHES) {
            return Err(Refusal::Malformed);
        }
        self.keep_for(now, from, tree);
        let leaves = branches.iter().flat_map(|&branch| self.trees.leaves(tree, branch));
        Ok(TreeAnswer::Leaves(leaves.collect()))
    }

    /// Begins a list; it is sent when it is complete.
    fn serve_keys(
        &mut self,
        now: Instant,
        from: NodeIndex,
        id: u64,
        tree: TreeId,
        leaves: Vec<u16>,
        after: Option<Key>,
    ) -> Result<(), Refusal> {
        let is_sound = leaves.is_sorted_by(|a, b| a < b)
            && leaves.last().is_some_and(|&last| usize::from(last) < BRANCHES * LEAVES);
        if !is_sound {
            return Err(Refusal::Malformed);
        } else if self.exchange.lists.for_peer(from) >= LISTS_MAX {
            return Err(Refusal::Overloaded);
        }
        self.keep_for(now, from, tree);
        let listing = Listing::new(Leaves { tree, at: leaves }, after, ANSWER_BYTES_MAX);
        self.list(Lister::Peer(from, id), listing);
        self.wake_exchange(now);
        Ok(())
    }

    /// A list for a peer is complete, or could not be made.
    pub(super) fn answer_keys(&mut self, now: Instant, to: NodeIndex, id: u64, page: Result<Page, Refusal>) {
        let recent = &mut self.exchange.recent;
        recent.turn(now);
        let result = page.map(|mut page| {
            for entry in &mut page.entries {
                if recent.has(entry.key.token()) {
                    entry.hash = 0;
                }
            }
            let bytes: usize = page.entries.iter().map(entry_bytes).sum();
            self.counters.exchange_bytes_sent += bytes as u64;
            TreeAnswer::Keys {
                entries: page.entries,
                done: page.upto.done as u16,
            }
        });
        self.answer_tree(to, id, result);
    }

    pub(in crate::engine) fn pull(&mut self, now: Instant, from: NodeIndex, message: Pull) {
        let Pull { id, key, parts } = message;
        let partition = self.config.ring.partition_of(key.token());
        let n = self.config.buckets.of(key.bucket()).n;
        match self.admit(&key) {
            Ok(()) if parts => self.with_slot(now, &key, Work::Heal(HealWork::Give { to: from, id })),
            Ok(()) => {
                self.keep_for(now, from, TreeId { partition, n });
                self.with_slot(now, &key, Work::Exchange(RowWork::Give { to: from, id }));
            }
            Err(refusal) => {
                let result = Err(refusal);
                self.send(
                    from,
                    PeerMessage::PullReply(PullReply {
                        id,
                        result,
                        whole: false,
                    }),
                );
            }
        }
    }

    /// Which peer's exchange a tree takes part in, as far as is known here.
    pub(super) fn serves(&self, now: Instant, tree: TreeId) -> Option<NodeIndex> {
        let &(node, at) = self.exchange.served.get(&tree)?;
        (now.since(at) < KEPT).then_some(node)
    }

    fn keep_for(&mut self, now: Instant, from: NodeIndex, tree: TreeId) {
        if self.serves(now, tree).is_none_or(|node| node == from) {
            self.exchange.served.insert(tree, (from, now));
        }
    }
}
