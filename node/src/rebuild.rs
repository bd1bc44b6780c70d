//! Starting over: the data turn out to be beyond use while the node runs.
//!
//! Peers say that the directory is an older copy, or the engine meets a damaged file and takes no more writes. Then nothing may be answered any
//! more. A mark is left in the directory, and the process replaces itself by a fresh one, which finds the mark and sets the data aside
//! ([`data`](crate::data)). The process id stays, so whoever watches over the node has nothing to do. Rejected: taking the running node
//! apart and putting a new one together. A dozen tasks and two threads hold on to it, and each would be a way to go on by mistake.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Exit code if the process could not replace itself: start it again.
const START_AGAIN: i32 = 75;

/// Marks the data directory as one to be set aside, and starts this process over. Nothing that is under way is answered.
pub(crate) fn start_over(data_dir: &Path, reason: &str) -> ! {
    tracing::error!(
        reason,
        "the data of this node must not be used any more; starting over without them"
    );
    if let Err(error) = quorate_storage::mark_for_rebuild(data_dir, reason) {
        tracing::error!(%error, "cannot mark the data directory; set its data aside by hand before the next start");
        std::process::abort();
    }
    let error = match std::env::current_exe() {
        Ok(program) => Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    tracing::error!(%error, "cannot start over; start the node again");
    std::process::exit(START_AGAIN);
}
