//! What a stored value looks like: `format (1 byte) ++ CRC-32 (u32, little-endian) ++ payload`.
//!
//! The CRC runs over the format byte, the row's name and the payload. Over the name too, because a value that turns up
//! under another row's name (a misdirected write, a bad block map) is intact in itself and would pass otherwise.
//!
//! RocksDB has checksums of its own, over blocks of a file. They say nothing about memory, about the moment between two
//! of its files, or about a record on its way to another node; this one travels with the row from end to end.

/// Bytes in front of the payload.
pub(crate) const HEADER_LEN: usize = 5;
const FORMAT: u8 = 1;

/// What is stored in front of `payload` under the name `row`.
pub(crate) fn header(row: &[u8], payload: &[u8]) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = crc(row, payload).to_le_bytes();
    [FORMAT, a, b, c, d]
}

/// The payload of a stored value, or what is wrong with it.
pub(crate) fn open<'a>(row: &[u8], stored: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let Some((header, payload)) = stored.split_first_chunk::<HEADER_LEN>() else {
        return Err("too short to hold a checksum");
    };
    let [format, sum @ ..] = *header;
    if format != FORMAT {
        return Err("unknown format byte");
    }
    if u32::from_le_bytes(sum) != crc(row, payload) {
        return Err("checksum mismatch");
    }
    Ok(payload)
}

fn crc(row: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[FORMAT]);
    hasher.update(row);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sealed(row: &[u8], payload: &[u8]) -> Vec<u8> {
        [&header(row, payload), payload].concat()
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let stored = sealed(b"row", b"payload");
        assert_eq!(open(b"row", &stored).unwrap(), b"payload");
        for bit in 0..stored.len() * 8 {
            let mut bad = stored.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            open(b"row", &bad).unwrap_err();
        }
    }

    #[test]
    fn a_cut_off_value_is_noticed() {
        let stored = sealed(b"row", b"payload");
        for len in 0..stored.len() {
            open(b"row", &stored[..len]).unwrap_err();
        }
    }

    #[test]
    fn a_value_under_another_name_is_noticed() {
        assert_eq!(open(b"row2", &sealed(b"row1", b"payload")), Err("checksum mismatch"));
    }
}
