//! The admin port: metrics, and the cluster as this node sees it. What `quorate status` and `quorate ring` use.

use super::Gateway;
use super::path::decode;
use super::problem::Problem;
use super::render::{Answer, answer};
use crate::handle::NodeStatus;
use crate::healing::{ExchangeStatus, HintsStatus};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use quorate_core::key::Key;
use quorate_core::request::Role;
use quorate_ring::{Member, Ring};
use serde::Serialize;
use std::time::Duration;

/// OpenMetrics 1.0.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// How long the data loop may take for its status.
const STATUS_WITHIN: Duration = Duration::from_secs(1);

/// The data loop's status, `None` if it does not answer.
async fn node_status(gateway: &Gateway) -> Option<NodeStatus> {
    in_time(gateway.node.status()).await
}

async fn in_time(asked: impl Future<Output = Option<NodeStatus>>) -> Option<NodeStatus> {
    tokio::time::timeout(STATUS_WITHIN, asked).await.ok().flatten()
}

fn silent() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not_ready",
        "The node does not answer",
        "the node's data loop does not answer; see its log, and /livez on this port",
    )
}

/// `/metrics`. Without an answer of the data loop its part is missing and `quorate_data_loop_up` is 0.
pub(super) async fn metrics(gateway: &Gateway) -> Answer {
    let text = gateway.metrics.render(node_status(gateway).await);
    answer(StatusCode::OK, OPEN_METRICS, Bytes::from(text))
}

/// `/v1/cluster/status`.
pub(super) async fn status(gateway: &Gateway) -> Result<Answer, Problem> {
    Ok(json(&node_status(gateway).await.ok_or_else(silent)?))
}

/// `/v1/cluster/hints`.
#[derive(Serialize)]
struct HintsDocument {
    node: String,
    bytes_max: u64,
    hints: Vec<HintsStatus>,
}

/// `/v1/cluster/hints`: what this node keeps for owners that were away.
pub(super) async fn hints(gateway: &Gateway) -> Result<Answer, Problem> {
    let status = node_status(gateway).await.ok_or_else(silent)?;
    Ok(json(&HintsDocument {
        node: status.name,
        bytes_max: status.healing.hint_bytes_max,
        hints: status.healing.hints,
    }))
}

/// `/v1/cluster/repair`.
#[derive(Serialize)]
struct RepairDocument {
    node: String,
    exchange: ExchangeStatus,
}

/// `/v1/cluster/repair`: how far this node has come with comparing. `start`: it compares everything with all its peers now.
pub(super) async fn repair(gateway: &Gateway, start: bool) -> Result<Answer, Problem> {
    let status = match start {
        true => in_time(gateway.node.repair()).await,
        false => node_status(gateway).await,
    };
    repair_answer(status.ok_or_else(silent)?, start)
}

/// The answer to that, as the node stands.
pub(super) fn repair_answer(status: NodeStatus, start: bool) -> Result<Answer, Problem> {
    if start && !status.healing.exchange.enabled {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "exchange_off",
            "The node does not compare",
            "exchange = false or trees = false in the node's configuration; nothing was compared",
        ));
    }
    let mut answer = json(&RepairDocument {
        node: status.name,
        exchange: status.healing.exchange,
    });
    if start {
        *answer.status_mut() = StatusCode::ACCEPTED;
    }
    Ok(answer)
}

/// `/v1/cluster/ring`.
#[derive(Serialize)]
struct RingDocument<'a> {
    version: u64,
    digest: String,
    partitions: u32,
    members: &'a [Member],
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement<'a>>,
}

/// Where one key lives.
#[derive(Serialize)]
struct Placement<'a> {
    token: String,
    partition: u32,
    n: u8,
    preference_list: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    node: &'a str,
    role: Role,
}

/// `/v1/cluster/ring[?bucket=B&key=K]`: the members, and with a key its preference list, owners first.
pub(super) fn ring(gateway: &Gateway, query: &str) -> Result<Answer, Problem> {
    let ring = gateway.node.ring();
    let (mut bucket, mut key) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("bucket", value)) => bucket = Some(decode("bucket", value)?),
            Some(("key", value)) => key = Some(decode("key", value)?),
            _ => {
                return Err(Problem::bad_request(
                    "known query parameters are bucket and key, both with a value",
                ));
            }
        }
    }
    let placement = match (bucket, key) {
        (None, None) => None,
        (Some(bucket), Some(key)) => {
            let key = Key::new(&bucket, &key, None).map_err(|error| Problem::bad_request(error.to_string()))?;
            Some(placement(ring, &key, gateway.options.buckets.of(&bucket).n))
        }
        _ => return Err(Problem::bad_request("give both bucket and key, or neither")),
    };
    Ok(json(&RingDocument {
        version: ring.version().0,
        digest: format!("{:016x}", ring.digest()),
        partitions: ring.partitions(),
        members: ring.members(),
        placement,
    }))
}

fn placement<'a>(ring: &'a Ring, key: &Key, n: u8) -> Placement<'a> {
    let partition = ring.partition_of(key.token());
    let list = ring.preference_list(partition).iter().enumerate();
    let entries = list.map(|(at, &node)| Entry {
        node: &ring.member(node).name,
        role: if at < usize::from(n) {
            Role::Primary
        } else {
            Role::Fallback
        },
    });
    Placement {
        token: key.token().to_string(),
        partition: partition.0,
        n,
        preference_list: entries.collect(),
    }
}

fn json(value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("strings and numbers always serialize");
    answer(
        StatusCode::OK,
        HeaderValue::from_static("application/json"),
        Bytes::from(body),
    )
}
