//! `quorate dev`: a whole cluster on this machine, as real processes with real QUIC and TLS between them.
//!
//! Each node is a child process of the same binary with a directory of its own, so killing one is a real `kill -9`, and what a
//! node does here it does anywhere. [`layout`] makes the directory or takes it up again, [`child`] is one process, [`cluster`]
//! carries out the commands that [`command`] reads from stdin, [`ready`] waits until all serve, [`load`] keeps them busy.
//!
//! One loop owns everything: commands, signals, children that ended. Children get a process group of their own, so that ^C reaches only
//! us and we stop them in order; if we are killed, the kernel stops them (see [`super::start`]). Rejected: all nodes in one
//! process. They would share one fate, one allocator and one runtime, and nothing could be killed or paused.

mod banner;
mod child;
mod cluster;
mod command;
mod layout;
mod load;
mod lock;
mod ports;
mod ready;
mod state;

use super::CliError;
use super::error::plain;
use cluster::{Cluster, Ended};
use layout::Layout;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Command lines that may wait while one is carried out.
const LINES_MAX: usize = 64;
/// Where a cluster lives unless told otherwise.
const DIR: &str = "./quorate-dev";

/// What `quorate dev` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// How many nodes; 3 for a new cluster
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=32))]
    nodes: Option<u16>,
    /// Over how many zones they are spread; 1 for a new cluster
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=32))]
    zones: Option<u16>,
    /// Where the cluster lives, ./quorate-dev unless given; taken up again if it is there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// HTTP port of the first node; QUIC is the next, admin the one after, node 2 begins ten further
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    http_port: Option<u16>,
    /// Throw the directory away at the end; one that is given by --dir must be new or empty
    #[arg(long)]
    temp: bool,
    /// Keep the cluster busy with a few reads and writes
    #[arg(long)]
    load: bool,
}

impl DevArgs {
    /// Where the cluster lives.
    fn dir(&self) -> &Path {
        self.dir.as_deref().unwrap_or(Path::new(DIR))
    }
}

/// Runs a cluster until SIGTERM or ^C.
pub(crate) fn run(mut args: DevArgs) -> Result<(), CliError> {
    if args.temp && args.dir.is_none() {
        let made = tempfile::Builder::new().prefix("quorate-dev-").tempdir();
        // From here on the layout looks after it, as after one that was named.
        args.dir = Some(made.map_err(plain)?.keep());
    }
    let layout = Layout::prepare(&args)?;
    // The kernel's death signal goes by thread: children must come from the one that lives as long as the process. This is it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(plain)?;
    let ended = runtime.block_on(serve(&layout, &args));
    runtime.shutdown_background();
    ended
}

/// Prints one line or more. Nobody may be reading any more, and that is no reason to stop.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// The signals that mean: stop.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Stop> {
        Ok(Stop {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Completes when one of them comes.
    async fn wanted(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

async fn serve(layout: &Layout, args: &DevArgs) -> Result<(), CliError> {
    // Before the first child, so that none can end unnoticed.
    let mut stop = Stop::listen().map_err(plain)?;
    let children = signal(SignalKind::child()).map_err(plain)?;
    let mut cluster = Cluster::new(layout);
    say(&banner::text(layout, args.temp));
    let mut ended = cluster.start_all();
    if ended.is_ok() {
        ended = attend(&mut cluster, layout, args, &mut stop, children).await;
    }
    cluster.stop_all(stop.wanted()).await;
    ended
}

/// The loop: until a stop is wanted, or a node cannot be started at all.
async fn attend(
    cluster: &mut Cluster<'_>,
    layout: &Layout,
    args: &DevArgs,
    stop: &mut Stop,
    mut children: Signal,
) -> Result<(), CliError> {
    let mut lines = stdin_lines();
    let mut ready = tokio::spawn(ready::wait(layout.places().to_vec(), layout.client_config()));
    let mut is_ready = false;
    loop {
        tokio::select! {
            () = stop.wanted() => return Ok(()),
            _ = children.recv() => {
                for Ended { told, in_vain } in cluster.reap() {
                    match in_vain.filter(|_| !is_ready) {
                        Some(in_vain) => return Err(plain(in_vain)),
                        None => say(&told),
                    }
                }
            }
            client = &mut ready, if !is_ready => {
                let client = client.map_err(plain)?;
                is_ready = true;
                say("ready");
                if args.load {
                    tokio::spawn(load::run(client));
                }
            }
            Some(line) = lines.recv() => {
                if let Some(told) = cluster.carry_out(&line).await {
                    say(&told);
                }
            }
        }
    }
}

/// Lines of stdin, read by a thread of their own: a terminal or pipe cannot be read without blocking. Its end ends nothing.
fn stdin_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || read_lines(std::io::stdin().lock(), |line| sender.blocking_send(line).is_ok()));
    lines
}

/// Hands on each line until nobody takes any more. One that is not text is handed on too, so that it is answered like any other mistake.
fn read_lines(mut input: impl BufRead, mut hand_on: impl FnMut(String) -> bool) {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        if !hand_on(String::from_utf8_lossy(&line).into_owned()) {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_not_text_is_a_mistake_like_any_other_and_reading_goes_on() {
        let mut told = Vec::new();
        read_lines(&b"\xff\xfe\nkill \xc3\n\nheal\r\nstatus"[..], |line| {
            told.push(command::parse(&line, 3));
            true
        });
        assert!(
            matches!(&told[0], Err(told) if told.starts_with("unknown command")),
            "{told:?}"
        );
        assert!(
            matches!(&told[1], Err(told) if told.starts_with("there is no node")),
            "{told:?}"
        );
        let rest = [None, Some(command::Command::Heal), Some(command::Command::Status)];
        assert_eq!(told[2..], rest.map(Ok));
    }
}
