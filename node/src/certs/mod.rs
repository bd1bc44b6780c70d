//! Certificates of a cluster: its own CA, and what that CA issues to nodes and clients.
//!
//! A certificate says who somebody is by its DNS names, see [`Identity`]: the chain alone only says that the cluster's CA
//! signed it. Keys are ECDSA P-256, certificates begin an hour in the past, because clocks differ and a certificate that is not valid yet on
//! the next machine is a poor start. The common name is for people and is never read by Quorate.
//!
//! This is all a small cluster needs; `quorate dev` and `quorate cert` use it. Where another CA issues the certificates, they only
//! have to carry the same names. Rejected: one certificate for all nodes, with which each could speak for every other.

mod files;
mod show;

pub(crate) use files::{PRIVATE, PUBLIC, write_whole};
pub use show::CertificateInfo;

use crate::tls::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::io;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// How long a CA is valid unless told otherwise, in days.
pub const CA_DAYS: u32 = 3650;
/// How long other certificates are valid unless told otherwise, in days.
pub const LEAF_DAYS: u32 = 365;

/// Clocks of machines may differ by this much.
const SKEW: Duration = Duration::HOUR;

/// Why there is no certificate. No file was replaced, unless the error is about the second file of a pair.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no certificate or key in PEM form, or one that cannot be used.
    #[error("{path}: {reason}", path = path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key does not belong to the certificate. Give the key that was made with it.
    #[error("{key} is not the key of {certificate}", key = key.display(), certificate = certificate.display())]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The certificate could not be made.
    #[error("cannot make the certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Validity {
    /// From an hour ago until `days` from now.
    pub fn days(days: u32) -> Validity {
        let now = OffsetDateTime::now_utc();
        // The calendar of certificates ends with the year 9999.
        let days = days.min(365 * 1000);
        Validity {
            not_before: now - SKEW,
            not_after: now + Duration::days(i64::from(days)),
        }
    }

    /// Between two moments relative to now, in seconds; negative ones lie in the past.
    #[cfg(test)]
    pub(crate) fn seconds(from: i64, to: i64) -> Validity {
        let now = OffsetDateTime::now_utc();
        Validity {
            not_before: now + Duration::seconds(from),
            not_after: now + Duration::seconds(to),
        }
    }
}

/// A certificate and its private key, as PEM text. Only this process has the key until it is written.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

impl Issued {
    /// Writes both, the key first and with mode 0600: a certificate without its key would look usable.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<(), CertError> {
        for (path, text, mode) in [(key, &self.key, PRIVATE), (certificate, &self.certificate, PUBLIC)] {
            write_whole(path, text.as_bytes(), mode).map_err(|source| CertError::Write {
                path: path.to_owned(),
                source,
            })?;
        }
        Ok(())
    }
}

/// A CA that can issue: its certificate and key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Makes a new CA for a cluster. It signs no further CAs.
    pub fn create(cluster: &str, validity: Validity) -> Result<(Authority, Issued), CertError> {
        let key = KeyPair::generate()?;
        let mut params = parameters(&format!("Quorate CA of {cluster}"), validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issued = Issued {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        };
        Ok((
            Authority {
                certificate: issued.certificate.clone(),
                issuer: Issuer::new(params, key),
            },
            issued,
        ))
    }

    /// Reads a CA from its two PEM files.
    pub fn load(certificate: &Path, key: &Path) -> Result<Authority, CertError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |error: rcgen::Error| CertError::Unusable {
                path,
                reason: error.to_string(),
            }
        };
        let pem = read(certificate)?;
        let pair = KeyPair::from_pem(&read(key)?).map_err(unusable(key))?;
        if !show::is_key_of(certificate, &pem, &pair)? {
            return Err(CertError::Mismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            });
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, pair).map_err(unusable(certificate))?;
        Ok(Authority {
            issuer,
            certificate: pem,
        })
    }

    /// The CA's own certificate, as PEM text: what everybody has to trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate with a fresh key.
    pub fn issue(&self, identity: &Identity, validity: Validity) -> Result<Issued, CertError> {
        let key = KeyPair::generate()?;
        let names = identity.dns_names();
        let mut params = parameters(&names[0], validity);
        for name in names {
            params.subject_alt_names.push(rcgen::SanType::DnsName(name.try_into()?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity {
            Identity::Node(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Identity::Client(_) | Identity::Admin(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

fn parameters(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.distinguished_name = rcgen::DistinguishedName::new();
    // X.509 allows a common name 64 characters.
    params
        .distinguished_name
        .push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    params.distinguished_name.push(DnType::OrganizationName, "Quorate");
    params
}

pub(crate) fn read(path: &Path) -> Result<String, CertError> {
    std::fs::read_to_string(path).map_err(|source| CertError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_ca_that_was_written_and_read_back_issues_what_the_first_one_would() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, ca_key) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
        let (_, issued) = Authority::create("demo", Validity::days(CA_DAYS)).unwrap();
        issued.write(&ca, &ca_key).unwrap();
        assert_eq!(fs::metadata(&ca_key).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Authority::load(&ca, &ca_key).unwrap();
        let leaf = again
            .issue(&Identity::Client("alice".into()), Validity::days(LEAF_DAYS))
            .unwrap();
        let path = dir.path().join("alice.pem");
        leaf.write(&path, &dir.path().join("alice.key")).unwrap();
        let [info] = &CertificateInfo::read(&path).unwrap()[..] else {
            panic!("one certificate")
        };
        assert_eq!(info.names, ["alice.client.quorate"]);
        assert_eq!(info.identity, "client alice");
        assert_eq!(info.issuer, CertificateInfo::read(&ca).unwrap()[0].subject);
        assert!((364..=365).contains(&info.days_left), "{}", info.days_left);
    }

    #[test]
    fn the_key_of_another_ca_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a.pem", "a.key", "b.pem", "b.key"]
            .iter()
            .map(|name| dir.path().join(name))
            .collect();
        for pair in paths.chunks_exact(2) {
            Authority::create("demo", Validity::days(1))
                .unwrap()
                .1
                .write(&pair[0], &pair[1])
                .unwrap();
        }
        assert!(matches!(
            Authority::load(&paths[0], &paths[3]),
            Err(CertError::Mismatch { .. })
        ));
    }

    #[test]
    fn rubbish_is_named_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
        Authority::create("demo", Validity::days(1))
            .unwrap()
            .1
            .write(&certificate, &key)
            .unwrap();
        fs::write(&certificate, "rubbish").unwrap();
        let error = Authority::load(&certificate, &key).err().unwrap().to_string();
        assert!(error.contains("ca.pem"), "{error}");
        assert!(CertificateInfo::read(&certificate).is_err());
    }
}
