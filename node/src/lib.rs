//! The shell around [`quorate_core`]: sockets, disk, clock, HTTP and the command line. The binary is `quorate`.
//!
//! One data loop owns the engine, the storage and all QUIC connections ([`node`], [`shard`], [`transport`]); a thread of its own
//! syncs the log ([`syncer`]); another runs the HTTP gateway and the admin port ([`gateway`]), which reach the
//! data loop through a bounded queue ([`handle`]). What lies in the data directory is read at the start ([`data`]), and set aside when it is
//! beyond use ([`rebuild`]).

pub mod certs;
pub mod cli;
pub mod config;
mod data;
pub mod gateway;
pub mod handle;
pub mod healing;
pub mod logging;
pub mod metrics;
pub mod node;
mod rebuild;
mod shard;
mod syncer;
pub mod tls;
mod transport;
