//! Reading everything again after the data directory was lost.
//!
//! A node with a new directory does not know what it should hold, and "nothing" would be a wrong answer. Each tree that it owns is *rebuilt* when
//! exchanges about it have ended with enough other owners: N-W+1, which hold all that W of the N acknowledged, and no fewer than R, which
//! hold all that a strict read has shown. Owners that are rebuilding themselves do not count, unless all of them were asked: then
//! nobody knows more. That is also how a new cluster is born. Not so where data were set aside: a node that had some takes no other node's word for
//! it that there is nothing, unless that one has not lost its memory. If the data of all owners were set aside at once, a person has to say what to do.
//!
//! These numbers are of the bucket, and a request may name a smaller W of its own. So owners beyond them that are connected are read, too, unless
//! that fails. What only those have who are away is the limit that docs/consistency.md names.
//!
//! Until then this node answers no reads for these keys, neither its own nor others', and leaves clients' writes to owners that know
//! more. It merges and acknowledges what others send, and coordinates what nobody else can: a new directory has new actors. A restart in the
//! middle begins again; what is here already is compared quickly.
//!
//! Rejected: remembering which trees are done. Between two starts of a rebuilding node lie minutes, and most of what is done again costs two
//! messages a tree.

use super::Engine;
use super::slots::Work;
use crate::bucket::{BucketProperties, BucketTable};
use crate::key::Key;
use crate::message::Refusal;
use crate::place::Place;
use crate::time::Instant;
use crate::tree::TreeId;
use quorate_ring::{NodeIndex, Ring};
use std::collections::{BTreeMap, BTreeSet};

/// Other owners that a tree was read from.
#[derive(Clone, Debug, Default)]
struct Sources {
    /// Those that knew what they hold.
    sound: BTreeSet<NodeIndex>,
    /// Those that were rebuilding themselves.
    new: BTreeSet<NodeIndex>,
    /// Those with whom an exchange has failed.
    tried: BTreeSet<NodeIndex>,
    /// One of them at least had not lost all.
    knows_any: bool,
}

impl Sources {
    /// Whether nothing is expected of the node any more.
    fn is_asked(&self, node: NodeIndex) -> bool {
        self.sound.contains(&node) || self.new.contains(&node) || self.tried.contains(&node)
    }
}

/// What a peer knew of a tree when it was read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knew {
    /// All that it should hold.
    All,
    /// All but what is damaged there.
    Some,
    /// What it has heard since it lost its memory.
    Nothing,
}

/// What is still to be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Rebuild {
    missing: BTreeMap<TreeId, Sources>,
    total: usize,
}

impl Rebuild {
    /// Everything that `me` owns, but for what nobody else does.
    pub(super) fn all(me: NodeIndex, ring: &Ring, buckets: &BucketTable) -> Rebuild {
        let copies: BTreeSet<u8> = buckets.all().map(|bucket| bucket.n).collect();
        let trees = ring
            .partition_ids()
            .flat_map(|partition| copies.iter().map(move |&n| TreeId { partition, n }));
        let shared =
            |tree: &TreeId| ring.owns(me, tree.partition, tree.n) && ring.owners(tree.partition, tree.n).len() > 1;
        let missing: BTreeMap<_, _> = trees.filter(shared).map(|tree| (tree, Sources::default())).collect();
        Rebuild {
            total: missing.len(),
            missing,
        }
    }

    /// Whether all is read.
    pub(super) fn is_done(&self) -> bool {
        self.missing.is_empty()
    }
}

/// From how many other owners a tree has to be read, if there are as many.
fn sources_needed(buckets: &BucketTable, n: u8) -> usize {
    let needed = |bucket: &BucketProperties| {
        let w = bucket.w.unwrap_or(bucket.majority());
        let r = bucket.r.unwrap_or(bucket.majority());
        usize::from((n + 1).saturating_sub(w).max(r))
    };
    let with_n = buckets.all().filter(|bucket| bucket.n == n);
    with_n.map(needed).max().unwrap_or(usize::from(n))
}

impl Engine {
    /// How many trees (partitions, for each number of copies) have been read again from other owners since this node lost its data, and how
    /// many there are. `(0, 0)` if it has not lost it.
    pub fn rebuilding(&self) -> (usize, usize) {
        let rebuild = &self.rebuild;
        (rebuild.total - rebuild.missing.len(), rebuild.total)
    }

    /// Whether this node does not know yet what it should hold under the key.
    pub(super) fn rebuilds(&self, key: &Key) -> bool {
        let partition = self.config.ring.partition_of(key.token());
        let n = self.config.buckets.of(key.bucket()).n;
        self.rebuild.missing.contains_key(&TreeId { partition, n })
    }

    /// Whether this node has held data of the tree, which were set aside, and has not heard from anybody who knows more than that.
    ///
    /// It answers no exchange about it: if the data of all owners were set aside, each would find that all others have nothing either, and the
    /// cluster would go on empty beside the data that it had.
    pub(super) fn has_only_forgotten(&self, tree: TreeId) -> bool {
        let sources = self.rebuild.missing.get(&tree);
        self.config.is_replaced && sources.is_some_and(|sources| !sources.knows_any)
    }

