//! Data directories that are empty, or older than they should be.

use super::{NODES, end_well, home_with, step};
use crate::support::bulk::Bulk;
use crate::support::http::get;
use crate::support::load::Load;
use crate::support::{Home, eventually};
use std::path::Path;
use std::process::Command;

const BULK: Bulk = Bulk {
    bucket: "bulk",
    bytes: 1024,
};
const KEYS: usize = 600;

/// Waits until a node has logged it.
fn wait_for_log(home: &Home, node: usize, part: &str) -> String {
    eventually(&format!("{part:?} in the log of node {node}"), || {
        let log = home.log(node);
        let line = log.lines().find(|line| line.contains(part)).map(str::to_owned);
        line.inspect(|line| println!("node {node}: {line}"))
    })
}

/// The names of what was set aside in a data directory.
fn set_aside(data: &Path) -> Vec<String> {
    let names = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("aside-")).collect()
}

#[test]
fn a_node_whose_data_was_wiped_under_load_has_all_of_it_again() {
    let home = home_with(3, "");
    let mut dev = home.dev();
    BULK.write(&dev, 0..KEYS, Some(0));
    let load = Load::start(dev.client_toml());
    load.wait_for_more(100);
    step("kill node 2, and remove its data");
    dev.tell("kill 2", "n2 killed");
    BULK.write(&dev, 0..KEYS / 2, Some(1));
    wipe(&home, 2);
    dev.tell("start 2", "n2 started");
    dev.wait_until_whole();
    load.wait_for_more(200);
    end_well(&dev, load);
    BULK.check(&dev, NODES, 0..KEYS / 2, Some(1));
    BULK.check(&dev, NODES, KEYS / 2..KEYS, Some(0));
    assert_eq!(dev.sum("quorate_rebuilding_partitions"), 0.0);
    dev.stop();
}

fn wipe(home: &Home, node: usize) {
    let data = home.file(node, "data");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&data, mode).unwrap();
}

#[test]
fn a_node_that_lost_its_data_does_not_vote_before_it_has_read_it_again_from_the_others() {
    let home = home_with(3, "\n[buckets.strict]\nquorum = \"strict\"\n");
    let bulk = Bulk {
        bucket: "strict",
        ..BULK
    };
    let mut dev = home.dev();
    bulk.write(&dev, 0..50, Some(0));
    step("kill nodes 2 and 3, wipe 2, start it: there is only node 1 to read from, which is not enough");
    dev.tell("kill 2", "n2 killed");
    dev.tell("kill 3", "n3 killed");
    wipe(&home, 2);
    dev.tell("start 2", "n2 started");
    eventually("node 2 serves, and says that it is rebuilding", || {
        let left = dev.healing(2)?["rebuilding"]["partitions"].as_u64()?;
        (left > 0).then_some(())
    });
    eventually("nodes 1 and 2 are connected", || {
        let reply = get(dev.admin(1), "/v1/cluster/status").try_send().ok()?;
        let peers = reply.json()["peers"].as_array().cloned()?;
        let up = |peer: &serde_json::Value| peer["name"] == "n2" && peer["connected"] == true;
        peers.iter().any(up).then_some(())
    });
    for node in [1, 2] {
        for key in 0..10 {
            let path = format!("/v1/kv/strict/bulk-{key:05}?timeout_ms=300");
            eventually(
                "node 2 is named as one that is rebuilding, and nobody answers before",
                || {
                    let refused = get(dev.http(node), &path).send().expect(503).json();
                    (named(&refused, "n2")? == "rebuilding").then_some(())
                },
            );
        }
    }
    assert!(dev.healing(2).unwrap()["rebuilding"]["partitions"].as_u64().unwrap() > 0);
    step("start node 3");
    dev.tell("start 3", "n3 started");
    dev.wait_until_whole();
    dev.wait_until_settled();
    bulk.check(&dev, NODES, 0..50, Some(0));
    dev.stop();
}

/// What a problem document says of a node.
fn named(problem: &serde_json::Value, node: &str) -> Option<String> {
    let mut replicas = problem["replicas"].as_array().unwrap().iter();
    let found = replicas.find(|replica| replica["node"] == node)?;
    Some(found["state"].as_str().unwrap().to_owned())
}

#[test]
fn an_older_copy_of_the_data_that_is_put_back_is_set_aside_and_brings_nothing_back() {
    let home = home_with(3, "");
    let mut dev = home.dev();
    BULK.write(&dev, 0..KEYS, Some(0));
    let load = Load::start(dev.client_toml());
    load.wait_for_more(100);
    step("stop node 3, and copy its data");
    dev.tell("kill 3", "n3 killed");
    let (data, copy) = (home.file(3, "data"), home.scratch().join("copy"));
    copy_all(&data, &copy);
    dev.tell("start 3", "n3 started");
    dev.wait_until_whole();
    step("delete a third and overwrite a third, and let the deletes settle");
    let thirds = [0..KEYS / 3, KEYS / 3..KEYS * 2 / 3, KEYS * 2 / 3..KEYS];
    BULK.write(&dev, thirds[0].clone(), None);
    BULK.write(&dev, thirds[1].clone(), Some(1));
    eventually("the deletes are dropped everywhere", || {
        let reaped = |node| dev.metric(node, "quorate_settle_reaped_total").unwrap_or_default();
        NODES
            .iter()
            .all(|node| reaped(*node) >= (KEYS / 3) as f64)
            .then_some(())
    });
    step("stop it, and put the copy back");
    dev.tell("kill 3", "n3 killed");
    std::fs::remove_dir_all(&data).unwrap();
    copy_all(&copy, &data);
    dev.tell("start 3", "n3 started");
    wait_for_log(&home, 3, "older copy");
    dev.wait_until_back(3);
    load.wait_for_more(200);
    end_well(&dev, load);
    BULK.check(&dev, NODES, thirds[0].clone(), None);
    BULK.check(&dev, NODES, thirds[1].clone(), Some(1));
    BULK.check(&dev, NODES, thirds[2].clone(), Some(0));
    let aside = set_aside(&data);
    println!("set aside: {aside:?}");
    assert_eq!(aside.len(), 1, "{aside:?}");
    dev.stop();
}

fn copy_all(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}
