//! From the parsed file to a configuration that makes sense: the checks that types cannot make.
//!
//! The order of the checks is that of the file, so that the first complaint is the first thing a reader meets.

use super::error::{ConfigError, at};
use super::file::{self, File};
use super::secret::{check_private, context_keys};
use super::{Buckets, Healing, Listen, LogConfig, NodeConfig, NodeLimits, Overrides, TlsFiles, UNNAMED};
use crate::logging;
use quorate_client::quic::{IDLE_TIMEOUT, MTU_MAX};
use quorate_core::bucket::{BucketProperties, BucketTable};
use quorate_core::key::BUCKET_BYTES_MAX;
use quorate_ring::{Member, NAME_MAX, NodeId, Ring, RingError, RingVersion};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::Spanned;

/// The version of a ring that comes from configuration files. Later versions come from plans.
const FIRST_RING: RingVersion = RingVersion(1);

/// Every pair of owners compares within ten minutes, whatever is configured.
const EXCHANGE_EVERY_S_MAX: u64 = 600;

/// What nobody waits for is on disk well within the proof that a delete is settled, whatever is configured.
const FLUSH_INTERVAL_MS_MAX: u64 = 2000;

/// The smallest datagram size that QUIC allows, in bytes.
const MTU_MIN: u16 = 1200;

/// The file, so that a complaint can name its place.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn wrong<T>(&self, place: &Spanned<T>, message: impl Into<String>) -> ConfigError {
        at(self.path, self.text, place.span(), message)
    }

    /// A path of the file, made relative to the file.
    fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn address(&self, text: &Spanned<String>) -> Result<SocketAddr, ConfigError> {
        let refused = |_| {
            self.wrong(
                text,
                format!(
                    "{:?} is no address; write it as IP:PORT, like 127.0.0.1:7701",
                    text.get_ref()
                ),
            )
        };
        text.get_ref().parse().map_err(refused)
    }
}

pub(super) fn resolve(path: &Path, text: &str, raw: File, overrides: &Overrides) -> Result<NodeConfig, ConfigError> {
    let source = Source { path, text };
    let ring = ring(&source, &raw.cluster)?;
    let me = ring
        .members()
        .iter()
        .find(|member| member.name == *raw.name.get_ref())
        .ok_or_else(|| {
            let names: Vec<&str> = ring.members().iter().map(|member| member.name.as_str()).collect();
            let message = format!(
                "no member is called {:?}; the members are {}",
                raw.name.get_ref(),
                names.join(", ")
            );
            source.wrong(&raw.name, message)
        })?;
    let listen = listen(&source, &raw.listen, me, overrides)?;
    let log = log(&source, raw.log, overrides)?;
    let limits = limits(&source, raw.limits.as_ref())?;
    let healing = healing(&source, raw.healing.as_ref())?;
    let buckets = buckets(&source, raw.buckets)?;
    let tls = TlsFiles {
        ca: source.beside(&raw.tls.ca),
        certificate: source.beside(&raw.tls.certificate),
        key: source.beside(&raw.tls.key),
    };
    for (what, path) in [
        ("the cluster's CA", &tls.ca),
        ("the node's certificate", &tls.certificate),
    ] {
        std::fs::metadata(path).map_err(|source| ConfigError::Read {
            what,
            path: path.clone(),
            source,
        })?;
    }
    check_private("the node's private key", &tls.key)?;
    Ok(NodeConfig {
        name: me.name.clone(),
        id: me.id,
        data_dir: overrides
            .data_dir
            .clone()
            .unwrap_or_else(|| source.beside(&raw.data_dir)),
        cluster: raw.cluster.name.get_ref().clone(),
        listen,
        tls,
        limits,
        healing,
        log,
        context_keys: context_keys(&source.beside(&raw.cluster.context_key_file))?,
        buckets,
        ring,
    })
}

