//! Each refusal with the text that causes it: the message must name the place and the remedy.
#![allow(clippy::unwrap_used)]

use super::*;
use quorate_core::bucket::Durability;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const GOOD: &str = r#"name = "n1"
data_dir = "data"

[cluster]
name = "demo"
partition_bits = 6
context_key_file = "context.key"

[[cluster.members]]
id = "11111111-1111-4111-8111-111111111111"
name = "n1"
zone = "z1"
quic = "127.0.0.1:7701"
http = "127.0.0.1:7700"

[[cluster.members]]
id = "22222222-2222-4222-8222-222222222222"
name = "n2"
zone = "z1"
weight = 2
quic = "127.0.0.1:7711"

[listen]
admin = "127.0.0.1:7702"

[tls]
ca = "ca.pem"
certificate = "node.pem"
key = "node.key"

[buckets.default]
n = 2

[buckets.logs]
n = 1
blind_writes = "require"

[limits]
operations_max = 100

[log]
level = "debug"
format = "json"
"#;

fn directory(text: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let files = [
        ("quorate.toml", text, 0o644),
        ("ca.pem", "", 0o644),
        ("node.pem", "", 0o644),
        ("node.key", "", 0o600),
        ("context.key", &"0a".repeat(32), 0o600),
    ];
    for (name, content, mode) in files {
        fs::write(dir.path().join(name), content).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let path = dir.path().join("quorate.toml");
    (dir, path)
}

/// A node of two, and the directory that it lives in.
pub(crate) fn one_of_two() -> (TempDir, NodeConfig) {
    let (dir, path) = directory(GOOD);
    let config = NodeConfig::load(&path, &Overrides::default()).unwrap();
    (dir, config)
}

/// A node that is alone, and the directory that it lives in.
pub(crate) fn alone() -> (TempDir, NodeConfig) {
    let (one, rest) = GOOD.split_at(GOOD.rfind("[[cluster.members]]").unwrap());
    let rest = &rest[rest.find("[listen]").unwrap()..];
    let (dir, path) = directory(&format!("{one}{rest}").replace("n = 2", "n = 1"));
    let config = NodeConfig::load(&path, &Overrides::default()).unwrap();
    (dir, config)
}

fn refusal(text: &str, overrides: &Overrides) -> String {
    let (dir, path) = directory(text);
    let message = NodeConfig::load(&path, overrides).unwrap_err().to_string();
    message.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn a_whole_file_is_taken_as_it_is_written() {
    let (dir, path) = directory(GOOD);
    let config = NodeConfig::load(&path, &Overrides::default()).unwrap();
    assert_eq!((config.name.as_str(), config.cluster.as_str()), ("n1", "demo"));
    assert_eq!(config.id.to_string(), "11111111-1111-4111-8111-111111111111");
    assert_eq!(
        config.data_dir,
        dir.path().join("data"),
        "paths are relative to the file"
    );
    assert_eq!(config.tls.ca, dir.path().join("ca.pem"));
    assert_eq!(
        config.listen.quic.to_string(),
        "127.0.0.1:7701",
        "taken from the member"
    );
    assert_eq!(config.listen.admin.to_string(), "127.0.0.1:7702");
    assert_eq!(config.ring().partitions(), 64);
    assert_eq!(config.members()[1].weight, 2);
    assert_eq!(config.members()[1].http, "");
    let buckets = config.bucket_table();
    assert_eq!((buckets.of(b"anything").n, buckets.of(b"logs").n), (2, 1));
    assert_eq!(config.engine_limits().operations_max, 100);
    assert_eq!(config.limits.slots_max, NodeLimits::default().slots_max);
    assert_eq!(
        config.log,
        LogConfig {
            level: "debug".into(),
            format: LogFormat::Json
        }
    );
}

#[test]
fn how_it_heals_and_what_buckets_promise_is_taken_from_the_file() {
    let text = GOOD
        .replace(
            "n = 2",
            "n = 2\nquorum = \"strict\"\npr = 1\npw = 2\nttl_seconds = 60\ndurability = \"relaxed\"",
        )
        .replace(
            "[log]",
            "[healing]\nhints = false\nhint_mib = 7\nexchange_every_s = 9\n[log]",
        );
    let (_dir, path) = directory(&text);
    let config = NodeConfig::load(&path, &Overrides::default()).unwrap();
    let defaults = config.bucket_table().defaults;
    assert_eq!(
        (defaults.quorum, defaults.pr, defaults.pw, defaults.ttl_seconds),
        (QuorumKind::Strict, Some(1), Some(2), Some(60))
    );
    assert_eq!(defaults.durability, Durability::Relaxed);
    let limits = config.engine_limits();
    assert_eq!((limits.hints, limits.hint_bytes_max), (false, 7 << 20));
    assert_eq!((limits.exchange, limits.exchange_every), (true, Duration::from_secs(9)));
}

#[test]
fn buckets_that_name_no_quorum_can_keep_the_strict_one_and_the_nodes_still_agree() {
    let text = GOOD.to_owned() + "[buckets.named]\nquorum = \"sloppy\"\n";
    let (_dir, path) = directory(&text);
    let mut config = NodeConfig::load(&path, &Overrides::default()).unwrap();
    let digest = config.settings_digest();
    let quorums = |config: &NodeConfig| {
        let table = config.bucket_table();
        [b"any" as &[u8], b"logs", b"named"].map(|bucket| table.of(bucket).quorum)
    };
    assert_eq!(quorums(&config), [QuorumKind::Sloppy; 3]);
    assert_eq!(config.open_quorums().collect::<Vec<_>>(), ["default", "logs"]);
    config.keep_strict();
    assert_eq!(
        quorums(&config),
        [QuorumKind::Strict, QuorumKind::Strict, QuorumKind::Sloppy]
    );
    assert_eq!(config.settings_digest(), digest);
}

#[test]
fn overrides_win_over_the_file() {
    let (_dir, path) = directory(GOOD);
    let overrides = Overrides {
        data_dir: Some("elsewhere".into()),
        listen_http: Some("127.0.0.1:8000".parse().unwrap()),
        log_level: Some("warn".into()),
        ..Overrides::default()
    };
    let config = NodeConfig::load(&path, &overrides).unwrap();
    assert_eq!(
        config.data_dir,
        PathBuf::from("elsewhere"),
        "relative to the working directory"
    );
    assert_eq!(config.listen.http.port(), 8000);
    assert_eq!(config.log.level, "warn");
}

#[test]
fn what_is_wrong_in_the_file_is_named_with_line_and_column() {
    let cases = [
        (
            "data_dir = \"data\"",
            "data_dri = \"data\"",
            "quorate.toml:2:1: unknown field `data_dri`, expected one of `name`, `data_dir`, `cluster`",
        ),
        (
            "weight = 2",
            "wieght = 2",
            "quorate.toml:20:1: unknown field `wieght`, expected one of `id`, `name`, `zone`, `weight`, `quic`, `http`",
        ),
        (
            "blind_writes =",
            "blind =",
            "quorate.toml:36:1: unknown field `blind`, expected one of `n`, `r`, `w`",
        ),
        (
            "\"require\"",
            "\"maybe\"",
            "quorate.toml:36:16: unknown variant `maybe`, expected one of `siblings`, `require`, `replace`",
        ),
        (
            "operations_max = 100",
            "operations = 100",
            "quorate.toml:39:1: unknown field `operations`, expected one of `operations_max`",
        ),
        (
            "partition_bits = 6",
            "partition_bits = \"6\"",
            "quorate.toml:6:18: invalid type: string \"6\", expected u8",
        ),
        (
            "partition_bits = 6",
            "partition_bits = 17",
            "quorate.toml:6:18: 17 partition bits, but 16 is the most",
        ),
        (
            "name = \"n1\"\ndata",
            "name = \"n9\"\ndata",
            "quorate.toml:1:8: no member is called \"n9\"; the members are n1, n2",
        ),
        (
            "name = \"n2\"",
            "name = \"n1\"",
            "quorate.toml:18:8: two members have the name \"n1\"",
        ),
        (
            "22222222-2222-4222-8222-222222222222",
            "11111111-1111-4111-8111-111111111111",
            "quorate.toml:17:6: two members have the id",
        ),
        (
            "22222222-2222-4222-8222-222222222222",
            "n2",
            "quorate.toml:17:6: not a node id: \"n2\"; write it like",
        ),
        (
            "127.0.0.1:7711",
            "127.0.0.1:7701",
            "quorate.toml:21:8: two members have the address \"127.0.0.1:7701\"",
        ),
        (
            "127.0.0.1:7711",
            "localhost",
            "quorate.toml:21:8: \"localhost\" is no address; write it as IP:PORT",
        ),
        (
            "127.0.0.1:7702",
            "0.0.0.0:7702",
            "quorate.toml:24:9: 0.0.0.0:7702 can be reached from other machines",
        ),
        (
            "n = 1\n",
            "n = 1\nr = 2\n",
            "quorate.toml:34:10: bucket \"logs\": r is 2; it must be 1 to n, and n is 1",
        ),
        (
            "n = 2\n",
            "n = 0\n",
            "quorate.toml:31:10: bucket \"default\": n is 0; it must be 1 to 7",
        ),
        (
            "n = 1\n",
            "n = 1\nsiblings_max = 0\n",
            "quorate.toml:34:10: bucket \"logs\": siblings_max is 0, which would refuse every write; it must be at least 1",
        ),
        (
            "operations_max = 100",
            "operations_max = 0",
            "operations_max is 0, so the node could do nothing",
        ),
        (
            "operations_max = 100",
            "flush_interval_ms = 0",
            "flush_interval_ms is 0, so the node could do nothing",
        ),
        (
            "operations_max = 100",
            "flush_interval_ms = 2001",
            "flush_interval_ms is 2001; it must be 1 to 2000",
        ),
        (
            "[limits]\n",
            "[healing]\nhint = false\n[limits]\n",
            "quorate.toml:39:1: unknown field `hint`, expected one of `hints`, `hint_mib`",
        ),
        (
            "[limits]\n",
            "[healing]\nexchange_every_s = 601\n[limits]\n",
            "exchange_every_s is 601; it must be 1 to 600",
        ),
        (
            "[limits]\n",
            "[healing]\nsettle_after_s = 6\n[limits]\n",
            "settle_after_s is 6; it must be 7 to 86400",
        ),
        (
            "n = 1\n",
            "n = 1\nttl_seconds = 0\n",
            "quorate.toml:34:10: bucket \"logs\": ttl_seconds is 0, so every value would be gone at once",
        ),
        (
            "n = 1\n",
            "n = 1\nquorum = \"loose\"\n",
            "quorate.toml:36:10: unknown variant `loose`, expected `strict` or `sloppy`",
        ),
        (
            "n = 1\n",
            "n = 1\ndurability = \"lax\"\n",
            "quorate.toml:36:14: unknown variant `lax`, expected `durable` or `relaxed`",
        ),
        (
            "\"debug\"",
            "\"loud\"",
            "quorate.toml:42:9: \"loud\" is no log level; write a level (error, warn, info",
        ),
        ("[listen]", "[listen", "quorate.toml:23:8: "),
        (
            "zone = \"z1\"\nweight",
            "zone = \"\"\nweight",
            "quorate.toml:19:8: names and zones have 1 to 255 bytes",
        ),
    ];
    for (good, bad, expected) in cases {
        assert!(GOOD.contains(good), "{good}");
        let message = refusal(&GOOD.replacen(good, bad, 1), &Overrides::default());
        assert!(
            message.contains(expected),
            "{bad}\n  expected: {expected}\n  got:      {message}"
        );
    }
}

#[test]
fn secrets_that_others_can_read_are_refused_with_the_command_to_type() {
    for name in ["node.key", "context.key"] {
        let (dir, path) = directory(GOOD);
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o640)).unwrap();
        let message = NodeConfig::load(&path, &Overrides::default()).unwrap_err().to_string();
        assert!(message.contains("its mode is 0640"), "{message}");
        assert!(
            message.ends_with(&format!("type: chmod 600 {}", dir.path().join(name).display())),
            "{message}"
        );
    }
}

