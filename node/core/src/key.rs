//! The name of a record: bucket, partition key and, optionally, sort key.
//!
//! Bucket and partition key are hashed to the token, so all items of one partition key live together on the same owners. The
//! sort key orders them there. The encoding keeps that order: a length before bucket and partition key, then the sort key
//! as it is, so items of one partition key stand next to each other, sorted by the bytes of their sort keys, the
//! item without one first.
//!
//! A key is one shared buffer plus three offsets: cloning it copies no bytes, and it goes to the wire and to storage as it
//! is. Rejected: three separate `Bytes`, which cost three reference counts on each hop of the data path.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_ring::Token;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Longest bucket name, in bytes.
pub const BUCKET_BYTES_MAX: usize = 255;
/// Longest bucket, partition key and sort key taken together, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// Bucket, partition key and optional sort key of one record. Compares and hashes by its encoding.
#[derive(Clone)]
pub struct Key {
    /// `len(bucket) u8 ‖ bucket ‖ len(partition key) u16 be ‖ partition key [‖ 1 ‖ sort key]`
    encoded: Bytes,
    token: Token,
    bucket_end: u16,
    partition_end: u16,
}

/// Why a key was refused. Nothing happened; the caller has to send another key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bucket is empty or longer than [`BUCKET_BYTES_MAX`].
    #[error("a bucket name has 1 to {BUCKET_BYTES_MAX} bytes, this one has {got}")]
    Bucket {
        /// Its length in bytes.
        got: usize,
    },
    /// The partition key is empty.
    #[error("a key has at least one byte")]
    Empty,
    /// Bucket, partition key and sort key together exceed [`KEY_BYTES_MAX`].
    #[error("bucket, key and sort key have at most {KEY_BYTES_MAX} bytes together, these have {got}")]
    TooLong {
        /// Their length in bytes.
        got: usize,
    },
    /// The bytes are no encoded key (only from the wire or from disk).
    #[error("the bytes are not an encoded key")]
    Malformed,
}

impl Key {
    /// Builds a key from its parts.
    pub fn new(bucket: &[u8], partition_key: &[u8], sort_key: Option<&[u8]>) -> Result<Key, KeyError> {
        if bucket.is_empty() || bucket.len() > BUCKET_BYTES_MAX {
            return Err(KeyError::Bucket { got: bucket.len() });
        }
        if partition_key.is_empty() {
            return Err(KeyError::Empty);
        }
        let got = bucket.len() + partition_key.len() + sort_key.map_or(0, <[u8]>::len);
        if got > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { got });
        }
        let mut encoded = BytesMut::with_capacity(got + 4);
        encoded.put_u8(bucket.len() as u8);
        encoded.put_slice(bucket);
        encoded.put_u16(partition_key.len() as u16);
        encoded.put_slice(partition_key);
        if let Some(sort_key) = sort_key {
            encoded.put_u8(1);
            encoded.put_slice(sort_key);
        }
        let bucket_end = 1 + bucket.len();
        Ok(Key {
            encoded: encoded.freeze(),
            token: Token::of(bucket, partition_key),
            bucket_end: bucket_end as u16,
            partition_end: (bucket_end + 2 + partition_key.len()) as u16,
        })
    }

    /// Takes an encoded key from the wire or from disk, and checks it.
    pub fn decode(encoded: Bytes) -> Result<Key, KeyError> {
        let (bucket_end, partition_end) = offsets(&encoded).ok_or(KeyError::Malformed)?;
        let (bucket, partition_key) = (&encoded[1..bucket_end], &encoded[bucket_end + 2..partition_end]);
        if bucket.is_empty() || partition_key.is_empty() {
            return Err(KeyError::Malformed);
        }
        let framing = 3 + usize::from(encoded.len() > partition_end);
        if encoded.len() - framing > KEY_BYTES_MAX {
            return Err(KeyError::TooLong {
                got: encoded.len() - framing,
            });
        }
        let token = Token::of(bucket, partition_key);
        Ok(Key {
            token,
            bucket_end: bucket_end as u16,
            partition_end: partition_end as u16,
            encoded,
        })
    }

    /// The encoding: what storage and the wire carry.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Where the key stands on the ring.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &[u8] {
        &self.encoded[1..usize::from(self.bucket_end)]
    }

    /// The part that is hashed together with the bucket.
    pub fn partition_key(&self) -> &[u8] {
        &self.encoded[usize::from(self.bucket_end) + 2..usize::from(self.partition_end)]
    }

    /// The part that orders items of one partition key.
    pub fn sort_key(&self) -> Option<&[u8]> {
        self.encoded.get(usize::from(self.partition_end) + 1..)
    }
}

/// Ends of bucket and partition key in an encoding, or `None` if it is too short or its marker is wrong.
fn offsets(encoded: &[u8]) -> Option<(usize, usize)> {
    let bucket_end = 1 + usize::from(*encoded.first()?);
    let length = encoded.get(bucket_end..bucket_end + 2)?;
    let partition_end = bucket_end + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    match encoded.get(partition_end) {
        _ if encoded.len() < partition_end => None,
        None | Some(1) => Some((bucket_end, partition_end)),
        Some(_) => None,
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.encoded == other.encoded
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        (self.token, &self.encoded).cmp(&(other.token, &other.encoded))
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.token.0);
        state.write(&self.encoded);
    }
}

/// `bucket/key/sort`, with everything but printable ASCII escaped, so that a key is safe in a log line.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            self.bucket().escape_ascii(),
            self.partition_key().escape_ascii()
        )?;
        match self.sort_key() {
            Some(sort_key) => write!(f, "/{}", sort_key.escape_ascii()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.encoded.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        Key::decode(Bytes::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_encoded_key_decodes_to_the_same_parts(
            bucket in prop::collection::vec(any::<u8>(), 1..=255),
            partition_key in prop::collection::vec(any::<u8>(), 1..=400),
            sort_key in prop::option::of(prop::collection::vec(any::<u8>(), 0..=300)),
        ) {
            let key = Key::new(&bucket, &partition_key, sort_key.as_deref()).unwrap();
            let again = Key::decode(key.encoded().clone()).unwrap();
            prop_assert_eq!(again.bucket(), &bucket[..]);
            prop_assert_eq!(again.partition_key(), &partition_key[..]);
            prop_assert_eq!(again.sort_key(), sort_key.as_deref());
            prop_assert_eq!(again.token(), key.token());
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Key::decode(Bytes::from(bytes));
        }

        #[test]
        fn items_of_one_partition_key_are_ordered_by_sort_key(
            a in prop::option::of(prop::collection::vec(any::<u8>(), 0..8)),
            b in prop::option::of(prop::collection::vec(any::<u8>(), 0..8)),
        ) {
            let (ka, kb) = (Key::new(b"b", b"k", a.as_deref()).unwrap(), Key::new(b"b", b"k", b.as_deref()).unwrap());
            prop_assert_eq!(ka.cmp(&kb), a.cmp(&b));
        }
    }

    #[test]
    fn keys_over_the_limits_are_refused() {
        assert_eq!(Key::new(b"", b"k", None), Err(KeyError::Bucket { got: 0 }));
        assert_eq!(Key::new(b"b", b"", None), Err(KeyError::Empty));
        assert_eq!(Key::new(b"b", &[0; 1024], None), Err(KeyError::TooLong { got: 1025 }));
        assert!(Key::new(b"b", &[0; 1023], None).is_ok());
        assert!(Key::decode(Key::new(b"b", &[0; 1023], None).unwrap().encoded().clone()).is_ok());
    }
}
