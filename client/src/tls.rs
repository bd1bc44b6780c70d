//! TLS as every connection of a cluster wants it: version 1.3, mutual, and only the cluster's own CA.
//!
//! The configurations are built by hand. quinn's convenience constructors turn early data on and use no client
//! certificate, rustls' default builder takes the process-wide crypto provider, which two libraries in one program can
//! fight over. Here the provider is passed explicitly, with AES-128-GCM first (the fastest one on every machine with
//! AES instructions), early data is off, since it can be replayed, and sessions are never resumed, so each connection
//! proves its certificate again and a revoked one stops working at the next dial.
//!
//! Rejected: the system's root certificates. A public CA says who owns a web site, not who belongs to a cluster.

use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The protocol that is negotiated on every connection.
pub const ALPN: &[u8] = b"quorate/1";

/// A name that every node's certificate carries: what a client asks for when it does not know yet which node it dials.
pub const NODE_SERVER_NAME: &str = "node.quorate";

/// The name in the certificate of one certain node.
pub fn node_server_name(node: quorate_ring::NodeId) -> String {
    format!("{node}.{NODE_SERVER_NAME}")
}

/// Why certificates or a key cannot be used. Nothing was dialed; the files have to be mended.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no PEM section of the kind that is needed, or it is damaged.
    #[error("the {what} is not usable PEM: {source}")]
    Pem {
        /// `CA`, `certificate` or `key`.
        what: &'static str,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// The PEM text holds no certificate.
    #[error("the {what} holds no certificate")]
    Empty {
        /// `CA` or `certificate`.
        what: &'static str,
    },
    /// rustls refuses them, for example because key and certificate do not belong together.
    #[error("TLS refuses the certificates: {0}")]
    Rustls(#[from] rustls::Error),
}

/// CA, certificate chain and private key of a client, as PEM text.
#[derive(Clone)]
pub struct ClientTls {
    ca: Arc<[u8]>,
    certificate: Arc<[u8]>,
    key: Arc<[u8]>,
}

/// Never prints the key.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    /// Takes the three as PEM text. They are parsed when a connection is first wanted.
    pub fn from_pem(ca: impl AsRef<[u8]>, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> ClientTls {
        ClientTls {
            ca: ca.as_ref().into(),
            certificate: certificate.as_ref().into(),
            key: key.as_ref().into(),
        }
    }

    /// Reads the three from PEM files.
    pub fn from_files(ca: &Path, certificate: &Path, key: &Path) -> Result<ClientTls, TlsError> {
        Ok(ClientTls::from_pem(read(ca)?, read(certificate)?, read(key)?))
    }

    /// What rustls needs to dial: TLS 1.3 with this certificate, trusting this CA alone.
    pub fn rustls_config(&self) -> Result<rustls::ClientConfig, TlsError> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots(&self.ca)?)
            .with_client_auth_cert(certificates("certificate", &self.certificate)?, private_key(&self.key)?)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(config)
    }
}

/// The cryptography that all of Quorate uses: ring's, with AES-128-GCM preferred.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// The CA certificates of a PEM text, as the only roots.
pub fn roots(ca: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA", ca)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// All certificates of a PEM text, at least one. `what` names it in errors.
pub fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    if found.is_empty() {
        Err(TlsError::Empty { what })
    } else {
        Ok(found)
    }
}

/// The private key of a PEM text.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|source| TlsError::Pem { what: "key", source })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn aes_128_comes_first_and_sessions_are_never_resumed() {
        assert_eq!(
            provider().cipher_suites[0].suite(),
            rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
        );
        let made = rcgen::generate_simple_self_signed(vec!["a.client.quorate".into()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let config = ClientTls::from_pem(&certificate, &certificate, &key)
            .rustls_config()
            .unwrap();
        assert!(!config.enable_early_data);
        assert_eq!(config.alpn_protocols, [ALPN]);
    }

    #[test]
    fn what_is_not_a_certificate_is_refused_by_name() {
        let error = ClientTls::from_pem("", "", "").rustls_config().unwrap_err();
        assert_eq!(error.to_string(), "the CA holds no certificate");
        assert!(matches!(
            private_key(b"nothing"),
            Err(TlsError::Pem { what: "key", .. })
        ));
    }

    #[test]
    fn the_key_is_never_printed() {
        assert_eq!(
            format!("{:?}", ClientTls::from_pem("ca", "certificate", "secret")),
            "ClientTls"
        );
    }
}
