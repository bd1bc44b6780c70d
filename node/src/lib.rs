//! The shell around [`quorate_core`]: sockets, disk, clock, HTTP and the command line. The binary is `quorate`.
//!
//! One data loop owns the engine, the storage and all QUIC connections ([`node`], [`shard`], [`transport`]); a thread of its own
//! syncs the log ([`syncer`]); another runs the HTTP gateway and the admin port ([`gateway`]), which reach the
//! data loop through a bounded queue ([`handle`]).

pub mod certs;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod handle;
pub mod healing;
pub mod logging;
pub mod metrics;
pub mod node;
mod shard;
mod syncer;
pub mod tls;
mod transport;
