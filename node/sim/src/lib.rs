//! The simulator: the same core as in the node, on a simulated network, disk and clock.
//!
//! A seed becomes a [`plan::Plan`], the plan is run in a world of virtual time, and checkers hold what clients were told, and what is
//! on the disks at the end, against the promises of `docs/consistency.md`. A run that breaks one is made smaller ([`shrink`]) and printed
//! with the line that replays it. `docs/simulator.md` has the tables.
//!
//! ```text
//! seed ──► plan ──► world ──► history, disks ──► checkers ──► violations
//!            ▲                                                    │
//!            └──────────────────── shrink ◄───────────────────────┘
//! ```
//!
//! Everything is deterministic: one thread a run, one queue of events, streams of random numbers that depend on the seed alone. Rejected:
//! tests on real processes alone. They find one rare interleaving a day, cannot repeat it, and tell nothing of the ones they missed.

mod check;
mod history;
pub mod plan;
pub mod planted;
pub mod probes;
pub mod report;
mod rng;
pub mod runner;
pub mod shrink;
pub mod violation;
mod world;

pub use world::{RunReport, Watch, run};
