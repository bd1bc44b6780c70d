//! The records that this node watches for somebody's proof: nothing but the very same record may come here, or be made here, between its two answers.

use crate::key::Key;
use crate::message::Candidate;
use crate::time::Instant;
use quorate_ring::NodeIndex;
use std::collections::BTreeMap;
use std::time::Duration;

/// Records watched at once. Beyond: this node has too much else to do.
const WATCHED_MAX: usize = 65_536;

/// Whose proof, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) asker: NodeIndex,
    pub(super) id: u64,
}

#[derive(Debug)]
struct Watched {
    proof: Proof,
    hash: u64,
    since: Instant,
    /// What the second round was about, once that has been answered.
    approved: Option<Vec<u64>>,
}

/// All that is watched, by key. A key has one first owner, so one asker at a time; a later proof takes the place of an earlier one.
#[derive(Debug, Default)]
pub(super) struct Watches(BTreeMap<Key, Watched>);

impl Watches {
    /// Begins to watch. Returns whether there is room.
    pub(super) fn begin(&mut self, now: Instant, proof: Proof, candidate: &Candidate) -> bool {
        if self.0.len() >= WATCHED_MAX {
            return false;
        }
        let watched = Watched {
            proof,
            hash: candidate.hash,
            since: now,
            approved: None,
        };
        self.0.insert(candidate.key.clone(), watched);
        true
    }

    /// Whether a record has been watched for at least `least` without a break. If so, what the second round asks is approved.
    pub(super) fn approve(&mut self, now: Instant, proof: Proof, candidate: &Candidate, least: Duration) -> bool {
        let watched = self.0.get_mut(&candidate.key).filter(|watched| {
            watched.proof == proof && watched.hash == candidate.hash && now.since(watched.since) >= least
        });
        let Some(watched) = watched else { return false };
        watched.approved = Some(candidate.retire.clone());
        true
    }

    /// Whether this was approved, and nothing came since.
    pub(super) fn is_approved(&self, proof: Proof, candidate: &Candidate) -> bool {
        self.0.get(&candidate.key).is_some_and(|watched| {
            watched.proof == proof
                && watched.hash == candidate.hash
                && watched.approved.as_ref() == Some(&candidate.retire)
        })
    }

    /// Something has come, or was made, that may be anything.
    pub(super) fn end(&mut self, key: &Key) {
        if !self.0.is_empty() {
            self.0.remove(key);
        }
    }

    /// A copy of a record with this hash has come.
    pub(super) fn came(&mut self, key: &Key, hash: u64) {
        if self.0.get(key).is_some_and(|watched| watched.hash != hash) {
            self.0.remove(key);
        }
    }

    /// Forgets what has been watched for too long: its asker has given up.
    pub(super) fn prune(&mut self, now: Instant, longest: Duration) {
        self.0.retain(|_, watched| now.since(watched.since) <= longest);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
