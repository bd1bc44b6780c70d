//! The lives of this node's vnodes, and the minting of dots.
//!
//! A vnode that coordinates a write needs an actor whose memory of the key is unbroken (see [`crate::dot`]). If the stored record
//! carries the mark of this vnode's present life, its actor goes on; otherwise there is a new epoch. Lives are drawn from a
//! generator that the shell seeds with fresh entropy at every start.

use super::stored::Stored;
use crate::dot::{Actor, Dot};
use crate::planted;
use quorate_ring::{NodeId, PartitionId};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeMap;

/// One vnode's present life.
#[derive(Debug)]
struct Vnode {
    life: u64,
    last_epoch: u64,
}

/// The vnodes of this node that have coordinated a write since it started.
#[derive(Debug)]
pub(super) struct Vnodes {
    me: NodeId,
    rng: ChaCha12Rng,
    living: BTreeMap<PartitionId, Vnode>,
}

impl Vnodes {
    pub(super) fn new(me: NodeId, seed: [u8; 32]) -> Vnodes {
        Vnodes {
            me,
            rng: ChaCha12Rng::from_seed(seed),
            living: BTreeMap::new(),
        }
    }

    /// Where the numbers of operations start: anywhere, with room to count on.
    pub(super) fn first_op(&mut self) -> u64 {
        self.rng.next_u64() >> 1
    }

    /// A random number below `bound`, for pauses.
    pub(super) fn draw(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound.max(1)
    }

    /// The dot for a new write of the key that `stored` holds, and the actor to mark the record with.
    pub(super) fn mint(
        &mut self,
        partition: PartitionId,
        stored: &mut Stored,
    ) -> Result<Dot, crate::record::MalformedRecord> {
        let Vnodes { me, rng, living } = self;
        let vnode = living.entry(partition).or_insert_with(|| Vnode {
            life: new_life(*me, rng),
            last_epoch: 0,
        });
        let actor = match stored.mark().filter(|mark| mark.life == vnode.life) {
            Some(actor) => actor,
            None => {
                vnode.last_epoch = if planted::is(1) { 1 } else { vnode.last_epoch + 1 };
                Actor {
                    life: vnode.life,
                    epoch: vnode.last_epoch,
                }
            }
        };
        let counter = stored.record()?.context().reach(actor) + 1;
        Ok(Dot { actor, counter })
    }

    /// Whether a life is one of this node's, and goes on. One that does not, or never was, never will.
    pub(super) fn is_living(&self, life: u64) -> bool {
        self.living.values().any(|vnode| vnode.life == life)
    }

    /// Ends a vnode's life: its next write is under a new actor.
    pub(super) fn retire(&mut self, partition: PartitionId) {
        self.living.remove(&partition);
    }
}

fn new_life(me: NodeId, rng: &mut ChaCha12Rng) -> u64 {
    if planted::is(2) {
        u64::from_le_bytes(me.0[..8].try_into().expect("an id has 16 bytes"))
    } else {
        rng.next_u64()
    }
}
