//! Nodes that are killed, paused, cut off, stopped: what clients notice, and that nothing that was acknowledged is lost.

use crate::support::books::Books;
use crate::support::dev::NODES;
use crate::support::http::{self, get, put};
use crate::support::load::Load;
use crate::support::output::run;
use crate::support::{Dev, Home, SOON, eventually, quorate, runtime};
use quorate_client::{Error, Outcome};
use rustix::process::{Signal, test_kill_process};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a request may take beyond its own deadline on a busy machine.
const SLACK: Duration = Duration::from_secs(1);

/// Ends the load and holds its books against the cluster, which must be whole.
fn audit(dev: &Dev<'_>, load: Load) -> Books {
    let books = load.finish();
    let runtime = runtime();
    let client = runtime.block_on(dev.client());
    books.audit(&client, &runtime);
    books
}

/// Reads that need all three owners are answered, by every node.
fn assert_all_take_part(dev: &Dev<'_>) {
    for node in NODES {
        let path = format!("/v1/kv/part/of-{node}");
        let written = put(dev.http(node), &format!("{path}?w=3"), "x").send().expect(204);
        assert_eq!(written.header("Quorate-Acks").unwrap().split(", ").count(), 3);
        get(dev.http(node), &format!("{path}?r=3")).send().expect(200);
    }
}

#[test]
fn a_node_killed_under_load_costs_no_client_an_error_and_takes_part_again_when_started() {
    let home = Home::new();
    let mut dev = home.dev();
    let load = Load::start(dev.client_toml());
    load.wait_for_more(200);
    let old = dev.pid(2);
    dev.tell("kill 2", "n2 killed");
    assert!(test_kill_process(old).is_err() && !home.file(2, "pid").exists());
    // Longer than the idle timeout, after which the others know for sure.
    load.keep_up_for(Duration::from_secs(6));
    load.wait_for_more(200);
    get(dev.http(1), "/readyz").send().expect(200);
    dev.tell("start 2", "n2 started");
    dev.wait_until_whole();
    load.wait_for_more(200);
    assert_all_take_part(&dev);
    let books = audit(&dev, load);
    assert!(books.failures.is_empty(), "{:#?}", books.failures);
    dev.stop();
}

#[test]
fn all_nodes_killed_under_load_and_started_again_have_every_acknowledged_write() {
    let home = Home::new();
    let mut dev = home.dev();
    let load = Load::start(dev.client_toml());
    for round in 0..3 {
        load.wait_for_more(150);
        let from = dev.lines.count();
        for node in NODES {
            match round {
                0 => drop(dev.tell(&format!("kill {node}"), &format!("n{node} killed"))),
                _ => dev.signal(node, Signal::KILL),
            }
        }
        for node in NODES.iter().filter(|_| round > 0) {
            dev.lines.wait_for(
                from,
                &format!("n{node} was killed by signal 9, and stays down until: start {node}"),
            );
        }
        for node in NODES {
            dev.tell(&format!("start {node}"), &format!("n{node} started"));
        }
        dev.wait_until_whole();
    }
    load.wait_for_more(100);
    assert_all_take_part(&dev);
    let books = audit(&dev, load);
    // Each round takes less than the client's deadline, and a node that is back says so to those who still talk to its predecessor.
    assert!(books.failures.is_empty(), "{:#?}", books.failures);
    dev.stop();
}

