//! The shape of the TOML file. What may be wrong in a way that the types do not show keeps its place, as [`Spanned`].

use super::error::{ConfigError, at};
use super::{Healing, LogFormat, NodeLimits};
use quorate_core::bucket::BucketProperties;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: Spanned<String>,
    pub(super) data_dir: PathBuf,
    pub(super) cluster: Cluster,
    #[serde(default)]
    pub(super) listen: Listen,
    pub(super) tls: Tls,
    #[serde(default)]
    pub(super) buckets: BTreeMap<Spanned<String>, BucketProperties>,
    pub(super) limits: Option<Spanned<NodeLimits>>,
    pub(super) healing: Option<Spanned<Healing>>,
    #[serde(default)]
    pub(super) log: Log,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) name: Spanned<String>,
    pub(super) partition_bits: Spanned<u8>,
    pub(super) context_key_file: PathBuf,
    pub(super) members: Spanned<Vec<Member>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    pub(super) id: Spanned<String>,
    pub(super) name: Spanned<String>,
    pub(super) zone: Spanned<String>,
    #[serde(default = "one")]
    pub(super) weight: u32,
    pub(super) quic: Spanned<String>,
    pub(super) http: Option<Spanned<String>>,
}

fn one() -> u32 {
    1
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) quic: Option<Spanned<String>>,
    pub(super) http: Option<Spanned<String>>,
    pub(super) admin: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) insecure_http: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) ca: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) format: LogFormat,
}

/// Parses the file. Errors of syntax, types and unknown keys come from the parser, with their place.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| {
        at(
            path,
            text,
            error.span().unwrap_or(0..0),
            error.message().replace('\n', " "),
        )
    })
}

/// The buckets whose tables name a quorum. Properties have a default for it, and whoever has an old cluster needs to know.
pub(super) fn with_quorum(text: &str) -> BTreeSet<String> {
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let buckets = table.get("buckets").and_then(toml::Value::as_table);
    let named = buckets.into_iter().flatten();
    named
        .filter(|(_, bucket)| bucket.get("quorum").is_some())
        .map(|(name, _)| name.clone())
        .collect()
}
