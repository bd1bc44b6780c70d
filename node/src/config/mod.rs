//! What a node is told before it starts: one TOML file, with the environment and the command line on top.
//!
//! Flags win over the environment (`QUORATE_…`), that wins over the file, and the file over the defaults. Everything is checked here, once,
//! so that the rest of the node holds a configuration that makes sense: this node is among the members, addresses are
//! addresses, quorums fit their buckets, secrets can be read by their owner only. An error in the file names the line and column;
//! an unknown key is an error, because a misspelt limit that is silently ignored is worse than a node that does not start.
//!
//! [`file`](mod@file) is the shape of the TOML, [`resolve`] turns it into a [`NodeConfig`], [`error`] says what was wrong and where. Paths in the file are
//! relative to the file; paths from flags and environment to the working directory. Rejected: a library that merges layers of
//! untyped values, which loses the position of what it merged.

mod error;
mod file;
mod resolve;
mod secret;
#[cfg(test)]
pub(crate) mod tests;

pub use error::ConfigError;
pub(crate) use error::{position, read_text};

use quorate_client::quic::MTU_DEFAULT;
use quorate_core::bucket::BucketTable;
use quorate_core::engine;
use quorate_core::request::QuorumKind;
use quorate_core::seal::ContextKeys;
use quorate_ring::{Member, NodeId, Ring};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The table that stands for all buckets without one of their own.
const UNNAMED: &str = "default";

/// A checked configuration of one node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node's name; one of the members has it.
    pub name: String,
    /// This node's identity: that of the member with its name.
    pub id: NodeId,
    /// Where its data lies.
    pub data_dir: PathBuf,
    /// The cluster's name, which peers and clients must agree on.
    pub cluster: String,
    /// Where it listens.
    pub listen: Listen,
    /// Its certificate, key and the cluster's CA.
    pub tls: TlsFiles,
    /// Bounds.
    pub limits: NodeLimits,
    /// How it heals what is behind, lost or damaged.
    pub healing: Healing,
    /// What it logs, and how.
    pub log: LogConfig,
    ring: Ring,
    buckets: Buckets,
    context_keys: ContextKeys,
}

/// The addresses a node listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// QUIC over UDP, for nodes and clients.
    pub quic: SocketAddr,
    /// HTTP, for applications.
    pub http: SocketAddr,
    /// HTTP, for metrics and status.
    pub admin: SocketAddr,
    /// Whether plain HTTP was allowed off loopback.
    pub insecure_http: bool,
}

/// PEM files of a node or client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The cluster's CA: one certificate, or several while it is being replaced.
    pub ca: PathBuf,
    /// Our certificate.
    pub certificate: PathBuf,
    /// Our private key, mode 0600.
    pub key: PathBuf,
}

/// Bounds of a node. Each has a documented answer when it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeLimits {
    /// Requests coordinated or forwarded at once.
    pub operations_max: usize,
    /// Keys loading or not yet synced at once.
    pub slots_max: usize,
    /// HTTP connections at once, on the gateway.
    pub http_connections_max: usize,
    /// QUIC connections of clients at once.
    pub client_connections_max: usize,
    /// Longest timeout that a request gets, in milliseconds.
    pub timeout_max_ms: u64,
    /// How long a read waits before it asks owners that it has not asked yet, in milliseconds.
    pub hedge_after_ms: u64,
    /// A node that keeps a request waiting for this long is routed round, in milliseconds.
    pub slow_after_ms: u64,
    /// How long what was written to a bucket of relaxed durability, or by the node itself, may wait to be synced, in milliseconds: 1 to 2000.
    pub flush_interval_ms: u64,
    /// RocksDB's block cache, in MiB.
    pub cache_mib: usize,
    /// Recently used records kept ready beside it, in MiB.
    pub record_cache_mib: usize,
    /// Free disk space below which writes are refused, in MiB; they are taken again by themselves. 0: never.
    pub disk_reserve_mib: u64,
    /// Size of QUIC's datagrams, in bytes: 1,200 to 6,400. Above 1,452 only where every link carries jumbo frames.
    pub datagram_bytes: u16,
}

