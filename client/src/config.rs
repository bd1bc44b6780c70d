//! Where the cluster is, who we are, and how patient to be.
//!
//! The file form is what `quorate dev` writes as `client.toml`:
//!
//! ```toml
//! cluster = "dev"
//! endpoints = ["127.0.0.1:7701", "127.0.0.1:7711", "127.0.0.1:7721"]   # QUIC
//! http = ["http://127.0.0.1:7700"]                                     # optional, for tools that speak HTTP
//! ca = "ca.pem"
//! certificate = "client.pem"
//! key = "client.key"
//! ```
//!
//! Paths are relative to the file, so a directory can be moved as a whole. Unknown keys are errors: a misspelt name
//! that is silently ignored costs hours. Any live endpoint is enough to begin with; the ring that it hands out names
//! the others. Patience is set in code only, because it belongs to the program and not to the cluster. Rejected: a URL
//! that holds everything, which ends up in logs and cannot hold a key.

use crate::quic::MTU_DEFAULT;
use crate::tls::{ClientTls, TlsError};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment variable that names a configuration file.
pub const CONFIG_VARIABLE: &str = "QUORATE_CLIENT";

/// Why there is no configuration. Nothing was dialed; the file has to be mended.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither a path nor the environment names a file.
    #[error(
        "no configuration: give --config FILE or set {CONFIG_VARIABLE} (`quorate dev` writes one to DIR/client.toml)"
    )]
    Missing,
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no valid TOML, lacks a key, or has one that is not known.
    #[error("{path}:{line}:{column}: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// A certificate or key file that it names cannot be used.
    #[error("{path}: {source}")]
    Tls {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong.
        source: TlsError,
    },
}

/// How a [`Client`](crate::Client) reaches its cluster. Read from a file, or made with [`ClientConfig::new`]; then
/// adjust the fields.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Name of the cluster; a node of another one is refused. Empty: any.
    pub cluster: String,
    /// `host:port` of the QUIC endpoints to begin with. One that answers is enough.
    pub endpoints: Vec<String>,
    /// Base URLs of the HTTP gateways. Not used by the client itself; kept for tools.
    pub http: Vec<String>,
    /// CA, certificate and key.
    pub tls: ClientTls,
    /// Datagram size; see [`crate::quic`].
    pub mtu: u16,
    /// How an operation behaves in time.
    pub patience: Patience,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From call to answer, retries included, unless the call says otherwise.
    pub operation: Duration,
    /// How long the first attempt may take before the next one goes to another owner. Doubled for each further attempt.
    pub attempt: Duration,
    /// A read that has no answer after this is sent to a second owner too.
    pub hedge_after: Duration,
    /// A node that has said nothing at all for so long after a write was sent to it gets no new requests for a while.
    pub suspect_after: Duration,
    /// For how long a node that failed is left alone, at first; doubled up to eight times this.
    pub cooling: Duration,
    /// For [`Client::connect`](crate::Client::connect) as a whole.
    pub connect: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            operation: Duration::from_secs(5),
            attempt: Duration::from_millis(500),
            hedge_after: Duration::from_millis(50),
            suspect_after: Duration::from_millis(100),
            cooling: Duration::from_millis(500),
            connect: Duration::from_secs(5),
        }
    }
}

/// The file's form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    cluster: String,
    endpoints: Vec<String>,
    #[serde(default)]
    http: Vec<String>,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl ClientConfig {
    /// A configuration made in code, with default patience.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>, tls: ClientTls) -> ClientConfig {
        ClientConfig {
            cluster: String::new(),
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            http: Vec::new(),
            tls,
            mtu: MTU_DEFAULT,
            patience: Patience::default(),
        }
    }

    /// Reads a TOML file and the PEM files that it names.
    pub fn from_file(path: impl AsRef<Path>) -> Result<ClientConfig, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file: File = toml::from_str(&text).map_err(|error| parse_error(path, &text, &error))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let tls = ClientTls::from_files(
            &directory.join(&file.ca),
            &directory.join(&file.certificate),
            &directory.join(&file.key),
        )
        .map_err(|source| ConfigError::Tls {
            path: path.to_owned(),
            source,
        })?;
        Ok(ClientConfig {
            cluster: file.cluster,
            http: file.http,
            ..ClientConfig::new(file.endpoints, tls)
        })
    }

    /// Reads the file that is given, or else the one that `QUORATE_CLIENT` names.
    pub fn from_env_or(path: Option<&Path>) -> Result<ClientConfig, ConfigError> {
        match path {
            Some(path) => ClientConfig::from_file(path),
            None => match std::env::var_os(CONFIG_VARIABLE) {
                Some(path) => ClientConfig::from_file(PathBuf::from(path)),
                None => Err(ConfigError::Missing),
            },
        }
    }
}

fn parse_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    ConfigError::Parse {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: error.message().trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn directory(config: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "client.pem", "client.key"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        std::fs::write(directory.path().join("client.toml"), config).unwrap();
        directory
    }

    const GOOD: &str = "cluster = \"dev\"\nendpoints = [\"127.0.0.1:7701\"]\nhttp = [\"http://127.0.0.1:7700\"]\n\
        ca = \"ca.pem\"\ncertificate = \"client.pem\"\nkey = \"client.key\"\n";

    #[test]
    fn paths_are_relative_to_the_file() {
        let directory = directory(GOOD);
        let config = ClientConfig::from_env_or(Some(&directory.path().join("client.toml"))).unwrap();
        assert_eq!(config.cluster, "dev");
        assert_eq!(config.endpoints, ["127.0.0.1:7701"]);
        assert_eq!(config.http, ["http://127.0.0.1:7700"]);
    }

    #[test]
    fn an_unknown_key_is_an_error_with_file_line_and_column() {
        let directory = directory(&format!("{GOOD}\n  endpoint = 1\n"));
        let error = ClientConfig::from_file(directory.path().join("client.toml")).unwrap_err();
        let ConfigError::Parse {
            path,
            line,
            column,
            message,
        } = error
        else {
            panic!("{error}")
        };
        assert!(path.ends_with("client.toml"));
        assert_eq!((line, column), (8, 3));
        assert!(message.contains("endpoint"), "{message}");
    }

    #[test]
    fn a_missing_key_file_is_named() {
        let directory = directory(GOOD);
        std::fs::remove_file(directory.path().join("client.key")).unwrap();
        let error = ClientConfig::from_file(directory.path().join("client.toml"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("client.toml") && error.contains("client.key"), "{error}");
    }
}
