//! It heals itself: nodes that were away, lost what they had, came back with an old copy, rotted, filled up or lost power. In the end every node
//! holds the same, nothing that was acknowledged is lost, and nothing that was deleted is back.
//!
//! The clusters are configured to settle deletes sooner than by default; everything else is as users have it.

mod absence;
mod damage;
mod deletes;
mod disks;
mod memory;

use crate::support::dev::NODES;
use crate::support::load::Load;
use crate::support::{Dev, Home, runtime};

/// The shortest proof that is allowed that a delete is settled, begun at once.
const SETTLE_SOON: &str = "\n[healing]\nsettle_after_s = 7\nsettle_age_s = 0\n";

/// A home whose nodes settle deletes soon, with `more` at the end of each configuration.
fn home_with(nodes: usize, more: &str) -> Home {
    let home = Home::of(nodes);
    home.configure(|_, text| format!("{text}{SETTLE_SOON}{more}"));
    home
}

/// Says what happens next, for whoever reads the output of a failure.
fn step(what: &str) {
    println!("--- {what}");
}

/// The end of a test under load: there is nothing left to heal, no client was told of an error, nothing is lost, and all nodes hold the same.
fn end_well(dev: &Dev<'_>, load: Load) {
    let books = end(dev, load);
    assert!(books.is_empty(), "{books:#?}");
}

/// The same where clients may have been told of errors, which are given back.
fn end(dev: &Dev<'_>, load: Load) -> Vec<String> {
    let books = load.finish();
    step("wait until nothing is left to heal");
    dev.wait_until_settled();
    dev.assert_load_is_equal_everywhere(books.bucket);
    let runtime = runtime();
    let client = runtime.block_on(dev.client());
    books.audit(&client, &runtime);
    books.failures
}
