//! How far a node has come with healing, as its status tells it.
//!
//! These types are written as JSON by the node (`docs/wire.md`, `/v1/cluster/status`) and read again by the command line, loosely: what an older or
//! newer node does not tell counts as nothing. Nodes go by their names here.

use serde::{Deserialize, Serialize};

/// Everything about healing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealingStatus {
    /// How often this data directory was started.
    pub generation: u64,
    /// Hints kept for others, by owner; only owners that there are any for.
    pub hints: Vec<HintsStatus>,
    /// Bytes of hints that the node takes.
    pub hint_bytes_max: u64,
    /// Comparing with other owners.
    pub exchange: ExchangeStatus,
    /// Dropping deletes that everybody has.
    pub settling: SettlingStatus,
    /// Reading again what was lost.
    pub rebuilding: RebuildStatus,
    /// Reading everything once in a while.
    pub scrub: ScrubStatus,
}

/// What a node keeps for one owner that was away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HintsStatus {
    /// The owner.
    pub node: String,
    /// Hints.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Age of the oldest, in seconds.
    pub oldest_seconds: u64,
    /// Delivered a second, lately.
    pub per_second: f64,
    /// Seconds until all are home, at that rate; none while nothing is delivered.
    pub eta_seconds: Option<u64>,
}

/// How far the comparing of trees has come, as the node sees it that asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExchangeStatus {
    /// Whether it is configured.
    pub enabled: bool,
    /// Exchanges under way.
    pub running: Vec<RunningExchange>,
    /// The last one with each peer.
    pub last: Vec<LastExchange>,
    /// Partitions of which some peer is known to have missed writes that no hint tells of.
    pub dirty: u64,
    /// Trees that were equal, or made equal, when they were last compared. A tree counts once for each peer that shares it.
    pub trees_in_sync: u64,
    /// Trees, counted likewise.
    pub trees: u64,
    /// Exchanges that have ended since the start.
    pub ended: u64,
    /// Records sent since the start.
    pub sent: u64,
    /// Records that came and changed something, since the start.
    pub received: u64,
    /// Bytes sent since the start.
    pub bytes_sent: u64,
}

/// One exchange under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunningExchange {
    /// With whom.
    pub peer: String,
    /// Over which partition.
    pub partition: u32,
    /// Copies in the buckets that it is over.
    pub n: u8,
    /// `roots`, `leaves`, `keys` or `records`.
    pub phase: String,
    /// Keys that differ and are not dealt with.
    pub keys_left: u64,
}

/// The last exchange with a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastExchange {
    /// With whom.
    pub peer: String,
    /// Seconds since it ended.
    pub seconds_ago: u64,
    /// Keys that differed.
    pub differing: u64,
    /// Records that it sent.
    pub sent: u64,
    /// Records that it brought and that changed something.
    pub received: u64,
}

/// How far the settling of deletes has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SettlingStatus {
    /// Records that wait to be settled, in the partitions of which this node is the first owner: over all nodes each counts once.
    pub waiting: u64,
    /// Members that are not connected. While there are any, nothing is settled.
    pub away: Vec<String>,
    /// Rounds of proofs asked since the start.
    pub rounds: u64,
    /// Who objected last to settling a record, and why; none if nobody has.
    pub last_objection: Option<String>,
}

/// How much of its memory a node has still to read again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RebuildStatus {
    /// Partitions that are not read yet, each once for each number of copies that buckets have.
    pub partitions: u64,
    /// Those that it began with; 0 if it has not lost its memory since the start.
    pub of: u64,
}

/// How far the scrub has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubStatus {
    /// Rounds that have ended since the start.
    pub passes: u64,
    /// Share of the present round that is read, in percent.
    pub percent: u8,
    /// Records read since the start.
    pub checked: u64,
    /// Ranges of records in which not even the keys could be read, since the start.
    pub unreadable: u64,
    /// Records found damaged since the start.
    pub corrupt: u64,
    /// Records read again from other owners since the start.
    pub healed: u64,
}

impl HealingStatus {
    /// Hints for all owners together.
    pub fn hints_waiting(&self) -> u64 {
        self.hints.iter().map(|hints| hints.count).sum()
    }

    /// Whether this node knows of nothing that is left to do.
    pub fn is_settled(&self) -> bool {
        let exchange = &self.exchange;
        self.hints_waiting() == 0
            && exchange.dirty == 0
            && (exchange.trees_in_sync == exchange.trees || !exchange.enabled)
            && self.settling.waiting == 0
            && self.rebuilding.partitions == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_node_is_settled_when_it_knows_of_nothing_left_to_do() {
        let settled = HealingStatus {
            exchange: ExchangeStatus {
                enabled: true,
                trees: 3,
                trees_in_sync: 3,
                ..ExchangeStatus::default()
            },
            ..HealingStatus::default()
        };
        assert!(settled.is_settled());
        let hints = vec![HintsStatus {
            count: 1,
            ..HintsStatus::default()
        }];
        let changes: [fn(&mut HealingStatus); 4] = [
            |s| s.exchange.dirty = 1,
            |s| s.exchange.trees_in_sync = 2,
            |s| s.settling.waiting = 1,
            |s| s.rebuilding.partitions = 1,
        ];
        for change in changes {
            let mut status = settled.clone();
            change(&mut status);
            assert!(!status.is_settled(), "{status:?}");
        }
        assert!(!HealingStatus { hints, ..settled }.is_settled());
    }

    #[test]
    fn what_another_node_does_not_tell_counts_as_nothing() {
        let status: HealingStatus = serde_json::from_str(r#"{"exchange":{"trees":7},"news":1}"#).unwrap();
        assert_eq!(status.exchange.trees, 7);
        assert_eq!(status.hints_waiting(), 0);
    }
}
