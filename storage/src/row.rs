//! How rows are named: `column (1 byte) ++ token (u64, big-endian) ++ key bytes`.
//!
//! Rows sort by column, then token, then key. A partition of the ring is a range of tokens, so its records lie side by
//! side in one range of rows, and the number of partitions can change without rewriting a row. The key comes last and
//! needs no terminator: two rows with equal columns and tokens compare as their keys do.
//!
//! Rejected: the partition's number in front. It would freeze the number of partitions into the data.

use std::{fmt, ops::RangeInclusive};

/// Bytes in front of the key: the column and the token.
pub(crate) const HEADER_LEN: usize = 9;

/// What kind of row it is: the first byte of its name. Rows of different columns have nothing to do with one another; the
/// store gives tokens and keys no meaning in any of them. The numbers are stored, so they never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Column {
    /// Named rows about the node itself, under token 0.
    Meta = 0,
    /// Records.
    Record = 1,
    /// Hints: records on their way home. The token is the beginning of the target's id.
    Hint = 2,
    /// Leaves of the Merkle trees, under the first token that they cover.
    Leaf = 3,
    /// Corrupt records, moved out of the way byte by byte as they were found, so their checksums do not hold: read them
    /// with [`Storage::get_aside`](crate::Storage::get_aside).
    Aside = 4,
    /// Keys that wait to be settled.
    Settle = 5,
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Column::Meta => "metadata",
            Column::Record => "record",
            Column::Hint => "hint",
            Column::Leaf => "leaf",
            Column::Aside => "record set aside",
            Column::Settle => "settle entry",
        })
    }
}

/// Appends the row name to `out`.
pub(crate) fn encode_into(out: &mut Vec<u8>, column: Column, token: u64, key: &[u8]) {
    out.push(column as u8);
    out.extend_from_slice(&token.to_be_bytes());
    out.extend_from_slice(key);
}

/// The row name in a buffer of its own.
pub(crate) fn encode(column: Column, token: u64, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(HEADER_LEN + key.len());
    encode_into(&mut row, column, token, key);
    row
}

/// Token and key of a row name; `None` if it is too short to be one.
pub(crate) fn decode(row: &[u8]) -> Option<(u64, &[u8])> {
    let (token, key) = row.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*token), key))
}

/// The half-open range `[lower, upper)` of row names that a page may still hold: the tokens asked for, behind `after`.
/// `None` if that is nothing.
pub(crate) fn range(
    column: Column,
    tokens: &RangeInclusive<u64>,
    after: Option<(u64, &[u8])>,
) -> Option<(Vec<u8>, Vec<u8>)> {
    if tokens.is_empty() {
        return None;
    }
    let mut lower = encode(column, *tokens.start(), b"");
    if let Some((token, key)) = after {
        let mut behind = encode(column, token, key);
        behind.push(0); // the first name that sorts behind it
        lower = lower.max(behind);
    }
    let upper = match tokens.end().checked_add(1) {
        Some(end) => encode(column, end, b""),
        None => vec![column as u8 + 1],
    };
    (lower < upper).then_some((lower, upper))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_row_name_decodes_to_what_it_was_made_of() {
        for (token, key) in [(0, &b""[..]), (1, b"k"), (u64::MAX, b"\xff\xff"), (1 << 40, b"\0")] {
            assert_eq!(decode(&encode(Column::Record, token, key)).unwrap(), (token, key));
        }
        assert_eq!(decode(b"\x01short"), None);
    }

    #[test]
    fn rows_sort_by_token_then_key() {
        let rows = [
            (0, &b"\xff"[..]),
            (1, b""),
            (1, b"\0"),
            (1, b"a"),
            (1, b"a\0"),
            (1, b"b"),
            (256, b""),
            (u64::MAX, b""),
        ]
        .map(|(token, key)| encode(Column::Record, token, key));
        assert!(rows.is_sorted());
        assert!(encode(Column::Meta, u64::MAX, b"\xff") < rows[0]);
        assert!(rows[7] < encode(Column::Aside, 0, b""));
    }

    #[test]
    fn the_numbers_of_columns_are_those_on_disk() {
        use Column::{Aside, Hint, Leaf, Meta, Record, Settle};
        assert_eq!(
            [Meta, Record, Hint, Leaf, Aside, Settle].map(|c| c as u8),
            [0, 1, 2, 3, 4, 5]
        );
    }

    #[test]
    fn the_range_of_all_tokens_ends_where_the_next_column_begins() {
        let (lower, upper) = range(Column::Record, &(0..=u64::MAX), None).unwrap();
        assert!(lower <= encode(Column::Record, 0, b""));
        assert!(encode(Column::Record, u64::MAX, &[0xff; 64]) < upper);
        assert!(upper <= encode(Column::Hint, 0, b""));
    }

    #[test]
    fn nothing_is_left_behind_the_last_token() {
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 5..=4;
        assert_eq!(range(Column::Record, &reversed, None), None);
        assert_eq!(range(Column::Record, &(1..=4), Some((5, b""))), None);
        let (lower, _) = range(Column::Record, &(3..=4), Some((1, b"x"))).unwrap();
        assert_eq!(lower, encode(Column::Record, 3, b""));
    }
}
