//! `quorate start`: one node, in the foreground.

use super::CliError;
use super::error::plain;
use crate::config::{NodeConfig, Overrides};
use crate::logging;
use crate::node::{self, RunOptions};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::path::PathBuf;

/// What `quorate start` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// The node's configuration
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    /// Take `block ADDR[,ADDR…]` and `unblock` from stdin, one per line: for `quorate dev`
    #[arg(long, hide = true)]
    control_stdin: bool,
    /// Stop when this process, our parent, is gone: for `quorate dev`
    #[arg(long, hide = true, value_name = "PID")]
    parent: Option<i32>,
}

/// Runs the node until it is told to stop.
pub(crate) fn run(args: StartArgs) -> Result<(), CliError> {
    if let Some(parent) = args.parent {
        die_with(parent)?;
    }
    let config = NodeConfig::load(&args.config, &args.overrides).map_err(plain)?;
    logging::init(&config.log);
    node::run(
        config,
        RunOptions {
            control_stdin: args.control_stdin,
        },
    )
    .map_err(plain)
}

/// Asks the kernel for SIGTERM when the parent ends, so that a parent that was killed leaves no nodes behind.
///
/// The parent may have ended before we asked; then we have another one already, and no signal would ever come.
fn die_with(parent: i32) -> Result<(), CliError> {
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(plain)?;
    if getppid() == Pid::from_raw(parent) {
        Ok(())
    } else {
        Err(plain("the process that started this node is gone"))
    }
}
