//! The cluster of a run and its rates.
//!
//! Every seed draws its own rates, and many of them are zero ("swarm testing", Groce et al. 2012): a run in which everything goes
//! wrong a little reaches other states than one in which a single thing goes wrong all the time.

use quorate_core::bucket::{BucketProperties, BucketTable, Durability};
use quorate_core::engine::Limits;
use quorate_core::key::Key;
use quorate_ring::{Member, NodeId, NodeIndex, Ring, RingVersion};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Longer than any connection waits here for a silent peer, and than any message travels on one that stays up.
const SETTLE_AFTER: Duration = Duration::from_secs(8);

/// The cluster and its rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Number of nodes.
    pub nodes: u8,
    /// The ring has two to this power partitions.
    pub partition_bits: u8,
    /// When operations and faults end and the cluster is healed.
    pub horizon_ms: u32,
    /// Buckets.
    pub buckets: Vec<BucketPlan>,
    /// Keys.
    pub keys: Vec<KeyPlan>,
    /// Clients.
    pub clients: Vec<ClientPlan>,
    /// Bounds of the engines.
    pub limits: LimitsPlan,
    /// The network.
    pub network: NetworkRates,
    /// The disks.
    pub disk: DiskRates,
    /// Replies to clients that are lost, per mille.
    pub lost_replies_pm: u16,
    /// Whether nodes forget single keys without a trace. Nothing tells them, so strict reads promise nothing until the scrub has been there.
    pub forgets: bool,
    /// Whether disks are wiped, put back or rot. Nodes notice, and read again from the others what they have lost.
    #[serde(default)]
    pub loses: bool,
    /// A node that goes away before the end and never comes back.
    #[serde(default)]
    pub stays_away: Option<u8>,
    /// How the cluster heals.
    #[serde(default)]
    pub healing: HealingPlan,
    /// How far the clocks of nodes are off, in milliseconds. A node that is not listed is right.
    #[serde(default)]
    pub node_skews_ms: Vec<i64>,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BucketPlan {
    /// Its name.
    pub name: String,
    /// Its properties.
    pub properties: BucketProperties,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPlan {
    /// Index into [`Options::buckets`].
    pub bucket: u8,
    /// The partition key.
    pub name: String,
    /// The sort key.
    pub sort: Option<String>,
    /// Which of the key's owners may forget it, as a rank.
    pub victim: u8,
}

/// A client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// How far its clock is off.
    pub skew_ms: i64,
    /// Whether it gives what it has seen with each request, and so never sees less.
    #[serde(default)]
    pub is_session: bool,
    /// Whether its request ids say from the first try on that a write may be sent again, as those of an `Idempotency-Key` do.
    #[serde(default)]
    pub has_keys: bool,
}

/// What nodes do of their own accord.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealingPlan {
    /// As [`Limits::hints`].
    pub hints: bool,
    /// As [`Limits::hint_bytes_max`].
    pub hint_bytes_max: u64,
    /// As [`Limits::handoff_window`].
    pub handoff_window: u16,
    /// As [`Limits::repairs_per_second`].
    pub repairs_per_second: u32,
    /// As [`Limits::exchange`]. Without it replicas need not be equal in the end.
    pub exchange: bool,
    /// As [`Limits::exchange_every`].
    pub exchange_every_ms: u32,
    /// As [`Limits::settle_age`].
    #[serde(default)]
    pub settle_age_ms: u32,
    /// Whether directories are new at the first start: then each node has to hear from the others first that there is nothing.
    #[serde(default)]
    pub is_new_cluster: bool,
}

impl Default for HealingPlan {
    fn default() -> HealingPlan {
        HealingPlan {
            hints: true,
            hint_bytes_max: 1 << 30,
            handoff_window: 64,
            repairs_per_second: 1000,
            exchange: true,
            exchange_every_ms: 2_000,
            settle_age_ms: 500,
            is_new_cluster: false,
        }
    }
}

/// Bounds of the engines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsPlan {
    /// As [`Limits::operations_max`].
    pub operations_max: u32,
    /// As [`Limits::slots_max`].
    pub slots_max: u32,
    /// As [`Limits::hedge_after`].
    pub hedge_after_us: u32,
}

/// How messages between nodes travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRates {
    /// Whether connections keep their promise (each message arrives once, or the connection is lost). If not, messages are lost and
    /// repeated on a connection that stays up.
    pub reliable: bool,
    /// Losses: of packets, which then come later, or of messages.
    pub loss_pm: u16,
    /// Messages that arrive twice (only if not `reliable`).
    pub duplicate_pm: u16,
    /// The shortest way.
    pub delay_us: u32,
    /// What is added at random.
    pub jitter_us: u32,
    /// Messages that take very long.
    pub straggler_pm: u16,
}

/// How disks behave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRates {
    /// Reads that fail.
    pub read_error_pm: u16,
    /// Writes that are refused.
    pub refused_pm: u16,
    /// Reads that take time; the others are answered at once.
    pub slow_read_pm: u16,
    /// The longest read.
    pub read_us: u32,
    /// The longest sync.
    pub sync_us: u32,
    /// Syncs that take twenty times as long.
    pub slow_sync_pm: u16,
    /// Until stores are synced that nobody waits for. Zero: like all others.
    #[serde(default)]
    pub flush_ms: u32,
}

