//! CPU time of processes, from `/proc`.
//!
//! The kernel counts in ticks of 10 ms, which is fine over seconds. Only Linux has it; elsewhere, and for processes
//! that have ended, there is simply no figure.

use std::path::Path;
use std::time::Duration;

/// User and system ticks of a process, all threads together, from the text of `/proc/PID/stat`.
pub fn ticks(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses and may hold anything, parentheses and spaces included.
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// CPU time that a process has used so far.
pub fn of(pid: u32) -> Option<Duration> {
    let ticks = ticks(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    Some(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// The process ids of a `quorate dev` directory: the first line of `n1/pid`, `n2/pid`, …
pub fn pids_beside(config: &Path) -> Vec<u32> {
    let directory = config.parent().unwrap_or(Path::new(""));
    let pid = |node: u32| {
        let text = std::fs::read_to_string(directory.join(format!("n{node}/pid"))).ok()?;
        text.lines().next()?.trim().parse().ok()
    };
    // Nodes may have left, so a gap is no end.
    (1..=64).filter_map(pid).collect()
}

/// CPU time of the generator and of the servers at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    client: Option<Duration>,
    /// `None` as soon as one of them has no figure.
    servers: Option<Duration>,
}

impl Sample {
    /// Takes one, now.
    pub fn take(servers: &[u32]) -> Sample {
        let sum = servers.iter().map(|pid| of(*pid)).sum::<Option<Duration>>();
        Sample {
            client: of(std::process::id()),
            servers: sum.filter(|_| !servers.is_empty()),
        }
    }

    /// Microseconds per operation since `earlier`: client and servers. `None` where there is no figure.
    pub fn per_operation(&self, earlier: &Sample, operations: u64) -> (Option<f64>, Option<f64>) {
        let per = |now: Option<Duration>, then: Option<Duration>| {
            let used = now?.checked_sub(then?)?;
            (operations > 0).then(|| used.as_secs_f64() * 1e6 / operations as f64)
        };
        (per(self.client, earlier.client), per(self.servers, earlier.servers))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_ticks_are_found_behind_any_program_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 111 222 0 0 20 0 1 0 100 1 1";
        for name in ["quorate", "a) S 1 2 (b", ")))", "with spaces"] {
            assert_eq!(ticks(&format!("42 ({name}) {rest}")), Some(333), "{name}");
        }
        for bad in [
            "",
            "42",
            "42 (x)",
            "42 (x) S 1 2 3",
            "42 (x) S 1 2 3 4 5 6 7 8 9 10 a b",
        ] {
            assert_eq!(ticks(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_process_has_a_figure_and_one_that_never_was_has_none() {
        assert!(of(std::process::id()).is_some());
        assert!(of(u32::MAX).is_none());
    }

    #[test]
    fn pid_files_are_found_beside_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        for (node, text) in [("n1", "11\n"), ("n3", "33\nstarted\n"), ("n4", "rubbish")] {
            std::fs::create_dir(directory.path().join(node)).unwrap();
            std::fs::write(directory.path().join(node).join("pid"), text).unwrap();
        }
        assert_eq!(pids_beside(&directory.path().join("client.toml")), [11, 33]);
    }

    #[test]
    fn a_cost_is_time_over_operations() {
        let at = |ms| Sample {
            client: Some(Duration::from_millis(ms)),
            servers: None,
        };
        assert_eq!(at(300).per_operation(&at(100), 1000), (Some(200.0), None));
        assert_eq!(at(300).per_operation(&at(100), 0), (None, None));
    }
}
