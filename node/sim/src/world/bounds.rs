//! P13 while the run goes on, and the probes that engines count themselves.

use super::World;
use super::event::NodeNo;
use crate::probes::Probe;
use crate::violation::Promise;

impl World {
    /// P13: queues are under their caps, and one input causes no more than it can, but for `effects` that answer other nodes.
    pub(super) fn check_bounds(&mut self, at: NodeNo, before: (usize, usize), effects: usize) {
        let (operations, slots) = self.nodes[at].in_flight();
        let (operations_max, slots_max) = (self.limits.operations_max, self.limits.slots_max);
        if operations > operations_max {
            self.violated(Promise::P13, || {
                format!("node {at} has {operations} operations under way, of {operations_max}")
            });
        }
        // Beyond the replicas' cap a coordinator may open a slot for each of its own operations, and whoever brings hints home two for each of
        // those under way.
        let handoffs = 2 * usize::from(self.limits.handoff_window) * self.nodes.len();
        if slots > slots_max + operations_max + handoffs {
            self.violated(Promise::P13, || {
                format!("node {at} holds {slots} keys in memory, of {slots_max}")
            });
        }
        let most = 64 + 2 * self.nodes.len() * (before.0 + before.1 + operations + slots + 2);
        if effects > most {
            self.violated(Promise::P13, || {
                format!("one input to node {at} caused {effects} effects beside answers")
            });
        }
    }

    pub(super) fn count_probes(&mut self, at: NodeNo) {
        let node = &mut self.nodes[at];
        let Some(engine) = &node.engine else { return };
        let (read, all) = engine.rebuilding();
        if node.has_amnesia && node.is_new && read == all {
            node.has_amnesia = false;
            self.probes.hit(Probe::Rebuilt);
        }
        let counters = engine.counters();
        let seen = std::mem::replace(&mut node.seen, counters);
        for (before, after, probe) in [
            (seen.hedged, counters.hedged, Probe::Hedged),
            (seen.forwarded, counters.forwarded, Probe::Forwarded),
            (seen.siblings_returned, counters.siblings_returned, Probe::Siblings),
            (
                seen.replicas_differed,
                counters.replicas_differed,
                Probe::ReplicasDiffered,
            ),
            (seen.healed_records, counters.healed_records, Probe::HealedRecord),
            (seen.leaves_corrected, counters.leaves_corrected, Probe::LeafCorrected),
            (seen.hints_overflowed, counters.hints_overflowed, Probe::HintsFull),
            (
                seen.exchanges_differed,
                counters.exchanges_differed,
                Probe::ExchangeDiffered,
            ),
            (seen.settle_refused, counters.settle_refused, Probe::SettleRefused),
            (seen.read_repairs, counters.read_repairs, Probe::ReadRepaired),
            (seen.peers_slowed, counters.peers_slowed, Probe::BreakerOpened),
        ] {
            self.probes.hit_if(after > before, probe);
        }
    }
}
