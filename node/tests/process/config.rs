//! A node that cannot start says why, where, and what to do; and what wins: flags, environment, file.

use crate::support::output::{Lines, run, wait};
use crate::support::{Home, eventually, http, quorate};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory that `quorate dev` has made and left: configurations, certificates, data.
fn made() -> Home {
    let home = Home::new();
    let dev = home.dev();
    http::put(dev.http(1), "/v1/kv/config/key", "x").send().expect(204);
    dev.stop();
    home
}

fn start(config: &Path) -> Command {
    let mut command = quorate();
    command.args(["start", "--config"]).arg(config);
    command
}

/// Runs a node that must refuse to start, and gives what it says.
fn refused(command: &mut Command) -> String {
    let output = run(command, b"");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{:?}: {told}",
        output.status
    );
    assert!(!told.contains("panicked"), "{told}");
    told
}

/// Writes a variant of a node's configuration beside it.
fn variant(home: &Home, change: impl Fn(&str) -> String) -> PathBuf {
    let text = fs::read_to_string(home.file(1, "quorate.toml")).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text);
    let path = home.file(1, "variant.toml");
    fs::write(&path, changed).unwrap();
    path
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_file_line_and_column() {
    let home = made();
    let cases: [(&str, &str, &str); 8] = [
        ("[log]\n", "[log]\n  lewel = \"info\"\n", "lewel"),
        ("name = \"n1\"\ndata_dir", "nmae = \"n1\"\ndata_dir", "nmae"),
        ("[listen]\n", "[listen]\nhtpp = \"127.0.0.1:1\"\n", "htpp"),
        ("n = 3", "n = 0", "it must be 1 to 7"),
        ("n = 3", "n = 3\nr = 4", "it must be 1 to n"),
        (
            "name = \"n1\"\ndata_dir",
            "name = \"n9\"\ndata_dir",
            "the members are n",
        ),
        ("partition_bits = 6", "partition_bits = \"six\"", "expected u8"),
        ("[tls]\n", "[tls\n", ""),
    ];
    for (from, to, part) in cases {
        let path = variant(&home, |text| text.replacen(from, to, 1));
        let told = refused(&mut start(&path));
        let place = told
            .split("variant.toml:")
            .nth(1)
            .unwrap_or_else(|| panic!("no place in {told}"));
        let mut numbers = place.split(':').take(2).map(|number| number.parse::<usize>());
        assert!(numbers.all(|number| number.is_ok_and(|number| number > 0)), "{told}");
        assert!(told.contains(part), "{part:?} in {told}");
    }
    let path = variant(&home, |text| text.replacen("[log]\n", "[log]\n  lewel = \"info\"\n", 1));
    let line = fs::read_to_string(&path)
        .unwrap()
        .lines()
        .position(|line| line.contains("lewel"))
        .unwrap()
        + 1;
    assert!(refused(&mut start(&path)).contains(&format!("variant.toml:{line}:3: ")));
    let told = refused(&mut start(&home.file(1, "none.toml")));
    assert!(told.contains("none.toml"), "{told}");
    assert_eq!(
        run(quorate().arg("start"), b"").status.code(),
        Some(2),
        "no configuration at all is a mistake of usage"
    );
}

#[test]
fn data_of_another_node_another_cluster_or_a_newer_version_is_left_alone() {
    let home = made();
    let config = home.file(1, "quorate.toml");
    let told = refused(start(&config).arg("--data-dir").arg(home.file(2, "data")));
    assert!(told.contains("belongs to node"), "{told}");
    let renamed = variant(&home, |text| text.replacen("name = \"dev\"", "name = \"prod\"", 1));
    let told = refused(&mut start(&renamed));
    assert!(
        told.contains("belongs to cluster dev, the configuration says prod"),
        "{told}"
    );
    let format = home.file(1, "data").join("FORMAT");
    let was = fs::read(&format).unwrap();
    fs::write(&format, "quorate-data 99\n").unwrap();
    let told = refused(&mut start(&config));
    assert!(
        told.contains("has format 99") && told.contains("start the newer version"),
        "{told}"
    );
    // A FORMAT that is no format at all is damage: the data is set aside for it, see the tests of healing.
    fs::write(&format, was).unwrap();
    let strange = home.scratch().join("strange");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("thesis.txt"), "").unwrap();
    let told = refused(start(&config).arg("--data-dir").arg(&strange));
    assert!(told.contains("is not empty") && told.contains("thesis.txt"), "{told}");
    assert_eq!(fs::read_dir(&strange).unwrap().count(), 1);
    // After all these refusals everything is as it was.
    let dev = home.dev();
    assert_eq!(
        http::get(dev.http(1), "/v1/kv/config/key?r=3")
            .send()
            .expect(200)
            .text(),
        "x"
    );
    dev.stop();
}

