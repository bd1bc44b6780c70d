//! After healing: every key must be readable and writable, within two seconds of virtual time.
//!
//! The read asks all owners, so it must return exactly what the merge over all disks holds. The write carries the context that the read
//! returned; it resolves whatever there is, so no cap may stand in its way. By now the state that the other checkers judge has been
//! copied: what is written here cannot hide a loss.

use super::{World, micros};
use crate::plan::{Action, ContextChoice, Step, Target};
use crate::violation::Promise;

impl World {
    pub(super) fn check_liveness(&mut self) {
        for key in 0..self.key_names.len() {
            let owners = self.truth.owners(key).len() as u8;
            let need = self.plan.options.properties(key).majority().min(owners);
            let merged = self.truth.merged(key);
            let rank = (key % 7) as u8;
            let number = key as u8;
            let read = self.must_succeed(
                rank,
                Action::Get {
                    key: number,
                    r: Some(owners),
                    minimum: false,
                },
            );
            if read {
                let found = self.history.reads.last().map_or(0, |read| read.values.len());
                let held = merged.values().count();
                if found != held {
                    self.violated(Promise::P2, || {
                        format!("key {key} reads as {found} values, and its owners hold {held}")
                    });
                }
            }
            let action = Action::Put {
                key: number,
                context: if merged.is_empty() {
                    ContextChoice::None
                } else {
                    ContextChoice::Last
                },
                w: Some(need),
                dw: None,
                bytes: 16,
                representation: false,
            };
            self.must_succeed(rank + 1, action);
        }
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
