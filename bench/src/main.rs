//! The command `quorate-bench`. Exit codes: 0 measured, 1 nothing could be measured, 2 wrong usage.

use clap::Parser;
use quorate_bench::args::Args;
use quorate_bench::{BenchError, execute};
use std::process::ExitCode;

fn main() -> ExitCode {
    match execute(&Args::parse()) {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("quorate-bench: {error}");
            match error {
                BenchError::Usage { .. } => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
