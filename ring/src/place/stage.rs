//! What placement needs to know of the members, in its own order: nodes grouped by zone.
//!
//! Nodes of weight 0 stand behind all others in every preference list, so they are dealt in a stage of their own, in
//! which all weigh the same. Stages share nothing but which zones an earlier one has covered: in the second one a node
//! in a new zone comes before nodes in zones that every list already has. Rejected: treating weight 0 as a very small
//! weight; then the small weight would still get a vnode where there are few other nodes and many partitions.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::{Member, NodeIndex, ring};

/// Nodes that are dealt together.
pub(crate) struct Stage {
    /// The nodes, those of one zone side by side.
    pub(crate) nodes: Vec<Node>,
    /// The zones of these nodes.
    pub(crate) zones: Vec<Zone>,
    /// How many of the nodes each partition gets. At most all.
    pub(crate) ranks: usize,
    /// How many zones are not yet covered: up to this n, n nodes are in n zones.
    pub(crate) new_zones: usize,
}

/// One node of a stage.
pub(crate) struct Node {
    /// Which member it is.
    pub(crate) member: NodeIndex,
    /// Its place in [`Stage::zones`].
    pub(crate) zone: usize,
    /// Its weight in this stage, never 0.
    pub(crate) weight: u64,
}

/// One zone of a stage.
pub(crate) struct Zone {
    /// Where its nodes are in [`Stage::nodes`].
    pub(crate) nodes: Range<usize>,
    /// The sum of their weights.
    pub(crate) weight: u64,
    /// Whether an earlier stage has put a node of this zone into every partition.
    pub(crate) covered: bool,
}

/// The stages that fill lists of `depth` places, first the one whose nodes come first.
pub(crate) fn stages(members: &[Member], depth: usize) -> Vec<Stage> {
    let mut zones: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, member) in members.iter().enumerate() {
        zones.entry(&member.zone).or_default().push(at);
    }
    let loaded = stage(members, &zones, true, depth);
    let spare = stage(members, &zones, false, depth - loaded.ranks);
    [loaded, spare].into_iter().filter(|stage| stage.ranks > 0).collect()
}

/// The stage of the members with a weight (`loaded`), or of those without, for at most `ranks` places.
fn stage(members: &[Member], zones: &BTreeMap<&str, Vec<usize>>, loaded: bool, ranks: usize) -> Stage {
    let mut stage = Stage {
        nodes: Vec::new(),
        zones: Vec::new(),
        ranks: 0,
        new_zones: 0,
    };
    for in_zone in zones.values() {
        let first = stage.nodes.len();
        let mut weight_of_zone = 0;
        for &at in in_zone.iter().filter(|&&at| (members[at].weight > 0) == loaded) {
            let weight = u64::from(members[at].weight.max(1));
            weight_of_zone += weight;
            stage.nodes.push(Node {
                member: ring::index(at),
                zone: stage.zones.len(),
                weight,
            });
        }
        let nodes = first..stage.nodes.len();
        if !nodes.is_empty() {
            // The second stage only has places to fill if the first one put all its nodes into every partition.
            let covered = nodes.len() < in_zone.len() && !loaded;
            stage.new_zones += usize::from(!covered);
            stage.zones.push(Zone {
                nodes,
                weight: weight_of_zone,
                covered,
            });
        }
    }
    stage.ranks = ranks.min(stage.nodes.len());
    stage
}
