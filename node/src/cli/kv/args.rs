//! What the verbs for one key take, and where a value comes from.

use crate::cli::connect::ConnectArgs;
use crate::cli::error::plain;
use crate::cli::{CliError, Exit};
use quorate_client::{Client, Key, QuorumKind, ReadOptions, Value, WriteOptions};
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Which key, in which cluster, and how long to wait.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The bucket; it needs no creation
    bucket: OsString,
    /// The key, any bytes
    key: OsString,
    /// The sort key, if the item has one
    #[arg(long, value_name = "SORT")]
    sort: Option<OsString>,
    /// How long the whole operation may take
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Target {
    pub(super) fn key(&self) -> Result<Key, CliError> {
        let sort = self.sort.as_deref().map(OsStr::as_bytes);
        let key = Key::new(self.bucket.as_bytes(), self.key.as_bytes(), sort);
        key.map_err(|error| CliError::new(Exit::Usage, error.to_string()))
    }

    pub(super) async fn connect(&self) -> Result<Client, CliError> {
        self.connect.connect(self.timeout()).await
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout_ms.map(Duration::from_millis)
    }
}

/// Which quorum a write waits for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct WriteQuorum {
    /// Acknowledgements to wait for
    #[arg(long)]
    w: Option<u8>,
    /// Of these, how many have to be on disk
    #[arg(long)]
    dw: Option<u8>,
    /// Of these, how many have to be of the key's owners
    #[arg(long)]
    pw: Option<u8>,
    /// Whether fallbacks count while owners are away
    #[arg(long, value_enum)]
    quorum: Option<Kind>,
}

impl WriteQuorum {
    pub(super) fn options(self) -> WriteOptions {
        WriteOptions {
            w: self.w,
            dw: self.dw,
            pw: self.pw,
            quorum: self.quorum.map(QuorumKind::from),
            return_representation: false,
        }
    }
}

/// Which quorum a read waits for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct ReadQuorum {
    /// Answers to wait for
    #[arg(long)]
    r: Option<u8>,
    /// Of these, how many have to be of the key's owners
    #[arg(long)]
    pr: Option<u8>,
    /// Whether fallbacks count while owners are away
    #[arg(long, value_enum)]
    quorum: Option<Kind>,
}

impl ReadQuorum {
    pub(super) fn options(self) -> ReadOptions {
        ReadOptions {
            r: self.r,
            pr: self.pr,
            quorum: self.quorum.map(QuorumKind::from),
        }
    }
}

/// A [`QuorumKind`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    /// Only the key's owners count
    Strict,
    /// Fallbacks count too
    Sloppy,
}

impl From<Kind> for QuorumKind {
    fn from(kind: Kind) -> QuorumKind {
        match kind {
            Kind::Strict => QuorumKind::Strict,
            Kind::Sloppy => QuorumKind::Sloppy,
        }
    }
}

/// What `quorate put` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// The value: as it is, from a file as @FILE, or from stdin as -; left out, from stdin unless that is a terminal
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Write without looking: the value stands beside what is there
    #[arg(long, conflicts_with_all = ["resolve", "context"])]
    pub(super) blind: bool,
    /// The value follows from all siblings, and replaces them
    #[arg(long, conflicts_with = "context")]
    pub(super) resolve: bool,
    /// Replace what this context stands for, without reading first
    #[arg(long)]
    pub(super) context: Option<String>,
    /// MIME type of the value; text/plain for arguments, else application/octet-stream
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    #[command(flatten)]
    pub(super) quorum: WriteQuorum,
}

impl PutArgs {
    /// The value, wherever it comes from.
    pub(super) fn value(&self) -> Result<Value, CliError> {
        self.value_or(std::io::stdin())
    }

    fn value_or(&self, stdin: impl Read + IsTerminal) -> Result<Value, CliError> {
        let given = self.value.as_deref().map(OsStr::as_bytes);
        let (body, usual_type) = match given {
            None if stdin.is_terminal() => {
                let hint = "put it behind the key, or @FILE, or pipe it in; - reads what you type up to ^D";
                return Err(CliError::new(Exit::Usage, "there is no value to put").hint(hint));
            }
            None | Some(b"-") => (all(stdin)?, "application/octet-stream"),
            Some([b'@', path @ ..]) => (file(Path::new(OsStr::from_bytes(path)))?, "application/octet-stream"),
            Some(text) => (text.to_vec(), "text/plain; charset=utf-8"),
        };
        let content_type = self.content_type.clone().unwrap_or_else(|| usual_type.to_owned());
        Ok(Value {
            content_type,
            body: body.into(),
        })
    }
}

fn file(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| plain(format!("cannot read {}: {error}", path.display())))
}

fn all(mut stdin: impl Read) -> Result<Vec<u8>, CliError> {
    let mut body = Vec::new();
    stdin
        .read_to_end(&mut body)
        .map_err(|error| plain(format!("cannot read stdin: {error}")))?;
    Ok(body)
}

/// What `quorate get` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) quorum: ReadQuorum,
    /// Print only this one of several siblings, counted from 1
    #[arg(long, value_name = "NUMBER")]
    pub(super) sibling: Option<u16>,
    /// Tell who was asked, and what each replica answered and when
    #[arg(long)]
    pub(super) explain: bool,
}

/// What `quorate delete` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// Delete all siblings
    #[arg(long, conflicts_with = "context")]
    pub(super) resolve: bool,
    /// Delete what this context stands for, without reading first
    #[arg(long)]
    pub(super) context: Option<String>,
    #[command(flatten)]
    pub(super) quorum: WriteQuorum,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;

    fn put(value: Option<&str>) -> PutArgs {
        use clap::{Args, Command, FromArgMatches};
        let line = ["put", "demo", "k"].into_iter().chain(value);
        PutArgs::from_arg_matches(&PutArgs::augment_args(Command::new("put")).get_matches_from(line)).unwrap()
    }

    #[test]
    fn a_value_comes_from_the_line_from_a_file_or_from_what_is_piped_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        std::fs::write(&path, "piped").unwrap();
        let at = format!("@{}", path.display());
        for (value, body) in [
            (None, "piped"),
            (Some("-"), "piped"),
            (Some(at.as_str()), "piped"),
            (Some("given"), "given"),
        ] {
            let value = put(value).value_or(File::open(&path).unwrap()).unwrap();
            assert_eq!(value.body, body);
        }
    }

    #[test]
    fn a_terminal_is_not_waited_for_unless_it_is_named() {
        // The other end of a pseudo-terminal is one for whoever asks.
        let Ok(terminal) = File::open("/dev/ptmx") else { return };
        assert!(terminal.is_terminal());
        let error = put(None).value_or(terminal).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.hint.unwrap().contains("pipe it in"));
    }
}
