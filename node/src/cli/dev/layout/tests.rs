//! What is on disk after `prepare`, and what stays the second time.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{NodeConfig, Overrides};
use quorate_client::ClientConfig;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

fn args(dir: &Path, http_port: u16) -> DevArgs {
    DevArgs {
        nodes: None,
        zones: None,
        dir: Some(dir.to_owned()),
        http_port: Some(http_port),
        temp: false,
        load: false,
    }
}

/// A port that is likely to be free: below those that the system hands out, and another one for each call and process.
fn free_port() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let turn = CALLS.fetch_add(1, Ordering::Relaxed);
    let spread = std::process::id()
        .wrapping_mul(101)
        .wrapping_add(turn.wrapping_mul(211))
        % 20_000;
    10_000 + spread as u16
}

/// Another process may take one of the ports in between; then others are tried.
fn prepare(mut args: DevArgs) -> Layout {
    for _ in 0..20 {
        match Layout::prepare(&args) {
            Ok(layout) => return layout,
            Err(error) if error.message.contains("is in use") => args.http_port = Some(free_port()),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no free ports");
}

fn files(layout: &Layout, names: &[&str]) -> Vec<Vec<u8>> {
    names
        .iter()
        .map(|name| fs::read(layout.dir().join(name)).unwrap())
        .collect()
}

#[test]
fn what_is_written_can_be_loaded_by_nodes_and_clients() {
    let dir = tempfile::tempdir().unwrap();
    let layout = prepare(DevArgs {
        nodes: Some(5),
        zones: Some(2),
        ..args(&dir.path().join("q"), free_port())
    });
    let mut digests = Vec::new();
    for place in layout.places() {
        let config = NodeConfig::load(&place.file("quorate.toml"), &Overrides::default()).unwrap();
        assert_eq!((config.id, &config.name), (place.id, &place.name));
        assert_eq!(config.data_dir, place.file("data"));
        assert_eq!(config.listen.quic.port(), config.listen.http.port() + 1);
        assert_eq!(config.listen.admin.port(), config.listen.http.port() + 2);
        assert_eq!(config.bucket_table().of(b"any").n, 3);
        crate::tls::Credentials::load(&config.tls, &Identity::Node(config.id))
            .unwrap()
            .server()
            .unwrap();
        digests.push(config.ring().digest());
    }
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "all nodes have the same ring"
    );
    let zones: Vec<&str> = layout.places().iter().map(|place| place.zone.as_str()).collect();
    assert_eq!(zones, ["z1", "z2", "z1", "z2", "z1"]);
    assert_eq!(layout.places()[1].http.port(), layout.places()[0].http.port() + 10);
    let client = ClientConfig::from_file(layout.client_config()).unwrap();
    assert_eq!(client.endpoints.len(), 5);
    assert!(client.tls.rustls_config().is_ok());
    for secret in ["ca.key", "client.key", "context.key", "n1/node.key"] {
        assert_eq!(
            fs::metadata(layout.dir().join(secret)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{secret}"
        );
    }
}

#[test]
fn one_or_two_nodes_have_a_smaller_n() {
    for nodes in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let layout = prepare(DevArgs {
            nodes: Some(nodes),
            ..args(dir.path(), free_port())
        });
        let config = NodeConfig::load(&layout.places()[0].file("quorate.toml"), &Overrides::default()).unwrap();
        assert_eq!(u16::from(config.bucket_table().of(b"any").n), nodes);
    }
}

#[test]
fn the_second_time_everything_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let first = prepare(DevArgs {
        nodes: Some(2),
        ..args(dir.path(), free_port())
    });
    let (places, names) = (
        first.places().to_vec(),
        ["ca.pem", "client.pem", "n1/node.key", "context.key", "client.toml"],
    );
    let before = files(&first, &names);
    let edited = first.places()[0].file("quorate.toml");
    fs::write(
        &edited,
        fs::read_to_string(&edited).unwrap() + "\n[limits]\ncache_mib = 8\n",
    )
    .unwrap();
    drop(first);
    let again = prepare(DevArgs {
        nodes: None,
        http_port: None,
        ..args(dir.path(), 0)
    });
    assert_eq!(again.places(), places);
    assert_eq!(files(&again, &names), before);
    let config = NodeConfig::load(&edited, &Overrides::default()).unwrap();
    assert_eq!(config.limits.cache_mib, 8, "an edited configuration stays");
}

