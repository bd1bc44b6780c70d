//! README's first five minutes, typed as they stand: every line exits 0, and every curl gives the status that its comment promises.
//!
//! The ports are replaced, the directory is the test's own, and a node is killed where the text says to. Lines for cargo are left out: what
//! they run is tested with the examples.

use crate::support::output::{Lines, listened};
use crate::support::{Dev, Home, skipped};
use std::io::Write;
use std::process::{Child, ChildStdin, Command};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
const SECTION: &str = "## The first five minutes";

/// A shell that stays, as a terminal does.
struct Shell {
    process: Child,
    stdin: ChildStdin,
    lines: Lines,
    typed: usize,
}

impl Shell {
    fn new(home: &Home) -> Shell {
        let mut command = Command::new("sh");
        command.current_dir(home.scratch()).env_remove("QUORATE_CLIENT");
        let (mut process, lines) = listened(&mut command);
        Shell {
            stdin: process.stdin.take().unwrap(),
            process,
            lines,
            typed: 0,
        }
    }

    /// Types a line; gives its exit code and what it printed to stdout.
    fn type_in(&mut self, line: &str) -> (i32, String) {
        let from = self.lines.count();
        self.typed += 1;
        let mark = format!("<{}>", self.typed);
        writeln!(self.stdin, "{line}\nprintf '\\n%s %s\\n' \"$?\" '{mark}'").unwrap();
        let end = self.lines.wait_for(from, &mark);
        let code = end.split(' ').next().unwrap().parse().unwrap();
        (code, self.lines.all()[from..].join("\n"))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The section's blocks for a shell, each with the text before it.
fn blocks() -> Vec<(String, Vec<String>)> {
    let readme = std::fs::read_to_string(README).unwrap();
    let section = readme.split(SECTION).nth(1).expect("README has the section");
    let section = section.split("\n## ").next().unwrap();
    let mut blocks = Vec::new();
    let mut rest = section;
    while let Some((before, after)) = rest.split_once("```sh\n") {
        let (block, next) = after.split_once("```").expect("the block ends");
        let lines = block
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with("cargo "));
        blocks.push((before.to_owned(), lines.map(str::to_owned).collect()));
        rest = next;
    }
    blocks
}

/// The line as it is for this cluster.
fn adjusted(line: &str, dev: &Dev<'_>) -> String {
    [(7700, 1), (7710, 2), (7720, 3)]
        .iter()
        .fold(line.to_owned(), |line, (port, node)| {
            line.replace(&format!(":{port}"), &format!(":{}", dev.http(*node).port()))
        })
}

/// The status that a comment promises, as in `# 204, …`.
fn promised(line: &str) -> Option<u16> {
    let comment = line.rsplit_once("# ")?.1;
    comment.get(..3)?.parse().ok().filter(|_| line.starts_with("curl -i "))
}

#[test]
fn the_first_five_minutes_of_the_readme_go_as_they_are_told() {
    if Command::new("curl").arg("--version").output().is_err() {
        skipped("README's commands: there is no curl");
        return;
    }
    let home = Home::new();
    let bin = home.scratch().join("target/release");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_quorate"), bin.join("quorate")).unwrap();
    let mut dev = home.dev();
    let mut shell = Shell::new(&home);
    let (mut typed, mut checked) = (0, 0);
    for (before, lines) in blocks() {
        let kills = before.contains("type `kill 2`");
        if kills {
            dev.tell("kill 2", "n2 killed");
        }
        for line in lines {
            let (code, told) = shell.type_in(&adjusted(&line, &dev));
            // Off a terminal `get` chooses none of several siblings, and says so; README has a terminal.
            let expected = if line.contains("# siblings, side by side") {
                5
            } else {
                0
            };
            assert_eq!(code, expected, "{line}\n{told}");
            if let Some(status) = promised(&line) {
                assert!(told.contains(&format!("HTTP/1.1 {status} ")), "{line}\n{told}");
                checked += 1;
            }
            typed += 1;
        }
        if kills {
            dev.tell("start 2", "n2 started");
            dev.wait_until_whole();
        }
    }
    assert!(
        typed >= 20 && checked >= 8,
        "{typed} lines were typed, {checked} had a status"
    );
    drop(shell);
    dev.stop();
}
