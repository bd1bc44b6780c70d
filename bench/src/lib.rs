//! Load generator of Quorate.
//!
//! What it measures, and how it stays honest:
//!
//! - **Open loop by default.** Operations have intended starts on a fixed schedule, and latency counts from there,
//!   whether or not the system was ready ([`schedule`]). A closed loop, where the next request waits for the last
//!   answer, stops asking just when the system is slow, and so hides the worst. Service time, from the actual start,
//!   stands beside it.
//! - **The generator accuses itself.** If it starts operations late, or reaches less than 95 % of the offered rate, the
//!   report says so and has no p99 headline ([`report`]).
//! - **Failures count.** The latency of an operation that failed or timed out is in the histograms like any other.
//! - **CPU beside time.** Microseconds of CPU per operation, client and servers ([`cpu`]): on a small or noisy machine,
//!   that is the figure to trust.
//!
//! Updates carry contexts, so that siblings do not pile up ([`contexts`]). Workloads are YCSB's A, B, C and F with its
//! constants, or all reads, or all updates ([`workload`], [`keys`]). Targets: the native client, and plain HTTP
//! (`target`).
//!
//! One thread, one event loop, for the generator and the client together: a second thread costs 20 % more CPU and
//! doubles latency at low load.

pub mod args;
pub mod contexts;
pub mod cpu;
mod dataset;
pub mod keys;
mod measure;
pub mod report;
mod run;
pub mod schedule;
mod target;
mod timer;
pub mod workload;

pub use run::{BenchError, execute};