impl Default for NodeLimits {
    fn default() -> NodeLimits {
        let engine = engine::Limits::default();
        NodeLimits {
            operations_max: engine.operations_max,
            slots_max: engine.slots_max,
            http_connections_max: 1024,
            client_connections_max: 1024,
            timeout_max_ms: engine.timeout_max.as_millis() as u64,
            hedge_after_ms: engine.hedge_after.as_millis() as u64,
            slow_after_ms: engine.slow_after.as_millis() as u64,
            flush_interval_ms: 1000,
            cache_mib: 64,
            record_cache_mib: 64,
            disk_reserve_mib: 512,
            datagram_bytes: MTU_DEFAULT,
        }
    }
}

/// How a node heals what is behind, lost or damaged, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Healing {
    /// Whether hints are kept for owners that are away; without them what they miss is left to anti-entropy.
    pub hints: bool,
    /// Room for hints, in MiB. Beyond, fallbacks refuse them and what is missed is left to anti-entropy.
    pub hint_mib: u64,
    /// Hints and records of exchanges under way to one node at once.
    pub handoff_window: u16,
    /// Whether owners compare what they hold.
    pub exchange: bool,
    /// Whether the trees that they compare are kept. For measuring what that costs: without them nothing is compared.
    pub trees: bool,
    /// Every pair of owners compares about this often, in seconds.
    pub exchange_every_s: u64,
    /// Read repairs a second that nobody waits for.
    pub repairs_per_second: u32,
    /// Between the two rounds of the proof that a delete is settled, in seconds; more than the idle timeout of connections.
    pub settle_after_s: u64,
    /// How long a delete waits before that proof begins, in seconds: for at least so long a retry of what it covered is recognised.
    pub settle_age_s: u64,
    /// Records that the scrub reads a second.
    pub scrub_per_second: u32,
}

impl Default for Healing {
    fn default() -> Healing {
        let engine = engine::Limits::default();
        Healing {
            hints: engine.hints,
            hint_mib: engine.hint_bytes_max >> 20,
            handoff_window: engine.handoff_window,
            exchange: engine.exchange,
            trees: engine.trees,
            exchange_every_s: engine.exchange_every.as_secs(),
            repairs_per_second: engine.repairs_per_second,
            settle_after_s: engine.settle_after.as_secs(),
            settle_age_s: engine.settle_age.as_secs(),
            scrub_per_second: engine.scrub_per_second,
        }
    }
}

/// The properties of buckets, and which of them the file leaves open.
#[derive(Clone, Debug)]
struct Buckets {
    /// As the file says, with today's defaults.
    written: BucketTable,
    /// Those that name no quorum; `default` among them stands for all that have no table.
    open: BTreeSet<String>,
    /// Whether the open ones keep the strict quorum, which was the default of earlier builds.
    keep_strict: bool,
}

/// What is logged, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level (`info`), or levels by module (`info,quorate_node::transport=debug`).
    pub level: String,
    /// In which form.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What flags and environment put over the file. clap fills in both, and gives the flag precedence.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Overrides {
    /// Where the node's data lies
    #[arg(long, env = "QUORATE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// QUIC address to listen on
    #[arg(long, env = "QUORATE_LISTEN_QUIC", value_name = "IP:PORT")]
    pub listen_quic: Option<SocketAddr>,
    /// HTTP address to listen on
    #[arg(long, env = "QUORATE_LISTEN_HTTP", value_name = "IP:PORT")]
    pub listen_http: Option<SocketAddr>,
    /// Admin address to listen on (metrics, status)
    #[arg(long, env = "QUORATE_LISTEN_ADMIN", value_name = "IP:PORT")]
    pub listen_admin: Option<SocketAddr>,
    /// Serve plain HTTP on an address that other machines can reach
    #[arg(long, env = "QUORATE_INSECURE_HTTP", value_parser = clap::builder::BoolishValueParser::new())]
    pub insecure_http: bool,
    /// What to log: a level, or levels by module
    #[arg(long, env = "QUORATE_LOG_LEVEL", value_name = "FILTER")]
    pub log_level: Option<String>,
    /// Form of log lines
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The environment variables that [`Overrides`] reads. A process that starts nodes with a configuration file each must not pass
/// its own on to them.
pub const OVERRIDE_VARIABLES: [&str; 7] = [
    "QUORATE_DATA_DIR",
    "QUORATE_LISTEN_QUIC",
    "QUORATE_LISTEN_HTTP",
    "QUORATE_LISTEN_ADMIN",
    "QUORATE_INSECURE_HTTP",
    "QUORATE_LOG_LEVEL",
    "QUORATE_LOG_FORMAT",
];

