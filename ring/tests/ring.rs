//! The ring's arithmetic, what it refuses, and how it travels.

#![allow(clippy::unwrap_used)]

mod common;

use common::{equal_members, lists, member, ring};
use proptest::prelude::*;
use quorate_ring::{
    ADDRESS_MAX, MEMBERS_MAX, Member, NAME_MAX, NodeId, NodeIndex, PartitionId, Ring, RingError, RingVersion, Token,
};

fn refused(bits: u8, members: Vec<Member>) -> RingError {
    Ring::new(RingVersion(1), bits, members).unwrap_err()
}

#[test]
fn a_partition_is_the_top_bits_of_the_token() {
    let table = [
        (0, 0, 0),
        (0, u64::MAX, 0),
        (1, u64::MAX >> 1, 0),
        (1, 1 << 63, 1),
        (8, 0xab_00_00_00_00_00_00_00, 0xab),
        (8, 0xab_ff_ff_ff_ff_ff_ff_ff, 0xab),
        (16, u64::MAX, 0xffff),
    ];
    for (bits, token, partition) in table {
        assert_eq!(
            ring(bits, equal_members(1, 1)).partition_of(Token(token)),
            PartitionId(partition),
            "{bits} {token:x}"
        );
    }
}

#[test]
fn token_ranges_cover_all_tokens_in_order() {
    for bits in [0, 1, 5, 16] {
        let ring = ring(bits, equal_members(2, 1));
        let mut next = Some(0);
        for p in ring.partition_ids() {
            let range = ring.token_range(p);
            assert_eq!(Some(*range.start()), next);
            assert_eq!(ring.partition_of(Token(*range.start())), p);
            assert_eq!(ring.partition_of(Token(*range.end())), p);
            next = range.end().checked_add(1);
        }
        assert_eq!(next, None);
    }
}

#[test]
fn doubling_the_partitions_splits_each_in_two() {
    let (before, after) = (ring(4, equal_members(3, 1)), ring(5, equal_members(3, 1)));
    for p in before.partition_ids() {
        let halves = [PartitionId(2 * p.0), PartitionId(2 * p.0 + 1)].map(|half| after.token_range(half));
        assert_eq!(before.token_range(p), *halves[0].start()..=*halves[1].end());
    }
}

#[test]
fn a_partition_that_the_ring_does_not_have_has_no_tokens_and_no_owners() {
    let ring = ring(3, equal_members(3, 1));
    for p in [8, u32::MAX].map(PartitionId) {
        assert!(ring.token_range(p).is_empty());
        assert_eq!(ring.preference_list(p), []);
        assert_eq!(ring.owners(p, 3), []);
        assert!(!ring.owns(NodeIndex(0), p, 3));
    }
}

#[test]
fn members_are_sorted_by_id_and_found_by_it() {
    let ring = ring(3, [5, 1, 3].map(|number| member(number, 0, 1)).to_vec());
    assert!(ring.members().is_sorted_by_key(|member| member.id));
    for (at, member) in (0..).zip(ring.members()) {
        assert_eq!(ring.index_of(member.id), Some(NodeIndex(at)));
        assert_eq!(ring.member(NodeIndex(at)), member);
    }
    assert_eq!(ring.index_of(NodeId([9; 16])), None);
}

#[test]
fn the_digest_changes_with_every_part_of_the_ring() {
    let members = equal_members(3, 1);
    let digest = |version, bits, members: &[Member]| {
        Ring::new(RingVersion(version), bits, members.to_vec())
            .unwrap()
            .digest()
    };
    let mut digests = vec![digest(1, 4, &members), digest(2, 4, &members), digest(1, 5, &members)];
    let changes: [fn(&mut Member); 6] = [
        |member| member.id = NodeId([1; 16]),
        |member| member.name.push('x'),
        |member| member.zone.push('x'),
        |member| member.weight += 1,
        |member| member.quic.push('x'),
        |member| member.http.push('x'),
    ];
    for change in changes {
        let mut changed = members.clone();
        change(&mut changed[1]);
        digests.push(digest(1, 4, &changed));
    }
    digests.push(digest(1, 4, &members[..2]));
    assert_eq!(common::distinct(digests.iter()), digests.len());
    assert_eq!(digests[0], digest(1, 4, &members));
}

