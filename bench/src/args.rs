//! The command line.
//!
//! Every option has a default that makes sense for a cluster on one machine, but for the rate: whoever measures has to
//! decide between a rate (open loop) and as fast as possible (closed loop), because the two answer different questions.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Measures a Quorate cluster.
#[derive(Debug, Parser)]
#[command(
    name = "quorate-bench",
    version,
    about = "Measures a Quorate cluster: throughput, latency, CPU per operation"
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Load the records, then run a workload and report.
    Run(Run),
    /// Only load the records.
    Load(Load),
}

/// How to reach the cluster, and which records to work on.
#[derive(Clone, Debug, ClapArgs)]
pub struct Where {
    /// What to measure: the native client over QUIC, or the HTTP gateway.
    #[arg(long, value_enum, default_value_t = TargetKind::Quorate)]
    pub target: TargetKind,
    /// Client configuration, such as the DIR/client.toml of `quorate dev`.
    #[arg(long, env = "QUORATE_CLIENT", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Endpoints, separated by commas, instead of those of the configuration.
    #[arg(long, value_delimiter = ',', value_name = "A,B,C")]
    pub endpoints: Vec<String>,
    /// Bucket to work in.
    #[arg(long, default_value = "bench")]
    pub bucket: String,
    /// How many records there are.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub records: u32,
    /// Size of a value in bytes.
    #[arg(long, default_value_t = 1024, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=67_108_864))]
    pub value_size: u32,
    /// Most operations under way at the same time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub in_flight: u16,
    /// Deadline of one operation, retries included.
    #[arg(long, default_value_t = 5000, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub timeout_ms: u32,
    /// Seed of keys, values and the mix. The same seed asks for the same keys in the same order.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Options of `load`.
#[derive(Debug, ClapArgs)]
pub struct Load {
    /// Where. With fewer --records than there are, the first ones are overwritten.
    #[command(flatten)]
    pub at: Where,
    /// Nothing is there yet: write without reading first, which takes half the time. A record that is there gets a sibling.
    #[arg(long)]
    pub fresh: bool,
}

/// Options of `run`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Run {
    /// Where.
    #[command(flatten)]
    pub at: Where,
    /// Which mix of operations: YCSB's a (half reads, half updates), b (95 % reads), c (reads), f (half reads, half
    /// read-modify-write); get; put (updates only).
    #[arg(long, value_enum, ignore_case = true, default_value_t = WorkloadKind::A)]
    pub workload: WorkloadKind,
    /// How keys are chosen.
    #[arg(long, value_enum, default_value_t = KeysKind::Zipfian)]
    pub keys: KeysKind,
    /// Open loop: operations per second to offer, on a fixed schedule.
    #[arg(long, required_unless_present = "closed", conflicts_with = "closed", value_name = "OPS/S", value_parser = rate)]
    pub rate: Option<f64>,
    /// Closed loop: --in-flight operations at all times, the next one as soon as one has ended.
    #[arg(long)]
    pub closed: bool,
    /// For how long to measure.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS", value_parser = seconds)]
    pub duration: f64,
    /// For how long to run before measuring.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds_or_none)]
    pub warmup: f64,
    /// The records are there already. (Workloads with updates then read each record once, to learn its context.)
    #[arg(long)]
    pub no_load: bool,
    /// Process ids of the servers, separated by commas, to report their CPU time. Taken from the pid files beside a
    /// `quorate dev` configuration unless given.
    #[arg(long, value_delimiter = ',', value_name = "1,2,3")]
    pub pids: Vec<u32>,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TargetKind {
    /// The client library, over QUIC.
    Quorate,
    /// The HTTP gateway, with one keep-alive connection for each operation in flight.
    Http,
}

/// A mix of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WorkloadKind {
    /// YCSB A: half reads, half updates.
    A,
    /// YCSB B: 95 % reads, 5 % updates.
    B,
    /// YCSB C: reads only.
    C,
    /// YCSB F: half reads, half read-modify-write.
    F,
    /// Reads only.
    Get,
    /// Updates only.
    Put,
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeysKind {
    /// Each with the same probability.
    Uniform,
    /// YCSB's scrambled zipfian distribution, constant 0.99: some keys are hot.
    Zipfian,
}

/// Form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: one JSON object.
    Json,
}

fn number(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|number| number.is_finite())
        .ok_or_else(|| "not a number".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    number(text).and_then(|rate| {
        if (0.001..=1e7).contains(&rate) {
            Ok(rate)
        } else {
            Err("0.001 to 10000000".to_owned())
        }
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    number(text).and_then(|s| {
        if (0.01..=86_400.0).contains(&s) {
            Ok(s)
        } else {
            Err("0.01 to 86400".to_owned())
        }
    })
}

fn seconds_or_none(text: &str) -> Result<f64, String> {
    number(text).and_then(|s| {
        if (0.0..=86_400.0).contains(&s) {
            Ok(s)
        } else {
            Err("0 to 86400".to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definitions_are_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_run_needs_a_rate_or_a_closed_loop_and_not_both() {
        assert!(parse("quorate-bench run --rate 1000").is_ok());
        assert!(parse("quorate-bench load --records 1000000 --fresh").is_ok());
        assert!(parse("quorate-bench run --closed").is_ok());
        assert!(parse("quorate-bench run").is_err());
        assert!(parse("quorate-bench run --closed --rate 1000").is_err());
        assert!(parse("quorate-bench run --rate nan").is_err());
    }

    #[test]
    fn the_whole_line_of_the_manual_is_understood() {
        let line = "quorate-bench run --target http --endpoints a:1,b:2 --workload a --records 10 --value-size 100 --rate 10 \
            --in-flight 8 --duration 2 --no-load --pids 1,2 -o json";
        let Verb::Run(run) = parse(line).unwrap().verb else {
            panic!()
        };
        assert_eq!(run.at.endpoints, ["a:1", "b:2"]);
        assert_eq!((run.pids, run.output, run.no_load), (vec![1, 2], Output::Json, true));
    }
}