    /// Whether a connected peer is rebuilding, so that what it does not have says nothing.
    pub(super) fn is_rebuilding(&self, peer: NodeIndex) -> bool {
        self.memory.says_rebuilding(peer)
    }

    /// Whether this tree still has to be read from this peer.
    pub(super) fn needs_source(&self, peer: NodeIndex, tree: TreeId) -> bool {
        self.rebuild.missing.get(&tree).is_some_and(|sources| {
            let is_unread = !sources.sound.contains(&peer);
            is_unread && !(sources.new.contains(&peer) && self.is_rebuilding(peer))
        })
    }

    /// An exchange about a tree has ended, and this node holds all of it that the peer held when it began.
    pub(super) fn exchanged(&mut self, peer: NodeIndex, tree: TreeId, knew: Knew) {
        let Some(sources) = self.rebuild.missing.get_mut(&tree) else {
            return;
        };
        match knew {
            Knew::All => sources.sound.insert(peer),
            Knew::Some | Knew::Nothing => sources.new.insert(peer),
        };
        sources.knows_any |= knew != Knew::Nothing;
        self.look_at_sources(tree);
    }

    /// An exchange about a tree has failed.
    pub(super) fn source_failed(&mut self, peer: NodeIndex, tree: TreeId) {
        if let Some(sources) = self.rebuild.missing.get_mut(&tree) {
            sources.tried.insert(peer);
            self.look_at_sources(tree);
        }
    }

    /// A peer has gone: nobody waits for it.
    pub(super) fn source_goes(&mut self) {
        let trees: Vec<TreeId> = self.rebuild.missing.keys().copied().collect();
        trees.into_iter().for_each(|tree| self.look_at_sources(tree));
    }

    /// A tree is done with if it was read from enough owners, and from those others that are connected.
    fn look_at_sources(&mut self, tree: TreeId) {
        let Some(sources) = self.rebuild.missing.get(&tree) else {
            return;
        };
        let owners = self.config.ring.owners(tree.partition, tree.n);
        let mut others = owners.iter().filter(|&&node| node != self.me);
        let is_content = sources.knows_any || !self.config.is_replaced;
        if is_content
            && self.are_enough(tree.n, owners, &sources.sound, &sources.new)
            && others.all(|&node| sources.is_asked(node) || !self.peers.is_up(node))
        {
            self.rebuild.missing.remove(&tree);
            self.note_rebuilt();
        }
    }

    /// Whether what was read from these owners is all that can have been acknowledged or shown: `sound` ones knew what they hold, `others` did
    /// not.
    pub(super) fn are_enough(
        &self,
        n: u8,
        owners: &[NodeIndex],
        sound: &BTreeSet<NodeIndex>,
        others: &BTreeSet<NodeIndex>,
    ) -> bool {
        let is_read = |node| sound.contains(node) || others.contains(node);
        sound.len() >= sources_needed(&self.config.buckets, n)
            || owners.iter().filter(|&&node| node != self.me).all(is_read)
    }

    /// Once all is read and some peer has accepted this node, that is noted: the next start of the directory is not a new one.
    pub(super) fn note_rebuilt(&mut self) {
        if self.memory.is_unnoted(self.rebuild.is_done()) {
            self.note_own();
        }
    }

    /// Whether a client's write is better coordinated by another owner, which knows what it would overwrite.
    pub(super) fn leaves_to_sources(&self, key: &Key) -> bool {
        let is_source = |&node: &NodeIndex| node != self.me && self.peers.is_up(node) && !self.is_rebuilding(node);
        self.rebuilds(key) && self.owners(key).iter().any(is_source)
    }

    /// Refuses reads of records that this node may have lost. Gives back all other work.
    pub(super) fn refuse_to_read(&mut self, now: Instant, place: &Place, work: Work) -> Option<Work> {
        match work {
            _ if !matches!(place, Place::Record(key) if self.rebuilds(key)) => Some(work),
            Work::Read(op) => {
                self.get_answer(now, op, self.me, Err(Refusal::Rebuilding));
                None
            }
            Work::Fetch { from, id, .. } => {
                self.send_held(from, id, Err(Refusal::Rebuilding));
                None
            }
            work => Some(work),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_sources_hold_what_any_write_quorum_acknowledged_and_any_strict_read_showed() {
        let needed = |n, w, r| {
            let defaults = BucketProperties {
                n,
                w: Some(w),
                r: Some(r),
                ..BucketProperties::default()
            };
            let buckets = BucketTable {
                defaults,
                ..BucketTable::default()
            };
            sources_needed(&buckets, n)
        };
        for (n, w, r, sources) in [(3, 2, 2, 2), (3, 3, 1, 1), (3, 1, 3, 3), (5, 4, 3, 3), (1, 1, 1, 1)] {
            assert_eq!(needed(n, w, r), sources, "n = {n}, w = {w}, r = {r}");
        }
    }
}
