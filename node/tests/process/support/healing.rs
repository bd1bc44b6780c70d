//! How far a cluster has healed, as an operator sees it: `quorate wait`, the status on the admin ports, metrics.

use super::dev::Dev;
use super::{eventually, http, load, quorate};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long a cluster may take until there is nothing left to heal: the proof that a delete is settled has two rounds.
const PATIENCE: Duration = Duration::from_secs(60);

impl Dev<'_> {
    /// What a node says of its healing, if it answers.
    pub(crate) fn healing(&self, node: usize) -> Option<Value> {
        let reply = http::get(self.admin(node), "/v1/cluster/status").try_send().ok()?;
        let healing = reply.json().get("healing").cloned();
        (reply.status == 200).then(|| healing.unwrap_or_else(|| panic!("no healing in {}", reply.text())))
    }

    /// A metric of a node, summed over its labels; nothing if the node or the metric is not there.
    pub(crate) fn metric(&self, node: usize, name: &str) -> Option<f64> {
        let text = http::get(self.admin(node), "/metrics").try_send().ok()?.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with('{') || rest.starts_with(' '))
                .then(|| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        });
        values.reduce(|sum, value| sum + value)
    }

    /// A metric summed over the nodes that answer.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.nodes().filter_map(|node| self.metric(node, name)).sum()
    }

    /// Hints that the nodes that answer keep for `node`.
    pub(crate) fn hints_for(&self, node: usize) -> u64 {
        let of = |healing: Value| {
            let hints = healing["hints"].as_array().cloned().unwrap_or_default();
            let theirs = hints.iter().filter(|hints| hints["node"] == format!("n{node}"));
            theirs.map(|hints| hints["count"].as_u64().unwrap()).sum::<u64>()
        };
        self.nodes().filter_map(|from| self.healing(from)).map(of).sum()
    }

    /// Waits until some hints are kept for a node, and says how many.
    pub(crate) fn wait_for_hints(&self, node: usize) {
        let hints = eventually(&format!("hints for node {node}"), || {
            Some(self.hints_for(node)).filter(|hints| *hints > 0)
        });
        println!("{hints} hints are kept for node {node}");
    }

    /// Waits until there is nothing left to heal.
    pub(crate) fn wait_until_settled(&self) {
        let began = Instant::now();
        let mut command = quorate();
        command
            .args([
                "wait",
                "--for",
                "settled",
                "--timeout",
                &PATIENCE.as_secs().to_string(),
                "--config",
            ])
            .arg(self.client_toml());
        let output = command.output().unwrap();
        if !output.status.success() {
            for node in self.nodes() {
                println!("node {node}: {:#}", self.healing(node).unwrap_or_default());
            }
            panic!("not settled: {}", String::from_utf8_lossy(&output.stderr));
        }
        println!("settled {:?} later", began.elapsed());
        assert_eq!(self.sum("quorate_hints"), 0.0);
    }

    /// Each node gives the same answer for every key of a load, from what it holds itself: same values, same context.
    pub(crate) fn assert_load_is_equal_everywhere(&self, bucket: &str) {
        for key in load::keys() {
            let answers = self.nodes().map(|node| {
                let reply = http::get(self.http(node), &format!("/v1/kv/{bucket}/{key}?r=1"))
                    .header("Accept", "application/vnd.quorate.siblings+json")
                    .send();
                (reply.status, reply.header("ETag").map(str::to_owned), reply.context())
            });
            let answers = Vec::from_iter(answers);
            assert!(
                answers.iter().all(|answer| *answer == answers[0]),
                "{key}: {answers:#?}"
            );
        }
    }
}
