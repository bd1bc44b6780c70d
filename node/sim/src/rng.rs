//! Streams of random numbers: one for each purpose, all from one seed.
//!
//! If the network and the workload drew from one stream, one message more would change every later operation, and a plan that was
//! made a little smaller would be another run altogether. So each purpose has a stream of its own: ChaCha8, keyed by seed and purpose.
//!
//! Only integers are drawn, and rates are per mille: floating point in here could differ from one machine to the next.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Nodes, buckets, keys, rates.
    Topology,
    /// Operations of clients.
    Workload,
    /// Faults.
    Faults,
    /// Delays and losses of messages.
    Network,
    /// Delays and errors of disks.
    Disk,
    /// Origins of clocks, and seeds of engines.
    Clocks,
    /// What clients draw while they run: ids, and bits to flip.
    Clients,
    /// Which buckets acknowledge what is not on disk yet.
    Durability,
}

/// A stream of random numbers.
pub(crate) struct Stream(ChaCha8Rng);

impl Stream {
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Stream {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = 1 + purpose as u8;
        Stream(ChaCha8Rng::from_seed(key))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Below `end`; zero if `end` is. The bias of the remainder is below 2^-32 for everything drawn here.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// From `low` to `high`, both included.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// As [`Stream::range`], for small numbers.
    pub(crate) fn small(&mut self, low: u8, high: u8) -> u8 {
        self.range(low.into(), high.into()) as u8
    }

    /// True `per_mille` times in a thousand.
    pub(crate) fn chance(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < per_mille.into()
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An index, drawn by weight.
    pub(crate) fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut at = self.below(weights.iter().map(|&w| u64::from(w)).sum());
        for (index, &weight) in weights.iter().enumerate() {
            match at.checked_sub(weight.into()) {
                Some(rest) => at = rest,
                None => return index,
            }
        }
        weights.len() - 1
    }

    pub(crate) fn bytes32(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
