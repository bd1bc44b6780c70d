//! Tests of the engine: whole clusters in memory, one claim a test.
//!
//! [`cluster`] is the harness, [`asks`] what tests ask of it. It carries out the effects of several engines with a network and disks that are instant unless a test
//! holds something back, and checks on every step that no dot stands for two writes and no request gets two replies.

#![allow(clippy::unwrap_used)]

mod asks;
mod bounds;
mod cluster;
mod disk;
mod durable;
mod exchanges;
mod expiry;
mod fallbacks;
mod forwards;
mod handoff;
mod heals;
mod hints;
mod memory;
mod peers;
mod quorums;
mod read_fallbacks;
mod reads;
mod rebuilds;
mod repair;
mod retries;
mod scrubs;
mod settling;
mod siblings;
mod slow;
mod starts_over;
mod trimming;
