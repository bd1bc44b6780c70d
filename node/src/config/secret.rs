//! Files that only their owner may read.

use super::error::ConfigError;
use quorate_core::seal::{ContextKey, ContextKeys};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Number of the only context key. A second one comes with rotation.
const CONTEXT_KEY_ID: u8 = 1;

/// Checks that a file is there and that its mode gives nobody but its owner any right.
pub(super) fn check_private(what: &'static str, path: &Path) -> Result<(), ConfigError> {
    let metadata = fs::metadata(path).map_err(|source| ConfigError::Read {
        what,
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(ConfigError::Exposed {
            path: path.to_owned(),
            mode,
        })
    }
}

/// Reads the key that seals contexts: 64 hexadecimal digits.
pub(super) fn context_keys(path: &Path) -> Result<ContextKeys, ConfigError> {
    let what = "the context key";
    check_private(what, path)?;
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        what,
        path: path.to_owned(),
        source,
    })?;
    let secret = unhex(text.trim()).ok_or_else(|| ConfigError::ContextKey { path: path.to_owned() })?;
    Ok(ContextKeys::new(
        ContextKey {
            id: CONTEXT_KEY_ID,
            secret,
        },
        Vec::new(),
    ))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(bytes)
}
