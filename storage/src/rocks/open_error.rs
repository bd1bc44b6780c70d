//! Why a data directory cannot be opened. Each message says what to type or to do next, because the person who reads it
//! has a node that does not start.

use std::{io, path::PathBuf};

use rocksdb::ErrorKind;

use super::is_no_space;

/// Why [`RocksStorage::open`](super::RocksStorage::open) refused. Whatever the reason, nothing was deleted or repaired.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory could not be made, read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than the owner may look into the directory. Tighten it and start again.
    #[error("data directory {0} has mode {mode:04o}, others can read it; type: chmod 700 {0}", .path.display())]
    LoosePermissions {
        /// The data directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process has the directory open. Stop that one, or choose another directory.
    #[error("data directory {} is in use by {}; stop it, or give this node a directory of its own", .path.display(), holder(*.pid))]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The process, as it wrote itself down.
        pid: Option<u32>,
    },
    /// The directory holds files, but no FORMAT file: probably it is the wrong one.
    #[error(
        "{} is not empty and holds no data of quorate (there is no FORMAT file; found {found:?}); choose an empty or new \
         directory",
        .path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// The name of something in it.
        found: String,
    },
    /// A newer program wrote this directory. Start that one.
    #[error(
        "data directory {} has format {found}, this program knows formats up to {known}; start the newer version of quorate \
         that wrote it (there is no way back to an older one)",
        .path.display()
    )]
    NewerFormat {
        /// The data directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that this program reads.
        known: u32,
    },
    /// The FORMAT file says something that no version ever wrote.
    #[error("{} does not name a data format (found {found:?}); {}", .path.join("FORMAT").display(), rebuild(.path))]
    BadFormat {
        /// The data directory.
        path: PathBuf,
        /// What the file says.
        found: String,
    },
    /// The directory was in use before, and its database is gone. An empty one must not take its place silently.
    #[error("the database in {} is missing, although the directory was in use; {}", .path.display(), rebuild(.path))]
    DatabaseMissing {
        /// The data directory.
        path: PathBuf,
    },
    /// The data were found to be unusable while they were in use. Nothing was looked at; set them aside with
    /// [`set_directory_aside`](crate::set_directory_aside), and rebuild the node from the replicas.
    #[error("data directory {} is marked for rebuild ({reason}); its data must be set aside, and the node rebuilt from \
             the other replicas", .path.display())]
    MarkedForRebuild {
        /// The data directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The write-ahead log is damaged in the middle: durable writes may be missing. The directory must be set aside, and
    /// the node rebuilt from the replicas.
    #[error("the write-ahead log in {} is damaged ({detail}); {}", .path.display(), rebuild(.path))]
    WalCorrupt {
        /// The data directory.
        path: PathBuf,
        /// Where and how.
        detail: String,
    },
    /// Another file of the database is damaged. As for `WalCorrupt`.
    #[error("the database in {} is damaged ({detail}); {}", .path.display(), rebuild(.path))]
    Damaged {
        /// The data directory.
        path: PathBuf,
        /// Where and how.
        detail: String,
    },
    /// There is no space left to open the database: its log has to be written out. Free some, and start again.
    #[error("the disk of {} is full ({detail}); free some space and start again", .path.display())]
    Full {
        /// The data directory.
        path: PathBuf,
        /// What the engine says.
        detail: String,
    },
    /// The engine refuses for another reason.
    #[error("the database in {} cannot be opened: {detail}", .path.display())]
    Engine {
        /// The data directory.
        path: PathBuf,
        /// What the engine says.
        detail: String,
    },
}

impl OpenError {
    /// True if what is wrong are the data: no start will ever succeed with them, they must be set aside with
    /// [`set_directory_aside`](crate::set_directory_aside) and the node rebuilt from the replicas. False if another start,
    /// another program or a few words with whoever runs it may do: locks, permissions, newer formats, a full or failing
    /// disk, somebody else's directory; and for [`MarkedForRebuild`](OpenError::MarkedForRebuild), which says so itself.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            OpenError::BadFormat { .. }
            | OpenError::DatabaseMissing { .. }
            | OpenError::WalCorrupt { .. }
            | OpenError::Damaged { .. } => true,
            OpenError::Io { .. }
            | OpenError::LoosePermissions { .. }
            | OpenError::InUse { .. }
            | OpenError::NotOurs { .. }
            | OpenError::NewerFormat { .. }
            | OpenError::MarkedForRebuild { .. }
            | OpenError::Full { .. }
            | OpenError::Engine { .. } => false,
        }
    }

    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Io { action, path, source }
    }

    pub(super) fn from_engine(path: &std::path::Path, error: &rocksdb::Error) -> OpenError {
        let (path, detail) = (path.to_owned(), error.to_string());
        if is_no_space(&detail) {
            return OpenError::Full { path, detail };
        }
        match error.kind() {
            // The engine names the log only in some of its messages; a missing or short one it calls "WAL".
            ErrorKind::Corruption if detail.contains("WAL") || detail.contains(".log") => {
                OpenError::WalCorrupt { path, detail }
            }
            ErrorKind::Corruption => OpenError::Damaged { path, detail },
            _ => OpenError::Engine { path, detail },
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn rebuild(path: &std::path::Path) -> String {
    format!(
        "nothing in {} was changed; the data must be set aside, and the node rebuilt from the other replicas",
        path.display()
    )
}
