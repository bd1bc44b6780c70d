//! Tests of the gossip: many nodes on a network that loses, delays and cuts, in virtual time.

#![allow(clippy::unwrap_used)]

mod claims;
mod detect;
mod many;
mod net;
mod quiet;
mod trouble;
