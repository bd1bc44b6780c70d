//! What is measured: something that holds records under names.
//!
//! Two so far: [`native`] is the client library over QUIC, [`http`] plain HTTP/1.1 without a library, one connection
//! for each operation in flight. Both get and put with contexts; neither reads the values, since checking them is not
//! what is measured here.

pub(crate) mod http;
pub(crate) mod native;

use bytes::Bytes;

/// What a read found.
#[derive(Debug)]
pub(crate) struct Found<C> {
    pub(crate) context: Option<C>,
    /// Live values.
    pub(crate) values: usize,
}

/// What a write came back with.
#[derive(Debug)]
pub(crate) struct Wrote<C> {
    /// The writer's own context.
    pub(crate) context: Option<C>,
    /// The record after the write, if it was asked for.
    pub(crate) record: Option<Found<C>>,
}

/// A write as the generator wants it.
#[derive(Debug)]
pub(crate) struct Write<C> {
    pub(crate) value: Bytes,
    pub(crate) context: Option<C>,
    /// Whether the record after the write should come back.
    pub(crate) want_record: bool,
}

/// An operation that failed.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    /// A write that may have been applied.
    pub(crate) unknown: bool,
    /// For people.
    pub(crate) reason: String,
}

/// A store under test. `slot` says which of the operations in flight this is, so that a target can keep a connection
/// for each.
#[allow(async_fn_in_trait)] // One thread: nothing here needs to be `Send`.
pub(crate) trait Target: 'static {
    type Context: Clone + 'static;

    async fn get(&self, slot: usize, name: &str) -> Result<Found<Self::Context>, Failed>;

    async fn put(&self, slot: usize, name: &str, write: Write<Self::Context>) -> Result<Wrote<Self::Context>, Failed>;
}