#[test]
fn with_two_nodes_down_the_answer_is_a_503_in_time_that_names_them_and_says_what_became_of_the_write() {
    let home = Home::new();
    let mut dev = home.dev();
    let (path, deadline) = ("/v1/kv/lonely/key", Duration::from_millis(1500));
    put(dev.http(1), path, "before").send().expect(204);
    dev.tell("kill 2", "n2 killed");
    dev.tell("kill 3", "n3 killed");
    let timed = |request: http::Request| {
        let began = Instant::now();
        let reply = request.send();
        assert!(
            began.elapsed() < deadline + SLACK,
            "{:?} for a deadline of {deadline:?}",
            began.elapsed()
        );
        assert!(reply.header("Retry-After").is_some(), "{reply:?}");
        reply.expect(503).json()
    };
    let named = |problem: &serde_json::Value| {
        let states = problem["replicas"].as_array().unwrap().iter();
        let state = |replica: &serde_json::Value| {
            (
                replica["node"].as_str().unwrap().to_owned(),
                replica["state"].as_str().unwrap().to_owned(),
            )
        };
        let states: Vec<(String, String)> = states.map(state).collect();
        for node in ["n2", "n3"] {
            let found = states
                .iter()
                .find(|(name, _)| name == node)
                .unwrap_or_else(|| panic!("{node} is not named in {problem}"));
            assert!(
                ["timed_out", "down", "lost", "waiting"].contains(&found.1.as_str()),
                "{problem}"
            );
        }
        assert_eq!(problem["retryable"], true);
    };
    // The node may not know yet that the others are gone. What it has written itself, it cannot take back.
    let first = timed(put(
        dev.http(1),
        &format!("{path}?timeout_ms={}", deadline.as_millis()),
        "perhaps",
    ));
    named(&first);
    let read = timed(get(dev.http(1), &format!("{path}?timeout_ms={}", deadline.as_millis())));
    named(&read);
    assert_eq!(read["outcome"], "not_applied", "a read changes nothing");
    // Once it knows, it says so at once, and has not written.
    let sure = eventually("the node knows that it is alone", || {
        let refused = timed(put(
            dev.http(1),
            &format!("{path}?timeout_ms={}", deadline.as_millis()),
            "never",
        ));
        named(&refused);
        (refused["code"] == "unavailable").then_some(refused)
    });
    assert_eq!(sure["outcome"], "not_applied");
    client_is_told(&dev);
    get(dev.http(1), "/readyz").send().expect(200);
    dev.tell("start 2", "n2 started");
    dev.tell("start 3", "n3 started");
    dev.wait_until_whole();
    let found = get(dev.http(2), &format!("{path}?r=3")).send();
    assert!(found.text().contains("before") || found.status == 300, "{found:?}");
    if first["outcome"] == "not_applied" {
        assert_eq!(found.text(), "before");
    }
    dev.stop();
}

/// The library tells the same story, within the deadline that it was given.
fn client_is_told(dev: &Dev<'_>) {
    let deadline = Duration::from_secs(1);
    let runtime = runtime();
    let (error, took) = runtime.block_on(async {
        let bucket = dev.client().await.bucket("lonely").with_timeout(deadline);
        let began = Instant::now();
        (
            bucket.put("key-of-client", "x", None).await.unwrap_err(),
            began.elapsed(),
        )
    });
    assert!(took < deadline + SLACK, "{took:?}");
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error:?}");
    let down: Vec<&str> = error.replicas().iter().map(|replica| replica.node.as_str()).collect();
    assert!(down.contains(&"n2") && down.contains(&"n3"), "{error:?}");
}

#[test]
fn a_paused_node_costs_no_client_an_error() {
    let home = Home::new();
    let mut dev = home.dev();
    let load = Load::start(dev.client_toml());
    load.wait_for_more(150);
    dev.tell("pause 3", "n3 paused");
    load.keep_up_for(Duration::from_secs(3));
    load.wait_for_more(150);
    dev.tell("start 3", "n3 goes on");
    load.wait_for_more(150);
    dev.wait_until_whole();
    assert_all_take_part(&dev);
    let books = audit(&dev, load);
    assert!(books.failures.is_empty(), "{:#?}", books.failures);
    dev.stop();
}