/// Checks the members one by one, so that a complaint has a place, and then lets the ring check them all.
fn ring(source: &Source<'_>, cluster: &file::Cluster) -> Result<Ring, ConfigError> {
    if cluster.name.get_ref().is_empty() || cluster.name.get_ref().len() > NAME_MAX {
        return Err(source.wrong(&cluster.name, format!("a cluster's name has 1 to {NAME_MAX} bytes")));
    }
    let mut seen = BTreeMap::new();
    let mut members = Vec::new();
    for raw in cluster.members.get_ref() {
        for (kind, text) in [
            ("id", Some(&raw.id)),
            ("name", Some(&raw.name)),
            ("address", Some(&raw.quic)),
            ("HTTP address", raw.http.as_ref()),
        ] {
            let Some(text) = text else { continue };
            if seen.insert((kind, text.get_ref()), ()).is_some() {
                let message = format!("two members have the {kind} {:?}; each needs its own", text.get_ref());
                return Err(source.wrong(text, message));
            }
        }
        members.push(member(source, raw)?);
    }
    Ring::new(FIRST_RING, *cluster.partition_bits.get_ref(), members).map_err(|error| match error {
        RingError::PartitionBits { .. } => source.wrong(&cluster.partition_bits, error.to_string()),
        _ => source.wrong(&cluster.members, error.to_string()),
    })
}

fn member(source: &Source<'_>, raw: &file::Member) -> Result<Member, ConfigError> {
    let id: NodeId = raw
        .id
        .get_ref()
        .parse()
        .map_err(|error| source.wrong(&raw.id, format!("{error}")))?;
    for text in [&raw.name, &raw.zone] {
        if text.get_ref().is_empty() || text.get_ref().len() > NAME_MAX {
            return Err(source.wrong(text, format!("names and zones have 1 to {NAME_MAX} bytes")));
        }
    }
    source.address(&raw.quic)?;
    raw.http.as_ref().map(|http| source.address(http)).transpose()?;
    Ok(Member {
        id,
        name: raw.name.get_ref().clone(),
        zone: raw.zone.get_ref().clone(),
        weight: raw.weight,
        quic: raw.quic.get_ref().clone(),
        http: raw.http.as_ref().map(|http| http.get_ref().clone()).unwrap_or_default(),
    })
}

