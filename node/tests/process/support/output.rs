//! What a process says, line by line, and processes that have to end by themselves.

use super::eventually;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The lines that came so far.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Reads `source` to its end on a thread of its own.
    pub(crate) fn collect(&self, source: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.0.clone();
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                lines
                    .lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits for a line that contains `part`, from line `from` on.
    pub(crate) fn wait_for(&self, from: usize, part: &str) -> String {
        eventually(&format!("a line with {part:?} in {:#?}", self.all()), || {
            let lines = self.0.lock().unwrap();
            lines.iter().skip(from).find(|line| line.contains(part)).cloned()
        })
    }
}

/// Starts a process that can be typed to, and reads what it says.
pub(crate) fn listened(command: &mut Command) -> (Child, Lines) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = Lines::default();
    lines.collect(child.stdout.take().unwrap());
    lines.collect(child.stderr.take().unwrap());
    (child, lines)
}

/// Waits for the end of a child; kills it if it does not come.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let guard = Killed(child);
    eventually("the end of a process", || guard.0.try_wait().unwrap())
}

struct Killed<'a>(&'a mut Child);

impl Drop for Killed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Runs a command that ends by itself, with `input` on its stdin.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // A command that does not read its stdin is free to.
    let feeding = std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, &input)));
    let reading = [
        Box::new(child.stdout.take().unwrap()) as Box<dyn Read + Send>,
        Box::new(child.stderr.take().unwrap()),
    ]
    .map(|mut source| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            source.read_to_end(&mut bytes).unwrap();
            bytes
        })
    });
    let status = wait(&mut child);
    feeding.join().unwrap();
    let [stdout, stderr] = reading.map(|thread| thread.join().unwrap());
    Output { status, stdout, stderr }
}
