//! Reads RocksDB's logs before RocksDB does, and refuses what it would misread.
//!
//! A log (the write-ahead log, and the manifest that lists all files) is a row of 32 KiB blocks full of records:
//! `CRC-32C (4 bytes) ++ length (2) ++ type (1) ++ payload`. The CRC covers type and payload. It does not cover the
//! length, and RocksDB looks at length and type first. So one flipped bit can do three things that its recovery does not
//! report, not even in the strict mode that we use:
//!
//! - a *length* that now runs past the end of the file looks like a write that a crash cut off. That record and all
//!   behind it, up to 32 KiB of durable writes, are dropped silently;
//! - a *type* that turns into that of a "recycled" log makes it see the log's end, or read the same spot for ever;
//! - the same in the manifest drops whole data files.
//!
//! A torn tail is bytes that are missing, never bytes that are different. So: every whole record must check out, and a
//! record that is cut off must not check out under a length that differs in one bit. What is left is either sound or
//! really torn. It costs one more reading of at most a few hundred MiB, at the speed of CRC-32C.
//!
//! Rejected: noting the log's durable length in a file of our own. It would need a second fsync per group of writes.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use super::OpenError;

const BLOCK_LEN: usize = 32 << 10;
const HEADER_LEN: usize = 7;

/// Where a log does not read as it was written.
#[derive(Debug, PartialEq, Eq)]
struct Flaw {
    offset: u64,
    what: &'static str,
}

/// Checks the current manifest and all write-ahead logs of a database.
pub(super) fn check_database(data_dir: &Path, db: &Path) -> Result<(), OpenError> {
    let current = fs::read(db.join("CURRENT")).map_err(OpenError::io("read", db.join("CURRENT")))?;
    let manifest = String::from_utf8_lossy(&current).trim_end().to_owned();
    let path = data_dir.to_owned();
    match check_file(&db.join(&manifest)) {
        Ok(None) => {}
        Ok(Some(flaw)) => {
            return Err(OpenError::Damaged {
                path,
                detail: flaw.describe(&manifest),
            });
        }
        Err(error) if names_no_file(&error) => {
            return Err(OpenError::Damaged {
                path,
                detail: format!("CURRENT names {manifest:?}: {error}"),
            });
        }
        Err(error) => return Err(OpenError::io("read", db.join(&manifest))(error)),
    }
    for entry in fs::read_dir(db).map_err(OpenError::io("list", db))? {
        let file = entry.map_err(OpenError::io("list", db))?.path();
        if file.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        if let Some(flaw) = check_file(&file).map_err(OpenError::io("read", &file))? {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            return Err(OpenError::WalCorrupt {
                path: data_dir.to_owned(),
                detail: flaw.describe(&name),
            });
        }
    }
    Ok(())
}

/// As opposed to a file that is there and cannot be read.
fn names_no_file(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound};
    matches!(
        error.kind(),
        NotFound | InvalidInput | InvalidFilename | IsADirectory | NotADirectory
    )
}

fn check_file(path: &Path) -> io::Result<Option<Flaw>> {
    let mut file = File::open(path)?;
    let mut block = Vec::with_capacity(BLOCK_LEN);
    let mut log = LogCheck::default();
    loop {
        block.clear();
        (&mut file).take(BLOCK_LEN as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(None);
        }
        if let Err(flaw) = log.block(&block) {
            return Ok(Some(flaw));
        }
    }
}

/// Goes through a log block by block.
#[derive(Default)]
struct LogCheck {
    offset: u64,
    /// Only zeros may follow: a file that was extended and, when power failed, not yet filled.
    blank: bool,
}

impl LogCheck {
    fn block(&mut self, block: &[u8]) -> Result<(), Flaw> {
        let mut rest = block;
        while rest.len() >= HEADER_LEN {
            let offset = self.offset + (block.len() - rest.len()) as u64;
            let flaw = |what| Err(Flaw { offset, what });
            let (sum, len) = header(rest);
            if self.blank || (rest[..HEADER_LEN] == [0; HEADER_LEN]) {
                if rest.iter().any(|byte| *byte != 0) {
                    return flaw("zeros in mid-log");
                }
                self.blank = true;
                break;
            }
            let end = HEADER_LEN + len;
            if end > rest.len() {
                if block.len() == BLOCK_LEN {
                    return flaw("a record runs past its block");
                }
                if (0..16).any(|bit| checks_out(rest, sum, len ^ (1 << bit))) {
                    return flaw("a bit of a record's length is flipped");
                }
                break; // torn off here
            }
            if !checks_out(rest, sum, len) {
                return flaw("checksum mismatch");
            }
            rest = &rest[end..];
        }
        self.offset += block.len() as u64;
        Ok(())
    }
}

/// The CRC and the length of the payload.
fn header(record: &[u8]) -> (u32, usize) {
    let sum = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
    (sum, usize::from(u16::from_le_bytes([record[4], record[5]])))
}

/// Whether a record of this length begins here.
fn checks_out(record: &[u8], sum: u32, len: usize) -> bool {
    record
        .get(6..HEADER_LEN + len)
        .is_some_and(|checked| masked(crc32c::crc32c(checked)) == sum)
}

/// RocksDB stores CRCs rotated and shifted, so that a CRC over bytes that hold CRCs is not degenerate.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

impl Flaw {
    fn describe(&self, file: &str) -> String {
        format!("{file} at byte {}: {}", self.offset, self.what)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let checked = [&[1], payload].concat();
        let mut record = masked(crc32c::crc32c(&checked)).to_le_bytes().to_vec();
        record.extend_from_slice(&(payload.len() as u16).to_le_bytes());
        record.extend_from_slice(&checked);
        record
    }

    fn check(log: &[u8]) -> Result<(), Flaw> {
        let mut state = LogCheck::default();
        log.chunks(BLOCK_LEN).try_for_each(|block| state.block(block))
    }

    /// Three records in a short last block, behind a full block of one.
    fn log() -> Vec<u8> {
        [
            record(&vec![7; BLOCK_LEN - HEADER_LEN]),
            record(b"one"),
            record(b"second"),
            record(&[3; 300]),
        ]
        .concat()
    }

    #[test]
    fn every_flipped_bit_of_a_log_is_found() {
        check(&log()).unwrap();
        let bits = log().len() * 8;
        for bit in (0..bits).step_by(997).chain(BLOCK_LEN * 8..bits) {
            let mut bad = log();
            bad[bit / 8] ^= 1 << (bit % 8);
            check(&bad).unwrap_err();
        }
    }

    #[test]
    fn a_log_torn_off_anywhere_in_its_last_block_is_sound() {
        let log = log();
        for len in BLOCK_LEN..=log.len() {
            assert_eq!(check(&log[..len]), Ok(()), "{len}");
        }
    }

    #[test]
    fn zeros_are_sound_at_the_end_and_nowhere_else() {
        let mut log = log();
        log.resize(BLOCK_LEN * 3 + 5, 0);
        check(&log).unwrap();
        *log.last_mut().unwrap() = 1;
        assert_eq!(check(&log), Ok(()), "less than a header is a torn header");
        log.extend(record(b"late"));
        assert_eq!(check(&log).unwrap_err().what, "zeros in mid-log");
    }
}