/// Where to listen: what was overridden, else what the file says, else the addresses that the ring has for this member.
fn listen(source: &Source<'_>, raw: &file::Listen, me: &Member, overrides: &Overrides) -> Result<Listen, ConfigError> {
    let from_file = |text: &Option<Spanned<String>>, fallback: &str, port: u16| match text {
        Some(text) => source.address(text),
        None => Ok(fallback
            .parse()
            .unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
    };
    let listen = Listen {
        quic: overrides
            .listen_quic
            .map_or_else(|| from_file(&raw.quic, &me.quic, 7701), Ok)?,
        http: overrides
            .listen_http
            .map_or_else(|| from_file(&raw.http, &me.http, 7700), Ok)?,
        admin: overrides
            .listen_admin
            .map_or_else(|| from_file(&raw.admin, "", 7702), Ok)?,
        insecure_http: raw.insecure_http || overrides.insecure_http,
    };
    if listen.insecure_http {
        return Ok(listen);
    }
    let ports = [
        (listen.http, "--listen-http", overrides.listen_http, raw.http.as_ref()),
        (
            listen.admin,
            "--listen-admin",
            overrides.listen_admin,
            raw.admin.as_ref(),
        ),
    ];
    for (address, name, overridden, place) in ports {
        if address.ip().is_loopback() {
            continue;
        }
        let message = format!(
            "{address} can be reached from other machines, and HTTP is served without TLS and without authentication for now; \
             listen on 127.0.0.1, or allow it by --insecure-http (insecure_http = true under [listen])"
        );
        return Err(match place.filter(|_| overridden.is_none()) {
            Some(place) => source.wrong(place, message),
            None => ConfigError::Override { name, message },
        });
    }
    Ok(listen)
}

fn log(source: &Source<'_>, raw: file::Log, overrides: &Overrides) -> Result<LogConfig, ConfigError> {
    let level = match (&overrides.log_level, &raw.level) {
        (Some(level), _) => {
            let wrong = |message| ConfigError::Override {
                name: "--log-level",
                message,
            };
            logging::check_filter(level).map_err(wrong)?;
            level.clone()
        }
        (None, Some(level)) => {
            logging::check_filter(level.get_ref()).map_err(|message| source.wrong(level, message))?;
            level.get_ref().clone()
        }
        (None, None) => "info".to_owned(),
    };
    Ok(LogConfig {
        level,
        format: overrides.log_format.unwrap_or(raw.format),
    })
}

fn limits(source: &Source<'_>, raw: Option<&Spanned<NodeLimits>>) -> Result<NodeLimits, ConfigError> {
    let Some(raw) = raw else {
        return Ok(NodeLimits::default());
    };
    let limits = *raw.get_ref();
    let counts = [
        ("operations_max", limits.operations_max),
        ("slots_max", limits.slots_max),
        ("http_connections_max", limits.http_connections_max),
        ("client_connections_max", limits.client_connections_max),
        ("cache_mib", limits.cache_mib),
        ("record_cache_mib", limits.record_cache_mib),
        ("timeout_max_ms", limits.timeout_max_ms as usize),
        ("slow_after_ms", limits.slow_after_ms as usize),
        ("flush_interval_ms", limits.flush_interval_ms as usize),
    ];
    match counts.iter().find(|(_, count)| *count == 0) {
        Some((name, _)) => Err(source.wrong(
            raw,
            format!("{name} is 0, so the node could do nothing; it must be at least 1"),
        )),
        None if limits.flush_interval_ms > FLUSH_INTERVAL_MS_MAX => Err(source.wrong(
            raw,
            format!(
                "flush_interval_ms is {}; it must be 1 to {FLUSH_INTERVAL_MS_MAX}",
                limits.flush_interval_ms
            ),
        )),
        None if (MTU_MIN..=MTU_MAX).contains(&limits.datagram_bytes) => Ok(limits),
        None => Err(source.wrong(
            raw,
            format!(
                "datagram_bytes is {}; it must be {MTU_MIN} to {MTU_MAX}",
                limits.datagram_bytes
            ),
        )),
    }
}

fn healing(source: &Source<'_>, raw: Option<&Spanned<Healing>>) -> Result<Healing, ConfigError> {
    let Some(raw) = raw else {
        return Ok(Healing::default());
    };
    let healing = *raw.get_ref();
    let bounds = [
        ("hint_mib", healing.hint_mib, 1, 1 << 20),
        ("handoff_window", healing.handoff_window.into(), 1, 1024),
        ("exchange_every_s", healing.exchange_every_s, 1, EXCHANGE_EVERY_S_MAX),
        ("repairs_per_second", healing.repairs_per_second.into(), 1, 1_000_000),
        (
            "settle_after_s",
            healing.settle_after_s,
            // Three quarters of it have to outlast a connection that is dead at one end.
            IDLE_TIMEOUT.as_secs() * 4 / 3 + 1,
            86_400,
        ),
        ("settle_age_s", healing.settle_age_s, 0, 86_400),
        ("scrub_per_second", healing.scrub_per_second.into(), 1, 1_000_000),
    ];
    match bounds.iter().find(|(_, value, min, max)| value < min || value > max) {
        Some((name, value, min, max)) => {
            Err(source.wrong(raw, format!("{name} is {value}; it must be {min} to {max}")))
        }
        None => Ok(healing),
    }
}

fn buckets(source: &Source<'_>, raw: BTreeMap<Spanned<String>, BucketProperties>) -> Result<Buckets, ConfigError> {
    let with_quorum = file::with_quorum(source.text);
    let mut open = BTreeSet::from([UNNAMED.to_owned()]);
    let mut table = BucketTable::default();
    for (name, properties) in raw {
        let text = name.get_ref();
        if text.is_empty() || text.len() > BUCKET_BYTES_MAX {
            return Err(source.wrong(&name, format!("a bucket's name has 1 to {BUCKET_BYTES_MAX} bytes")));
        }
        properties
            .validate()
            .map_err(|error| source.wrong(&name, format!("bucket {text:?}: {error}")))?;
        if properties.ttl_seconds == Some(0) {
            let message = format!(
                "bucket {text:?}: ttl_seconds is 0, so every value would be gone at once; leave it out for none"
            );
            return Err(source.wrong(&name, message));
        }
        match with_quorum.contains(text) {
            true => open.remove(text),
            false => open.insert(text.clone()),
        };
        if text == UNNAMED {
            table.defaults = properties;
        } else {
            table.named.insert(text.clone().into_bytes(), properties);
        }
    }
    Ok(Buckets {
        written: table,
        open,
        keep_strict: false,
    })
}