#[test]
fn a_partition_leaves_the_majority_at_work_and_the_minority_with_a_clear_no() {
    let home = Home::new();
    let mut dev = home.dev();
    let path = "/v1/kv/cut/key";
    put(dev.http(3), path, "whole").send().expect(204);
    dev.tell("partition 1,2 3", "cut: n1,n2 | n3");
    let before = get(dev.http(1), path).send().expect(200);
    let written = put(dev.http(2), path, "majority").context(&before).send().expect(204);
    assert!(!written.header("Quorate-Acks").unwrap().contains("n3"));
    assert_eq!(get(dev.http(1), path).send().expect(200).text(), "majority");
    // Clients still reach the node that is cut off. It answers in time, before it has noticed and after.
    eventually("node 3 knows that it is alone", || {
        let began = Instant::now();
        let refused = put(dev.http(3), &format!("{path}?timeout_ms=800"), "minority")
            .send()
            .expect(503)
            .json();
        assert!(
            began.elapsed() < Duration::from_millis(800) + SLACK,
            "{:?}",
            began.elapsed()
        );
        get(dev.http(3), &format!("{path}?timeout_ms=200")).send().expect(503);
        (refused["code"] == "unavailable").then_some(())
    });
    get(dev.http(3), "/readyz").send().expect(200);
    put(dev.http(1), path, "majority again")
        .context(&written)
        .send()
        .expect(204);
    dev.tell("heal", "healed");
    dev.wait_until_whole();
    for node in NODES {
        let found = get(dev.http(node), &format!("{path}?r=3")).send();
        assert!(found.status == 200 || found.status == 300, "{found:?}");
        let listed = get(dev.http(node), path)
            .header("Accept", "application/vnd.quorate.siblings+json")
            .send()
            .json();
        let all = listed["siblings"].to_string();
        assert!(all.contains("bWFqb3JpdHkgYWdhaW4="), "{all}"); // "majority again"
    }
    for node in NODES {
        // What the minority kept of its writes of unknown outcome shows when all owners are asked.
        let found = get(dev.http(node), &format!("{path}?r=3")).send();
        put(dev.http(node), path, "after").context(&found).send().expect(204);
        assert_eq!(get(dev.http(node % 3 + 1), path).send().expect(200).text(), "after");
    }
    dev.stop();
}

#[test]
fn a_partition_under_load_costs_no_client_an_error_and_no_write() {
    let home = Home::new();
    let mut dev = home.dev();
    let load = Load::start(dev.client_toml());
    load.wait_for_more(100);
    for cut in ["partition 1,2 3", "partition 1 2,3"] {
        dev.tell(cut, "cut: ");
        // Longer than the idle timeout: the first half of it nobody knows, the second half everybody does.
        load.keep_up_for(Duration::from_secs(6));
        load.wait_for_more(100);
        dev.tell("heal", "healed");
        dev.wait_until_whole();
    }
    load.wait_for_more(100);
    let books = audit(&dev, load);
    assert!(books.failures.is_empty(), "{:#?}", books.failures);
    dev.stop();
}

#[test]
fn nodes_that_are_stopped_politely_one_after_the_other_cost_no_client_an_error() {
    let home = Home::new();
    let mut dev = home.dev();
    let load = Load::start(dev.client_toml());
    for node in NODES {
        load.wait_for_more(100);
        let from = dev.lines.count();
        dev.signal(node, Signal::TERM);
        dev.lines.wait_for(from, &format!("n{node} ended with exit code 0"));
        load.wait_for_more(100);
        dev.tell(&format!("start {node}"), &format!("n{node} started"));
        dev.wait_until_whole();
    }
    let books = audit(&dev, load);
    assert!(books.failures.is_empty(), "{:#?}", books.failures);
    dev.stop();
}

