//! All nodes together: carries out commands, and says in one line what it did.

use super::child::{Child, how};
use super::command::{Command, HELP, parse};
use super::layout::{Layout, Place};
use crate::cli::CliError;
use crate::cli::error::plain;
use crate::cli::health::Health;
use crate::cli::output::{Output, Terminal};
use crate::cli::status::text;
use crate::cli::survey::survey;
use quorate_client::{Client, ClientConfig};
use rustix::process::Signal;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long nodes may take to stop before they are killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long `start` looks whether a node that was there is about to end: somebody may have killed it just now.
const END_LIMIT: Duration = Duration::from_millis(100);
/// How often it is looked whether they have.
const STOP_POLL: Duration = Duration::from_millis(20);
/// How long `status` waits for a node.
const STATUS_PATIENCE: Duration = Duration::from_millis(500);

/// The nodes, and how they are cut off from each other.
pub(super) struct Cluster<'a> {
    children: Vec<Child<'a>>,
    groups: Vec<Vec<usize>>,
    client_config: PathBuf,
}

/// A node that has ended without our doing.
pub(super) struct Ended {
    /// What to tell.
    pub(super) told: String,
    /// What to tell if it had not even been ready. `None` if somebody killed it.
    pub(super) in_vain: Option<String>,
}

