//! Making a failing plan smaller.
//!
//! Delta debugging (Zeller and Hildebrandt 2002), kept simple: leave out a chunk of faults or operations, and keep the smaller plan if
//! the same promise is still broken; then try with chunks of half the size. Every try is a whole run, so their number is bounded. The rates of the
//! network and the disks are set to zero one by one in the same way.

use crate::plan::Plan;
use crate::runner::run_caught;
use crate::violation::Promise;
use crate::world::Watch;
use std::sync::Arc;

/// A smaller plan that breaks `promise` as well, after at most `tries` runs.
pub fn shrink(plan: &Plan, promise: Promise, watch: Watch, tries: usize) -> Plan {
    let mut shrinker = Shrinker {
        best: plan.clone(),
        promise,
        watch,
        tries,
    };
    loop {
        let before = size(&shrinker.best);
        shrinker.chunks(|plan| &mut plan.faults);
        shrinker.chunks(|plan| &mut plan.steps);
        shrinker.rates();
        if size(&shrinker.best) == before || shrinker.tries == 0 {
            return shrinker.best;
        }
    }
}

fn size(plan: &Plan) -> usize {
    plan.faults.len() + plan.steps.len()
}

struct Shrinker {
    best: Plan,
    promise: Promise,
    watch: Watch,
    tries: usize,
}

impl Shrinker {
    /// Keeps the candidate if it fails in the same way.
    fn keep_if_failing(&mut self, candidate: Plan) -> bool {
        if self.tries == 0 || candidate == self.best {
            return false;
        }
        self.tries -= 1;
        let candidate = Arc::new(candidate);
        let report = run_caught(&candidate, self.watch);
        let fails = report.violations.iter().any(|v| v.promise == self.promise);
        if fails {
            self.best = Arc::unwrap_or_clone(candidate);
        }
        fails
    }

    fn chunks<T: Clone>(&mut self, list: impl Fn(&mut Plan) -> &mut Vec<T>) {
        let mut chunk = list(&mut self.best).len().div_ceil(2);
        while chunk > 0 && self.tries > 0 {
            let mut at = 0;
            while at < list(&mut self.best).len() {
                let mut candidate = self.best.clone();
                let items = list(&mut candidate);
                let end = (at + chunk).min(items.len());
                items.drain(at..end);
                if !self.keep_if_failing(candidate) {
                    at += chunk;
                }
            }
            chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
        }
    }

    fn rates(&mut self) {
        let calm: [fn(&mut Plan); 8] = [
            |p| p.options.network.loss_pm = 0,
            |p| p.options.network.duplicate_pm = 0,
            |p| p.options.network.straggler_pm = 0,
            |p| p.options.disk.read_error_pm = 0,
            |p| p.options.disk.refused_pm = 0,
            |p| p.options.disk.slow_read_pm = 0,
            |p| p.options.disk.slow_sync_pm = 0,
            |p| p.options.lost_replies_pm = 0,
        ];
        for change in calm {
            let mut candidate = self.best.clone();
            change(&mut candidate);
            self.keep_if_failing(candidate);
        }
    }
}
