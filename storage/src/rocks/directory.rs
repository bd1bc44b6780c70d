//! The data directory around the database: who may use it, and whether it is ours.
//!
//! ```text
//! <data directory>    0700
//!   FORMAT            "quorate-data 1": written last when the directory is created, so it says "complete" too
//!   LOCK              locked by the process that has it open, with its process id
//!   db/               RocksDB's files
//!   REBUILD, aside-*  see `aside`
//! ```
//!
//! The checks run from the harmless to the lasting: nothing is created in a directory that turns out to be somebody
//! else's, and no database is created where one is missing. A start that was cut off while it created the directory
//! leaves `FORMAT.new` behind, and the next one starts over.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{OpenError, aside};

const FORMAT: u32 = 1;
pub(super) const FORMAT_FILE: &str = "FORMAT";
pub(super) const FORMAT_DRAFT: &str = "FORMAT.new";
const LOCK_FILE: &str = "LOCK";
pub(super) const DB: &str = "db";
/// May lie in a directory that counts as empty: our own lock, and what mkfs puts into the root of a volume. Beside what was
/// set aside.
const IGNORED: [&str; 2] = [LOCK_FILE, "lost+found"];

/// A data directory that is ours, locked while this value lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    is_new: bool,
    _lock: File,
}

impl DataDir {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        create(path)?;
        // Absolute, so that a command in an error message can be typed anywhere.
        let path = &fs::canonicalize(path).map_err(OpenError::io("resolve", path))?;
        if let Some(reason) = aside::mark(path).map_err(OpenError::io("read", path.join(aside::MARK)))? {
            let path = path.to_owned();
            return Err(OpenError::MarkedForRebuild { path, reason });
        }
        // Before the permissions: nobody should be told to chmod a directory that is not for us.
        let is_new = check_format(path)?;
        check_permissions(path)?;
        let lock = lock(path)?;
        if is_new {
            let draft = path.join(FORMAT_DRAFT);
            write_durably(&draft, &format!("quorate-data {FORMAT}\n")).map_err(OpenError::io("write", draft))?;
        } else if !path.join(DB).join("CURRENT").exists() {
            return Err(OpenError::DatabaseMissing { path: path.to_owned() });
        }
        Ok(DataDir {
            path: path.to_owned(),
            is_new,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn db_path(&self) -> PathBuf {
        self.path.join(DB)
    }

    /// No database has been created in here yet; or its creation was cut off before anything was kept in it.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// To be called when the database exists: from now on it must.
    pub(super) fn created(mut self) -> Result<Self, OpenError> {
        if self.is_new {
            let draft = self.path.join(FORMAT_DRAFT);
            fs::rename(&draft, self.path.join(FORMAT_FILE)).map_err(OpenError::io("rename", &draft))?;
            sync_dir(&self.path).map_err(OpenError::io("sync", &self.path))?;
            self.is_new = false;
        }
        Ok(self)
    }
}

fn create(path: &Path) -> Result<(), OpenError> {
    if path.exists() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(OpenError::io("create", path))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync_dir(parent).map_err(OpenError::io("sync", parent))
}

fn check_permissions(path: &Path) -> Result<(), OpenError> {
    let metadata = fs::metadata(path).map_err(OpenError::io("look at", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(OpenError::LoosePermissions {
            path: path.to_owned(),
            mode,
        }),
    }
}

/// True if the directory is (as good as) empty, so that data can be created in it.
fn check_format(path: &Path) -> Result<bool, OpenError> {
    let file = path.join(FORMAT_FILE);
    match fs::read(&file) {
        Ok(text) => parse_format(path, &String::from_utf8_lossy(&text)).map(|()| false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_empty(path).map(|()| true),
        Err(error) => Err(OpenError::io("read", file)(error)),
    }
}

pub(super) fn parse_format(path: &Path, text: &str) -> Result<(), OpenError> {
    let number = text
        .strip_suffix('\n')
        .unwrap_or(text)
        .strip_prefix("quorate-data ")
        .and_then(|n| n.parse().ok());
    match number {
        Some(FORMAT) => Ok(()),
        Some(found) if found > FORMAT => Err(OpenError::NewerFormat {
            path: path.to_owned(),
            found,
            known: FORMAT,
        }),
        _ => Err(OpenError::BadFormat {
            path: path.to_owned(),
            found: text.chars().take(40).collect(),
        }),
    }
}

fn check_empty(path: &Path) -> Result<(), OpenError> {
    if path.join(FORMAT_DRAFT).exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(OpenError::io("list", path))? {
        let name = entry
            .map_err(OpenError::io("list", path))?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if !IGNORED.contains(&name.as_str()) && !aside::is_leftover(&name) {
            return Err(OpenError::NotOurs {
                path: path.to_owned(),
                found: name,
            });
        }
    }
    Ok(())
}

/// The kernel drops the lock when the process ends, however it ends.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join(LOCK_FILE);
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&name);
    let mut file = open.map_err(OpenError::io("open", &name))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The pid is a courtesy: without it the message still says enough.
            let _ = (&file).take(20).read_to_string(&mut pid);
            return Err(OpenError::InUse {
                path: path.to_owned(),
                pid: pid.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(OpenError::io("lock", name)(error)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(OpenError::io("write", name))?;
    Ok(file)
}

pub(super) fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
