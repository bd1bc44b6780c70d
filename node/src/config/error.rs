//! What can be wrong with a configuration, and where in the file it stands.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration was refused. Nothing was started or changed; each message says what to correct.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read: it is missing, or its permissions forbid it.
    #[error("cannot read {what}, {path}: {source}", path = path.display())]
    Read {
        /// What the file is for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something in the TOML file: its syntax, an unknown key, or a value that makes no sense.
    #[error("{path}:{line}:{column}: {message}", path = path.display())]
    Invalid {
        /// The TOML file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A flag or environment variable makes no sense.
    #[error("{name}: {message}")]
    Override {
        /// Which one.
        name: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A secret that others can read. It may be known to them already.
    #[error("{path} holds a secret, but its mode is {mode:04o}, so others can read it; type: chmod 600 {path}", path = path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A secret that is not 64 hexadecimal digits.
    #[error("{path} must hold 64 hexadecimal digits (32 bytes); make one by: openssl rand -hex 32 > {path}", path = path.display())]
    ContextKey {
        /// Which file.
        path: PathBuf,
    },
}

/// An error at a place in the TOML file, given as a range of bytes.
pub(super) fn at(path: &Path, text: &str, span: Range<usize>, message: impl Into<String>) -> ConfigError {
    let (line, column) = position(text, span.start);
    ConfigError::Invalid {
        path: path.to_owned(),
        line,
        column,
        message: message.into(),
    }
}

/// Reads a file that has to be text; `what` says what it is for.
pub(crate) fn read_text(what: &'static str, path: &Path) -> Result<String, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Read {
        what,
        path: path.to_owned(),
        source,
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
        at(path, &before, good..good, "this is not UTF-8 text")
    })
}

/// Line and column of a byte offset, both counted from 1; the column in characters.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "a = 1\nb = \"ü\" x\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 6), (2, 1));
        assert_eq!(position(text, text.find('x').unwrap_or(0)), (2, 9));
        assert_eq!(position(text, 1000), (3, 1));
    }
}
