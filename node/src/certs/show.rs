//! What a certificate says, for people and for `quorate dev`, which renews certificates that are about to end.

use super::{CertError, read};
use crate::tls::Identity;
use quorate_client::tls::certificates;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The readable part of one certificate.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateInfo {
    /// Which file it comes from.
    pub file: PathBuf,
    /// Whom it was issued to, for people.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Whether it is a CA's.
    pub is_ca: bool,
    /// For whom Quorate takes its holder: `node UUID`, `client NAME`, `admin NAME`, `CA`, or why for nobody.
    pub identity: String,
    /// Its DNS names.
    pub names: Vec<String>,
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// Valid from, seconds since 1970.
    pub not_before: i64,
    /// Valid until, seconds since 1970.
    pub not_after: i64,
    /// Whole days until it ends; negative if it has ended.
    pub days_left: i64,
}

impl CertificateInfo {
    /// Reads all certificates of a PEM file.
    pub fn read(path: &Path) -> Result<Vec<CertificateInfo>, CertError> {
        parse(path, &read(path)?)?
            .iter()
            .map(|der| describe(path, der))
            .collect()
    }

    /// Whether it holds now.
    pub fn is_valid_now(&self) -> bool {
        (self.not_before..=self.not_after).contains(&OffsetDateTime::now_utc().unix_timestamp())
    }

    /// The end of its validity, as `2027-11-20 07:14 UTC`.
    pub fn ends(&self) -> String {
        moment(self.not_after)
    }

    /// The beginning of its validity, likewise.
    pub fn begins(&self) -> String {
        moment(self.not_before)
    }
}

fn moment(seconds: i64) -> String {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else {
        return seconds.to_string();
    };
    format!(
        "{}-{:02}-{:02} {:02}:{:02} UTC",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute()
    )
}

/// Whether a key belongs to the first certificate of a PEM text.
pub(super) fn is_key_of(path: &Path, pem: &str, key: &KeyPair) -> Result<bool, CertError> {
    let found = parse(path, pem)?;
    let certificate = decode(path, &found[0])?;
    Ok(certificate.public_key().raw == key.subject_public_key_info())
}

fn parse(path: &Path, pem: &str) -> Result<Vec<CertificateDer<'static>>, CertError> {
    certificates("file", pem.as_bytes()).map_err(|error| CertError::Unusable {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn decode<'a>(path: &Path, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertError> {
    let unusable = |error: &dyn ToString| CertError::Unusable {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|error| unusable(&error))
}

fn describe(path: &Path, der: &CertificateDer<'_>) -> Result<CertificateInfo, CertError> {
    let certificate = decode(path, der)?;
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let not_after = certificate.validity().not_after.timestamp();
    let identity = match Identity::of(der) {
        _ if certificate.is_ca() => "CA".to_owned(),
        Ok(identity) => identity.to_string(),
        Err(error) => format!("nobody: {error}"),
    };
    Ok(CertificateInfo {
        file: path.to_owned(),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        is_ca: certificate.is_ca(),
        identity,
        names: names.into_iter().map(|name: String| dns(&name)).collect(),
        serial: certificate.raw_serial_as_string(),
        not_before: certificate.validity().not_before.timestamp(),
        not_after,
        days_left: (not_after - OffsetDateTime::now_utc().unix_timestamp()).div_euclid(86_400),
    })
}

/// The bare name of x509-parser's `DNSName(name)`; other kinds of names stay as they are.
fn dns(name: &str) -> String {
    name.strip_prefix("DNSName(")
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or(name)
        .to_owned()
}
