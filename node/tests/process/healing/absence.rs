//! Nodes that were away and have everything: killed, paused, two owners of five nodes.

use super::{NODES, end_well, home_with, step};
use crate::support::bulk::Bulk;
use crate::support::http::{Reply, get, put};
use crate::support::load::Load;
use crate::support::{Dev, eventually};
use std::collections::BTreeMap;
use std::time::Duration;

const BULK: Bulk = Bulk {
    bucket: "bulk",
    bytes: 1024,
};
const KEYS: usize = 300;

#[test]
fn a_node_that_was_killed_gets_everything_it_missed_by_hints() {
    let home = home_with(3, "");
    let mut dev = home.dev();
    BULK.write(&dev, 0..KEYS, Some(0));
    let load = Load::start(dev.client_toml());
    load.wait_for_more(100);
    step("kill -9 node 2 under load, and overwrite everything");
    dev.tell("kill 2", "n2 killed");
    BULK.write(&dev, 0..KEYS, Some(1));
    load.wait_for_more(200);
    dev.wait_for_hints(2);
    step("start it");
    dev.tell("start 2", "n2 started");
    dev.wait_until_whole();
    load.wait_for_more(200);
    end_well(&dev, load);
    BULK.check(&dev, NODES, 0..KEYS, Some(1));
    let delivered = dev.sum("quorate_hints_delivered_total");
    assert!(delivered >= KEYS as f64, "{delivered} hints went home");
    dev.stop();
}

#[test]
fn a_node_that_was_paused_gets_everything_it_missed() {
    let home = home_with(3, "");
    let mut dev = home.dev();
    BULK.write(&dev, 0..KEYS, Some(0));
    let load = Load::start(dev.client_toml());
    load.wait_for_more(100);
    step("SIGSTOP node 3 for 12 s: as good as half a minute, since its connections die after 5 s");
    dev.tell("pause 3", "n3 paused");
    load.keep_up_for(Duration::from_secs(9));
    BULK.write(&dev, 0..KEYS, Some(1));
    load.keep_up_for(Duration::from_secs(3));
    dev.wait_for_hints(3);
    dev.tell("start 3", "n3 goes on");
    dev.wait_until_whole();
    load.wait_for_more(200);
    end_well(&dev, load);
    BULK.check(&dev, NODES, 0..KEYS, Some(1));
    dev.stop();
}

/// A key's owners, in order.
fn owners(dev: &Dev<'_>, bucket: &str, key: &str) -> Vec<usize> {
    let path = format!("/v1/cluster/ring?bucket={bucket}&key={key}");
    let asked = dev.nodes().find_map(|node| get(dev.admin(node), &path).try_send().ok());
    let list = asked.expect("some node is up").expect(200).json()["placement"]["preference_list"].clone();
    let primaries = list
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["role"] == "primary");
    let number = |entry: &serde_json::Value| entry["node"].as_str().unwrap()[1..].parse().unwrap();
    primaries.map(number).collect()
}

/// Who acknowledged, and how: `{1: "primary;durable"}`.
fn acks(reply: &Reply) -> BTreeMap<usize, String> {
    let acks = reply.header("Quorate-Acks").unwrap().split(", ").map(|ack| {
        let (node, how) = ack.split_once('=').unwrap();
        (node[1..].parse().unwrap(), how.to_owned())
    });
    acks.collect()
}

#[test]
fn with_two_owners_of_a_key_down_its_writes_go_on_with_a_fallback_and_come_home() {
    let home = home_with(5, "\n[buckets.strict]\nquorum = \"strict\"\n");
    let mut dev = home.dev();
    let path = "/v1/kv/sloppy/key";
    let owners = owners(&dev, "sloppy", "key");
    let strangers = Vec::from_iter(dev.nodes().filter(|node| !owners.contains(node)));
    assert_eq!(owners.len(), 3);
    let before = put(dev.http(owners[0]), path, "before").send().expect(204);
    step("kill two of the three owners");
    for owner in &owners[1..] {
        dev.tell(&format!("kill {owner}"), &format!("n{owner} killed"));
    }
    let written = eventually("the write is taken", || {
        let reply = put(dev.http(owners[0]), path, "during").context(&before).send();
        (reply.status == 204).then_some(reply)
    });
    let acks = acks(&written);
    println!("acknowledged by {acks:?}, owners {owners:?}");
    assert!(acks[&owners[0]].starts_with("primary;durable"), "{acks:?}");
    let fallback = strangers.iter().find(|node| acks.contains_key(node));
    let fallback = fallback.unwrap_or_else(|| panic!("no fallback in {acks:?}"));
    assert_eq!(acks[fallback], "fallback;durable");
    assert_eq!(get(dev.http(owners[0]), path).send().expect(200).text(), "during");
    eventually("who is no owner finds one that is there", || {
        let read = get(dev.http(strangers[0]), path).send();
        (read.status == 200).then(|| assert_eq!(read.text(), "during"))
    });
    step("the strict quorum says no, and why");
    let strict = strict_refusal(&dev, &owners);
    println!("{strict}");
    step("start them again");
    for owner in &owners[1..] {
        dev.tell(&format!("start {owner}"), &format!("n{owner} started"));
    }
    dev.wait_until_whole();
    dev.wait_until_settled();
    for owner in &owners {
        let found = get(dev.http(*owner), &format!("{path}?r=1")).send().expect(200);
        assert_eq!(found.text(), "during", "at owner {owner}");
    }
    dev.stop();
}

/// What is said of a write to a strict bucket, to a key with the same two owners down.
fn strict_refusal(dev: &Dev<'_>, down: &[usize]) -> serde_json::Value {
    let key = (0..).map(|at| format!("key-{at}"));
    let key = key.map(|key| (owners(dev, "strict", &key), key));
    let mut key = key.filter(|(owners, _)| down[1..].iter().all(|node| owners.contains(node)));
    let (owners, key) = key.next().expect("an endless row");
    let up = owners.iter().find(|owner| !down[1..].contains(owner)).unwrap();
    let refused = put(dev.http(*up), &format!("/v1/kv/strict/{key}?timeout_ms=1500"), "x").send();
    refused.expect(503).json()
}

#[test]
fn writes_of_relaxed_durability_say_so_and_survive_the_death_of_all_processes() {
    let home = home_with(3, "\n[buckets.relaxed]\ndurability = \"relaxed\"\n");
    let mut dev = home.dev();
    let load = Load::start_in("relaxed", dev.client_toml());
    load.wait_for_more(100);
    let reply = put(dev.http(1), "/v1/kv/relaxed/of-its-own", "x").send().expect(204);
    assert!(acks(&reply).values().all(|how| how == "primary;accepted"), "{reply:?}");
    step("kill -9 of all nodes under load: the kernel still has what was not synced");
    for node in NODES {
        dev.tell(&format!("kill {node}"), &format!("n{node} killed"));
    }
    for node in NODES {
        dev.tell(&format!("start {node}"), &format!("n{node} started"));
    }
    dev.wait_until_whole();
    load.wait_for_more(100);
    end_well(&dev, load);
    for node in NODES {
        let found = get(dev.http(node), "/v1/kv/relaxed/of-its-own?r=1").send().expect(200);
        assert_eq!(found.text(), "x");
    }
    dev.stop();
}
