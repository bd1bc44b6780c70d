//! Real processes, seen from outside: `quorate dev` with three nodes, their ports, their files, and what a user types.
//!
//! Everything here goes through the interfaces that are promised: HTTP, the client library, the command line, signals, the directory of
//! `quorate dev`. Each test has a cluster of its own in a directory of its own, and only one test runs at a time, however many threads or
//! processes the runner uses: on a small machine two clusters at once only measure each other.
//!
//! Nothing waits for a fixed time. A test waits for a condition, with a deadline that is generous because the machine may be busy.
//!
//! Rejected: nodes inside the test's process. They cannot be killed, and a panic in one would be taken for a panic of the test.

#![allow(clippy::unwrap_used)]

mod cli;
mod config;
mod examples;
mod faults;
mod healing;
mod hostile;
mod http;
mod readme;
mod support;