#[test]
fn missing_files_are_named_with_their_path() {
    for name in ["quorate.toml", "ca.pem", "node.pem", "node.key", "context.key"] {
        let (dir, path) = directory(GOOD);
        fs::remove_file(dir.path().join(name)).unwrap();
        let message = NodeConfig::load(&path, &Overrides::default()).unwrap_err().to_string();
        assert!(
            message.contains(&dir.path().join(name).display().to_string()),
            "{message}"
        );
    }
}

#[test]
fn a_file_that_is_not_text_is_refused_with_the_place() {
    let (_dir, path) = directory(GOOD);
    fs::write(&path, b"name = \"n1\"\ndata_dir = \"\xff\"").unwrap();
    let message = NodeConfig::load(&path, &Overrides::default()).unwrap_err().to_string();
    assert!(
        message.ends_with("quorate.toml:2:13: this is not UTF-8 text"),
        "{message}"
    );
}

#[test]
fn a_context_key_is_64_hexadecimal_digits() {
    for bad in ["", "0a", &"0g".repeat(32), &"0a".repeat(33), &"ü".repeat(32)] {
        let (dir, path) = directory(GOOD);
        fs::write(dir.path().join("context.key"), bad).unwrap();
        let message = NodeConfig::load(&path, &Overrides::default()).unwrap_err().to_string();
        assert!(message.contains("must hold 64 hexadecimal digits"), "{message}");
    }
}

#[test]
fn http_off_loopback_needs_a_word() {
    let open = Overrides {
        listen_http: Some("0.0.0.0:7700".parse().unwrap()),
        ..Overrides::default()
    };
    let message = refusal(GOOD, &open);
    assert!(
        message.starts_with("--listen-http: 0.0.0.0:7700 can be reached"),
        "{message}"
    );
    let (_dir, path) = directory(GOOD);
    let allowed = Overrides {
        insecure_http: true,
        ..open
    };
    assert!(NodeConfig::load(&path, &allowed).unwrap().listen.insecure_http);
    let (_dir, path) = directory(&GOOD.replace("[listen]", "[listen]\ninsecure_http = true\nhttp = \"0.0.0.0:7700\""));
    assert!(NodeConfig::load(&path, &Overrides::default()).is_ok());
}
