//! The protocol of Quorate, and nothing else.
//!
//! This crate decides; it does not act. It has no socket, disk, clock, thread or global randomness. The node's shell and the
//! simulator drive the same [`engine::Engine`]: they hand in what happened and the time, and carry out the effects that come
//! back. The same inputs and the same seed give the same effects, byte for byte.
//!
//! From the bottom up: [`dot`] and [`context`] say which writes somebody has seen; [`record`] is what a key holds, and how two
//! copies become one; [`seen`] is what clients carry between a read and a write, and [`seal`] keeps them from forging it; [`request`] is what clients
//! ask and are told; [`message`] is the wire; [`bucket`] holds a bucket's properties; [`place`] names the rows that a node keeps, and [`tree`] sums them
//! up; [`detour`] goes round those that are damaged; [`engine`] coordinates, replicates and heals. [`gossip`] finds out who is there.

pub mod bucket;
pub mod context;
pub mod detour;
pub mod dot;
pub mod engine;
pub mod gossip;
pub mod key;
pub mod message;
pub mod place;
pub mod planted;
pub mod record;
pub mod request;
pub mod seal;
pub mod seen;
pub mod time;
pub mod tree;