impl Options {
    /// A cluster in which nothing goes wrong by itself: one bucket, some keys `k0`, `k1` and so on, some clients. For scenarios.
    pub fn calm(nodes: u8, keys: u8, clients: u8, properties: BucketProperties) -> Options {
        let key = |index| KeyPlan {
            bucket: 0,
            name: format!("k{index}"),
            sort: None,
            victim: 0,
        };
        Options {
            nodes,
            partition_bits: 3,
            horizon_ms: 30_000,
            buckets: vec![BucketPlan {
                name: "b".into(),
                properties,
            }],
            keys: (0..keys).map(key).collect(),
            clients: (0..clients).map(|_| ClientPlan::default()).collect(),
            limits: LimitsPlan {
                operations_max: 1_000,
                slots_max: 1_000,
                hedge_after_us: 20_000,
            },
            network: NetworkRates {
                reliable: true,
                loss_pm: 0,
                duplicate_pm: 0,
                delay_us: 200,
                jitter_us: 100,
                straggler_pm: 0,
            },
            disk: DiskRates {
                read_error_pm: 0,
                refused_pm: 0,
                slow_read_pm: 0,
                read_us: 200,
                sync_us: 1_000,
                slow_sync_pm: 0,
                flush_ms: 0,
            },
            lost_replies_pm: 0,
            forgets: false,
            loses: false,
            stays_away: None,
            healing: HealingPlan::default(),
            node_skews_ms: Vec::new(),
        }
    }

    /// The most by which two nodes' clocks may differ here, in microseconds.
    pub(crate) fn skew_us(&self) -> u64 {
        let most = self.node_skews_ms.iter().map(|skew| skew.unsigned_abs()).max();
        2000 * most.unwrap_or(0)
    }

    /// The ring.
    pub fn ring(&self) -> Arc<Ring> {
        let member = |node: u8| Member {
            id: node_id(node),
            name: format!("n{node}"),
            zone: format!("z{}", node % 3),
            weight: 1,
            quic: String::new(),
            http: String::new(),
        };
        let members = (0..self.nodes).map(member).collect();
        Arc::new(
            Ring::new(RingVersion(1), self.partition_bits, members)
                .expect("ids and names differ, and no text is empty"),
        )
    }

    /// The buckets, as the engine wants them.
    pub fn bucket_table(&self) -> BucketTable {
        let named = self
            .buckets
            .iter()
            .map(|b| (b.name.clone().into_bytes(), b.properties))
            .collect();
        BucketTable {
            defaults: BucketProperties::default(),
            named,
        }
    }

    /// The keys, as the engine wants them.
    pub fn key_names(&self) -> Vec<Key> {
        let name = |k: &KeyPlan| {
            let bucket = &self.buckets[usize::from(k.bucket)].name;
            Key::new(
                bucket.as_bytes(),
                k.name.as_bytes(),
                k.sort.as_deref().map(str::as_bytes),
            )
            .expect("plans have short names")
        };
        self.keys.iter().map(name).collect()
    }

    /// The properties of a key's bucket.
    pub fn properties(&self, key: usize) -> &BucketProperties {
        &self.buckets[usize::from(self.keys[key].bucket)].properties
    }

    /// Whether writes of this key may be acknowledged before they are on disk.
    pub(crate) fn is_relaxed(&self, key: usize) -> bool {
        self.properties(key).durability == Durability::Relaxed
    }

    /// Bounds, as the engine wants them.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            operations_max: self.limits.operations_max as usize,
            slots_max: self.limits.slots_max as usize,
            hedge_after: Duration::from_micros(self.limits.hedge_after_us.into()),
            hints: self.healing.hints,
            hint_bytes_max: self.healing.hint_bytes_max,
            handoff_window: self.healing.handoff_window,
            repairs_per_second: self.healing.repairs_per_second,
            exchange: self.healing.exchange,
            exchange_every: Duration::from_millis(self.healing.exchange_every_ms.into()),
            // Nothing else finds what was forgotten or has rotted where nobody reads.
            scrub_every: match self.forgets || self.loses {
                true => Duration::from_millis(2 * u64::from(self.healing.exchange_every_ms)),
                false => Limits::default().scrub_every,
            },
            // So short that it is written over again and again.
            leaf_log: 8,
            settle_after: SETTLE_AFTER,
            settle_age: Duration::from_millis(self.healing.settle_age_ms.into()),
            ..Limits::default()
        }
    }
}

/// The owners of each key, as indices of nodes.
pub(crate) fn owners(options: &Options, ring: &Ring, keys: &[Key]) -> Vec<Vec<usize>> {
    let of = |(index, key): (usize, &Key)| {
        let n = options.properties(index).n;
        ring.owners(ring.partition_of(key.token()), n)
            .iter()
            .map(|node: &NodeIndex| node.get())
            .collect()
    };
    keys.iter().enumerate().map(of).collect()
}

/// The id of the node with this number. They sort by number, so the number is also the index in the ring.
pub(crate) fn node_id(node: u8) -> NodeId {
    let mut id = [0xa5; 16];
    id[0] = node;
    NodeId(id)
}

/// The number of the node with this id.
pub(crate) fn node_of(id: NodeId) -> usize {
    id.0[0].into()
}