impl<'a> Cluster<'a> {
    /// All nodes, down.
    pub(super) fn new(layout: &'a Layout) -> Cluster<'a> {
        Cluster {
            children: layout.places().iter().map(Child::new).collect(),
            groups: Vec::new(),
            client_config: layout.client_config(),
        }
    }

    /// Starts every node.
    pub(super) fn start_all(&mut self) -> Result<(), CliError> {
        for child in &mut self.children {
            child
                .start()
                .map_err(|error| plain(format!("cannot start {}: {error}", child.place.name)))?;
        }
        Ok(())
    }

    /// Looks which nodes have ended.
    pub(super) fn reap(&mut self) -> Vec<Ended> {
        let ended = self
            .children
            .iter_mut()
            .filter_map(|child| child.reap().map(|status| ended(child, status)));
        ended.collect()
    }

    /// Carries out one line; `None` if it was empty.
    pub(super) async fn carry_out(&mut self, line: &str) -> Option<String> {
        let told = match parse(line, self.children.len()) {
            Ok(None) => return None,
            Err(mistake) => mistake,
            Ok(Some(Command::Status)) => self.status().await,
            Ok(Some(Command::Help)) => HELP.to_owned(),
            Ok(Some(Command::Kill(at))) => self.kill(at),
            Ok(Some(Command::Start(at))) => self.start(at).await,
            Ok(Some(Command::Pause(at))) => self.pause(at),
            Ok(Some(Command::Partition(groups))) => self.cut(groups),
            Ok(Some(Command::Heal)) => self.cut(Vec::new()),
        };
        Some(told)
    }

    fn kill(&mut self, at: usize) -> String {
        let child = &mut self.children[at];
        let name = &child.place.name;
        match child.pid() {
            None => format!("{name} is down already"),
            Some(pid) => tell(child.kill(), || format!("{name} killed (pid {pid})")),
        }
    }

    fn pause(&mut self, at: usize) -> String {
        let child = &mut self.children[at];
        let name = &child.place.name;
        match child.pid() {
            None => format!("{name} is down; start {} first", at + 1),
            Some(_) if child.paused => format!("{name} is paused already"),
            Some(pid) => tell(child.signal(Signal::STOP), || format!("{name} paused (pid {pid})")),
        }
    }

    async fn start(&mut self, at: usize) -> String {
        let line = control_line(&self.blocked(at));
        let child = &mut self.children[at];
        let name = &child.place.name;
        let was_paused = child.paused;
        let resumed = child.signal(Signal::CONT);
        let before = match ended_by_now(child).await {
            Some(status) => format!("; before, it {}", how(status)),
            None => String::new(),
        };
        match child.pid() {
            Some(pid) if was_paused => tell(resumed, || format!("{name} goes on (pid {pid})")),
            // Somebody else may have stopped it. One that was not does not notice.
            Some(_) => tell(resumed, || format!("{name} runs (resumed)")),
            None => match child.start() {
                Err(error) => format!("cannot start {name}: {error}"),
                Ok(pid) => {
                    child.tell(&line);
                    format!("{name} started (pid {pid}){before}")
                }
            },
        }
    }

    /// Cuts the groups off from each other; no groups: heals.
    fn cut(&mut self, groups: Vec<Vec<usize>>) -> String {
        let had_cut = !self.groups.is_empty();
        self.groups = groups;
        for at in 0..self.children.len() {
            let line = control_line(&self.blocked(at));
            self.children[at].tell(&line);
        }
        let names = |group: &Vec<usize>| {
            group
                .iter()
                .map(|at| self.children[*at].place.name.as_str())
                .collect::<Vec<_>>()
        };
        let groups: Vec<String> = self.groups.iter().map(|group| names(group).join(",")).collect();
        match (groups.is_empty(), had_cut) {
            (true, true) => "healed: all nodes reach each other again".to_owned(),
            (true, false) => "nothing was cut".to_owned(),
            (false, _) => format!("cut: {} (between nodes; clients still reach all)", groups.join(" | ")),
        }
    }

    /// QUIC addresses that a node must not reach: everybody in other groups than its own.
    fn blocked(&self, at: usize) -> Vec<String> {
        if !self.groups.iter().any(|group| group.contains(&at)) {
            return Vec::new();
        }
        let others = self.groups.iter().filter(|group| !group.contains(&at)).flatten();
        others
            .map(|other| self.children[*other].place.quic.to_string())
            .collect()
    }

    /// What the nodes say, and beside it what they cannot say: that they are down or paused.
    async fn status(&self) -> String {
        let idle = self
            .children
            .iter()
            .filter(|child| child.pid().is_none() || child.paused);
        let idle: Vec<String> = idle.map(state).collect();
        let said = match self.client().await {
            Ok(client) => {
                let survey = survey(&client, STATUS_PATIENCE).await;
                text(&survey, &Health::of(&survey), &Terminal::detect(Output::Table))
                    .trim_end()
                    .to_owned()
            }
            Err(error) => error.message,
        };
        if idle.is_empty() {
            said
        } else {
            format!("{said}\n{}", idle.join(", "))
        }
    }

    /// A new client each time: one that has been dialing in vain for a while dials seldom, and would be the last to know.
    async fn client(&self) -> Result<Client, CliError> {
        let mut config = ClientConfig::from_file(&self.client_config)?;
        config.patience.connect = STATUS_PATIENCE;
        Ok(Client::connect(config).await?)
    }

    /// Stops every node: politely, for [`STOP_LIMIT`] or until `hurry` completes; then by force.
    pub(super) async fn stop_all(&mut self, hurry: impl Future<Output = ()>) {
        self.children.iter_mut().for_each(Child::stop);
        let deadline = Instant::now() + STOP_LIMIT;
        let gone = async {
            while self.children.iter().any(|child| child.pid().is_some()) && Instant::now() < deadline {
                sleep(STOP_POLL).await;
                for child in &mut self.children {
                    child.reap();
                }
            }
        };
        tokio::select! {
            () = gone => {}
            () = hurry => {}
        }
        for child in &mut self.children {
            if child.pid().is_some() {
                super::say(&format!("{} did not stop in time and is killed", child.place.name));
                let _ = child.kill();
            }
        }
    }
}

/// How the node ended, if it does within [`END_LIMIT`].
async fn ended_by_now(child: &mut Child<'_>) -> Option<ExitStatus> {
    let deadline = Instant::now() + END_LIMIT;
    loop {
        let status = child.reap();
        if status.is_some() || child.pid().is_none() || Instant::now() >= deadline {
            return status;
        }
        sleep(STOP_POLL).await;
    }
}

fn tell(done: io::Result<()>, told: impl FnOnce() -> String) -> String {
    match done {
        Ok(()) => told(),
        Err(error) => format!("that failed: {error}"),
    }
}

fn state(child: &Child<'_>) -> String {
    let name = &child.place.name;
    match child.pid() {
        None => format!("{name} is down"),
        Some(pid) if child.paused => format!("{name} is paused (pid {pid})"),
        Some(pid) => format!("{name} runs (pid {pid})"),
    }
}

fn ended(child: &Child<'_>, status: ExitStatus) -> Ended {
    let Place { name, number, .. } = child.place;
    let by_itself = status.code().is_some();
    let tail = match by_itself {
        true => format!(
            "; its log, {}, ends:{}",
            child.place.file("log").display(),
            child.log_tail()
        ),
        false => String::new(),
    };
    let how = how(status);
    Ended {
        told: format!("{name} {how}, and stays down until: start {number}{tail}"),
        in_vain: by_itself.then(|| format!("{name} did not start: it {how}{tail}")),
    }
}

/// What tells a node whom not to reach: exactly these.
fn control_line(blocked: &[String]) -> String {
    match blocked {
        [] => "unblock\n".to_owned(),
        blocked => format!("block {}\n", blocked.join(",")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use quorate_ring::NodeId;
    use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, kill_process, waitid, waitpid};

    fn places() -> Vec<Place> {
        let place = |number: usize| Place {
            number,
            name: format!("n{number}"),
            id: NodeId([number as u8; 16]),
            zone: "z1".into(),
            dir: "/nowhere".into(),
            http: format!("127.0.0.1:{number}0").parse().unwrap(),
            quic: format!("127.0.0.1:{number}1").parse().unwrap(),
            admin: format!("127.0.0.1:{number}2").parse().unwrap(),
        };
        (1..=4).map(place).collect()
    }

    fn cluster(places: &[Place]) -> Cluster<'_> {
        Cluster {
            children: places.iter().map(Child::new).collect(),
            groups: Vec::new(),
            client_config: "/nowhere/client.toml".into(),
        }
    }

    #[tokio::test]
    async fn a_partition_blocks_both_ways_and_leaves_the_unnamed_alone() {
        let places = places();
        let mut cluster = cluster(&places);
        let told = cluster.carry_out("partition 1,2 3").await.unwrap();
        assert_eq!(told, "cut: n1,n2 | n3 (between nodes; clients still reach all)");
        assert_eq!(cluster.blocked(0), ["127.0.0.1:31"]);
        assert_eq!(cluster.blocked(1), ["127.0.0.1:31"]);
        assert_eq!(cluster.blocked(2), ["127.0.0.1:11", "127.0.0.1:21"]);
        assert_eq!(cluster.blocked(3), [""; 0]);
        assert_eq!(
            cluster.carry_out("heal").await.unwrap(),
            "healed: all nodes reach each other again"
        );
        assert_eq!(cluster.blocked(0), [""; 0]);
        assert_eq!(cluster.carry_out("heal").await.unwrap(), "nothing was cut");
    }

    #[test]
    fn a_node_is_told_exactly_whom_not_to_reach() {
        assert_eq!(control_line(&["a:1".to_owned(), "b:2".to_owned()]), "block a:1,b:2\n");
        assert_eq!(control_line(&[]), "unblock\n");
    }

    #[tokio::test(start_paused = true)]
    async fn start_notices_that_somebody_killed_the_node() {
        let home = tempfile::tempdir().unwrap();
        let mut places = places();
        places[1].dir = home.path().join("gone");
        let mut cluster = cluster(&places);
        let process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&process);
        cluster.children[1] = Child::with_process(&places[1], process);
        kill_process(pid, Signal::KILL).unwrap();
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let told = cluster.carry_out("start 2").await.unwrap();
        // It tries; there is no directory to start it in.
        assert!(told.starts_with("cannot start n2"), "{told}");
        assert_eq!(cluster.children[1].pid(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn start_resumes_a_node_that_somebody_else_stopped() {
        let places = places();
        let mut cluster = cluster(&places);
        let process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&process);
        cluster.children[1] = Child::with_process(&places[1], process);
        kill_process(pid, Signal::STOP).unwrap();
        assert!(waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap().1.stopped());
        assert_eq!(cluster.carry_out("start 2").await.unwrap(), "n2 runs (resumed)");
        assert!(
            waitpid(Some(pid), WaitOptions::CONTINUED)
                .unwrap()
                .unwrap()
                .1
                .continued()
        );
        assert!(cluster.carry_out("pause 2").await.unwrap().starts_with("n2 paused"));
        assert!(cluster.carry_out("start 2").await.unwrap().starts_with("n2 goes on"));
        assert!(cluster.carry_out("kill 2").await.unwrap().starts_with("n2 killed"));
    }

    #[tokio::test]
    async fn commands_that_do_not_fit_say_so_in_one_line() {
        let places = places();
        let mut cluster = cluster(&places);
        assert_eq!(cluster.carry_out("").await, None);
        assert_eq!(cluster.carry_out("kill 2").await.unwrap(), "n2 is down already");
        assert_eq!(cluster.carry_out("pause 2").await.unwrap(), "n2 is down; start 2 first");
        assert!(cluster.carry_out("dance").await.unwrap().contains("try help"));
        let told = cluster.carry_out("status").await.unwrap();
        assert!(
            told.ends_with("\nn1 is down, n2 is down, n3 is down, n4 is down"),
            "{told}"
        );
    }
}
