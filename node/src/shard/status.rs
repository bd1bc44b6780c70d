//! How this node stands, put together when somebody asks.

use super::{Inner, Peer};
use crate::handle::{NodeStatus, PeerStatus, StorageStatus};
use crate::healing::{
    ExchangeStatus, HealingStatus, HintsStatus, LastExchange, RebuildStatus, RunningExchange, ScrubStatus,
    SettlingStatus,
};
use quorate_core::engine::{EngineConfig, ExchangePhase, HintsFor, PeerState};
use quorate_core::request::QuorumKind;
use quorate_ring::{Member, NodeIndex, Ring};
use std::time::Duration;

/// How long a node that nobody has asked since counts as slow.
const SLOW_FOR: Duration = Duration::from_secs(2);

/// Whether reads and writes of buckets without properties of their own need no owner, while fallbacks are there.
fn takes_fallbacks(config: &EngineConfig) -> bool {
    let bucket = &config.buckets.defaults;
    let needs_owners = [bucket.pr, bucket.pw].iter().flatten().any(|&owners| owners > 0);
    bucket.quorum == QuorumKind::Sloppy && config.limits.hints && !needs_owners
}

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
            default_fallbacks: takes_fallbacks(config),
            peers: peers.map(|(member, peer)| self.peer_status(member, peer)).collect(),
            operations,
            slots,
            storage: StorageStatus {
                keys: stats.keys_estimate,
                table_bytes: stats.sst_bytes,
                memtable_bytes: stats.memtable_bytes,
                pending_compaction_bytes: stats.pending_compaction_bytes,
                free_bytes: stats.free_bytes,
                refusing: stats.is_low,
                unsynced_stores: self.applied.0.saturating_sub(self.syncer.durable().0),
                unsynced_seconds: self.syncer.oldest().as_secs_f64(),
                asides: stats.asides,
                aside_bytes: stats.aside_bytes,
            },
            syncs: self.syncer.syncs(),
            clients: self.clients,
            healing: self.healing(),
            counters: self.engine.counters(),
        }
    }

    /// A peer counts as connected when both sides know each other's memory and so take each other's messages.
    fn peer_status(&self, member: &Member, peer: &Peer) -> PeerStatus {
        let node = self.engine.config().ring.index_of(member.id);
        let state = node.map_or(PeerState::Down, |node| self.engine.peer_state(node));
        let last_error = match state {
            PeerState::Refused => Some(
                "its data directory is an older copy of what it was; it has to be set aside and rebuilt".to_string(),
            ),
            _ => peer.last_error.clone(),
        };
        PeerStatus {
            name: member.name.clone(),
            id: member.id.to_string(),
            zone: member.zone.clone(),
            quic: member.quic.clone(),
            connected: state == PeerState::Up,
            last_error,
            rtt_us: peer.link.as_ref().map(|link| link.connection.rtt().as_micros() as u64),
            slow: node.is_some_and(|node| self.is_slow(node)),
        }
    }

    /// Whether a node was found slow, and lately. It is asked again only by requests: where there are none, nobody knows how it is.
    fn is_slow(&self, node: NodeIndex) -> bool {
        let health = self.engine.peer_health(node);
        health.probe_at.is_some_and(|at| self.now() < at + SLOW_FOR)
    }

    fn healing(&self) -> HealingStatus {
        let config = self.engine.config();
        let (read, of) = self.engine.rebuilding();
        HealingStatus {
            generation: self.engine.generation(),
            hint_bytes_max: config.limits.hint_bytes_max,
            hints: self.engine.hints().iter().map(|hints| self.hints_for(hints)).collect(),
            exchange: self.exchange(),
            settling: self.settling(),
            rebuilding: RebuildStatus {
                partitions: (of - read) as u64,
                of: of as u64,
            },
            scrub: self.scrub(),
        }
    }

    fn name_of(&self, node: NodeIndex) -> String {
        self.engine.config().ring.member(node).name.clone()
    }

    fn hints_for(&self, hints: &HintsFor) -> HintsStatus {
        let config = self.engine.config();
        let now_ms = config.wall_ms + self.now().0 / 1000;
        let rate = u64::from(hints.rate_per_second);
        HintsStatus {
            node: match config.ring.index_of(hints.target) {
                Some(node) => self.name_of(node),
                None => hints.target.to_string(),
            },
            count: hints.count,
            bytes: hints.bytes,
            oldest_seconds: hints.oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest) / 1000),
            per_second: rate as f64,
            eta_seconds: (rate > 0).then(|| hints.count.div_ceil(rate)),
        }
    }

    fn scrub(&self) -> ScrubStatus {
        let (scrub, counters) = (self.engine.scrub_progress(), self.engine.counters());
        let (read, of) = scrub.partitions;
        ScrubStatus {
            passes: scrub.passes,
            percent: (read * 100).checked_div(of).unwrap_or(0) as u8,
            checked: scrub.records,
            unreadable: scrub.damaged,
            corrupt: counters.corrupt_records,
            healed: counters.healed_records,
        }
    }

    fn settling(&self) -> SettlingStatus {
        let settling = self.engine.settling();
        let objection = settling
            .last_objection
            .map(|(node, why)| format!("{}: {why:?}", self.name_of(node)));
        SettlingStatus {
            waiting: settling.queued,
            away: settling.away.iter().map(|&node| self.name_of(node)).collect(),
            rounds: settling.rounds,
            last_objection: objection,
        }
    }

    fn exchange(&self) -> ExchangeStatus {
        let (config, counters) = (self.engine.config(), self.engine.counters());
        let exchanges = self.engine.exchanges(self.now());
        let running = exchanges.running.iter().map(|running| RunningExchange {
            peer: self.name_of(running.peer),
            partition: running.partition.0,
            n: running.n,
            phase: match running.phase {
                ExchangePhase::Roots => "roots",
                ExchangePhase::Leaves => "leaves",
                ExchangePhase::Keys => "keys",
                ExchangePhase::Records => "records",
            }
            .to_string(),
            keys_left: running.keys_left as u64,
        });
        let last = exchanges.last.iter().map(|last| LastExchange {
            peer: self.name_of(last.peer),
            seconds_ago: last.ago_ms / 1000,
            differing: last.differing,
            sent: last.sent,
            received: last.received,
        });
        ExchangeStatus {
            enabled: config.limits.exchange,
            running: running.collect(),
            last: last.collect(),
            dirty: exchanges.pending_dirty as u64,
            trees_in_sync: exchanges.trees_in_sync as u64,
            trees: exchanges.trees_total as u64,
            ended: counters.exchanges,
            sent: counters.exchange_sent,
            received: counters.exchange_received,
            bytes_sent: counters.exchange_bytes_sent,
        }
    }
}
