//! Who holds what: a pure function from the list of members to the owners of every key.
//!
//! A key's bucket and partition key are hashed to a 64-bit [`Token`]. The 2^64 tokens are cut into Q = 2^q
//! [partitions] of equal size, Q fixed when the cluster is born, and a [`Ring`] says for each partition which members
//! serve it, in order: its preference list. The first N of that list own the partition in a bucket with N replicas;
//! the others stand in, in order, when owners are down. A partition as served by one node is a vnode.
//!
//! This is the third strategy of the Dynamo paper (DeCandia et al. 2007, section 6.2). Its first strategy gives every
//! node random tokens, and what a node holds is the stretch between two tokens: each join moves the borders, so the
//! data to hand over must be found by scanning, and Merkle trees must be built anew. Its second strategy keeps the
//! random tokens but stores by fixed, equal partitions, so borders no longer move, yet load is as uneven as the random
//! tokens are. The third drops the tokens of nodes: nodes are dealt whole partitions, as evenly as we like, and a
//! change of members only re-deals some partitions. One partition is one range to copy and one Merkle tree to compare.
//!
//! A partition is the *top q bits* of the token, and rows are stored under the token, not under the partition number.
//! So partition p under q bits is exactly partitions 2p and 2p + 1 under q + 1 bits: doubling Q later rewrites no row
//! and moves no data (both halves may start with the owners of the whole), and a Merkle tree over token prefixes only
//! loses its root. Rejected: `hash mod Q`, under which doubling Q deals the rows of each partition to two far-apart
//! ones, and rendezvous hashing per key, which has no unit to copy or compare, and a balance no better than chance.
//!
//! Everything here is deterministic: no clock, no randomness, no hash map. Equal members give equal tables.
//!
//! [partitions]: PartitionId

mod error;
mod id;
mod member;
mod place;
mod ring;
mod token;

pub use error::RingError;
pub use id::{NodeId, NodeIdError};
pub use member::{ADDRESS_MAX, Member, NAME_MAX};
pub use ring::{DEPTH, MEMBERS_MAX, PARTITION_BITS_MAX, Ring};
pub use token::{NodeIndex, PartitionId, RingVersion, Token};
