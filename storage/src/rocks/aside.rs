//! Taking damaged data out of the way without deleting them: [`mark_for_rebuild`] and [`set_directory_aside`].
//!
//! ```text
//! <data directory>
//!   REBUILD                      why the data must not be used any more; while it is here, the directory does not open
//!   aside-20261120T101933Z/      data set aside: FORMAT, db/ and, written last, REBUILD
//! ```
//!
//! Data turn out to be unusable in two ways: the directory does not open, or the process finds out while it has it open
//! (background work meets a damaged file, peers say that it is an old copy). In the second case it leaves a mark and
//! stops, and the next start does what must be done, with nothing running on top of the files.
//!
//! Moving takes several steps, and power can fail between any two. So the mark is set first and taken away last, by moving
//! it too: a directory in between does not open, and a second call finds the aside directory that has no REBUILD in it yet
//! and goes on there. What was set aside is never deleted here: to do so when the node is whole again is up to whoever
//! runs it.
//!
//! Rejected: renaming the whole data directory. It is often the root of a volume, and its lock has to stay where it is.

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use time::OffsetDateTime;

use super::{
    OpenError,
    directory::{DB, FORMAT_DRAFT, FORMAT_FILE, lock, parse_format, sync_dir, write_durably},
};

pub(super) const MARK: &str = "REBUILD";
pub(super) const MARK_DRAFT: &str = "REBUILD.new";
const ASIDE_PREFIX: &str = "aside-";
/// Of the reason, so that it stays a line.
const REASON_CHARS_MAX: usize = 1000;

/// Marks a data directory, open or not, as not to be used any more: [`RocksStorage::open`](super::RocksStorage::open)
/// refuses it from now on with [`OpenError::MarkedForRebuild`], until [`set_directory_aside`] has been called. Durable when
/// this returns. If there is a mark already, that one stays: the first reason is the best.
///
/// `reason` is for people, one line.
///
/// # Errors
/// The mark could not be written, and may or may not be there. The data are as before.
pub fn mark_for_rebuild(path: &Path, reason: &str) -> io::Result<()> {
    if mark(path)?.is_none() {
        let line: String = reason.lines().collect::<Vec<_>>().join(" ");
        let line: String = line.chars().take(REASON_CHARS_MAX).collect();
        let draft = path.join(MARK_DRAFT);
        write_durably(&draft, &format!("{line}\n"))?;
        fs::rename(draft, path.join(MARK))?;
    }
    sync_dir(path)
}

/// Moves the data of a directory, `db/` and FORMAT, into a new directory `aside-<UTC time>` in it, and returns the path of
/// that. Afterwards [`RocksStorage::open`](super::RocksStorage::open) creates an empty store here. Nothing is deleted,
/// neither these data nor those set aside before: they cost their space until somebody removes them.
///
/// If it fails or is cut off, the directory either opens as before or is marked for rebuild; call it again.
///
/// # Errors
/// Another process has the directory open (then [`ErrorKind::ResourceBusy`]); it holds no data of this program, or those
/// of a newer one ([`ErrorKind::InvalidInput`]); or a file could not be moved.
pub fn set_directory_aside(path: &Path) -> io::Result<PathBuf> {
    let path = &fs::canonicalize(path)?;
    let is_marked = mark(path)?.is_some();
    if !is_marked {
        check_ours(path)?;
    }
    let _lock = lock(path).map_err(into_io)?;
    if !is_marked {
        mark_for_rebuild(path, "being set aside")?;
    }
    let aside = aside_directory(path)?;
    for name in [FORMAT_FILE, FORMAT_DRAFT, DB] {
        if path.join(name).exists() {
            fs::rename(path.join(name), aside.join(name))?;
        }
    }
    // The data must be seen to be there before the mark is seen to be gone.
    sync_dir(&aside)?;
    sync_dir(path)?;
    fs::rename(path.join(MARK), aside.join(MARK))?;
    sync_dir(&aside)?;
    sync_dir(path)?;
    tracing::warn!(path = %path.display(), aside = %aside.display(), "data set aside");
    Ok(aside)
}

/// The directories in `path` that data were set aside in, oldest first, and how many bytes each holds.
///
/// # Errors
/// The directory, or one that data were set aside in, cannot be read.
pub fn set_aside_before(path: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let with_bytes = |path: PathBuf| bytes_in(&path).map(|bytes| (path, bytes));
    directories(path)?.into_iter().map(with_bytes).collect()
}

/// The directories that data were set aside in, oldest first.
pub(super) fn directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(ASIDE_PREFIX) && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes of the files in a directory, and in those in it.
pub(super) fn bytes_in(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_in(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

/// The reason on the mark, if there is one.
pub(super) fn mark(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path.join(MARK)) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).trim_end().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// May lie in a directory that counts as empty.
pub(super) fn is_leftover(name: &str) -> bool {
    name.starts_with(ASIDE_PREFIX) || name == MARK_DRAFT
}

fn check_ours(path: &Path) -> io::Result<()> {
    let refusal = |what: String| Err(io::Error::new(ErrorKind::InvalidInput, what));
    let text = match fs::read(path.join(FORMAT_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return refusal(format!(
                "{} holds no data of quorate (there is no FORMAT file)",
                path.display()
            ));
        }
        Err(error) => return Err(error),
    };
    match parse_format(path, &String::from_utf8_lossy(&text)) {
        Ok(()) => Ok(()),
        // The file may be what is damaged. Then the database speaks for us.
        Err(OpenError::BadFormat { .. }) if path.join(DB).join("CURRENT").exists() => Ok(()),
        Err(error) => refusal(error.to_string()),
    }
}

/// The aside directory that an earlier call did not finish, or a new one.
fn aside_directory(path: &Path) -> io::Result<PathBuf> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let aside = entry.path();
        let is_aside = entry.file_name().to_string_lossy().starts_with(ASIDE_PREFIX) && entry.file_type()?.is_dir();
        let clashes = |name: &str| aside.join(name).exists() && path.join(name).exists();
        if is_aside && ![FORMAT_FILE, FORMAT_DRAFT, DB, MARK].iter().any(|name| clashes(name)) {
            return Ok(aside);
        }
    }
    create_aside_directory(path, OffsetDateTime::now_utc())
}

fn create_aside_directory(path: &Path, now: OffsetDateTime) -> io::Result<PathBuf> {
    let time = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    );
    let mut name = format!("{ASIDE_PREFIX}{time}");
    let mut number = 1;
    loop {
        match DirBuilder::new().mode(0o700).create(path.join(&name)) {
            Ok(()) => return Ok(path.join(name)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                number += 1;
                name = format!("{ASIDE_PREFIX}{time}-{number}");
            }
            Err(error) => return Err(error),
        }
    }
}

fn into_io(error: OpenError) -> io::Error {
    match error {
        OpenError::Io { source, .. } => source,
        other => io::Error::new(ErrorKind::ResourceBusy, other),
    }
}
