//! One node as the ring sees it, and what makes a list of them acceptable.
//!
//! Lists come from operators and over the wire, so they are checked in one place, before any table is computed: known
//! sizes, unique ids and unique names. Addresses are only bounded here, not parsed: the ring never dials. Rejected: a
//! checked `MemberList` type; a [`Ring`](crate::Ring) already is the proof that its members are in order.

use serde::{Deserialize, Serialize};

use crate::{NodeId, RingError, ring};

/// Longest name or zone of a member, in bytes.
pub const NAME_MAX: usize = 255;

/// Longest address of a member, in bytes: the longest DNS name, a colon and a port.
pub const ADDRESS_MAX: usize = 261;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Who it is, for life.
    pub id: NodeId,
    /// What people call it. Unique in the ring, 1 to 255 bytes.
    pub name: String,
    /// What it shares its fate with: a rack, a data centre. Copies go to different zones first. 1 to 255 bytes.
    pub zone: String,
    /// Its share of the load beside the other members. A node of weight 0 holds nothing while others can, and comes
    /// last in every preference list.
    pub weight: u32,
    /// `host:port` of its QUIC endpoint. At most 261 bytes.
    pub quic: String,
    /// `host:port` of its HTTP listener, or empty. At most 261 bytes.
    pub http: String,
}

/// Sorts the members by id and checks each of them and the list.
pub(crate) fn checked(mut members: Vec<Member>) -> Result<Vec<Member>, RingError> {
    if members.is_empty() {
        return Err(RingError::NoMembers);
    }
    if members.len() > ring::MEMBERS_MAX {
        return Err(RingError::TooManyMembers { got: members.len() });
    }
    members.iter().try_for_each(check_fields)?;
    members.sort_by_key(|member| member.id);
    if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(RingError::DuplicateId { id: pair[0].id });
    }
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(RingError::DuplicateName {
            name: pair[0].to_owned(),
        });
    }
    Ok(members)
}

fn check_fields(member: &Member) -> Result<(), RingError> {
    let fields = [
        ("name", &member.name, 1, NAME_MAX),
        ("zone", &member.zone, 1, NAME_MAX),
        ("quic", &member.quic, 0, ADDRESS_MAX),
        ("http", &member.http, 0, ADDRESS_MAX),
    ];
    for (field, text, min, max) in fields {
        if text.len() < min {
            return Err(RingError::Empty { id: member.id, field });
        }
        if text.len() > max {
            return Err(RingError::TooLong {
                id: member.id,
                field,
                bytes: text.len(),
                max,
            });
        }
    }
    Ok(())
}