impl NodeConfig {
    /// Reads and checks a configuration file, with `overrides` on top, and the secrets that it names.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place. Nothing was changed anywhere.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<NodeConfig, ConfigError> {
        let text = read_text("the configuration", path)?;
        let raw = file::parse(path, &text)?;
        resolve::resolve(path, &text, raw, overrides)
    }

    /// The ring that follows from the members, version 1. Computed once; a clone shares it.
    pub fn ring(&self) -> Ring {
        self.ring.clone()
    }

    /// The members, sorted by id.
    pub fn members(&self) -> &[Member] {
        self.ring.members()
    }

    /// The properties of every bucket.
    pub fn bucket_table(&self) -> BucketTable {
        let mut table = self.buckets.written.clone();
        if self.buckets.keep_strict {
            for name in &self.buckets.open {
                let properties = match name.as_str() {
                    UNNAMED => Some(&mut table.defaults),
                    name => table.named.get_mut(name.as_bytes()),
                };
                properties
                    .expect("the open ones are among those that were written")
                    .quorum = QuorumKind::Strict;
            }
        }
        table
    }

    /// The names of the buckets that name no quorum; `default` stands for all that have no table.
    pub fn open_quorums(&self) -> impl Iterator<Item = &str> {
        self.buckets.open.iter().map(String::as_str)
    }

    /// Lets the buckets that name no quorum keep the strict one, which was the default when this node's data were first written.
    pub fn keep_strict(&mut self) {
        self.buckets.keep_strict = true;
    }

    /// A digest of everything that all nodes of a cluster must agree on: members, buckets, and the key that seals contexts. Buckets count
    /// as they are written: which quorum an open one has is each coordinator's own business.
    pub fn settings_digest(&self) -> u64 {
        let buckets = &self.buckets.written;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.ring.digest().to_le_bytes());
        hasher.update(&self.context_keys.fingerprint());
        let named: Vec<_> = buckets.named.iter().collect();
        hasher.update(&serde_json::to_vec(&(buckets.defaults, named)).expect("bucket properties are plain data"));
        u64::from_le_bytes(
            hasher.finalize().as_bytes()[..8]
                .try_into()
                .expect("a hash has 32 bytes"),
        )
    }

    /// The keys that seal contexts.
    pub fn context_keys(&self) -> ContextKeys {
        self.context_keys.clone()
    }

    /// The engine's bounds.
    pub fn engine_limits(&self) -> engine::Limits {
        engine::Limits {
            operations_max: self.limits.operations_max,
            slots_max: self.limits.slots_max,
            timeout_max: Duration::from_millis(self.limits.timeout_max_ms),
            hedge_after: Duration::from_millis(self.limits.hedge_after_ms),
            slow_after: Duration::from_millis(self.limits.slow_after_ms),
            hints: self.healing.hints,
            hint_bytes_max: self.healing.hint_mib << 20,
            handoff_window: self.healing.handoff_window,
            repairs_per_second: self.healing.repairs_per_second,
            exchange: self.healing.exchange && self.healing.trees,
            trees: self.healing.trees,
            exchange_every: Duration::from_secs(self.healing.exchange_every_s),
            settle_after: Duration::from_secs(self.healing.settle_after_s),
            settle_age: Duration::from_secs(self.healing.settle_age_s),
            scrub_per_second: self.healing.scrub_per_second,
            ..engine::Limits::default()
        }
    }
}
