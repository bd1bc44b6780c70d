//! How this node stands, put together when somebody asks.

use super::Inner;
use crate::handle::{NodeStatus, PeerStatus, StorageStatus};
use crate::healing::{ExchangeStatus, HealingStatus, ScrubStatus};
use quorate_ring::Ring;

impl Inner {
    /// For `quorate status`, `/metrics` and `/readyz`.
    pub(super) fn status(&self) -> NodeStatus {
        let config = self.engine.config();
        let ring: &Ring = &config.ring;
        let me = ring.member(ring.index_of(config.me).expect("a node is a member of its ring"));
        let (operations, slots) = self.engine.in_flight();
        let stats = self.storage.stats();
        let peers = ring
            .members()
            .iter()
            .zip(&self.peers)
            .filter(|(member, _)| member.id != config.me);
        NodeStatus {
            cluster: self.cluster.clone(),
            id: me.id.to_string(),
            name: me.name.clone(),
            zone: me.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ring_version: ring.version().0,
            ring_digest: format!("{:016x}", ring.digest()),
            default_n: config.buckets.defaults.n,
            peers: peers
                .map(|(member, peer)| PeerStatus {
                    name: member.name.clone(),
                    id: member.id.to_string(),
                    zone: member.zone.clone(),
                    quic: member.quic.clone(),
                    connected: peer.link.is_some(),
                    last_error: peer.last_error.clone(),
                    slow: false,
                    rtt_us: peer.link.as_ref().map(|link| link.connection.rtt().as_micros() as u64),
                })
                .collect(),
            operations,
            slots,
            storage: StorageStatus {
                keys: stats.keys_estimate,
                table_bytes: stats.sst_bytes,
                memtable_bytes: stats.memtable_bytes,
                pending_compaction_bytes: stats.pending_compaction_bytes,
            },
            syncs: self.syncer.syncs(),
            clients: self.clients,
            healing: self.healing(),
            counters: self.engine.counters(),
        }
    }

    fn healing(&self) -> HealingStatus {
        let (config, counters) = (self.engine.config(), self.engine.counters());
        HealingStatus {
            hint_bytes_max: config.limits.hint_bytes_max,
            exchange: ExchangeStatus {
                enabled: config.limits.exchange,
                ended: counters.exchanges,
                sent: counters.exchange_sent,
                received: counters.exchange_received,
                bytes_sent: counters.exchange_bytes_sent,
                ..ExchangeStatus::default()
            },
            scrub: ScrubStatus {
                corrupt: counters.corrupt_records,
                healed: counters.healed_records,
                ..ScrubStatus::default()
            },
            ..HealingStatus::default()
        }
    }
}
