//! The verbs of the command line against a cluster: answers, JSON that stays, exit codes.

use crate::support::output::run;
use crate::support::{Dev, Home, quorate};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::path::Path;

/// What a command did.
struct Done {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Done {
    fn expect(self, code: i32) -> Done {
        assert_eq!(
            self.code,
            Some(code),
            "{}{}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.stdout)))
    }

    /// The error document on stderr.
    fn error(&self) -> Value {
        let document: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {}", self.stderr));
        assert_eq!(document["error"]["exit"], self.code.unwrap(), "{document}");
        assert!(document["error"]["message"].is_string(), "{document}");
        document["error"].clone()
    }
}

/// Runs `quorate` with these arguments and this input, as a client of the cluster.
fn with_input(dev: &Dev<'_>, line: &[&str], input: &[u8]) -> Done {
    let output = run(quorate().args(line).env("QUORATE_CLIENT", dev.client_toml()), input);
    Done {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn cli(dev: &Dev<'_>, line: &[&str]) -> Done {
    with_input(dev, line, b"")
}

fn values(found: &Value) -> Vec<String> {
    let listed = found["siblings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|sibling| sibling["deleted"] == false);
    let decode =
        |sibling: &Value| String::from_utf8(STANDARD.decode(sibling["value"].as_str().unwrap()).unwrap()).unwrap();
    let mut values: Vec<String> = listed.map(decode).collect();
    values.sort();
    values
}

#[test]
fn a_value_is_put_got_and_deleted_with_the_documented_exit_codes() {
    let home = Home::new();
    let dev = home.dev();
    cli(&dev, &["put", "demo", "greeting", "hello"]).expect(0);
    assert_eq!(
        cli(&dev, &["get", "demo", "greeting"]).expect(0).stdout,
        b"hello",
        "raw, and nothing else"
    );
    let written = cli(&dev, &["put", "demo", "greeting", "again", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(
        (&written["bucket"], &written["key"]),
        (&"demo".into(), &"greeting".into())
    );
    assert!(
        written["context"].is_string() && written["coordinator"].is_string(),
        "{written}"
    );
    assert!(
        written["replicas"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|replica| replica["state"] == "acked")
            .count()
            >= 2,
        "{written}"
    );
    let found = cli(&dev, &["-o", "json", "get", "demo", "greeting"]).expect(0).json();
    assert_eq!(
        (found["found"].as_bool(), values(&found)),
        (Some(true), vec!["again".to_owned()])
    );
    assert_eq!(found["siblings"][0]["content_type"], "text/plain; charset=utf-8");
    cli(&dev, &["delete", "demo", "greeting"]).expect(0);
    let missing = cli(&dev, &["get", "demo", "greeting", "-o", "json"]).expect(4);
    assert_eq!(missing.json()["found"], false);
    assert!(missing.error()["message"].as_str().unwrap().contains("was deleted"));
    assert!(
        cli(&dev, &["get", "demo", "never"])
            .expect(4)
            .stderr
            .contains("does not exist")
    );
    cli(&dev, &["delete", "demo", "never"]).expect(4);
    for line in [
        &["put", "demo"][..],
        &["get", "demo"],
        &["get", "demo", "k", "-o", "yaml"],
        &["dance"],
        &["put", "demo", "k", "v", "--blind", "--resolve"],
    ] {
        cli(&dev, line).expect(2);
    }
    let long = "k".repeat(2000);
    assert!(
        cli(&dev, &["put", "demo", &long, "v"])
            .expect(2)
            .stderr
            .contains("1024")
    );
    dev.stop();
}

#[test]
fn values_come_from_arguments_files_and_stdin_and_are_bytes() {
    let home = Home::new();
    let dev = home.dev();
    let bytes: Vec<u8> = (0..=255).collect();
    for line in [&["put", "demo", "piped", "-"][..], &["put", "demo", "piped"]] {
        with_input(&dev, line, &bytes).expect(0);
        assert_eq!(cli(&dev, &["get", "demo", "piped"]).expect(0).stdout, bytes);
    }
    let file = home.scratch().join("value.bin");
    std::fs::write(&file, &bytes).unwrap();
    cli(
        &dev,
        &[
            "put",
            "demo",
            "filed",
            &format!("@{}", file.display()),
            "--content-type",
            "image/png",
            "--sort",
            "s/1",
        ],
    )
    .expect(0);
    let found = cli(&dev, &["get", "demo", "filed", "--sort", "s/1", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(
        (&found["sort"], &found["siblings"][0]["content_type"]),
        (&"s/1".into(), &"image/png".into())
    );
    assert_eq!(found["siblings"][0]["value"], STANDARD.encode(&bytes));
    cli(&dev, &["get", "demo", "filed"]).expect(4);
    assert!(
        cli(&dev, &["put", "demo", "filed", "@/no/such/file"])
            .expect(1)
            .stderr
            .contains("/no/such/file")
    );
    cli(&dev, &["put", "demo", "number", "--", "-5"]).expect(0);
    assert_eq!(cli(&dev, &["get", "demo", "number"]).expect(0).stdout, b"-5");
    let large = vec![1; (1 << 20) + 1];
    let error = with_input(&dev, &["put", "demo", "large", "-", "-o", "json"], &large)
        .expect(1)
        .error();
    assert_eq!(
        (&error["code"], &error["outcome"]),
        (&"too_large".into(), &"not_applied".into())
    );
    dev.stop();
}

#[test]
fn siblings_are_shown_and_never_covered_unasked() {
    let home = Home::new();
    let dev = home.dev();
    for value in ["one", "two", "three"] {
        cli(&dev, &["put", "demo", "cart", value, "--blind"]).expect(0);
    }
    let refused = cli(&dev, &["put", "demo", "cart", "all"]).expect(5);
    for shown in ["one", "two", "three", "3 siblings", "--resolve"] {
        assert!(refused.stderr.contains(shown), "{shown} in {}", refused.stderr);
    }
    cli(&dev, &["delete", "demo", "cart"]).expect(5);
    let got = cli(&dev, &["get", "demo", "cart"]).expect(5);
    assert!(got.stdout.is_empty(), "nothing is chosen silently");
    let found = cli(&dev, &["get", "demo", "cart", "-o", "json"]).expect(0).json();
    assert_eq!(values(&found), ["one", "three", "two"]);
    let first = cli(&dev, &["get", "demo", "cart", "--sibling", "1"]).expect(0).stdout;
    assert!(values(&found).contains(&String::from_utf8(first).unwrap()));
    cli(&dev, &["get", "demo", "cart", "--sibling", "4"]).expect(4);
    cli(&dev, &["put", "demo", "cart", "merged", "--resolve"]).expect(0);
    assert_eq!(cli(&dev, &["get", "demo", "cart"]).expect(0).stdout, b"merged");
    // A stale context covers what it was read with, and nothing since.
    let stale = found["context"].as_str().unwrap();
    cli(&dev, &["put", "demo", "cart", "late", "--context", stale]).expect(0);
    assert_eq!(
        values(&cli(&dev, &["get", "demo", "cart", "-o", "json"]).expect(0).json()),
        ["late", "merged"]
    );
    let forged = cli(
        &dev,
        &["put", "demo", "cart", "no", "--context", "AQIDBAUG", "-o", "json"],
    )
    .expect(5)
    .error();
    assert_eq!(
        (&forged["code"], &forged["outcome"]),
        (&"forged_context".into(), &"not_applied".into())
    );
    cli(&dev, &["delete", "demo", "cart", "--resolve"]).expect(0);
    cli(&dev, &["get", "demo", "cart"]).expect(4);
    dev.stop();
}

#[test]
fn status_ring_and_explain_tell_how_the_cluster_stands() {
    let home = Home::new();
    let mut dev = home.dev();
    cli(&dev, &["put", "demo", "greeting", "hello"]).expect(0);
    let status = cli(&dev, &["status", "-o", "json"]).expect(0).json();
    assert_eq!(
        (&status["health"], status["nodes"].as_array().unwrap().len()),
        (&"healthy".into(), 3)
    );
    assert_eq!(status["ring"]["agreed"], true);
    let ring = cli(&dev, &["ring", "--key", "demo/greeting", "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(
        (ring["members"].as_array().unwrap().len(), &ring["partitions"]),
        (3, &64.into())
    );
    assert_eq!(ring["placement"]["preference_list"][0]["role"], "primary");
    cli(&dev, &["ring", "--key", "no-slash"]).expect(2);
    let got = cli(&dev, &["get", "demo", "greeting", "--explain"]).expect(0);
    assert_eq!(got.stdout, b"hello", "the story goes to stderr");
    for part in ["token", "preference list", "coordinator", "primary", "ms"] {
        assert!(got.stderr.contains(part), "{part} in {}", got.stderr);
    }
    let explain = cli(&dev, &["get", "demo", "greeting", "--explain", "-o", "json"])
        .expect(0)
        .json()["explain"]
        .clone();
    assert_eq!(
        (
            explain["preference_list"].as_array().unwrap().len(),
            explain["partitions"].as_u64()
        ),
        (3, Some(64))
    );
    assert!(
        explain["replicas"].as_array().unwrap().len() >= 2 && explain["coordinator"].is_string(),
        "{explain}"
    );

    dev.tell("kill 2", "n2 killed");
    let status = cli(&dev, &["status", "-o", "json"]).expect(0).json();
    assert_eq!(status["health"], "degraded");
    let down: Vec<&Value> = status["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| node["state"] == "down")
        .collect();
    assert_eq!((down.len(), &down[0]["name"]), (1, &"n2".into()));
    cli(&dev, &["put", "demo", "greeting", "two of three"]).expect(0);
    dev.tell("kill 3", "n3 killed");
    let status = cli(&dev, &["status"]).expect(3);
    assert!(String::from_utf8_lossy(&status.stdout).contains("1 of 3 nodes answer"));
    let error = cli(&dev, &["get", "demo", "greeting", "--timeout-ms", "700", "-o", "json"])
        .expect(3)
        .error();
    let named: Vec<&str> = error["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|replica| replica["node"].as_str())
        .collect();
    assert!(named.contains(&"n2") && named.contains(&"n3"), "{error}");
    let error = cli(
        &dev,
        &["put", "demo", "greeting", "no", "--blind", "--timeout-ms", "700"],
    )
    .expect(3);
    assert!(
        error.stderr.contains("n2") && error.stderr.contains("n3"),
        "{}",
        error.stderr
    );
    dev.tell("kill 1", "n1 killed");
    assert!(
        cli(&dev, &["get", "demo", "greeting"])
            .expect(1)
            .stderr
            .contains("is the cluster running?")
    );
    dev.stop();
}

#[test]
fn the_configuration_is_found_by_flag_environment_or_the_usual_place_and_its_mistakes_are_placed() {
    let home = Home::new();
    let dev = home.dev();
    let code = |line: &[&str], from: &Path, client: Option<&Path>| {
        let mut command = quorate();
        command.args(line).current_dir(from);
        if let Some(client) = client {
            command.env("QUORATE_CLIENT", client);
        }
        let output = run(&mut command, b"");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let toml = dev.client_toml();
    let (here, elsewhere) = (home.scratch(), home.dir());
    assert_eq!(
        code(&["put", "demo", "k", "v"], here, None).0,
        Some(0),
        "./quorate-dev/client.toml"
    );
    assert_eq!(code(&["get", "demo", "k"], &elsewhere, Some(&toml)).0, Some(0));
    assert_eq!(
        code(
            &["get", "demo", "k", "--config", toml.to_str().unwrap()],
            &elsewhere,
            Some(Path::new("/none"))
        )
        .0,
        Some(0)
    );
    let (exit, told) = code(&["get", "demo", "k"], &elsewhere, None);
    assert!(exit == Some(1) && told.contains("QUORATE_CLIENT"), "{told}");
    let wrong = elsewhere.join("wrong.toml");
    std::fs::write(&wrong, std::fs::read_to_string(&toml).unwrap() + "\nendpoint = 1\n").unwrap();
    let (exit, told) = code(&["get", "demo", "k"], &elsewhere, Some(&wrong));
    assert!(
        exit == Some(1) && told.contains("wrong.toml:8:1: ") && told.contains("endpoint"),
        "{told}"
    );
    dev.stop();
}

#[test]
fn a_cluster_with_zones_and_a_load_can_be_thrown_away_at_the_end_and_nothing_else_ever_is() {
    let home = Home::new();
    std::fs::create_dir(home.dir()).unwrap();
    let thesis = home.dir().join("thesis.txt");
    std::fs::write(&thesis, "years").unwrap();
    let port = home.port().to_string();
    let output = run(
        quorate()
            .args(["dev", "--temp", "--http-port", &port, "--dir"])
            .arg(home.dir()),
        b"",
    );
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(std::fs::read(&thesis).unwrap(), b"years");
    std::fs::remove_file(&thesis).unwrap();

    let mut dev = home.dev_with(&["--temp", "--zones", "3", "--load"]);
    dev.lines.wait_for(0, "ready");
    let ring = cli(&dev, &["ring", "-o", "json"]).expect(0).json();
    let members = ring["members"].as_array().unwrap().iter();
    let mut zones: Vec<&str> = members.map(|member| member["zone"].as_str().unwrap()).collect();
    zones.sort_unstable();
    assert_eq!(zones, ["z1", "z2", "z3"]);
    let told = dev.lines.wait_for(0, "load: ");
    assert!(told.contains(" 0 failed, 0 of unknown outcome"), "{told}");
    for line in [
        "curl -i -X PUT",
        "get demo greeting --explain --config",
        "run --target quorate --config",
        "SIGTERM",
    ] {
        dev.lines.wait_for(0, line);
    }
    home.assert_no_panic();
    dev.tell("kill 2", "n2 killed");
    dev.stop();
    assert!(!home.dir().join("n1").exists() && !home.dir().join("ca.key").exists());
}
