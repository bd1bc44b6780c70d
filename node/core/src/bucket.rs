//! Properties of buckets: how many copies, which quorums, which limits.
//!
//! A bucket is a namespace of keys. It needs no creation: an unknown name has the defaults. All nodes of a cluster must have the
//! same table; until properties are part of the cluster's state, it comes from each node's configuration.

use crate::message::RECORD_BYTES_MAX;
use crate::request::QuorumKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a write without a context does to a key that holds values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlindWrites {
    /// It becomes a sibling of what is there.
    #[default]
    Siblings,
    /// It is refused: a context is required.
    Require,
    /// It replaces what its coordinator holds. Racy: a write that the coordinator has not received yet stays as a sibling.
    Replace,
}

/// When a write counts as acknowledged by a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it is synced to disk.
    #[default]
    Durable,
    /// When it is handed to the system, which a node's `flush_interval_ms` later has it on disk. A power cut takes back what was
    /// acknowledged since; a crash of the process alone takes nothing.
    Relaxed,
}

/// How one bucket behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BucketProperties {
    /// Copies of each record.
    pub n: u8,
    /// Answers that a read waits for; `None`: a majority of `n`.
    pub r: Option<u8>,
    /// Acks that a write waits for; `None`: a majority of `n`.
    pub w: Option<u8>,
    /// Durable acks that a write waits for; `None`: as many as `w`.
    pub dw: Option<u8>,
    /// Of the answers that a read waits for, how many have to be owners'; `None`: none in a sloppy quorum, all in a strict one.
    pub pr: Option<u8>,
    /// Of the acks that a write waits for, how many have to be owners'; `None`: none in a sloppy quorum, all in a strict one.
    pub pw: Option<u8>,
    /// Whether fallbacks count while owners are away.
    pub quorum: QuorumKind,
    /// Seconds after which a value reads as deleted, from when it is written; `None`: never.
    pub ttl_seconds: Option<u32>,
    /// When a node acknowledges.
    pub durability: Durability,
    /// What writes without a context do.
    pub blind_writes: BlindWrites,
    /// Siblings from which a write that does not resolve is refused.
    pub siblings_max: u16,
    /// Largest value, in bytes.
    pub value_bytes_max: u32,
    /// Largest record (all its values together), in bytes, that a write may leave unless it resolves.
    pub record_bytes_max: u32,
}

impl Default for BucketProperties {
    fn default() -> BucketProperties {
        BucketProperties {
            n: 3,
            r: None,
            w: None,
            dw: None,
            pr: None,
            pw: None,
            quorum: QuorumKind::Sloppy,
            ttl_seconds: None,
            durability: Durability::Durable,
            blind_writes: BlindWrites::Siblings,
            siblings_max: 100,
            value_bytes_max: 1 << 20,
            record_bytes_max: 8 << 20,
        }
    }
}

/// Why properties make no sense together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesError {
    /// `n` is zero or more than [`N_MAX`].
    #[error("n is {got}; it must be 1 to {N_MAX}")]
    N {
        /// What was given.
        got: u8,
    },
    /// A quorum is zero or above `n`.
    #[error("{name} is {got}; it must be 1 to n, and n is {n}")]
    Quorum {
        /// Which one.
        name: &'static str,
        /// What was given.
        got: u8,
        /// The bucket's n.
        n: u8,
    },
    /// A limit of nothing: every write would be refused.
    #[error("{name} is 0, which would refuse every write; it must be at least 1")]
    Nothing {
        /// Which limit.
        name: &'static str,
    },
    /// `n` coordinators could together fill a record beyond what a message holds.
    #[error(
        "{name} is {got}; with n = {n} it must be at most {max}, so that a record filled by n nodes at once can still be sent"
    )]
    Bytes {
        /// Which limit.
        name: &'static str,
        /// What was given.
        got: u32,
        /// The bucket's n.
        n: u8,
        /// The most.
        max: u32,
    },
}

/// The largest value that any bucket may allow, in bytes. Nodes take requests of this size in whatever the bucket's own limit is, so
/// that one over it gets an answer; clients send nothing larger.
pub const VALUE_BYTES_MAX: u32 = 16 << 20;

/// The largest `n`.
pub const N_MAX: u8 = 7;

impl BucketProperties {
    /// A majority of `n`.
    pub fn majority(&self) -> u8 {
        self.n / 2 + 1
    }

    /// Checks that the numbers fit each other.
    pub fn validate(&self) -> Result<(), PropertiesError> {
        if self.n == 0 || self.n > N_MAX {
            return Err(PropertiesError::N { got: self.n });
        }
        for (name, value) in [
            ("r", self.r),
            ("w", self.w),
            ("dw", self.dw),
            ("pr", self.pr),
            ("pw", self.pw),
        ] {
            if let Some(got) = value.filter(|&v| v == 0 || v > self.n) {
                return Err(PropertiesError::Quorum { name, got, n: self.n });
            }
        }
        for (name, limit) in [
            ("siblings_max", u32::from(self.siblings_max)),
            ("value_bytes_max", self.value_bytes_max),
            ("record_bytes_max", self.record_bytes_max),
        ] {
            if limit == 0 {
                return Err(PropertiesError::Nothing { name });
            }
        }
        // Beside the values a record holds dots and ids; a hundredth is more than they take.
        let max = (RECORD_BYTES_MAX / usize::from(self.n) / 100 * 99) as u32;
        for (name, got, max) in [
            ("record_bytes_max", self.record_bytes_max, max),
            ("value_bytes_max", self.value_bytes_max, max.min(VALUE_BYTES_MAX)),
        ] {
            if got > max {
                let n = self.n;
                return Err(PropertiesError::Bytes { name, got, n, max });
            }
        }
        Ok(())
    }
}

/// The properties of every bucket.
#[derive(Clone, Debug, Default)]
pub struct BucketTable {
    /// For buckets that are not named.
    pub defaults: BucketProperties,
    /// By name.
    pub named: BTreeMap<Vec<u8>, BucketProperties>,
}

impl BucketTable {
    /// The properties of all buckets: the defaults, and those of named ones.
    pub fn all(&self) -> impl Iterator<Item = &BucketProperties> {
        std::iter::once(&self.defaults).chain(self.named.values())
    }

    /// The properties of `bucket`.
    pub fn of(&self, bucket: &[u8]) -> &BucketProperties {
        self.named.get(bucket).unwrap_or(&self.defaults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_that_do_not_fit_each_other_are_refused() {
        let defaults = BucketProperties::default();
        let with = |change: fn(&mut BucketProperties)| {
            let mut properties = defaults;
            change(&mut properties);
            properties.validate().map_err(|error| error.to_string())
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|p| p.n = N_MAX), Ok(()));
        for change in [
            (|p| p.n = 0) as fn(&mut BucketProperties),
            |p| p.n = N_MAX + 1,
            |p| p.r = Some(0),
            |p| p.r = Some(4),
            |p| p.w = Some(4),
            |p| p.dw = Some(4),
            |p| (p.n, p.w) = (1, Some(2)),
            |p| p.siblings_max = 0,
            |p| p.value_bytes_max = 0,
            |p| p.record_bytes_max = 0,
            |p| p.record_bytes_max = 22 << 20,
            |p| p.value_bytes_max = 22 << 20,
        ] {
            assert!(with(change).is_err());
        }
        assert_eq!(with(|p| p.record_bytes_max = 20 << 20), Ok(()));
    }
}
