//! Client library of Quorate, a leaderless quorum store.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use quorate_client::{Client, ClientConfig};
//!
//! let client = Client::connect(ClientConfig::from_env_or(None)?).await?;
//! let greetings = client.bucket("greetings");
//! greetings.put("hello", "world", None).await?;
//! for value in greetings.get("hello").await?.values {
//!     println!("{}", String::from_utf8_lossy(&value.body));
//! }
//! # Ok(()) }
//! ```
//!
//! What to know before using it:
//!
//! - **Overwriting needs a context.** A read returns one; the write that gives it back replaces what the read found. A
//!   write without it stands beside what is there, as a sibling. [`Bucket::update`] does the round trip.
//! - **Every error has an [outcome](Error::outcome)**: certainly not applied, or unknown. Writes are retried under one
//!   request id, so a retry never doubles them.
//! - **Everything ends in time**: five seconds unless told otherwise ([`Patience`]), retries included.
//!
//! The client knows the ring and sends each request straight to an owner of its key ([`Client::execute`]). [`tls`] and
//! [`quic`] hold the transport settings that nodes use too.

mod attempt;
mod bucket;
mod circuit;
mod client;
mod config;
mod connection;
mod error;
mod exchange;
pub mod quic;
pub mod tls;
mod topology;
mod value;

pub use bucket::{Bucket, UPDATE_ROUNDS_MAX};
pub use client::Client;
pub use config::{CONFIG_VARIABLE, ClientConfig, ConfigError, Patience};
pub use error::{Attempts, ConnectError, DialError, Error, FAILED_ATTEMPTS_MAX, FailedAttempt, NamedReplica, Reported};
pub use quorate_core::key::{Key, KeyError};
pub use quorate_core::message::{Query, QueryAnswer};
pub use quorate_core::request::{
    Code, Operation, Outcome, QuorumKind, ReadOptions, ReplicaReport, ReplicaState, Reply, RequestId, Role, Value,
    View, WriteOptions,
};
pub use quorate_ring::{Member, NodeId, NodeIndex, Ring, RingVersion, Token};
pub use tls::{ClientTls, TlsError};
pub use value::{Context, ContextError, IntoValue, KeyRef, Versioned, Written};