#[test]
fn other_ports_keep_the_ids() {
    let dir = tempfile::tempdir().unwrap();
    let first = prepare(args(dir.path(), free_port()));
    let ids: Vec<NodeId> = first.places().iter().map(|place| place.id).collect();
    let port = first.places()[0].http.port();
    drop(first);
    let again = prepare(args(dir.path(), port + 1000));
    assert_ne!(again.places()[0].http.port(), port);
    assert_eq!(again.places().iter().map(|place| place.id).collect::<Vec<_>>(), ids);
    let config = NodeConfig::load(&again.places()[2].file("quorate.toml"), &Overrides::default()).unwrap();
    assert_eq!(config.listen.quic, again.places()[2].quic);
}

#[test]
fn what_is_missing_or_about_to_end_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let first = prepare(args(dir.path(), free_port()));
    let authority = Authority::load(&dir.path().join("ca.pem"), &dir.path().join("ca.key")).unwrap();
    let ending = authority
        .issue(&Identity::Node(first.places()[0].id), Validity::days(5))
        .unwrap();
    ending
        .write(&first.places()[0].file("node.pem"), &first.places()[0].file("node.key"))
        .unwrap();
    fs::remove_file(first.places()[1].file("quorate.toml")).unwrap();
    let kept = files(&first, &["ca.pem", "n3/node.pem"]);
    drop(first);
    let again = prepare(DevArgs {
        http_port: None,
        ..args(dir.path(), 0)
    });
    assert!(CertificateInfo::read(&again.places()[0].file("node.pem")).unwrap()[0].days_left > 300);
    assert!(again.places()[1].file("quorate.toml").exists());
    assert_eq!(files(&again, &["ca.pem", "n3/node.pem"]), kept);
}

#[test]
fn another_number_of_nodes_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    drop(prepare(args(dir.path(), free_port())));
    let error = Layout::prepare(&DevArgs {
        nodes: Some(4),
        http_port: None,
        ..args(dir.path(), 0)
    })
    .unwrap_err();
    assert!(error.message.contains("was made with --nodes 3, not 4"), "{error}");
    assert!(error.hint.unwrap().contains("leave --nodes out"));
    assert!(
        Layout::prepare(&DevArgs {
            zones: Some(2),
            http_port: None,
            ..args(dir.path(), 0)
        })
        .is_err()
    );
    assert!(!dir.path().join("n4").exists());
}

#[test]
fn a_second_one_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = prepare(args(dir.path(), free_port()));
    let error = Layout::prepare(&args(dir.path(), free_port())).unwrap_err();
    assert!(error.message.contains("is in use by another quorate dev"), "{error}");
    assert!(error.message.contains(&std::process::id().to_string()), "{error}");
}

#[test]
fn a_busy_port_is_named_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port();
    let error = Layout::prepare(&args(dir.path(), port)).unwrap_err();
    assert!(
        error.message.contains(&format!("port {port}")) && error.message.contains("HTTP of n1"),
        "{error}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let new = dir.path().join("new");
    assert!(Layout::prepare(&args(&new, port)).is_err());
    assert!(!new.exists(), "made for nothing, so removed again");
    fs::write(dir.path().join("mine"), "").unwrap();
    assert!(Layout::prepare(&args(dir.path(), port)).is_err());
    assert!(dir.path().join("mine").exists());
}

#[test]
fn a_temporary_directory_may_be_named_and_is_removed_at_the_end() {
    let parent = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir_in(parent.path()).unwrap().keep();
    for dir in [parent.path().join("new"), empty] {
        let layout = prepare(DevArgs {
            temp: true,
            ..args(&dir, free_port())
        });
        assert!(dir.join("client.toml").exists());
        drop(layout);
        assert!(!dir.exists());
    }
}

#[test]
fn a_temporary_directory_with_something_in_it_is_refused_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let temporary = |dir: &Path| {
        Layout::prepare(&DevArgs {
            temp: true,
            ..args(dir, free_port())
        })
    };
    let (used, link) = (dir.path().join("used"), dir.path().join("link"));
    fs::create_dir(&used).unwrap();
    std::os::unix::fs::symlink(&used, &link).unwrap();
    assert!(temporary(&link).is_err());
    fs::write(used.join("mine"), "").unwrap();
    let error = temporary(&used).unwrap_err();
    assert!(error.message.contains("no new or empty directory"), "{error}");
    assert_eq!(fs::read_dir(&used).unwrap().count(), 1);
}

#[test]
fn more_zones_than_nodes_are_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = Layout::prepare(&DevArgs {
        zones: Some(4),
        ..args(dir.path(), free_port())
    })
    .unwrap_err();
    assert_eq!(error.exit, crate::cli::Exit::Usage);
    assert!(
        error.message.contains("--zones 4 is more than there are nodes, 3"),
        "{error}"
    );
}

#[test]
fn ports_beyond_the_last_one_are_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = Layout::prepare(&args(dir.path(), 65_530)).unwrap_err();
    assert_eq!(error.exit, crate::cli::Exit::Usage);
}
