//! The binary as a script sees it, without a cluster: exit codes, what goes to stdout and what to stderr.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `quorate` in a directory, with nothing of this process's configuration.
fn quorate(dir: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(dir).args(line.split_whitespace()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_command_line_that_makes_no_sense_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        "",
        "frobnicate",
        "put demo",
        "put demo k v --blind --resolve",
        "get demo k -o yaml",
        "dev --nodes 0",
        "ring --key nokey",
    ] {
        let output = quorate(dir.path(), line);
        assert_eq!(output.status.code(), Some(2), "{line}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn help_and_version_exit_with_0() {
    let dir = tempfile::tempdir().unwrap();
    for line in ["--help", "--version", "put --help", "cert node --help"] {
        assert_eq!(quorate(dir.path(), line).status.code(), Some(0), "{line}");
    }
}

#[test]
fn a_client_verb_without_a_cluster_says_how_to_name_one() {
    let dir = tempfile::tempdir().unwrap();
    let output = quorate(dir.path(), "get demo k");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("error: no configuration: give --config FILE or set QUORATE_CLIENT"),
        "{}",
        stderr(&output)
    );
    let output = quorate(dir.path(), "get demo k --config absent.toml -o json");
    assert_eq!(output.status.code(), Some(1));
    let error = &json(&output.stderr)["error"];
    assert_eq!(error["exit"], 1);
    assert!(error["message"].as_str().unwrap().contains("absent.toml"));
}

#[test]
fn an_error_in_a_nodes_configuration_names_file_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("quorate.toml"), "name = \"n1\"\n  data = 1\n").unwrap();
    let output = quorate(dir.path(), "start --config quorate.toml");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("error: quorate.toml:2:3: unknown field `data`"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn certificates_are_made_and_shown_as_json() {
    let dir = tempfile::tempdir().unwrap();
    for line in ["cert ca --cluster demo", "cert node", "cert client alice"] {
        let output = quorate(dir.path(), line);
        assert!(output.status.success(), "{line}: {}", stderr(&output));
    }
    let shown = json(&quorate(dir.path(), "cert show ca.pem node.pem alice.pem -o json").stdout);
    let identities: Vec<&str> = (0..3).map(|at| shown[at]["identity"].as_str().unwrap()).collect();
    assert_eq!((identities[0], identities[2]), ("CA", "client alice"));
    assert!(identities[1].starts_with("node "));
    let again = quorate(dir.path(), "cert ca");
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("ca.pem is there already") && stderr(&again).contains("hint: --force"),
        "{}",
        stderr(&again)
    );
}
