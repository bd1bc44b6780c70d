//! Where a node keeps what: the rows behind an engine.
//!
//! Beside the records that it owns a node keeps hints for owners that are away, a queue of keys whose tombstones can be settled, and a few
//! notes about itself and its peers. Each has a [`Place`], and a place is one row of the store: its [`Shelf`] is the kind of row, then come
//! a number and bytes by which rows of one shelf sort. The engine speaks of places only; which column of which store a shelf is, is the
//! shell's business.
//!
//! Rejected: a separate effect for each kind of row. Everything that is written waits for the same sync and fails in the same way.

use crate::key::Key;
use bytes::{BufMut, Bytes, BytesMut};
use quorate_ring::{NodeId, PartitionId, Token};

/// A kind of row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shelf {
    /// Records that this node owns, in the order of their tokens.
    Record,
    /// What is kept for owners that were away, by owner, then in the order of tokens.
    Hint,
    /// Keys that wait to be settled, in the order of their tokens.
    Settle,
    /// Notes, by name.
    Note,
}

/// One row that a node keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The record of a key that this node owns.
    Record(Key),
    /// What this node keeps for an owner of the key that was away.
    Hint(NodeId, Key),
    /// The key waits to be settled.
    Settle(Key),
    /// What this node remembers of a peer.
    Peer(NodeId),
    /// This peer has missed writes of the partition that no hint tells of.
    Dirty(NodeId, PartitionId),
    /// The node's own state across starts.
    Own,
}

/// A row's name, as the store sorts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowName {
    /// What kind of row.
    pub shelf: Shelf,
    /// Sorts first.
    pub token: u64,
    /// Sorts behind it.
    pub key: Bytes,
}

impl Place {
    /// The key that it is about, if it is about one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Place::Record(key) | Place::Hint(_, key) | Place::Settle(key) => Some(key),
            Place::Peer(_) | Place::Dirty(..) | Place::Own => None,
        }
    }

    /// The row's name.
    pub fn row(&self) -> RowName {
        let note = |name: String| RowName {
            shelf: Shelf::Note,
            token: 0,
            key: name.into(),
        };
        match self {
            Place::Record(key) => RowName {
                shelf: Shelf::Record,
                token: key.token().0,
                key: key.encoded().clone(),
            },
            Place::Settle(key) => RowName {
                shelf: Shelf::Settle,
                token: key.token().0,
                key: key.encoded().clone(),
            },
            Place::Hint(target, key) => hint_row(*target, key.token(), key.encoded()),
            Place::Peer(node) => note(format!("peer {node}")),
            Place::Dirty(node, partition) => note(format!("dirty {node} {}", partition.0)),
            Place::Own => note("own".into()),
        }
    }

    /// The name before those of all hints for an owner whose keys have this token or a later one.
    pub fn hints_from(target: NodeId, from: Token) -> RowName {
        hint_row(target, from, &[])
    }

    /// The key in a row of one of the shelves that are scanned; `None` if the bytes are not the name of such a row.
    pub fn key_in(shelf: Shelf, row_key: &Bytes) -> Option<Key> {
        match shelf {
            Shelf::Record | Shelf::Settle => Key::decode(row_key.clone()).ok(),
            Shelf::Hint => Key::decode(row_key.slice_ref(row_key.get(16..)?)).ok(),
            Shelf::Note => None,
        }
    }

    /// The hint in a row of that shelf; `None` if the bytes are not the name of such a row.
    pub fn hint_in(token: u64, row_key: &Bytes) -> Option<Place> {
        let mut target = [0; 16];
        target[..8].copy_from_slice(&token.to_be_bytes());
        target[8..].copy_from_slice(row_key.get(..8)?);
        Some(Place::Hint(NodeId(target), Place::key_in(Shelf::Hint, row_key)?))
    }

    /// The note about a peer or partition that has this name; `None` for other names.
    pub fn note_in(row_key: &[u8]) -> Option<Place> {
        let mut words = std::str::from_utf8(row_key).ok()?.split(' ');
        let place = match (words.next()?, words.next(), words.next()) {
            ("own", None, None) => Place::Own,
            ("peer", Some(node), None) => Place::Peer(node.parse().ok()?),
            ("dirty", Some(node), Some(partition)) => {
                Place::Dirty(node.parse().ok()?, PartitionId(partition.parse().ok()?))
            }
            _ => return None,
        };
        words.next().is_none().then_some(place)
    }
}

/// Target first, then the key's token, then the key: each target's hints lie together, in the order of tokens.
fn hint_row(target: NodeId, key_token: Token, key: &[u8]) -> RowName {
    let (token, rest) = target.0.split_first_chunk::<8>().expect("an id has sixteen bytes");
    let mut name = BytesMut::with_capacity(16 + key.len());
    name.put_slice(rest);
    name.put_u64(key_token.0);
    name.put_slice(key);
    RowName {
        shelf: Shelf::Hint,
        token: u64::from_be_bytes(*token),
        key: name.freeze(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(b"bucket", name.as_bytes(), Some(b"sort")).unwrap()
    }

    #[test]
    fn keys_and_notes_are_found_again_in_the_names_of_their_rows() {
        let node = NodeId([7; 16]);
        for place in [
            Place::Record(key("a")),
            Place::Hint(node, key("a")),
            Place::Settle(key("a")),
        ] {
            let row = place.row();
            assert_eq!(Place::key_in(row.shelf, &row.key), Some(key("a")));
        }
        let hint = Place::Hint(NodeId([7; 16]), key("a"));
        assert_eq!(Place::hint_in(hint.row().token, &hint.row().key), Some(hint));
        for place in [Place::Own, Place::Peer(node), Place::Dirty(node, PartitionId(65_535))] {
            assert_eq!(Place::note_in(&place.row().key), Some(place));
        }
        assert_eq!(Place::note_in(b"cluster"), None);
        assert_eq!(Place::key_in(Shelf::Hint, &Bytes::from_static(b"short")), None);
    }

    #[test]
    fn hints_of_one_target_lie_together_in_the_order_of_tokens() {
        let mut rows = Vec::new();
        for target in [1, 2] {
            for name in ["a", "b", "c", "d"] {
                let key = key(name);
                let row = Place::Hint(NodeId([target; 16]), key.clone()).row();
                rows.push((row.token, row.key, target, key.token()));
            }
        }
        rows.sort();
        assert!(rows.is_sorted_by_key(|&(_, _, target, token)| (target, token)));
    }
}
