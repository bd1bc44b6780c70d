//! The command line, `quorate`: verbs, exit codes, and how errors are told.
//!
//! Each verb is a file of its own; all of them return a [`CliError`] that knows its exit code, the sentence for people, and a hint.
//! `-o json` turns answers and errors into JSON whose fields stay, so that scripts need not parse tables. Answers go to stdout, everything else to
//! stderr. Client verbs speak QUIC by the same library as applications do, with the `client.toml` that `quorate dev` writes.
//!
//! ```text
//! 0 ok   1 error   2 usage   3 quorum not met, or the outcome is unknown   4 not found   5 precondition
//! ```
//!
//! Rejected: one process-wide "verbose" switch. What a command did is in its answer; why it was slow is in `get --explain`.

mod cert;
mod connect;
mod dev;
mod error;
mod health;
mod hints;
mod kv;
mod output;
mod repair;
mod ring;
mod start;
mod status;
mod survey;
mod wait;

pub(crate) use error::{CliError, Exit};
pub(crate) use output::{Output, Terminal};

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Quorate: a leaderless quorum store.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, about, propagate_version = true)]
struct Cli {
    /// Form of the answer
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a whole cluster on this machine
    Dev(dev::DevArgs),
    /// Run one node
    Start(start::StartArgs),
    /// Write a value
    Put(kv::PutArgs),
    /// Read a value
    Get(kv::GetArgs),
    /// Delete a value
    Delete(kv::DeleteArgs),
    /// Say how the cluster stands
    Status(status::StatusArgs),
    /// Show what nodes keep for others that were away
    Hints(hints::HintsArgs),
    /// Have all nodes compare what they hold, now
    Repair(repair::RepairArgs),
    /// Wait until the cluster is in a state
    Wait(wait::WaitArgs),
    /// Show the ring, or where a key lives
    Ring(ring::RingArgs),
    /// Make and show certificates
    Cert(cert::CertArgs),
}

/// Runs the command line of this process, and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let terminal = Terminal::detect(cli.output);
    let ended = match cli.verb {
        Verb::Dev(args) => dev::run(args),
        Verb::Start(args) => start::run(args),
        Verb::Put(args) => connect::block_on(kv::put(args, &terminal)),
        Verb::Get(args) => connect::block_on(kv::get(args, &terminal)),
        Verb::Delete(args) => connect::block_on(kv::delete(args, &terminal)),
        Verb::Status(args) => connect::block_on(status::run(args, &terminal)),
        Verb::Hints(args) => connect::block_on(hints::run(args, &terminal)),
        Verb::Repair(args) => connect::block_on(repair::run(args, &terminal)),
        Verb::Wait(args) => connect::block_on(wait::run(args, &terminal)),
        Verb::Ring(args) => connect::block_on(ring::run(args, &terminal)),
        Verb::Cert(args) => cert::run(args, &terminal),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.complain(&error);
            ExitCode::from(error.exit as u8)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_documented_parses() {
        let lines = [
            "quorate dev",
            "quorate dev --nodes 5 --zones 3 --dir /tmp/q --http-port 9000 --load",
            "quorate dev --temp",
            "quorate dev --temp --dir x",
            "quorate start --config n1/quorate.toml --data-dir /data --listen-http 127.0.0.1:1 --insecure-http --log-level debug",
            "quorate put demo greeting hello",
            "quorate put demo greeting",
            "quorate put demo greeting --sort s -5 --blind",
            "quorate put demo greeting @file --resolve --content-type text/plain --w 3 --timeout-ms 100",
            "quorate put demo greeting - --context AQID --config c.toml",
            "quorate get demo greeting --sort s --explain -o json --r 1",
            "quorate get demo greeting --sibling 2 --pr 1 --quorum strict",
            "quorate put demo greeting v --w 2 --pw 1 --dw 1 --quorum sloppy",
            "quorate delete demo greeting --w 2 --pw 2",
            "quorate -o json delete demo greeting --context AQID",
            "quorate status -o json",
            "quorate hints -o json",
            "quorate repair --watch --timeout 60",
            "quorate wait --for healthy",
            "quorate wait --for settled --timeout 60 -o json",
            "quorate ring --key demo/greeting",
            "quorate cert ca --cluster demo --days 10",
            "quorate cert node --id 0a1b2c3d-4e5f-4000-8000-0123456789ab --ca ca.pem --ca-key ca.key",
            "quorate cert client alice",
            "quorate cert client alice --admin --out dir",
            "quorate cert show ca.pem node.pem",
        ];
        for line in lines {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn what_contradicts_itself_is_a_usage_error() {
        let lines = [
            "quorate put demo",
            "quorate put demo greeting v --blind --resolve",
            "quorate put demo greeting v --blind --context AQID",
            "quorate dev --nodes 0",
            "quorate dev --zones 0",
            "quorate start",
            "quorate get demo",
            "quorate get demo k -o yaml",
            "quorate get demo k --quorum loose",
            "quorate wait --for ever",
            "quorate repair --timeout 5",
        ];
        for line in lines {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
        }
    }
}
