//! The small numbers of the ring: tokens, partitions, versions and positions in the list of members.
//!
//! Each is its own type, so a partition cannot be passed for a node. [`Token::of`] is part of the on-disk format,
//! since rows are stored under their token: it may never change, and its test pins values.
//!
//! The bucket's length goes in front of the bucket, so that bucket "a" with key "bc" and bucket "ab" with key "c" are
//! different inputs. The sort key is left out on purpose: all items of a partition key share one token, lie side by
//! side on disk and are listed in order. Rejected: a cryptographic hash. A client that picks keys to crowd one
//! partition could also hammer one key, and XXH3 costs some nanoseconds.

use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// A place in the hash space: which of the 2^64 points a bucket and partition key fall on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

/// One of the Q equal slices of the hash space, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u32);

/// Which ring: grows by one with every committed change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RingVersion(pub u64);

/// Position of a member in [`Ring::members`](crate::Ring::members). Means nothing beside another ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeIndex(pub u16);

/// Inputs up to this many bytes are hashed from the stack. Keys are rarely longer.
const ON_STACK: usize = 512;

impl Token {
    /// The token of a bucket and partition key: XXH3-64, seed 0, of the bucket's length as two big-endian bytes, the
    /// bucket, and the partition key.
    ///
    /// Buckets longer than 65,535 bytes, which no node accepts, are given the length 65,535 rather than a panic.
    pub fn of(bucket: &[u8], partition_key: &[u8]) -> Token {
        let bucket_bytes = u16::try_from(bucket.len()).unwrap_or(u16::MAX).to_be_bytes();
        let parts = [bucket_bytes.as_slice(), bucket, partition_key];
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if total > ON_STACK {
            return Token(XxHash3_64::oneshot(&parts.concat()));
        }
        let mut buffer = [0; ON_STACK];
        let mut end = 0;
        for part in parts {
            buffer[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        Token(XxHash3_64::oneshot(&buffer[..end]))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

macro_rules! display_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

display_as_number!(PartitionId, RingVersion, NodeIndex);

impl NodeIndex {
    /// The position as a `usize`, to index a slice that runs parallel to the members.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_xxh3() {
        // The value of the empty input, from the specification's own test vectors.
        assert_eq!(XxHash3_64::oneshot(b""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn tokens_on_disk_stay_what_they_are() {
        let long = [b'k'; 1000];
        let table: [(&[u8], &[u8], u64); 5] = [
            (b"", b"", 0x3325_230e_1f28_5505),
            (b"b", b"k", 0xfc58_bcda_785a_feab),
            (b"carts", b"customer-17", 0xde10_0db5_9b82_3662),
            (b"b", &long[..ON_STACK - 3], 0xe51a_6bd6_4f37_d0c0),
            (b"b", &long, 0xaa35_0491_c59c_1831),
        ];
        for (bucket, key, token) in table {
            assert_eq!(Token::of(bucket, key).to_string(), Token(token).to_string());
        }
    }

    #[test]
    fn long_inputs_hash_like_short_ones() {
        for length in ON_STACK - 5..ON_STACK + 3 {
            let key = vec![7; length];
            let input = [&[0, 1, b'b'], key.as_slice()].concat();
            assert_eq!(Token::of(b"b", &key), Token(XxHash3_64::oneshot(&input)));
        }
        assert_ne!(Token::of(&[1; 70_000], b""), Token::of(&[1; 70_001], b""));
    }

    #[test]
    fn bytes_do_not_move_between_bucket_and_key() {
        assert_ne!(Token::of(b"a", b"bc"), Token::of(b"ab", b"c"));
    }

    #[test]
    fn a_token_is_shown_as_sixteen_digits() {
        assert_eq!(Token(0xab).to_string(), "00000000000000ab");
        assert_eq!(PartitionId(12).to_string(), "12");
    }
}
