//! From a client verb to a connected client: which file, what is wrong with it, and the runtime that it all runs on.
//!
//! The client library says what is wrong; here it is said in which file, since that is what somebody at a command line has to open.

use super::CliError;
use super::error::plain;
use crate::config::{self, position};
use quorate_client::{Client, ClientConfig, ConfigError, TlsError};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// Where `quorate dev` writes a client's configuration unless told otherwise.
const DEV_CONFIG: &str = "quorate-dev/client.toml";

/// How a client verb finds its cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// The client's configuration; ./quorate-dev/client.toml if that exists
    #[arg(long, env = "QUORATE_CLIENT", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConnectArgs {
    /// Connects to the cluster, within `limit` if there is one.
    pub(crate) async fn connect(&self, limit: Option<Duration>) -> Result<Client, CliError> {
        let default = Path::new(DEV_CONFIG);
        let path = self.config.as_deref().or_else(|| default.exists().then_some(default));
        let mut config = load(path.ok_or(ConfigError::Missing)?)?;
        config.patience.connect = limit.map_or(config.patience.connect, |limit| limit.min(config.patience.connect));
        Ok(Client::connect(config).await?)
    }
}

/// Reads a configuration whose certificates can be used.
fn load(path: &Path) -> Result<ClientConfig, CliError> {
    let text = config::read_text("the client's configuration", path).map_err(plain)?;
    let config = ClientConfig::from_file(path)?;
    if config.endpoints.is_empty() {
        let at = places(&text).map_or(0, |places| places.endpoints.span().start);
        let ((line, column), path) = (position(&text, at), path.display());
        let message =
            format!("{path}:{line}:{column}: there is no endpoint; name one node or more by its QUIC address");
        return Err(plain(message));
    }
    match config.tls.rustls_config() {
        Ok(_) => Ok(config),
        Err(error) => Err(unusable(path, &text, &error)),
    }
}

/// Where in the file things stand that are judged only later.
#[derive(Deserialize)]
struct Places {
    endpoints: Spanned<Vec<String>>,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

fn places(text: &str) -> Option<Places> {
    toml::from_str(text).ok()
}

/// Certificates or a key that cannot be used, with the files that hold them.
fn unusable(path: &Path, text: &str, error: &TlsError) -> CliError {
    let Some(places) = places(text) else {
        return plain(format!("{}: {error}", path.display()));
    };
    let beside = |name: &Path| path.parent().unwrap_or(Path::new("")).join(name).display().to_string();
    let (ca, certificate, key) = (beside(&places.ca), beside(&places.certificate), beside(&places.key));
    let named = match error {
        TlsError::Pem { what: "CA", .. } | TlsError::Empty { what: "CA" } => format!("{ca}: {error}"),
        TlsError::Pem { what: "key", .. } => format!("{key}: {error}"),
        TlsError::Pem { .. } | TlsError::Empty { .. } => format!("{certificate}: {error}"),
        TlsError::Rustls(rustls::Error::InconsistentKeys(_)) => {
            format!("{key} is not the key of the certificate {certificate}")
        }
        _ => format!("{error} ({ca}, {certificate}, {key})"),
    };
    plain(named).hint(format!("{} names these files", path.display()))
}

/// Runs a verb to its end, on this thread.
pub(crate) fn block_on(verb: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(plain)?
        .block_on(verb)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::certs::{Authority, Validity};
    use crate::tls::Identity;
    use std::fs;

    /// A directory with the files of one client, which `spoil` may change; what loading them says, without the directory's name.
    fn refusal(spoil: impl Fn(&Path)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (authority, issued) = Authority::create("test", Validity::days(1)).unwrap();
        issued.write(&dir.join("ca.pem"), &dir.join("ca.key")).unwrap();
        for name in ["client", "other"] {
            let issued = authority
                .issue(&Identity::client(name).unwrap(), Validity::days(1))
                .unwrap();
            issued
                .write(
                    &dir.join(name).with_extension("pem"),
                    &dir.join(name).with_extension("key"),
                )
                .unwrap();
        }
        let text = "cluster = \"test\"\nendpoints = [\"127.0.0.1:1\"]\nca = \"ca.pem\"\ncertificate = \"client.pem\"\nkey = \"client.key\"\n";
        fs::write(dir.join("client.toml"), text).unwrap();
        assert!(load(&dir.join("client.toml")).is_ok());
        spoil(dir);
        let error = load(&dir.join("client.toml")).unwrap_err();
        error.message.replace(&format!("{}/", dir.display()), "")
    }

    fn edit(dir: &Path, from: &str, to: &str) {
        let path = dir.join("client.toml");
        fs::write(&path, fs::read_to_string(&path).unwrap().replace(from, to)).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_its_place() {
        let no_endpoint = refusal(|dir| edit(dir, "\"127.0.0.1:1\"", ""));
        assert!(
            no_endpoint.starts_with("client.toml:2:13: there is no endpoint"),
            "{no_endpoint}"
        );
        let not_text = refusal(|dir| fs::write(dir.join("client.toml"), b"cluster = \"\xff\"").unwrap());
        assert_eq!(not_text, "client.toml:1:12: this is not UTF-8 text");
        let mismatch = refusal(|dir| edit(dir, "client.key", "other.key"));
        assert_eq!(mismatch, "other.key is not the key of the certificate client.pem");
        let no_ca = refusal(|dir| fs::write(dir.join("ca.pem"), "").unwrap());
        assert_eq!(no_ca, "ca.pem: the CA holds no certificate");
        let no_key = refusal(|dir| edit(dir, "client.key", "client.pem"));
        assert!(no_key.starts_with("client.pem: the key is not usable PEM"), "{no_key}");
    }
}
