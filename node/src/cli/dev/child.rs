//! One node as a child process: start, pause, resume, kill, and notice that it ended.
//!
//! The process id is valid until the child has been waited for, which only [`Child::reap`] and [`Child::kill`] do. So no signal can
//! ever hit a stranger who was given the same number.

use super::layout::Place;
use crate::certs::{PUBLIC, write_whole};
use crate::config::OVERRIDE_VARIABLES;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Lines of a log that are shown when a node ends by itself.
const TAIL_LINES: usize = 10;
/// Bytes of the log's end that are looked at for them.
const TAIL_BYTES: u64 = 16 << 10;

/// A node that runs, is paused, or is down.
#[derive(Debug)]
pub(super) struct Child<'a> {
    pub(super) place: &'a Place,
    process: Option<std::process::Child>,
    pub(super) paused: bool,
    /// Length of the log when the process started.
    log_from: u64,
}

impl<'a> Child<'a> {
    /// A node that is down.
    pub(super) fn new(place: &'a Place) -> Child<'a> {
        Child {
            place,
            process: None,
            paused: false,
            log_from: 0,
        }
    }

    /// A node whose process is there already.
    #[cfg(test)]
    pub(super) fn with_process(place: &'a Place, process: std::process::Child) -> Child<'a> {
        Child {
            process: Some(process),
            ..Child::new(place)
        }
    }

    /// Its process id, if it is there.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(std::process::Child::id)
    }

    /// Starts the process. Its log goes on where it ended; `pid` is written when it is there.
    pub(super) fn start(&mut self) -> io::Result<u32> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.place.file("log"))?;
        self.log_from = log.metadata()?.len();
        let mut command = Command::new(binary()?);
        command.args([
            "start",
            "--control-stdin",
            "--parent",
            &std::process::id().to_string(),
            "--config",
        ]);
        command.arg(self.place.file("quorate.toml"));
        // What is meant for one node must not reach all of them.
        for variable in OVERRIDE_VARIABLES {
            command.env_remove(variable);
        }
        command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let process = command.spawn()?;
        let pid = process.id();
        self.process = Some(process);
        self.paused = false;
        write_whole(&self.place.file("pid"), format!("{pid}\n").as_bytes(), PUBLIC)?;
        Ok(pid)
    }

    /// Sends a signal, if the process is there.
    pub(super) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        kill_process(Pid::from_child(process), signal)?;
        match signal {
            Signal::STOP => self.paused = true,
            Signal::CONT => self.paused = false,
            _ => {}
        }
        Ok(())
    }

    /// Asks the process to stop, paused or not. Nothing more will be told to it.
    pub(super) fn stop(&mut self) {
        // A signal that cannot be sent goes to a process that has just ended.
        let _ = self.signal(Signal::TERM);
        let _ = self.signal(Signal::CONT);
        if let Some(process) = &mut self.process {
            process.stdin = None;
        }
    }

    /// Kills the process and waits until it is gone.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        process.kill()?;
        process.wait()?;
        self.gone();
        Ok(())
    }

    /// How the process ended, if it has since the last call.
    pub(super) fn reap(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().ok()??;
        self.gone();
        Some(status)
    }

    fn gone(&mut self) {
        self.process = None;
        self.paused = false;
        // It may be gone already, or the directory with it.
        let _ = fs::remove_file(self.place.file("pid"));
    }

    /// Sends a control line to the node. One that is ending does not read them, and need not.
    pub(super) fn tell(&mut self, line: &str) {
        if let Some(stdin) = self.process.as_mut().and_then(|process| process.stdin.as_mut()) {
            let _ = stdin.write_all(line.as_bytes());
        }
    }

    /// The last lines that it logged since it was started, indented.
    pub(super) fn log_tail(&self) -> String {
        tail(&self.place.file("log"), self.log_from).unwrap_or_default()
    }
}

/// This program. If its file has been replaced since we started, by a new build, then still the one that we are.
fn binary() -> io::Result<PathBuf> {
    let named = std::env::current_exe()?;
    Ok(if named.exists() {
        named
    } else {
        PathBuf::from("/proc/self/exe")
    })
}

fn tail(path: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(TAIL_LINES));
    Ok(last.map(|line| format!("\n    {line}")).collect())
}

/// `was killed by signal 9` or `ended with exit code 1`.
pub(super) fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_tail_is_what_was_logged_last_since_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let old = "of an earlier run\n";
        let new: String = (1..=12).map(|at| format!("line {at}\n")).collect();
        fs::write(&path, format!("{old}{new}")).unwrap();
        let shown = tail(&path, old.len() as u64).unwrap();
        assert!(
            shown.starts_with("\n    line 3\n") && shown.ends_with("line 12"),
            "{shown}"
        );
        assert_eq!(tail(&path, 0).unwrap().lines().count(), 11);
        assert_eq!(tail(&path, 10_000).unwrap(), "");
    }

    #[test]
    fn an_end_is_told_by_code_or_signal() {
        assert_eq!(how(ExitStatus::from_raw(9)), "was killed by signal 9");
        assert_eq!(how(ExitStatus::from_raw(1 << 8)), "ended with exit code 1");
    }
}
