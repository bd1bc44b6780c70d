//! Why a list of members is not a ring.
//!
//! All of these are found before a table is computed, so no state is left behind: the caller still holds the ring it
//! had. They are the operator's or the peer's to correct, hence each message says what to do.

use crate::{NodeId, ring};

/// The members, or the number of partitions, do not make a ring. Nothing was built; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// There is no member. A ring needs one; name the node that starts the cluster.
    #[error("a ring needs at least one member; name the node that starts the cluster")]
    NoMembers,
    /// More members than a ring may have. Use fewer and larger nodes, or several clusters.
    #[error(
        "{got} members, but a ring holds at most {}; use fewer, larger nodes or two clusters",
        ring::MEMBERS_MAX
    )]
    TooManyMembers {
        /// How many were given.
        got: usize,
    },
    /// More partitions than a ring may have. Choose 0 to 16, so that 2^q is near a hundred times the nodes that the
    /// cluster may grow to.
    #[error(
        "{got} partition bits, but {} is the most; choose 2^bits near 100 x nodes",
        ring::PARTITION_BITS_MAX
    )]
    PartitionBits {
        /// How many bits were given.
        got: u8,
    },
    /// Two members have one id, as after copying a data directory. Give the copy an empty directory: it gets an id of
    /// its own.
    #[error("two members have the id {id}; start one of them with an empty data directory to give it its own id")]
    DuplicateId {
        /// The id in question.
        id: NodeId,
    },
    /// Two members have one name. Rename one.
    #[error("two members are called {name:?}; rename one of them")]
    DuplicateName {
        /// The name in question.
        name: String,
    },
    /// A member's name, zone or address is empty where it must not be. Fill it in.
    #[error("member {id} has an empty {field}; fill it in")]
    Empty {
        /// Whose it is.
        id: NodeId,
        /// `name` or `zone`.
        field: &'static str,
    },
    /// A member's name, zone or address is too long. Shorten it.
    #[error("member {id} has a {field} of {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// Whose it is.
        id: NodeId,
        /// `name`, `zone`, `quic` or `http`.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        max: usize,
    },
}
