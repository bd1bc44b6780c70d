//! Disks that are full, and power that is cut.

use super::{NODES, end, end_well, step};
use crate::support::bulk::Bulk;
use crate::support::disk::Disk;
use crate::support::http::{get, put};
use crate::support::load::Load;
use crate::support::{Home, eventually, skipped};
use std::path::Path;

/// What a node's file system has, and what of it is kept in reserve.
const DISK_MIB: u64 = 160;
const RESERVE_MIB: u64 = 40;

/// Lets these nodes keep their data on `disk`.
fn on_disk(home: &Home, disk: &Disk, nodes: &[usize], reserve_mib: u64) {
    home.configure(|node, text| {
        if !nodes.contains(&node) {
            return format!("{text}{}", super::SETTLE_SOON);
        }
        let data = format!("data_dir = {:?}", disk.path().join(format!("n{node}")));
        let limits = format!("\n[limits]\ndisk_reserve_mib = {reserve_mib}\n");
        let text = text.replace("data_dir = \"data\"", &data);
        format!("{text}{}{limits}", super::SETTLE_SOON)
    });
}

#[test]
fn a_node_whose_disk_is_full_reads_on_takes_no_writes_and_recovers_when_there_is_space() {
    let home = Home::new();
    let disk = match Disk::in_memory(home.scratch(), DISK_MIB) {
        Ok(disk) => disk,
        Err(reason) => return skipped(&format!("a node whose disk is full: {reason}")),
    };
    on_disk(&home, &disk, &[3], RESERVE_MIB);
    let dev = home.dev();
    let bulk = Bulk {
        bucket: "bulk",
        bytes: 16 << 10,
    };
    bulk.write(&dev, 0..100, Some(0));
    let load = Load::start(dev.client_toml());
    load.wait_for_more(100);
    step("fill the disk of node 3 until there is less than its reserve");
    fill(disk.path(), (RESERVE_MIB - 8) << 20);
    let mut fillers = 0..;
    let acks = eventually("node 3 takes no write", || {
        let path = format!("/v1/kv/filler/{}", fillers.next()?);
        let reply = put(dev.http(1), &path, "x").send().expect(204);
        let refused = dev.metric(3, "quorate_engine_store_failures_total")?;
        (refused > 0.0).then(|| reply.header("Quorate-Acks").unwrap().to_owned())
    });
    println!("{} writes later, the others go on: {acks}", fillers.start);
    step("reads go on at the node, writes at the others, and it passes on what it is asked to write");
    bulk.check(&dev, [3], 0..100, Some(0));
    load.wait_for_more(200);
    eventually("a write that node 3 is asked for is taken by the others", || {
        let reply = put(dev.http(3), "/v1/kv/passed-on/key", "x").send();
        let acks = reply.header("Quorate-Acks").unwrap_or_default();
        (reply.status == 204 && !acks.contains("n3=")).then_some(())
    });
    get(dev.http(3), "/readyz").send().expect(200);
    step("started anew, the node is as it was: it serves reads and takes no writes");
    dev.tell("kill 3", "n3 killed");
    dev.tell("start 3", "n3 started");
    eventually("node 3 reads with the others again", || {
        let reply = get(dev.http(3), "/v1/kv/passed-on/key?r=3").send();
        (reply.status == 200).then_some(())
    });
    bulk.check(&dev, [3], 0..100, Some(0));
    eventually("node 3 says so", || {
        (dev.metric(3, "quorate_storage_refusing")? == 1.0).then_some(())
    });
    step("make room");
    std::fs::remove_file(disk.path().join("ballast")).unwrap();
    eventually("node 3 takes writes again", || {
        let reply = put(dev.http(1), "/v1/kv/room/key?w=3", "x").send();
        (reply.status == 204).then_some(())
    });
    load.wait_for_more(100);
    end_well(&dev, load);
    bulk.check(&dev, NODES, 0..100, Some(0));
    dev.stop();
}

/// Leaves so many bytes free.
fn fill(disk: &Path, leave: u64) {
    let free = || {
        let space = rustix::fs::statvfs(disk).unwrap();
        space.f_bavail * space.f_frsize
    };
    let file = std::fs::File::create(disk.join("ballast")).unwrap();
    let take = free().saturating_sub(leave);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, take).unwrap();
    println!("{} MiB are free", free() >> 20);
}

#[test]
fn after_a_power_cut_of_all_nodes_every_acknowledged_write_is_there() {
    let home = Home::new();
    let disk = match Disk::in_file(home.scratch(), 2048) {
        Ok(disk) => disk,
        Err(reason) => return skipped(&format!("a power cut of all nodes: {reason}")),
    };
    on_disk(&home, &disk, &NODES, 16);
    let mut dev = home.dev();
    let load = Load::start(dev.client_toml());
    for round in 1..=3 {
        load.wait_for_more(150);
        step(&format!("cut {round}"));
        if let Err(reason) = disk.cut_power() {
            assert_eq!(round, 1, "{reason}");
            return skipped(&format!("a power cut of all nodes: {reason}"));
        }
        for node in NODES {
            eventually(&format!("node {node} stops, because it cannot sync"), || {
                (!home.file(node, "pid").exists()).then_some(())
            });
        }
        disk.power_up();
        for node in NODES {
            dev.tell(&format!("start {node}"), &format!("n{node} started"));
        }
        dev.wait_until_whole();
    }
    load.wait_for_more(100);
    let failures = end(&dev, load);
    println!("clients were told of {} failures", failures.len());
    dev.stop();
}
