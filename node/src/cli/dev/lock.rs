//! One `quorate dev` a directory: a lock that the kernel drops with the process, however that ends.

use crate::cli::CliError;
use crate::cli::error::plain;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A held lock. Dropping it lets the next one in. Children do not inherit it.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// The file that is locked.
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("lock")
    }

    /// Takes the directory's lock, and leaves our process id in it for whoever comes next.
    pub(super) fn take(dir: &Path) -> Result<Lock, CliError> {
        let path = Lock::path(dir);
        let failed = |error: std::io::Error| plain(format!("cannot lock {}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(taken(dir, &mut file)),
            Err(error) => return Err(failed(error.into())),
        }
        if file.metadata().map_err(failed)?.nlink() == 0 {
            // Whoever had it removed it at its end; what we hold stops nobody.
            return Lock::take(dir);
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Lock { _file: file })
    }
}

fn taken(dir: &Path, file: &mut File) -> CliError {
    let mut holder = String::new();
    let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
    let holder = if known {
        format!(" (pid {})", holder.trim())
    } else {
        String::new()
    };
    plain(format!("{} is in use by another quorate dev{holder}", dir.display()))
        .hint("stop that one first, or give this one another --dir and --http-port")
}
