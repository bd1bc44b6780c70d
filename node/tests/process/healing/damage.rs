//! Bytes that are not what was written, in tables and in logs.

use super::{NODES, end_well, home_with, step};
use crate::support::Home;
use crate::support::bulk::Bulk;
use crate::support::load::Load;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const BULK: Bulk = Bulk {
    bucket: "bulk",
    bytes: 1024,
};
const KEYS: usize = 1500;
/// Flipped bytes a file.
const FLIPS: u64 = 40;

/// The files of a node's database that end so, those with something in them.
fn files(home: &Home, node: usize, ending: &str) -> Vec<PathBuf> {
    let db = home.file(node, "data/db");
    let files = std::fs::read_dir(&db).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.to_string_lossy().ends_with(ending) && path.metadata().unwrap().len() > 0)
        .collect();
    files.sort();
    files
}

/// Turns bytes of a file over, spread between two shares of it.
fn flip(path: &PathBuf, (from, to): (f64, f64)) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len() as f64;
    for at in 0..FLIPS {
        let share = from + (to - from) * (at as f64 + 0.5) / FLIPS as f64;
        let offset = (length * share) as u64;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[!byte[0]], offset).unwrap();
    }
    println!("{FLIPS} bytes flipped in {} of {length} bytes", path.display());
}

#[test]
fn a_node_with_flipped_bytes_in_its_tables_serves_nothing_wrong_and_is_filled_again_by_the_others() {
    let home = home_with(3, "");
    let mut dev = home.dev();
    BULK.write(&dev, 0..KEYS, Some(0));
    step("restart node 2, so that its log becomes a table");
    dev.tell("kill 2", "n2 killed");
    dev.tell("start 2", "n2 started");
    dev.wait_until_whole();
    let load = Load::start(dev.client_toml());
    load.wait_for_more(100);
    dev.tell("kill 2", "n2 killed");
    let mut tables = files(&home, 2, ".sst");
    // Small ones are all index, and nothing in them is a record.
    tables.retain(|table| table.metadata().unwrap().len() > 256 << 10);
    assert!(!tables.is_empty());
    // Not in the index at the end: then the table does not open at all, and the directory goes aside as in the next test.
    tables.iter().for_each(|table| flip(table, (0.0, 0.9)));
    dev.tell("start 2", "n2 started");
    dev.wait_until_back(2);
    step("read everything from it");
    let right = BULK.check_never_wrong(&dev, 2, 0..KEYS, 0);
    println!("{right} of {KEYS} were answered at once");
    load.wait_for_more(200);
    end_well(&dev, load);
    BULK.check(&dev, NODES, 0..KEYS, Some(0));
    dev.stop();
}

#[test]
fn a_node_with_a_table_that_does_not_open_sets_its_data_aside_and_is_filled_again_by_the_others() {
    heals_after_damage_to(".sst", (0.9, 1.0));
}

#[test]
fn a_node_with_flipped_bytes_in_its_log_sets_its_data_aside_and_is_filled_again_by_the_others() {
    heals_after_damage_to(".log", (0.1, 0.6));
}

fn heals_after_damage_to(ending: &str, shares: (f64, f64)) {
    let home = home_with(3, "");
    let mut dev = home.dev();
    BULK.write(&dev, 0..KEYS / 2, Some(0));
    dev.tell("kill 2", "n2 killed");
    dev.tell("start 2", "n2 started");
    dev.wait_until_whole();
    BULK.write(&dev, KEYS / 2..KEYS, Some(0));
    let load = Load::start(dev.client_toml());
    load.wait_for_more(100);
    dev.tell("kill 2", "n2 killed");
    let found = files(&home, 2, ending);
    assert!(!found.is_empty());
    found.iter().for_each(|file| flip(file, shares));
    dev.tell("start 2", "n2 started");
    dev.wait_until_back(2);
    let right = BULK.check_never_wrong(&dev, 2, 0..KEYS, 0);
    println!("{right} of {KEYS} were answered at once");
    load.wait_for_more(200);
    end_well(&dev, load);
    BULK.check(&dev, NODES, 0..KEYS, Some(0));
    dev.stop();
}
