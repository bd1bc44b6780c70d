//! A node's status as metrics: engine, storage and peers, as they stand at the moment of a scrape.
//!
//! The numbers belong to the data loop, which counts them without atomics. So they are not registered anywhere: each scrape asks
//! for one status and encodes it here, all of one moment. Rejected: gauges that the data loop sets after each burst, which would
//! cost every burst for what is looked at four times a minute.

mod healing;

use crate::handle::NodeStatus;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Unit;
use std::fmt;

/// Shows one status as metrics.
#[derive(Debug)]
pub(super) struct StatusCollector(pub(super) Option<NodeStatus>);

/// A number with the labels of one peer.
type PeerRow<'a> = ([(&'static str, &'a str); 1], f64);

impl Collector for StatusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        gauge(
            &mut encoder,
            "data_loop_up",
            "Whether the data loop answered this scrape",
            None,
            u64::from(self.0.is_some()),
        )?;
        let Some(status) = &self.0 else { return Ok(()) };
        node(&mut encoder, status)?;
        engine(&mut encoder, status)?;
        storage(&mut encoder, status)?;
        peers(&mut encoder, status)?;
        healing::encode(&mut encoder, status)
    }
}

fn node(encoder: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> fmt::Result {
    let labels = [
        ("cluster", status.cluster.as_str()),
        ("node", &status.name),
        ("id", &status.id),
        ("zone", &status.zone),
        ("version", &status.version),
    ];
    let info = Info::new(labels);
    info.encode(encoder.encode_descriptor("node", "Who this is.", None, info.metric_type())?)?;
    gauge(
        encoder,
        "uptime",
        "Time since the node started",
        Some(&Unit::Seconds),
        status.uptime_seconds,
    )?;
    gauge(
        encoder,
        "ring_version",
        "Version of the ring in use",
        None,
        status.ring_version,
    )?;
    gauge(
        encoder,
        "quic_clients",
        "Client connections over QUIC",
        None,
        status.clients as u64,
    )?;
    gauge(
        encoder,
        "operations",
        "Requests under way in the engine",
        None,
        status.operations as u64,
    )?;
    gauge(
        encoder,
        "slots",
        "Keys held in memory until they are loaded or synced",
        None,
        status.slots as u64,
    )
}

fn engine(encoder: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> fmt::Result {
    let counters = &status.counters;
    for (name, help, value) in [
        ("engine_gets", "Reads that met their quorum", counters.gets),
        ("engine_puts", "Writes that met their quorum", counters.puts),
        ("engine_deletes", "Deletes that met their quorum", counters.deletes),
        (
            "engine_quorum_failures",
            "Requests that ended without their quorum",
            counters.quorum_failures,
        ),
        (
            "engine_refused",
            "Requests refused for what they asked",
            counters.refused,
        ),
        (
            "engine_overloaded",
            "Requests refused because a queue was full",
            counters.overloaded,
        ),
        (
            "engine_fallback_acks",
            "Acks of fallbacks among those that writes were answered with",
            counters.fallback_acks,
        ),
        ("engine_forwarded", "Requests passed on to an owner", counters.forwarded),
        (
            "engine_replicated",
            "Records merged for other coordinators",
            counters.replicated,
        ),
        (
            "engine_fetched",
            "Records read for other coordinators",
            counters.fetched,
        ),
        (
            "engine_siblings_returned",
            "Reads that found more than one value",
            counters.siblings_returned,
        ),
        (
            "engine_replicas_differed",
            "Reads in which replicas differed",
            counters.replicas_differed,
        ),
        (
            "engine_hedged",
            "Reads that asked more owners because the first were slow",
            counters.hedged,
        ),
        (
            "engine_load_failures",
            "Loads from disk that failed",
            counters.load_failures,
        ),
        (
            "engine_store_failures",
            "Stores that the disk refused",
            counters.store_failures,
        ),
        ("storage_syncs", "Syncs of the log", status.syncs),
    ] {
        counter(encoder, name, help, None, value)?;
    }
    Ok(())
}

fn storage(encoder: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> fmt::Result {
    let storage = &status.storage;
    let bytes = Some(&Unit::Bytes);
    gauge(
        encoder,
        "storage_keys",
        "Rows, estimated: records, and a few for hints, trees and notes",
        None,
        storage.keys,
    )?;
    gauge(
        encoder,
        "storage_table",
        "Sorted tables on disk",
        bytes,
        storage.table_bytes,
    )?;
    gauge(
        encoder,
        "storage_memtable",
        "Unflushed writes in memory",
        bytes,
        storage.memtable_bytes,
    )?;
    gauge(
        encoder,
        "storage_pending_compaction",
        "Waiting for compaction",
        bytes,
        storage.pending_compaction_bytes,
    )?;
    gauge(
        encoder,
        "storage_refusing",
        "Whether stores are refused because the disk is nearly full",
        None,
        u64::from(storage.refusing),
    )?;
    for (name, help, unit, value) in [
        (
            "storage_unsynced_stores",
            "Stores that are not on disk yet",
            None,
            storage.unsynced_stores,
        ),
        (
            "storage_asides",
            "Directories in which data were set aside",
            None,
            storage.asides,
        ),
        (
            "storage_aside",
            "In directories in which data were set aside",
            bytes,
            storage.aside_bytes,
        ),
    ] {
        gauge(encoder, name, help, unit, value)?;
    }
    let age = ConstGauge::new(storage.unsynced_seconds);
    let help = "How long the oldest store waits for the disk, about.";
    age.encode(encoder.encode_descriptor("storage_unsynced", help, Some(&Unit::Seconds), age.metric_type())?)?;
    match storage.free_bytes {
        Some(free) => gauge(encoder, "storage_free", "Free on the disk", bytes, free),
        None => Ok(()),
    }
}

fn peers(encoder: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> fmt::Result {
    let connected = status
        .peers
        .iter()
        .map(|peer| ([("peer", peer.name.as_str())], f64::from(u8::from(peer.connected))));
    per_peer(
        encoder,
        "peer_connected",
        "Whether a connection to the peer is up",
        None,
        connected,
    )?;
    let with_rtt = status.peers.iter().filter_map(|peer| Some((peer, peer.rtt_us?)));
    let rtt = with_rtt.map(|(peer, rtt_us)| ([("peer", peer.name.as_str())], rtt_us as f64 / 1e6));
    let slow = status
        .peers
        .iter()
        .map(|peer| ([("peer", peer.name.as_str())], f64::from(u8::from(peer.slow))));
    per_peer(
        encoder,
        "peer_slow",
        "Whether the peer keeps requests waiting, and is routed round",
        None,
        slow,
    )?;
    per_peer(
        encoder,
        "peer_rtt",
        "Smoothed round-trip time to the peer",
        Some(&Unit::Seconds),
        rtt,
    )
}

/// One counter.
fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, &format!("{help}."), unit, counter.metric_type())?)
}

/// One gauge.
fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, &format!("{help}."), unit, gauge.metric_type())?)
}

