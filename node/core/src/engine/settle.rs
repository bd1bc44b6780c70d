//! Settling: dropping what deletes leave behind, once it is proved that nothing can bring back what they deleted.
//!
//! A delete leaves a tombstone, and a context that says what it covered. Whoever drops them by age resurrects data: an old copy that lay in
//! a hint, in a queue or on a node that was away meets an owner that has forgotten the delete. Here a record goes only on proof. The first owner of
//! a partition takes a batch of its records and asks *every member* of the ring twice; see `batch` for the asking, `answer` for what members do.
//!
//! **What is proved.** Call a copy of the record *bad* if it is not the record T that is to be settled, nor one that grew out of T. Only bad copies can
//! bring something back: the others have a context that covers all that T covered. We show that there was a moment at which no bad copy was
//! anywhere. From then on none can come to be, since whoever writes or copies starts from T.
//!
//! 1. In the first round each owner says that it holds exactly T, synced, and that nothing older will come up from its disk (it is not rebuilding). Each
//!    member says that nothing *stands against* it: no hint, no request for the key, nothing sent for the key that was not answered. From
//!    this answer on it *watches* the key: whatever comes to it or is made by it that is not T ends the watch.
//! 2. In the second round, which begins when the first has ended, each member says all this again, and that its watch is unbroken. So the
//!    watches of all members overlap in one moment, and at that moment no member had a bad copy: not when its watch began, and none since. One
//!    round alone would not do, nor two snapshots: a copy can move from a member that was not asked yet to one that has answered.
//! 3. A copy in flight belongs to a member, too. What is sent for a key stays *pending* at its sender until it is answered or its connection is dead,
//!    whatever the deadline of the request: a suspended node flushes old writes when it wakes. A copy in an answer belongs to whoever asked:
//!    it is taken in by a request that is still there, which stands against the second round, or it is dropped.
//! 4. There remains what was sent over a connection that is dead at its sender, who may have crashed, while the receiver does not know it yet. It arrives
//!    within the idle timeout (5 s), on the receiver's own clock, or never: frames of closed connections are dropped. The first round lasts at
//!    most an eighth of `settle_after` (1 s of 8 s), and a member gives its second answer no earlier than seven eighths after its first *by its own clock*, so
//!    a suspended receiver waits, too. What arrives before that is merged with T (and then the hash differs, or nothing was new), or ends the watch.
//! 5. A member that starts anew has no watch, so a crash between the rounds ends the proof; so does a connection that the asker loses. Then all starts
//!    over. A member that is away postpones everything.
//!
//! **What owners do then.** Each drops the record if it is still T, synced, and if its own watch has not been broken since. It forgets the mark
//! with it, so its next write of the key is under a new epoch and no dot is minted twice. Owners do not drop it at the same moment, and the message may be
//! lost. So an owner may meet T again: by an exchange or a read repair from one that still has it. That is no bad copy: T covers what it covered. It
//! is queued again wherever it arrives, and settled again. This ends, since each round of it needs an exchange in the moment between
//! the first and the last owner's dropping it. If the key was written anew meanwhile, T merges with that as a delete that the writer did not see: the value
//! stays.
//!
//! **Retries.** With the record go the names of its overwritten writes. A client that sends one of them again later leaves a new sibling: the window
//! of idempotency ends with settling. What members know of is waited for (a request that was passed on stands against it); what a client still has in
//! its own queue nobody knows. So a record waits for [`settle_age`](super::Limits::settle_age) before the proof begins. No safety of *deletes*
//! rests on that time.
//!
//! **Contexts** are trimmed by the same proof: a life that has ended, of which no sibling is live, leaves the contexts of all owners that hold exactly
//! the same record. Its dots were in the context only to tell bad copies, and there are none. A life that goes on must not be dropped: its next dot would be minted
//! from 1. So each member names those that are its own. Trimmed contexts are a function of the record and the lives, so owners stay byte-equal; one
//! that missed it brings the longer context back by an exchange, and then the record is queued again. A record that is written more often than once in
//! `settle_after` is never the same in both rounds, and is trimmed when it rests.
//!
//! Rejected: Riak's reaping after a time, and Cassandra's `gc_grace_seconds`; both bring data back when a node is away for longer.

mod against;
mod answer;
mod batch;
mod missing;
mod passes;
mod queue;
mod row;
mod status;
mod watch;
mod weigh;

pub use status::SettleStatus;

pub(super) use answer::Order;
pub(super) use row::{SKEW_MS, Want};

use super::Engine;
use crate::key::Key;
use crate::planted;
use crate::time::Instant;
use batch::Batch;
use passes::Queue;
use quorate_ring::{NodeIndex, PartitionId};
use status::Seen;
use std::collections::BTreeMap;
use watch::Watches;
use weigh::Checks;

/// Batches under way at once, each of another partition.
const BATCHES_MAX: usize = 16;
/// Records of one batch.
const BATCH_RECORDS_MAX: usize = 512;
/// Bytes of the keys of one batch.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// All that a node has to do with settling: what it leads, and what it watches for others.
#[derive(Debug, Default)]
pub(super) struct Settling {
    queue: Queue,
    batches: BTreeMap<PartitionId, Batch>,
    checks: Checks,
    watches: Watches,
    seen: Seen,
    /// What the scrub has met that should have rows, and is being looked for.
    looked_for: Vec<(Key, u64)>,
    /// Whether every other member is connected.
    everyone: bool,
}

impl Engine {
    /// What settling has to do at the end of every input: records that were weighed are answered for, and members come and go.
    pub(super) fn settle_go_on(&mut self, now: Instant) {
        let everyone = self.away().next().is_none();
        if everyone != std::mem::replace(&mut self.settling.everyone, everyone) {
            self.settle_everyone(now, everyone);
        }
        self.settle_weigh(now);
    }

    /// At the start a node that is alone wakes by itself, since no peer ever comes.
    pub(super) fn begin_settling(&mut self) {
        if self.away().next().is_none() {
            self.background.wake(Instant(0), super::background::Task::Settle);
        }
    }

    /// The members that are not connected.
    fn away(&self) -> impl Iterator<Item = NodeIndex> {
        let members = self.config.ring.members().len();
        let all = (0..members).map(|at| NodeIndex(at as u16));
        all.filter(|&node| node != self.me && !self.peers.is_up(node))
    }

    /// The last member has come, or one has gone.
    fn settle_everyone(&mut self, now: Instant, everyone: bool) {
        if !everyone {
            for partition in self.settling.batches.keys().copied().collect::<Vec<_>>() {
                self.settle_postpone(now, partition);
            }
        } else {
            self.settling.queue.hurry(now);
            self.settle_walk_once();
        }
        self.settle_wake();
    }

    /// Whether proofs can be made at all now.
    fn settles(&self) -> bool {
        self.settling.everyone || planted::is(12)
    }

    /// Sleeps until there is something to do.
    fn settle_wake(&mut self) {
        let Settling { queue, batches, .. } = &self.settling;
        let batch = batches.values().map(|batch| batch.at).min();
        let is_full = batches.len() >= BATCHES_MAX;
        let queued = queue.next(|partition| batches.contains_key(&partition));
        let next = batch.into_iter().chain(queued.filter(|_| !is_full)).min();
        let at = next.filter(|_| self.settles());
        self.background.sleep(at, super::background::Task::Settle);
    }
}
