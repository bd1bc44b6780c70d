//! What a node counts, and how it is shown to Prometheus.
//!
//! Two kinds of numbers. Requests are counted here as they end: each combination of labels has its own counter and histogram, made
//! at the start, so an observation is a few instructions and never allocates. What the engine, storage and peers count themselves is
//! taken from [`NodeStatus`] when somebody asks, and costs nothing in between.
//!
//! Each [`Metrics`] has a registry of its own: tests and simulations run several nodes in one process, and a global registry
//! would add them up. `docs/metrics.md` lists every name; a test compares it with what is rendered.

mod status;

use crate::handle::NodeStatus;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use quorate_core::request::{Operation, Outcome, Reply, Response};
use std::fmt;
use std::time::Duration;

/// Upper bounds of the latency buckets, in seconds: two or three to a factor of ten, from a cached read to a lost cause.
const BUCKETS: [f64; 17] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
];

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// By the HTTP gateway.
    Http,
    /// By a client's QUIC connection.
    Quic,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Reads.
    Get,
    /// Writes a value.
    Put,
    /// Writes a tombstone.
    Delete,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// As asked: a read found one value, a write was acknowledged.
    Ok,
    /// A read found nothing, or only tombstones.
    NotFound,
    /// A read found two or more values.
    Siblings,
    /// It failed, and certainly changed nothing.
    NotApplied,
    /// It failed, and may have changed something.
    Unknown,
}

impl OperationKind {
    /// The kind of an operation.
    pub fn of(operation: &Operation) -> OperationKind {
        match operation {
            Operation::Get { .. } => OperationKind::Get,
            Operation::Put { .. } => OperationKind::Put,
            Operation::Delete { .. } => OperationKind::Delete,
        }
    }

    /// Whether it may change anything.
    pub fn is_write(self) -> bool {
        self != OperationKind::Get
    }
}

impl From<Outcome> for RequestOutcome {
    fn from(outcome: Outcome) -> RequestOutcome {
        match outcome {
            Outcome::NotApplied => RequestOutcome::NotApplied,
            Outcome::Unknown => RequestOutcome::Unknown,
        }
    }
}

impl RequestOutcome {
    /// How a response counts.
    pub fn of(response: &Response) -> RequestOutcome {
        match response {
            Ok(Reply::Written { .. }) => RequestOutcome::Ok,
            Ok(Reply::Found { view, .. }) => match view.values().count() {
                0 => RequestOutcome::NotFound,
                1 => RequestOutcome::Ok,
                _ => RequestOutcome::Siblings,
            },
            Err(failure) => failure.outcome.into(),
        }
    }
}

const PLANES: [(Plane, &str); 2] = [(Plane::Http, "http"), (Plane::Quic, "quic")];
const OPERATIONS: [(OperationKind, &str); 3] = [
    (OperationKind::Get, "get"),
    (OperationKind::Put, "put"),
    (OperationKind::Delete, "delete"),
];
const OUTCOMES: [(RequestOutcome, &str); 5] = [
    (RequestOutcome::Ok, "ok"),
    (RequestOutcome::NotFound, "not_found"),
    (RequestOutcome::Siblings, "siblings"),
    (RequestOutcome::NotApplied, "not_applied"),
    (RequestOutcome::Unknown, "unknown"),
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    plane: &'static str,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LatencyLabels {
    plane: &'static str,
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    port: &'static str,
    status: u16,
}

/// The counters of one operation on one plane, by outcome in the order of [`OUTCOMES`].
struct Series {
    requests: [Counter; OUTCOMES.len()],
    seconds: Histogram,
}

