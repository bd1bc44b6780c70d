//! After healing: every key must be readable and writable, within two seconds of virtual time.
//!
//! The read asks all owners, so it must return exactly what the merge over all disks holds. The write carries the context that the read
//! returned; it resolves whatever there is, so no cap may stand in its way. By now the state that the other checkers judge has been
//! copied: what is written here cannot hide a loss.

use super::{World, micros};
use crate::plan::{Action, ContextChoice, Step, Target};
use crate::violation::Promise;
use quorate_core::request::QuorumKind;

impl World {
    pub(super) fn check_liveness(&mut self) {
        for key in 0..self.key_names.len() {
            let properties = *self.plan.options.properties(key);
            let owners = self.truth.owners(key).to_vec();
            let up = owners.iter().filter(|&&at| !self.nodes[at].has_left).count() as u8;
            let w = properties.majority().min(owners.len() as u8);
            if up < w || up == 0 {
                continue;
            }
            let there = (0..self.nodes.len()).filter(|&at| !self.nodes[at].has_left);
            let merged = self.truth.merged_over(key, there);
            let number = key as u8;
            // The owner of this rank that is there.
            let here = |rank: usize| {
                let mut ranks = (rank..rank + owners.len()).map(|rank| rank % owners.len());
                ranks.find(|&rank| !self.nodes[owners[rank]].has_left).unwrap_or(0) as u8
            };
            let (first, second) = (here(key % 7), here(key % 7 + 1));
            let read = Action::Get {
                key: number,
                r: Some(up),
                pr: Some(up),
                quorum: Some(QuorumKind::Strict),
                minimum: false,
            };
            if self.must_succeed(first, read) {
                let found = self.history.reads.last().map_or(0, |read| read.values.len());
                let held = merged.values().count();
                // What is kept for a node that stays away is seen by nobody.
                let all = properties.ttl_seconds.is_none() && self.left_at.is_none();
                if found != held && all {
                    self.violated(Promise::P2, || {
                        format!("key {key} reads as {found} values, and its owners hold {held}")
                    });
                }
            }
            let action = Action::Put {
                key: number,
                context: match merged.is_empty() {
                    true => ContextChoice::None,
                    false => ContextChoice::Last,
                },
                w: Some(w),
                pw: Some(w),
                dw: Some(w),
                quorum: Some(QuorumKind::Strict),
                bytes: 16,
                representation: false,
            };
            self.must_succeed(second, action);
        }
    }

    /// Deletes every other key, so that there is something to settle.
    pub(super) fn delete_some(&mut self) {
        for key in (0..self.key_names.len()).step_by(2) {
            let action = Action::Delete {
                key: key as u8,
                context: ContextChoice::Last,
                w: None,
                pw: None,
                quorum: None,
            };
            let step = Step {
                at_us: self.now,
                client: 0,
                target: Target::Owner((key % 5) as u8),
                timeout_ms: 2_000,
                action,
            };
            self.act(&step);
        }
        let answered = self.now + micros(2_100);
        self.run_until(answered);
    }

    /// Does something, and waits for its end. Returns whether it succeeded.
    fn must_succeed(&mut self, rank: u8, action: Action) -> bool {
        let what = format!("{action:?}");
        let step = Step {
            at_us: self.now,
            client: 0,
            target: Target::Owner(rank),
            timeout_ms: 2_000,
            action,
        };
        let Some(handle) = self.act(&step) else { return false };
        let end = self.now + micros(2_000);
        while self.pending[handle as usize].waiting && self.now < end {
            let next = self.now + micros(20);
            self.run_until(next);
        }
        // Replicas that W did not need may still be busy with it, and a node with few slots would refuse the next one.
        let idle = self.now + micros(100);
        self.run_until(idle);
        let pending = &self.pending[handle as usize];
        let (succeeded, node) = (pending.succeeded && !pending.waiting, pending.node);
        if !succeeded {
            self.violated(Promise::Liveness, || {
                format!("in a healed cluster node {node} did not do this within 2 s: {what}")
            });
        }
        succeeded
    }
}