#[test]
fn lists_that_are_no_ring_are_refused() {
    let two = |change: fn(&mut Member)| {
        let mut members = equal_members(2, 1);
        change(&mut members[1]);
        members
    };
    let id = member(1, 0, 1).id;
    assert_eq!(refused(4, Vec::new()), RingError::NoMembers);
    let got = MEMBERS_MAX + 1;
    assert_eq!(refused(0, equal_members(got, 1)), RingError::TooManyMembers { got });
    assert_eq!(refused(17, equal_members(1, 1)), RingError::PartitionBits { got: 17 });
    let same_id = two(|member| member.id = NodeId([0; 16]));
    assert_eq!(refused(4, same_id), RingError::DuplicateId { id: NodeId([0; 16]) });
    let same_name = two(|member| member.name = "node-0".to_owned());
    assert_eq!(
        refused(4, same_name),
        RingError::DuplicateName {
            name: "node-0".to_owned()
        }
    );
    assert_eq!(
        refused(4, two(|member| member.name.clear())),
        RingError::Empty { id, field: "name" }
    );
    assert_eq!(
        refused(4, two(|member| member.zone.clear())),
        RingError::Empty { id, field: "zone" }
    );
    let (bytes, max) = (NAME_MAX + 1, NAME_MAX);
    let long = two(|member| member.name = "n".repeat(NAME_MAX + 1));
    assert_eq!(
        refused(4, long),
        RingError::TooLong {
            id,
            field: "name",
            bytes,
            max
        }
    );
    let long = two(|member| member.zone = "z".repeat(NAME_MAX + 1));
    assert_eq!(
        refused(4, long),
        RingError::TooLong {
            id,
            field: "zone",
            bytes,
            max
        }
    );
    let (bytes, max) = (ADDRESS_MAX + 1, ADDRESS_MAX);
    let long = two(|member| member.quic = "q".repeat(ADDRESS_MAX + 1));
    assert_eq!(
        refused(4, long),
        RingError::TooLong {
            id,
            field: "quic",
            bytes,
            max
        }
    );
    let long = two(|member| member.http = "h".repeat(ADDRESS_MAX + 1));
    assert_eq!(
        refused(4, long),
        RingError::TooLong {
            id,
            field: "http",
            bytes,
            max
        }
    );
}

#[test]
fn the_longest_names_and_addresses_are_accepted() {
    let mut longest = member(1, 0, 1);
    longest.name = "n".repeat(NAME_MAX);
    longest.zone = "z".repeat(NAME_MAX);
    longest.quic = "q".repeat(ADDRESS_MAX);
    longest.http = "h".repeat(ADDRESS_MAX);
    assert_eq!(ring(0, vec![longest.clone()]).members(), [longest]);
}

#[test]
fn a_ring_is_the_same_after_the_wire() {
    for (nodes, zones, bits) in [(1, 1, 0), (3, 3, 6), (7, 2, 8), (20, 5, 5)] {
        let sent = ring(bits, equal_members(nodes, zones));
        let bytes = postcard::to_stdvec(&sent).unwrap();
        let json = serde_json::to_string(&sent).unwrap();
        for received in [
            postcard::from_bytes::<Ring>(&bytes).unwrap(),
            serde_json::from_str(&json).unwrap(),
        ] {
            assert_eq!(received, sent);
            assert_eq!(received.digest(), sent.digest());
            assert_eq!(lists(&received), lists(&sent));
        }
    }
}

#[test]
fn an_invalid_ring_from_the_wire_is_an_error() {
    let bytes = |bits: u8, members: Vec<Member>| postcard::to_stdvec(&(RingVersion(1), bits, members)).unwrap();
    assert!(postcard::from_bytes::<Ring>(&bytes(3, equal_members(2, 1))).is_ok());
    for invalid in [
        bytes(17, equal_members(2, 1)),
        bytes(3, Vec::new()),
        bytes(3, [equal_members(2, 1), equal_members(2, 1)].concat()),
    ] {
        assert!(postcard::from_bytes::<Ring>(&invalid).is_err());
    }
}

proptest! {
    #[test]
    fn garbage_from_the_wire_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = postcard::from_bytes::<Ring>(&bytes);
        let _ = postcard::from_bytes::<Member>(&bytes);
        let _ = postcard::from_bytes::<NodeId>(&bytes);
    }

    #[test]
    fn a_damaged_ring_from_the_wire_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = postcard::to_stdvec(&ring(3, equal_members(3, 2))).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = postcard::from_bytes::<Ring>(&bytes);
        let _ = postcard::from_bytes::<Ring>(&bytes[..at]);
    }
}
