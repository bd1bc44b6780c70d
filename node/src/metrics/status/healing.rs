//! Healing as metrics: hints, exchanges, repairs, settling, and what was lost or damaged.

use super::{counter, gauge, per_peer};
use crate::handle::NodeStatus;
use crate::healing::HintsStatus;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;
use std::fmt;

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> fmt::Result {
    hints(encoder, status)?;
    gauges(encoder, status)?;
    counters(encoder, status)?;
    let sent = status.counters.exchange_bytes_sent;
    let help = "Records and lists of keys that exchanges sent";
    counter(encoder, "exchange_sent", help, Some(&Unit::Bytes), sent)
}

/// By the owner that they are for; owners without any are there too, at zero.
fn hints(encoder: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> fmt::Result {
    let none = HintsStatus::default();
    let of = |name: &str| {
        let mut hints = status.healing.hints.iter();
        hints.find(|hints| hints.node == name).unwrap_or(&none)
    };
    let rows = |figure: fn(&HintsStatus) -> f64| {
        let peers = status.peers.iter();
        let rows = peers.map(|peer| ([("peer", peer.name.as_str())], figure(of(&peer.name))));
        rows.collect::<Vec<_>>()
    };
    let count = rows(|hints| hints.count as f64);
    per_peer(encoder, "hints", "Hints kept for the peer", None, count.into_iter())?;
    let bytes = rows(|hints| hints.bytes as f64);
    let help = "Bytes of hints kept for the peer";
    per_peer(encoder, "hints", help, Some(&Unit::Bytes), bytes.into_iter())?;
    let oldest = rows(|hints| hints.oldest_seconds as f64);
    let help = "Age of the oldest hint kept for the peer";
    per_peer(encoder, "hints_oldest", help, Some(&Unit::Seconds), oldest.into_iter())?;
    let rate = rows(|hints| hints.per_second);
    let help = "Hints for the peer that were delivered a second, lately";
    per_peer(encoder, "hints_delivery_rate", help, None, rate.into_iter())?;
    let known = status.healing.hints.iter();
    let eta = known.filter_map(|hints| Some(([("peer", hints.node.as_str())], hints.eta_seconds? as f64)));
    let help = "Time until all hints for the peer are home, at that rate";
    per_peer(encoder, "hints_eta", help, Some(&Unit::Seconds), eta)
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> fmt::Result {
    let healing = &status.healing;
    let exchange = &healing.exchange;
    for (name, help, value) in [
        ("generation", "Starts of the data directory", healing.generation),
        (
            "exchanges_running",
            "Exchanges that this node has asked for and that are under way",
            exchange.running.len() as u64,
        ),
        (
            "exchange_trees",
            "Trees shared with peers, each once for each peer",
            exchange.trees,
        ),
        (
            "exchange_trees_in_sync",
            "Those that were equal, or made equal, when last compared",
            exchange.trees_in_sync,
        ),
        (
            "dirty_partitions",
            "Partitions of which a peer is known to have missed writes that no hint tells of",
            exchange.dirty,
        ),
        (
            "settle_waiting",
            "Records that wait to be settled",
            healing.settling.waiting,
        ),
        (
            "rebuilding_partitions",
            "Partitions that have to be read again from other owners",
            healing.rebuilding.partitions,
        ),
    ] {
        gauge(encoder, name, help, None, value)?;
    }
    Ok(())
}

fn counters(encoder: &mut DescriptorEncoder<'_>, status: &NodeStatus) -> fmt::Result {
    let counters = &status.counters;
    for (name, help, value) in [
        ("hints_stored", "Hints that were stored here", counters.hints_stored),
        (
            "hints_delivered",
            "Hints that their owner has merged durably",
            counters.hints_delivered,
        ),
        (
            "hints_overflowed",
            "Hints that were not stored because there were too many",
            counters.hints_overflowed,
        ),
        (
            "hints_refused",
            "Writes that were to be kept for an owner and for which there was no room",
            counters.hints_refused,
        ),
        (
            "read_repairs",
            "Owners that were behind and were sent what a read had found",
            counters.read_repairs,
        ),
        ("exchanges", "Exchanges that came to their end", counters.exchanges),
        (
            "exchanges_differed",
            "Exchanges that found a difference",
            counters.exchanges_differed,
        ),
        (
            "exchange_records_sent",
            "Records that exchanges sent",
            counters.exchange_sent,
        ),
        (
            "exchange_records_received",
            "Records that exchanges brought and that changed something",
            counters.exchange_received,
        ),
        (
            "settle_reaped",
            "Records dropped because their deletes are settled",
            counters.reaped,
        ),
        ("settle_trimmed", "Actors dropped from contexts", counters.trimmed),
        (
            "settle_refused",
            "Records that something stood against when they were to be settled",
            counters.settle_refused,
        ),
        (
            "corrupt_records",
            "Records found damaged and set aside",
            counters.corrupt_records,
        ),
        (
            "healed_records",
            "Records read again from other owners after they were lost here",
            counters.healed_records,
        ),
        (
            "scrub_checked",
            "Records that the scrub has read",
            status.healing.scrub.checked,
        ),
        (
            "scrub_leaves_corrected",
            "Leaves of trees that the scrub had to correct",
            counters.leaves_corrected,
        ),
        (
            "read_repairs_skipped",
            "Read repairs that were left to exchanges",
            counters.read_repairs_skipped,
        ),
        (
            "exchange_records_too_large",
            "Records that exchanges left out because they are too large to be sent",
            counters.exchange_too_large,
        ),
        (
            "peers_refused",
            "Connections to peers that stood over an older copy of their data directory",
            counters.peers_refused,
        ),
        (
            "peers_slowed",
            "Times that a peer was found slow and routed round",
            counters.peers_slowed,
        ),
    ] {
        counter(encoder, name, help, None, value)?;
    }
    Ok(())
}