#[test]
fn sigterm_ends_everything_cleanly_and_the_same_command_takes_the_data_up_again() {
    let home = Home::new();
    let mut dev = home.dev();
    put(dev.http(1), "/v1/kv/kept/key", "kept").send().expect(204);
    second_dev_is_refused(&home);
    dev.close_stdin();
    put(dev.http(2), "/v1/kv/kept/second", "kept too").send().expect(204);
    dev.stop();
    let mut dev = home.dev();
    assert_eq!(get(dev.http(3), "/v1/kv/kept/key").send().expect(200).text(), "kept");
    assert_eq!(
        get(dev.http(1), "/v1/kv/kept/second").send().expect(200).text(),
        "kept too"
    );
    // ^C, and with a node that is paused.
    dev.tell("pause 2", "n2 paused");
    dev.signal_dev(Signal::INT);
    assert_eq!(dev.wait(), Some(0));
    assert!(NODES.iter().all(|node| !home.file(*node, "pid").exists()));
    // kill -9 of `quorate dev` itself leaves no nodes behind either.
    let mut dev = home.dev();
    let pids = NODES.map(|node| dev.pid(node));
    dev.signal_dev(Signal::KILL);
    assert_eq!(dev.wait(), None);
    eventually("the nodes of a killed dev are gone", || {
        pids.iter().all(|pid| test_kill_process(*pid).is_err()).then_some(())
    });
    let dev = home.dev();
    assert_eq!(get(dev.http(2), "/v1/kv/kept/key").send().expect(200).text(), "kept");
    dev.stop();
}

fn second_dev_is_refused(home: &Home) {
    let output = run(
        quorate()
            .arg("dev")
            .arg("--dir")
            .arg(home.dir())
            .args(["--http-port", "19000"]),
        b"",
    );
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("in use by another quorate dev (pid "), "{told}");
    // Another directory, but the same ports.
    let other = home.scratch().join("other");
    let output = run(
        quorate()
            .arg("dev")
            .arg("--dir")
            .arg(&other)
            .args(["--http-port", &home.port().to_string()]),
        b"",
    );
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains(&format!("port {} (HTTP of n1) is in use", home.port())),
        "{told}"
    );
}

#[test]
fn a_node_killed_from_outside_stays_down_until_it_is_started() {
    let home = Home::new();
    let mut dev = home.dev();
    let path = "/v1/kv/outside/key";
    put(dev.http(1), path, "x").send().expect(204);
    dev.signal(1, Signal::KILL);
    dev.lines
        .wait_for(0, "n1 was killed by signal 9, and stays down until: start 1");
    assert!(!home.file(1, "pid").exists());
    let status = dev.tell("status", "n1 is down");
    assert!(status.contains("n1 is down"), "{status}");
    assert_eq!(get(dev.http(2), path).send().expect(200).text(), "x");
    assert!(get(dev.http(1), path).try_send().is_err());
    dev.tell("kill 1", "n1 is down already");
    dev.tell("frobnicate", "try help");
    dev.tell("start 1", "n1 started");
    dev.tell("start 1", "n1 runs");
    dev.wait_until_whole();
    assert_eq!(get(dev.http(1), path).send().expect(200).text(), "x");
    assert_pid_is_whole(&home.file(1, "pid"));
    dev.stop();
}

fn assert_pid_is_whole(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n') && text.trim().parse::<u32>().is_ok(), "{text:?}");
}

#[test]
fn a_node_is_ready_soon_after_it_was_killed_with_a_full_log() {
    let home = Home::new();
    let mut dev = home.dev();
    let value = vec![9; 512 << 10];
    for at in 0..60 {
        put(dev.http(at % 3 + 1), &format!("/v1/kv/full/{at}"), &value)
            .send()
            .expect(204);
    }
    dev.tell("kill 1", "n1 killed");
    let began = Instant::now();
    dev.tell("start 1", "n1 started");
    eventually("node 1 is ready", || {
        (get(dev.http(1), "/readyz").try_send().ok()?.status == 200).then_some(())
    });
    println!("ready {:?} after the start", began.elapsed());
    assert!(began.elapsed() < SOON / 2);
    dev.wait_until_whole();
    assert_eq!(get(dev.http(1), "/v1/kv/full/59?r=3").send().expect(200).body, value);
    dev.stop();
}