#[test]
fn secrets_and_data_that_others_can_read_are_refused_with_the_command_that_mends_it() {
    let home = made();
    let config = home.file(1, "quorate.toml");
    let cases = [
        (home.file(1, "node.key"), 0o644, 0o600, "600"),
        (home.dir().join("context.key"), 0o640, 0o600, "600"),
        (home.file(1, "data"), 0o755, 0o700, "700"),
    ];
    for (path, loose, right, mode) in cases {
        fs::set_permissions(&path, fs::Permissions::from_mode(loose)).unwrap();
        let told = refused(&mut start(&config));
        assert!(
            told.contains(&format!("chmod {mode} ")) && told.contains(path.file_name().unwrap().to_str().unwrap()),
            "{told}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(right)).unwrap();
    }
    fs::copy(home.file(2, "node.pem"), home.file(1, "node.pem")).unwrap();
    let told = refused(&mut start(&config));
    assert!(told.contains("node.pem is the certificate of node "), "{told}");
}

#[test]
fn a_taken_port_or_directory_is_named_and_http_for_all_must_be_asked_for() {
    let home = made();
    let config = home.file(1, "quorate.toml");
    let taken = TcpListener::bind(("127.0.0.1", home.port())).unwrap();
    let told = refused(&mut start(&config));
    assert!(
        told.contains(&format!("cannot listen on {} for HTTP", taken.local_addr().unwrap())),
        "{told}"
    );
    drop(taken);
    let told = refused(start(&config).args(["--listen-http", "0.0.0.0:0"]));
    assert!(
        told.contains("--listen-http") && told.contains("--insecure-http"),
        "{told}"
    );
    let told = refused(start(&config).args(["--log-level", "loud=very"]));
    assert!(told.contains("--log-level"), "{told}");
    // The flag wins over the environment, and that over the file.
    let mut node = start(&config)
        .env("QUORATE_LISTEN_HTTP", "127.0.0.1:1")
        .env("QUORATE_LOG_FORMAT", "json")
        .args(["--listen-http", &format!("127.0.0.1:{}", home.port() + 5)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = Lines::default();
    lines.collect(node.stdout.take().unwrap());
    lines.collect(node.stderr.take().unwrap());
    let at = ([127, 0, 0, 1], home.port() + 5).into();
    eventually("the node is ready", || {
        (http::get(at, "/readyz").try_send().ok()?.status == 200).then_some(())
    });
    let told = refused(start(&config).args(["--listen-http", "127.0.0.1:0", "--listen-admin", "127.0.0.1:0"]));
    assert!(told.contains("is in use by process "), "{told}");
    kill_process(Pid::from_child(&node), Signal::TERM).unwrap();
    assert_eq!(wait(&mut node).code(), Some(0), "{:#?}", lines.all());
    assert!(
        lines
            .all()
            .iter()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{:#?}",
        lines.all()
    );
}

#[test]
fn nodes_that_were_told_different_things_do_not_connect_and_say_why() {
    let home = made();
    let path = home.file(3, "quorate.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("n = 3", "n = 3\nblind_writes = \"require\"", 1)).unwrap();
    let dev = home.dev_with(&[]);
    let told = eventually("some node was refused by another", || {
        let peers =
            |node| Some(http::get(dev.admin(node), "/v1/cluster/status").try_send().ok()?.json()["peers"].clone());
        let peers = [1, 2, 3]
            .into_iter()
            .filter_map(peers)
            .map(|peers| peers.to_string())
            .collect::<String>();
        peers.contains("refused").then_some(peers)
    });
    assert!(
        told.contains("settings differ") && told.contains("same members, buckets and context key"),
        "{told}"
    );
    // The two that agree find each other and serve, and the third serves nobody wrongly.
    eventually("the two that agree serve", || {
        let put = http::put(dev.http(1), "/v1/kv/config/key", "y").try_send().ok()?;
        (put.status == 204).then_some(())
    });
    http::put(dev.http(3), "/v1/kv/config/key?timeout_ms=500", "z")
        .header("Idempotency-Key", "z")
        .send()
        .expect(503);
    assert!(!dev.lines.all().iter().any(|line| line == "ready"));
    dev.stop();
}
