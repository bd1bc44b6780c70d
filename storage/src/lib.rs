//! Rows on disk. This crate speaks columns, tokens, keys and bytes; it knows no sibling, no quorum and no network.
//!
//! - [`Storage`] is the contract: atomic batches that are visible at once and durable after [`Storage::sync`], point
//!   reads, and ordered pages over a token range. Rows of different kinds lie in different [`Column`]s.
//! - [`RocksStorage`] (feature `rocks`, on by default) keeps that contract on a real disk, in one data directory.
//! - [`MemStorage`] keeps it in memory and can be crashed, filled up and corrupted: the simulator runs on it.
//!
//! Both are held to one conformance suite, so what the simulator proves about the layers above carries over to the disk.
//!
//! `apply` and `sync` are apart so that the loop that serves requests never waits for the disk: it applies one batch per
//! burst of input, and a thread beside it calls `sync` over and over. One fsync then makes a whole group of writes
//! durable, and only after it are they acknowledged. Rejected: a synchronous put for each write. It costs an fsync per
//! write, or as many threads as there are writes in flight.
//!
//! Every row carries a CRC over its key and payload. What was damaged at rest is reported as damaged: never as absent,
//! and never served.

mod around;
mod batch;
mod checksum;
mod error;
mod memory;
#[cfg(feature = "rocks")]
mod rocks;
mod row;
mod store;

#[cfg(test)]
mod conformance;

pub use around::ScanAround;
pub use batch::Batch;
pub use error::StorageError;
pub use memory::{ApplyFault, MemSnapshot, MemStorage, SyncPoint};
#[cfg(feature = "rocks")]
pub use rocks::{
    OpenError, RocksOptions, RocksStats, RocksStorage, mark_for_rebuild, set_aside_before, set_directory_aside,
};
pub use row::Column;
pub use store::{Count, Page, ScanLimit, ScanRow, Storage};
