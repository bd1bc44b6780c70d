//! Conditions, preferences, idempotency keys, probes and metrics.

use super::{set, siblings};
use crate::support::Home;
use crate::support::dev::NODES;
use crate::support::http::{Reply, get, put};
use std::collections::BTreeSet;

#[test]
fn conditions_preferences_and_minimums_do_what_is_documented() {
    let home = Home::new();
    let dev = home.dev();
    let path = "/v1/kv/conditions/key";
    let made = put(dev.http(1), path, "made")
        .header("If-None-Match", "*")
        .send()
        .expect(204);
    assert_eq!(made.header("Quorate-Precondition"), Some("advisory"));
    put(dev.http(2), path, "again")
        .header("If-None-Match", "*")
        .send()
        .problem(412, "precondition_failed");
    let found = get(dev.http(3), path).send().expect(200);
    let tag = found.header("ETag").unwrap().to_owned();
    let same = get(dev.http(2), path).header("If-None-Match", &tag).send().expect(304);
    assert!(same.body.is_empty() && same.context().is_some());
    let next = put(dev.http(1), path, "next")
        .header("If-Match", &tag)
        .context(&found)
        .send()
        .expect(204);
    put(dev.http(1), path, "late")
        .header("If-Match", &tag)
        .context(&found)
        .send()
        .problem(412, "precondition_failed");
    assert_eq!(
        get(dev.http(2), path)
            .header("If-None-Match", &tag)
            .send()
            .expect(200)
            .text(),
        "next"
    );
    for node in NODES {
        let seen = get(dev.http(node), path).context(&next).send().expect(200);
        assert_eq!(seen.text(), "next");
    }
    let whole = put(dev.http(1), path, "whole")
        .context(&next)
        .header("Prefer", "return=representation, wait=2")
        .send()
        .expect(200);
    assert_eq!((whole.text().as_str(), whole.context().is_some()), ("whole", true));
    assert!(
        whole
            .header("Preference-Applied")
            .unwrap()
            .contains("return=representation")
    );
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = get(dev.http(2), path).header("traceparent", trace).send().expect(200);
    assert!(
        traced
            .header("traceparent")
            .is_some_and(|came| came.starts_with(&trace[..36])),
        "{traced:?}"
    );
    for quorum in ["r=1", "r=2", "r=3", "quorum=strict", "r=3&timeout_ms=60000"] {
        get(dev.http(1), &format!("{path}?{quorum}")).send().expect(200);
    }
    let three = put(dev.http(3), &format!("{path}?w=3&dw=3"), "three")
        .context(&whole)
        .send()
        .expect(204);
    assert_eq!(three.header("Quorate-Acks").unwrap().split(", ").count(), 3);
    dev.stop();
}

#[test]
fn a_repeated_idempotency_key_has_one_effect_at_whatever_node() {
    let home = Home::new();
    let dev = home.dev();
    let path = "/v1/kv/retries/key";
    for round in 0..3 {
        for node in NODES {
            let key = format!("order-{}", round % 2);
            put(dev.http(node), path, &key)
                .header("Idempotency-Key", &key)
                .send()
                .expect(204);
        }
    }
    for node in NODES {
        let found = get(dev.http(node), path).send().expect(300);
        assert_eq!(siblings(&found), set(&["order-0", "order-1"]));
        assert_eq!(found.json()["siblings"].as_array().unwrap().len(), 2);
    }
    let both = get(dev.http(1), path).send();
    put(dev.http(2), path, "done")
        .context(&both)
        .header("Idempotency-Key", "last")
        .send()
        .expect(204);
    // A late retry does not bring back what was overwritten since.
    put(dev.http(3), path, "order-0")
        .header("Idempotency-Key", "order-0")
        .send()
        .expect(204);
    assert_eq!(get(dev.http(1), path).send().expect(200).text(), "done");
    put(dev.http(1), path, "something else")
        .header("Idempotency-Key", "last")
        .send()
        .problem(409, "idempotency_reuse");
    dev.stop();
}

#[test]
fn probes_answer_and_metrics_count_what_was_asked() {
    let home = Home::new();
    let dev = home.dev();
    for port in [dev.http(1), dev.admin(1)] {
        for probe in ["/livez", "/readyz", "/startupz"] {
            assert_eq!(get(port, probe).send().expect(200).text(), "ok");
            let verbose = get(port, &format!("{probe}?verbose")).send().expect(200).text();
            assert!(
                verbose.contains("[+]ping ok\n") && verbose.ends_with("check passed\n"),
                "{verbose}"
            );
        }
    }
    let count = |labels: &str| {
        metric(
            &get(dev.admin(1), "/metrics").send().expect(200),
            "quorate_requests_total",
            labels,
        )
    };
    let (puts, gets) = (
        count(r#"plane="http",operation="put",outcome="ok""#),
        count(r#"plane="http",operation="get",outcome="not_found""#),
    );
    for at in 0..5 {
        put(dev.http(1), &format!("/v1/kv/counted/{at}"), "x")
            .send()
            .expect(204);
        get(dev.http(1), "/v1/kv/counted/none").send().expect(404);
    }
    assert_eq!(count(r#"plane="http",operation="put",outcome="ok""#), puts + 5.0);
    assert_eq!(count(r#"plane="http",operation="get",outcome="not_found""#), gets + 5.0);
    let scrape = get(dev.admin(1), "/metrics").send().expect(200);
    assert!(
        scrape
            .header("Content-Type")
            .unwrap()
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    assert_is_openmetrics(&scrape.text());
    get(dev.http(1), "/metrics").send().expect(404);
    let status = get(dev.admin(2), "/v1/cluster/status").send().expect(200).json();
    assert_eq!(
        (&status["name"], status["peers"].as_array().unwrap().len()),
        (&"n2".into(), 2)
    );
    let ring = get(dev.admin(3), "/v1/cluster/ring?bucket=counted&key=1")
        .send()
        .expect(200)
        .json();
    assert_eq!(ring["placement"]["preference_list"].as_array().unwrap().len(), 3);
    dev.stop();
}

/// The value of the sample with all these labels.
fn metric(scrape: &Reply, name: &str, labels: &str) -> f64 {
    let text = scrape.text();
    let has_all = |line: &str| labels.split(',').all(|label| line.contains(label));
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{name}{{")) && has_all(line));
    line.unwrap_or_else(|| panic!("{name} {labels} in\n{text}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// Every line is a sample of a described family or a description; the text ends as it must.
fn assert_is_openmetrics(text: &str) {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned()), "described twice: {line}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = series.split('{').next().unwrap();
            let family = ["", "_total", "_bucket", "_sum", "_count", "_info"]
                .iter()
                .find(|suffix| {
                    name.strip_suffix(**suffix)
                        .is_some_and(|family| families.contains(family))
                });
            assert!(family.is_some(), "no family is described for {line}");
        }
    }
}
