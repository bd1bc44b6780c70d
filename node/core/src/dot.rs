//! Actors and dots: who wrote, and which of its writes.
//!
//! An actor is one unbroken memory of one key at one vnode. It is a pair: the vnode's *life*, 64 random bits minted
//! when the process starts, and an *epoch*, taken from a counter of that life whenever the vnode coordinates a write for
//! a key that it has no memory of its own of. Under an actor the counters run 1, 2, 3 … for that key. So no way of forgetting
//! (an empty disk, a restored copy, a corrupt record set aside, a crash that lost unsynced writes) can lead to the same
//! dot twice.
//!
//! Rejected: the node's id as the actor, as in the Dynamo paper (section 4.4) and in Riak before 2.1. A node that lost
//! a record then counts from one again, and its new write looks old to the replicas that remember.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One unbroken memory of one key at one vnode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// Random bits of the vnode's present life.
    #[serde(with = "postcard::fixint::le")]
    pub life: u64,
    /// Which memory within that life, from 1.
    pub epoch: u64,
}

/// One write: the actor that minted it, and its counter (from 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who minted it.
    pub actor: Actor,
    /// The actor's how-manieth write of this key.
    pub counter: u64,
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.life, self.epoch)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.actor, self.counter)
    }
}