/// All metrics of one node. Shared by the data loop and the gateway; every method takes `&self` and is cheap, but
/// [`render`](Metrics::render).
pub struct Metrics {
    registry: Registry,
    /// By plane, then operation, in the order of [`PLANES`] and [`OPERATIONS`].
    series: [[Series; OPERATIONS.len()]; PLANES.len()],
    responses: Family<ResponseLabels, Counter>,
    connections: Gauge,
    connections_refused: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// An open connection; counted until it is dropped.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let requests = Family::<RequestLabels, Counter>::default();
        let seconds = Family::new_with_constructor(|| Histogram::new(BUCKETS) as Histogram);
        let series = PLANES.map(|(_, plane)| {
            OPERATIONS.map(|(_, operation)| Series {
                requests: OUTCOMES.map(|(_, outcome)| {
                    requests.get_or_create_owned(&RequestLabels {
                        plane,
                        operation,
                        outcome,
                    })
                }),
                seconds: seconds.get_or_create_owned(&LatencyLabels { plane, operation }),
            })
        });
        let mut registry = Registry::with_prefix("quorate");
        registry.register("requests", "Requests for one key, as they ended", requests);
        registry.register_with_unit("request", "From a request to its answer", Unit::Seconds, seconds);
        let responses = Family::default();
        registry.register(
            "http_responses",
            "HTTP responses by port and status",
            Family::clone(&responses),
        );
        let connections = Gauge::default();
        registry.register(
            "http_connections",
            "HTTP connections that are open, on both ports",
            connections.clone(),
        );
        let connections_refused = Counter::default();
        let help = "HTTP connections refused because there were too many";
        registry.register("http_connections_refused", help, connections_refused.clone());
        Metrics {
            registry,
            series,
            responses,
            connections,
            connections_refused,
        }
    }

    /// Counts a request that has been answered `elapsed` after it came.
    pub fn observe(&self, plane: Plane, operation: OperationKind, response: &Response, elapsed: Duration) {
        self.observe_outcome(plane, operation, RequestOutcome::of(response), elapsed);
    }

    /// The same for an outcome that is known already.
    pub fn observe_outcome(&self, plane: Plane, operation: OperationKind, outcome: RequestOutcome, elapsed: Duration) {
        let series = &self.series[plane as usize][operation as usize];
        series.requests[outcome as usize].inc();
        series.seconds.observe(elapsed.as_secs_f64());
    }

    /// Counts an HTTP response.
    pub fn responded(&self, admin: bool, status: u16) {
        let port = if admin { "admin" } else { "http" };
        self.responses.get_or_create(&ResponseLabels { port, status }).inc();
    }

    /// Counts an HTTP connection until the answer is dropped.
    pub fn connection_opened(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// Counts an HTTP connection that was over the cap.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Everything in OpenMetrics text; without a status (the data loop does not answer) that part is missing.
    pub fn render(&self, status: Option<NodeStatus>) -> String {
        let mut out = String::with_capacity(16 << 10);
        let mut node = Registry::with_prefix("quorate");
        node.register_collector(Box::new(status::StatusCollector(status)));
        text::encode_registry(&mut out, &self.registry)
            .and_then(|()| text::encode_registry(&mut out, &node))
            .and_then(|()| text::encode_eof(&mut out))
            .expect("a string takes all that is written to it");
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use quorate_core::request::{Code, Failure};
    use std::collections::BTreeSet;

    #[test]
    fn an_observation_is_counted_under_its_labels() {
        let metrics = Metrics::new();
        let failure = Failure {
            outcome: Outcome::Unknown,
            ..Failure::not_applied(Code::QuorumNotMet, "x")
        };
        metrics.observe(Plane::Quic, OperationKind::Put, &Err(failure), Duration::from_millis(2));
        let text = metrics.render(None);
        let requests = r#"quorate_requests_total{plane="quic",operation="put",outcome="unknown"} 1"#;
        assert!(text.contains(requests), "{text}");
        assert!(
            text.contains(r#"quorate_request_seconds_bucket{le="0.002",plane="quic",operation="put"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"quorate_request_seconds_bucket{le="0.001",plane="quic",operation="put"} 0"#),
            "{text}"
        );
        assert!(text.contains("quorate_data_loop_up 0"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn positions_in_the_tables_are_those_of_the_enums() {
        assert!(PLANES.iter().enumerate().all(|(at, (plane, _))| *plane as usize == at));
        assert!(
            OPERATIONS
                .iter()
                .enumerate()
                .all(|(at, (operation, _))| *operation as usize == at)
        );
        assert!(
            OUTCOMES
                .iter()
                .enumerate()
                .all(|(at, (outcome, _))| *outcome as usize == at)
        );
    }

    #[test]
    fn the_documentation_lists_exactly_the_metrics_that_there_are() {
        let metrics = Metrics::new();
        metrics.responded(true, 200);
        let text = metrics.render(Some(status::tests::status()));
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let rendered: BTreeSet<String> = types
            .map(|line| match line.split_once(' ').unwrap() {
                (name, "counter") => format!("{name}_total"),
                (name, "info") => format!("{name}_info"),
                (name, _) => name.to_string(),
            })
            .collect();
        let docs = include_str!("../../docs/metrics.md");
        let cells = docs
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let documented: BTreeSet<String> = cells.map(|(name, _)| name.to_string()).collect();
        assert_eq!(documented, rendered);
    }
}
