//! A cluster of `quorate dev` and the directory it lives in.
//!
//! [`Home`] is the directory, the ports, and the right to be the only test that runs. [`Dev`] is one run of `quorate dev` on it; a home can
//! have several, one after the other. Whatever happens, dropping a `Dev` stops its processes; a failing test prints their logs.

use super::output::{Lines, listened, wait};
use super::{eventually, http, quorate};
use quorate_client::{Client, ClientConfig};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin};
use tempfile::TempDir;

/// Base ports to choose from: below what the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Nodes of a cluster, unless a test wants more.
pub(crate) const NODES: [usize; 3] = [1, 2, 3];
/// Lines of a log that a failing test prints.
const TAIL_LINES: usize = 40;

/// A directory and ports for a cluster.
pub(crate) struct Home {
    dir: TempDir,
    port: u16,
    nodes: usize,
    _alone: File,
}

impl Home {
    /// A new one, for as many nodes as usual. Waits until no other test has one.
    pub(crate) fn new() -> Home {
        Home::of(NODES.len())
    }

    /// A new one, for so many nodes.
    pub(crate) fn of(nodes: usize) -> Home {
        let alone = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("process-tests.lock")).unwrap();
        alone.lock().unwrap();
        let start = std::process::id() % u32::from((PORTS.end - PORTS.start) / 100);
        let mut candidates = PORTS.step_by(100).cycle().skip(start as usize).take(120);
        let port = candidates
            .find(|port| (1..=nodes).all(|node| is_free(*port, node)))
            .expect("free ports");
        Home {
            dir: tempfile::tempdir().unwrap(),
            port,
            nodes,
            _alone: alone,
        }
    }

    /// The nodes, counted from 1.
    pub(crate) fn nodes(&self) -> RangeInclusive<usize> {
        1..=self.nodes
    }

    /// The cluster's directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("quorate-dev")
    }

    /// Room for files of the test.
    pub(crate) fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The HTTP port of the first node.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts a cluster and waits until it is ready.
    pub(crate) fn dev(&self) -> Dev<'_> {
        let dev = self.dev_with(&[]);
        dev.lines.wait_for(0, "ready");
        dev
    }

    /// Starts `quorate dev`, and does not wait.
    pub(crate) fn dev_with(&self, arguments: &[&str]) -> Dev<'_> {
        let mut command = quorate();
        command
            .arg("dev")
            .arg("--dir")
            .arg(self.dir())
            .args(["--http-port", &self.port.to_string()])
            .args(["--nodes", &self.nodes.to_string()])
            .args(arguments);
        let (mut process, lines) = listened(&mut command);
        Dev {
            home: self,
            stdin: process.stdin.take(),
            process,
            lines,
        }
    }

    /// Has the directory made, and each node's configuration changed as `edit` says, before the cluster is started for good.
    pub(crate) fn configure(&self, edit: impl Fn(usize, String) -> String) {
        self.dev().stop();
        for node in self.nodes() {
            let file = self.file(node, "quorate.toml");
            let text = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, edit(node, text)).unwrap();
        }
    }

    /// A file of node `node`, counted from 1.
    pub(crate) fn file(&self, node: usize, name: &str) -> PathBuf {
        self.dir().join(format!("n{node}")).join(name)
    }

    /// What the nodes have logged.
    pub(crate) fn log(&self, node: usize) -> String {
        std::fs::read(self.file(node, "log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Fails if any node has ever panicked.
    pub(crate) fn assert_no_panic(&self) {
        for node in self.nodes() {
            let log = self.log(node);
            assert!(!log.contains("panicked"), "node {node} panicked:\n{log}");
        }
    }
}

/// Whether node `node` could have its three ports.
fn is_free(port: u16, node: usize) -> bool {
    let first = port + (node as u16 - 1) * 10;
    let tcp = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    tcp(first) && UdpSocket::bind((Ipv4Addr::LOCALHOST, first + 1)).is_ok() && tcp(first + 2)
}

/// A running `quorate dev`.
pub(crate) struct Dev<'h> {
    home: &'h Home,
    process: Child,
    stdin: Option<ChildStdin>,
    /// What it says, on stdout and stderr.
    pub(crate) lines: Lines,
}

impl Dev<'_> {
    /// Sends a line, and waits for an answer that contains `answer`.
    pub(crate) fn tell(&mut self, line: &str, answer: &str) -> String {
        let from = self.lines.count();
        writeln!(self.stdin.as_mut().expect("stdin is open"), "{line}").unwrap();
        self.lines.wait_for(from, answer)
    }

    /// Ends its stdin.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The nodes, counted from 1.
    pub(crate) fn nodes(&self) -> RangeInclusive<usize> {
        self.home.nodes()
    }

    /// Where a node serves HTTP.
    pub(crate) fn http(&self, node: usize) -> SocketAddr {
        self.address(node, 0)
    }

    /// Where a node takes QUIC.
    pub(crate) fn quic(&self, node: usize) -> SocketAddr {
        self.address(node, 1)
    }

    /// A node's admin port.
    pub(crate) fn admin(&self, node: usize) -> SocketAddr {
        self.address(node, 2)
    }

    fn address(&self, node: usize, offset: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.home.port + (node as u16 - 1) * 10 + offset).into()
    }

    /// The client's configuration.
    pub(crate) fn client_toml(&self) -> PathBuf {
        self.home.dir().join("client.toml")
    }

    /// A client of the library, on the caller's runtime.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(ClientConfig::from_file(self.client_toml()).unwrap())
            .await
            .unwrap()
    }

    /// A node's process id, by its pid file.
    pub(crate) fn pid(&self, node: usize) -> Pid {
        eventually(&format!("a pid file of node {node}"), || {
            let text = std::fs::read_to_string(self.home.file(node, "pid")).ok()?;
            Pid::from_raw(text.trim().parse().expect("pid files are whole"))
        })
    }

    /// Sends a signal to a node, from outside.
    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        kill_process(self.pid(node), signal).unwrap();
    }

    /// Waits until every node answers and sees all others.
    pub(crate) fn wait_until_whole(&self) {
        for node in self.nodes() {
            eventually(&format!("node {node} sees all others"), || {
                let reply = http::get(self.admin(node), "/v1/cluster/status").try_send().ok()?;
                let peers = reply.json()["peers"].as_array().cloned()?;
                (reply.status == 200 && peers.iter().all(|peer| peer["connected"] == true)).then_some(())
            });
        }
    }

    /// The same, after the start of a node that may have to set its data aside first.
    pub(crate) fn wait_until_back(&self, node: usize) {
        eventually(&format!("node {node} is ready"), || {
            (http::get(self.http(node), "/readyz").try_send().ok()?.status == 200).then_some(())
        });
        self.wait_until_whole();
    }

    /// Sends a signal to `quorate dev` itself.
    pub(crate) fn signal_dev(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits until `quorate dev` has ended by itself, and gives its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait(&mut self.process).code()
    }

    /// Stops everything as a user would, and checks that all went well to the end.
    pub(crate) fn stop(mut self) {
        self.signal_dev(Signal::TERM);
        assert_eq!(self.wait(), Some(0), "{:#?}", self.lines.all());
        for node in self.nodes() {
            assert!(
                !self.home.file(node, "pid").exists(),
                "the pid file of node {node} is left"
            );
        }
        let killed = self
            .lines
            .all()
            .into_iter()
            .find(|line| line.contains("did not stop in time"));
        assert_eq!(killed, None);
        self.home.assert_no_panic();
    }
}

impl Drop for Dev<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("quorate dev said:\n{}", self.lines.all().join("\n"));
            for node in self.nodes() {
                let log = self.home.log(node);
                let lines: Vec<&str> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
                eprintln!("node {node} logged, at last:\n{}", tail.join("\n"));
            }
        }
        if matches!(self.process.try_wait(), Ok(None)) {
            // Its children end with it: they asked the kernel for that. Paused ones cannot, until they go on.
            let _ = self.process.kill();
            let _ = self.process.wait();
            for node in self.nodes() {
                let pid = std::fs::read_to_string(self.home.file(node, "pid")).ok();
                if let Some(pid) = pid.and_then(|text| Pid::from_raw(text.trim().parse().ok()?)) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
    }
}
