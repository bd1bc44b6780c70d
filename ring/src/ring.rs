//! The ring: one version of who is a member, and the table of preference lists that follows from it.
//!
//! The table is a function of the partition bits and the members (see [`crate::place`] for how), so only those travel:
//! a ring read from the wire or from disk is checked and its table computed again. [`Ring::digest`] covers the table
//! too, so two nodes that compare digests also notice that their builds would deal the partitions differently.
//!
//! Only the first [`DEPTH`] places of each preference list are kept. With 1,024 members and 65,536 partitions the
//! whole lists would be 134 MB, the first sixteen are 2 MB, and a request for which fifteen nodes in a row are down
//! has other problems. Rejected: computing each list when asked, which cannot be balanced, as balance is a property of
//! all of them.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use twox_hash::XxHash3_64;

use crate::{Member, NodeId, NodeIndex, PartitionId, RingError, RingVersion, Token, member, place};

/// Most members that a ring may have.
pub const MEMBERS_MAX: usize = 1024;

/// Most partition bits that a ring may have: 65,536 partitions.
pub const PARTITION_BITS_MAX: u8 = 16;

/// Longest preference list that is kept, and so the largest useful N.
pub const DEPTH: usize = 16;

/// One version of the ring. Immutable; a clone shares the table.
///
/// Invariant: `members` is sorted by id and in order, `table` holds `min(members, DEPTH)` entries for each partition.
#[derive(Clone)]
pub struct Ring {
    version: RingVersion,
    partition_bits: u8,
    members: Arc<[Member]>,
    table: Arc<[NodeIndex]>,
    digest: u64,
}

impl Ring {
    /// Deals 2^`partition_bits` partitions to `members`, given in any order.
    ///
    /// Takes under a millisecond for six nodes and 8 bits, and up to about two seconds with 16 bits.
    pub fn new(version: RingVersion, partition_bits: u8, members: Vec<Member>) -> Result<Ring, RingError> {
        if partition_bits > PARTITION_BITS_MAX {
            return Err(RingError::PartitionBits { got: partition_bits });
        }
        let members = member::checked(members)?;
        let table = place::table(1 << partition_bits, &members, DEPTH);
        let digest = digest(version, partition_bits, &members, &table);
        Ok(Ring {
            version,
            partition_bits,
            members: members.into(),
            table: table.into(),
            digest,
        })
    }

    /// Which ring this is.
    pub fn version(&self) -> RingVersion {
        self.version
    }

    /// A hash over all of the ring: version, partition bits, members with all their fields, and the table. Equal
    /// digests mean equal rings, on every platform.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// q: how many leading bits of a token name its partition.
    pub fn partition_bits(&self) -> u8 {
        self.partition_bits
    }

    /// Q: how many partitions there are.
    pub fn partitions(&self) -> u32 {
        1 << self.partition_bits
    }

