//! What the tests share: a cluster ([`dev`]) and how far it has healed ([`healing`]), HTTP by hand ([`http`]), a load ([`load`]) that keeps
//! [`books`], many keys at once ([`bulk`]), filesystems that fill up or lose power ([`disk`]), and a peer without manners ([`peer`]).

pub(crate) mod books;
pub(crate) mod bulk;
pub(crate) mod dev;
pub(crate) mod disk;
pub(crate) mod healing;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod output;
pub(crate) mod peer;

pub(crate) use dev::{Dev, Home};

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long something may take that takes a moment on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `look` finds something.
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(SOON, what, look)
}

/// Waits until `look` finds something, for what takes longer.
pub(crate) fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        sleep(LOOK);
    }
}

/// The binary under test.
pub(crate) fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    // What the caller's shell has set must not reach the test.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// A file beside the binary under test, if it was built.
pub(crate) fn beside_quorate(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_quorate")).parent()?.join(path);
    path.exists().then_some(path)
}

/// Says what is not tested here, and why. Not by `println!`, which the runner swallows when a test passes.
pub(crate) fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// A runtime for the test's own clients.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
