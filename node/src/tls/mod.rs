//! Who may speak to this node, and how: TLS 1.3 with certificates on both sides.
//!
//! The configuration is built by hand: quinn's own constructors turn early data on and ask for no client certificate. Early data can be
//! replayed, and a session ticket would let a certificate outlive its end, so both are off. What dials is
//! [`quorate_client::tls`], and both sides share its cryptography.
//!
//! The chain is not the identity. It says that the cluster's CA signed the certificate; *who* speaks is in the certificate's DNS names:
//!
//! ```text
//! node     <uuid>.node.quorate and node.quorate
//! client   <name>.client.quorate
//! admin    <name>.admin.quorate
//! ```
//!
//! A certificate with other names, or with names of two roles, is nobody's. What the peer says of itself in its hello must fit; the
//! transport compares them. Rejected: the common name, which libraries have read in different ways for decades.

mod identity;
#[cfg(test)]
mod tests;

pub use identity::{Identity, IdentityError, NAME_BYTES_MAX, peer_identity};

use crate::config::TlsFiles;
use quorate_client::quic;
use quorate_client::tls::{ALPN, ClientTls, TlsError, certificates, private_key, provider, roots};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Handshakes that may wait to be accepted. Each holds up to [`INCOMING_BYTES`].
const INCOMING_MAX: usize = 1024;
/// Bytes buffered for one handshake before it is accepted.
const INCOMING_BYTES: u64 = 16 << 10;
/// Bytes buffered for all of them together.
const INCOMING_BYTES_TOTAL: u64 = 8 << 20;
/// How long the address of somebody who was asked to retry is believed.
const RETRY_TOKEN_LIFETIME: Duration = Duration::from_secs(10);

/// Why a node has no TLS. It cannot start; the files have to be mended.
#[derive(Debug, thiserror::Error)]
pub enum NodeTlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The files hold no certificate or key that can be used.
    #[error("{path}: {source}", path = path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: TlsError,
    },
    /// The certificates cannot be used for dialing.
    #[error(transparent)]
    Dialing(#[from] TlsError),
    /// The CA cannot verify anybody.
    #[error("the CA cannot be used to verify peers: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// Key and certificate do not fit each other, or cannot be used for QUIC.
    #[error("certificate and key cannot be used together: {0}")]
    Rustls(#[from] rustls::Error),
    /// The certificate is somebody else's. The node would be refused by all of its peers.
    #[error("{path} is the certificate of {got}, but this is {expected}", path = path.display())]
    Identity {
        /// The certificate.
        path: PathBuf,
        /// Whom it was issued to.
        got: String,
        /// Who this node is.
        expected: Identity,
    },
}

/// What a node proves its identity with, and checks that of others. Holds PEM text.
#[derive(Clone)]
pub struct Credentials {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
    files: TlsFiles,
}

impl Credentials {
    /// Reads the files, and checks that the certificate is `me`'s.
    pub fn load(files: &TlsFiles, me: &Identity) -> Result<Credentials, NodeTlsError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| NodeTlsError::Read {
                path: path.clone(),
                source,
            })
        };
        let files = files.clone();
        let credentials = Credentials {
            ca: read(&files.ca)?,
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            files,
        };
        let path = &credentials.files.certificate;
        let chain = certificates("certificate", &credentials.certificate).map_err(|source| NodeTlsError::Unusable {
            path: path.clone(),
            source,
        })?;
        let wrong = |got| NodeTlsError::Identity {
            path: path.clone(),
            got,
            expected: me.clone(),
        };
        match Identity::of(&chain[0]) {
            Ok(identity) if identity == *me => Ok(credentials),
            Ok(identity) => Err(wrong(identity.to_string())),
            Err(error) => Err(wrong(format!("nobody ({error})"))),
        }
    }

    /// What rustls needs to accept: TLS 1.3, a certificate of the cluster's CA from everybody, no early data, no resumption.
    pub fn server(&self) -> Result<rustls::ServerConfig, NodeTlsError> {
        let unusable = |path: &PathBuf| {
            let path = path.clone();
            move |source| NodeTlsError::Unusable { path, source }
        };
        let roots = roots(&self.ca).map_err(unusable(&self.files.ca))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        let chain = certificates("certificate", &self.certificate).map_err(unusable(&self.files.certificate))?;
        let key = private_key(&self.key).map_err(unusable(&self.files.key))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    /// A secret that only this node has and that outlives the process: it signs stateless resets.
    pub fn reset_secret(&self) -> [u8; 32] {
        blake3::derive_key("quorate 1 stateless reset", &self.key)
    }

    /// The same identity for dialing peers.
    pub fn dialing(&self) -> ClientTls {
        ClientTls::from_pem(&self.ca, &self.certificate, &self.key)
    }
}

/// How a node accepts QUIC connections: the given TLS, the shared limits of a connection, no migration, and few handshakes waiting.
///
/// Under load the accept loop answers addresses that are not validated yet with a retry; that is not a matter of this configuration.
pub fn server_config(tls: rustls::ServerConfig, mtu: u16) -> Result<quinn::ServerConfig, NodeTlsError> {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls)
        .map_err(|_| rustls::Error::General("QUIC needs the cipher suite TLS13_AES_128_GCM_SHA256".to_owned()))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(quic::transport_config(mtu)))
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL)
        .retry_token_lifetime(RETRY_TOKEN_LIFETIME);
    Ok(config)
}