/// One gauge per peer.
fn per_peer<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    rows: impl Iterator<Item = PeerRow<'a>>,
) -> fmt::Result {
    let kind = ConstGauge::new(0.0).metric_type();
    let mut family = encoder.encode_descriptor(name, &format!("{help}."), unit, kind)?;
    for (labels, value) in rows {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Metrics;
    use super::*;
    use crate::handle::{PeerStatus, StorageStatus};
    use crate::healing::{HealingStatus, HintsStatus};

    pub(crate) fn status() -> NodeStatus {
        let peer = PeerStatus {
            name: "n2".to_string(),
            id: "id".to_string(),
            zone: "z".to_string(),
            quic: "127.0.0.1:1".to_string(),
            connected: true,
            last_error: None,
            rtt_us: Some(1500),
            slow: true,
        };
        NodeStatus {
            cluster: "c".to_string(),
            id: "id".to_string(),
            name: "n\"1".to_string(),
            zone: "z".to_string(),
            version: "0".to_string(),
            uptime_seconds: 7,
            ring_version: 1,
            ring_digest: "d".to_string(),
            default_n: 3,
            default_fallbacks: true,
            peers: vec![peer],
            operations: 2,
            slots: 3,
            storage: StorageStatus {
                free_bytes: Some(8),
                refusing: true,
                ..StorageStatus::default()
            },
            syncs: 4,
            clients: 5,
            healing: HealingStatus {
                hints: vec![HintsStatus {
                    node: "n2".to_string(),
                    count: 6,
                    per_second: 2.0,
                    eta_seconds: Some(3),
                    ..HintsStatus::default()
                }],
                ..HealingStatus::default()
            },
            counters: Default::default(),
        }
    }

    #[test]
    fn a_status_is_shown_with_its_peers_and_names_are_escaped() {
        let text = Metrics::new().render(Some(status()));
        assert!(text.contains(r#"quorate_peer_connected{peer="n2"} 1.0"#), "{text}");
        assert!(text.contains(r#"quorate_peer_rtt_seconds{peer="n2"} 0.0015"#), "{text}");
        assert!(text.contains("quorate_storage_syncs_total 4"), "{text}");
        assert!(text.contains("quorate_storage_free_bytes 8"), "{text}");
        assert!(text.contains("quorate_storage_refusing 1"), "{text}");
        assert!(text.contains(r#"quorate_hints{peer="n2"} 6.0"#), "{text}");
        assert!(text.contains(r#"quorate_hints_eta_seconds{peer="n2"} 3.0"#), "{text}");
        assert!(text.contains(r#"quorate_peer_slow{peer="n2"} 1.0"#), "{text}");
        assert!(text.contains(r#"node="n\"1""#), "{text}");
    }
}