    /// All partitions in order.
    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.partitions()).map(PartitionId)
    }

    /// The partition that a token falls in: the token's top q bits.
    pub fn partition_of(&self, token: Token) -> PartitionId {
        // With no bits at all the shift would be by 64, which is not defined.
        let top = token.0.checked_shr(64 - u32::from(self.partition_bits)).unwrap_or(0);
        PartitionId(u32::try_from(top).expect("at most sixteen bits are left"))
    }

    /// The tokens that fall in `p`, or an empty range if the ring has no such partition.
    pub fn token_range(&self, p: PartitionId) -> RangeInclusive<u64> {
        if p.0 >= self.partitions() {
            return RangeInclusive::new(1, 0);
        }
        let rest = 64 - u32::from(self.partition_bits);
        let first = u64::from(p.0).checked_shl(rest).unwrap_or(0);
        first..=first | u64::MAX.checked_shr(64 - rest).unwrap_or(0)
    }

    /// The members, sorted by id. A [`NodeIndex`] is a position in here.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member at a position that this ring gave out.
    ///
    /// # Panics
    ///
    /// If the position is not one of this ring's. For one from outside use `members().get(i.get())`.
    pub fn member(&self, i: NodeIndex) -> &Member {
        &self.members[i.get()]
    }

    /// Where a node is among the members, or `None` if it is no member.
    pub fn index_of(&self, id: NodeId) -> Option<NodeIndex> {
        let at = self.members.binary_search_by_key(&id, |member| member.id).ok()?;
        Some(index(at))
    }

    /// How many entries a preference list has: all members, but no more than [`DEPTH`].
    pub fn depth(&self) -> usize {
        self.members.len().min(DEPTH)
    }

    /// The nodes to try for `p`, best first: its owners, then its fallbacks. All distinct; every member if the ring
    /// has at most [`DEPTH`], else the first `DEPTH`. Empty if the ring has no such partition.
    pub fn preference_list(&self, p: PartitionId) -> &[NodeIndex] {
        let depth = self.depth();
        let first = usize::try_from(p.0).map_or(usize::MAX, |p| p.saturating_mul(depth));
        self.table.get(first..first.saturating_add(depth)).unwrap_or(&[])
    }

    /// The primaries of `p` in a bucket with `n` replicas: the first `n` of the preference list, or all of it where
    /// the ring has fewer members than `n`.
    pub fn owners(&self, p: PartitionId, n: u8) -> &[NodeIndex] {
        let list = self.preference_list(p);
        &list[..usize::from(n).min(list.len())]
    }

    /// Whether `node` is among the owners of `p` in a bucket with `n` replicas.
    pub fn owns(&self, node: NodeIndex, p: PartitionId, n: u8) -> bool {
        self.owners(p, n).contains(&node)
    }

    /// How many vnodes each member should hold with `n` replicas, in the order of the members: in proportion to its
    /// weight, as far as distinct nodes and zones allow. [`Ring::ownership`] is this in whole vnodes.
    pub fn fair_shares(&self, n: u8) -> Vec<f64> {
        place::shares(self.partitions(), &self.members, usize::from(n).min(DEPTH))
    }

    /// How many vnodes each member holds with `n` replicas, in the order of the members.
    pub fn ownership(&self, n: u8) -> Vec<u32> {
        let mut vnodes = vec![0; self.members.len()];
        for owner in self.partition_ids().flat_map(|p| self.owners(p, n)) {
            vnodes[owner.get()] += 1;
        }
        vnodes
    }
}

/// A position among at most [`MEMBERS_MAX`] members.
pub(crate) fn index(at: usize) -> NodeIndex {
    NodeIndex(u16::try_from(at).expect("a ring has at most 1,024 members"))
}

/// Every text is preceded by its length and every list by its count, so different rings are different inputs.
fn digest(version: RingVersion, partition_bits: u8, members: &[Member], table: &[NodeIndex]) -> u64 {
    let number = |at: usize| (at as u64).to_be_bytes();
    let mut bytes = b"quorate ring 1".to_vec();
    bytes.extend(version.0.to_be_bytes());
    bytes.push(partition_bits);
    bytes.extend(number(members.len()));
    for member in members {
        bytes.extend(member.id.0);
        bytes.extend(member.weight.to_be_bytes());
        for text in [&member.name, &member.zone, &member.quic, &member.http] {
            bytes.extend(number(text.len()));
            bytes.extend(text.as_bytes());
        }
    }
    bytes.extend(table.iter().flat_map(|node| node.0.to_be_bytes()));
    XxHash3_64::oneshot(&bytes)
}

/// The table follows from the other fields, and so does the digest.
impl PartialEq for Ring {
    fn eq(&self, other: &Ring) -> bool {
        self.version == other.version && self.partition_bits == other.partition_bits && self.members == other.members
    }
}

impl Eq for Ring {}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("version", &self.version)
            .field("partition_bits", &self.partition_bits)
            .field("members", &self.members)
            .field("digest", &format_args!("{:016x}", self.digest))
            .finish()
    }
}

/// What of a ring travels.
#[derive(Serialize)]
#[serde(rename = "Ring")]
struct RingRef<'a> {
    version: RingVersion,
    partition_bits: u8,
    members: &'a [Member],
}

/// The same, read back.
#[derive(Deserialize)]
#[serde(rename = "Ring")]
struct RingParts {
    version: RingVersion,
    partition_bits: u8,
    members: Vec<Member>,
}

impl Serialize for Ring {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Ring {
            version,
            partition_bits,
            ref members,
            ..
        } = *self;
        RingRef {
            version,
            partition_bits,
            members,
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for Ring {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Ring, D::Error> {
        let parts = RingParts::deserialize(from)?;
        Ring::new(parts.version, parts.partition_bits, parts.members).map_err(de::Error::custom)
    }
}
