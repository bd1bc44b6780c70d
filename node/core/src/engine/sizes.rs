//! How many records may be on their way to one node, by their bytes.
//!
//! Windows and credits count records, and a record may be of a hundred bytes or of many megabytes. What was sent and is not answered yet lies in
//! the queue of a connection, or in its receiver's memory, and a queue that runs over costs the connection. So a window of records is
//! narrowed where they are large. What was sent is counted; how large the records are that are still to be read, here or at the other
//! node, is guessed from those before them. At first they are taken for large: a few small ones put that right.
//!
//! Rejected: to read first, and then wait for room. What waits would be memory again.

use bytes::Bytes;

/// Bytes of records that may be on their way to one node, or thereabouts: one more may follow as long as they are fewer.
pub(super) const BYTES_MAX: usize = 16 << 20;
/// What a record is taken for before any was seen.
const FIRST_GUESS: usize = 2 << 20;

/// The bytes of records, smoothed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes(usize);

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes(FIRST_GUESS)
    }
}

impl Sizes {
    /// Takes note of how large a record is.
    pub(super) fn weigh(&mut self, record: &Bytes) {
        self.0 = (7 * self.0 + record.len()) / 8;
    }

    /// How many records may be under way, so that they have about [`BYTES_MAX`] bytes; at least one.
    pub(super) fn window(self) -> usize {
        (BYTES_MAX / self.0.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(count: usize, bytes: usize) -> usize {
        let mut sizes = Sizes::default();
        let record = Bytes::from(vec![0; bytes]);
        (0..count).for_each(|_| sizes.weigh(&record));
        sizes.window()
    }

    #[test]
    fn the_window_is_narrow_until_records_turn_out_small_and_never_closes() {
        assert_eq!(after(0, 0), 8);
        assert!(after(20, 1000) > 64);
        assert_eq!(after(50, 5 << 20), 3);
        assert_eq!(after(50, 32 << 20), 1);
    }
}
