//! Requests that make no sense: each is told what is wrong with it, by every node, and changes nothing.

use crate::support::dev::NODES;
use crate::support::http::{delete, get, put, request};
use crate::support::{Dev, Home};

/// The key that must come out of all this unharmed.
const PATH: &str = "/v1/kv/mistakes/key";

/// Tries something at every node of a cluster, and checks that the value is still there.
fn at_every_node(attempt: impl Fn(&Dev<'_>, usize)) {
    let home = Home::new();
    let dev = home.dev();
    put(dev.http(1), PATH, "there").send().expect(204);
    NODES.iter().for_each(|node| attempt(&dev, *node));
    assert_eq!(get(dev.http(2), PATH).send().expect(200).text(), "there");
    dev.stop();
}

#[test]
fn a_bad_parameter_is_named_and_one_that_is_not_served_yet_is_unsupported() {
    let reads = "r=0 r=4 r=x r= r=1&r=1 tiemout_ms=1 timeout_ms=0 timeout_ms=60001 timeout_ms=-1 quorum=loose";
    at_every_node(|dev, node| {
        let at = |query: &str| format!("{PATH}?{query}");
        for query in reads.split(' ') {
            let problem = get(dev.http(node), &at(query)).send().problem(400, "bad_request");
            let name = query.split('=').next().unwrap();
            assert!(problem["detail"].as_str().unwrap().contains(name), "{problem}");
        }
        for query in ["w=0", "w=4", "dw=4"] {
            put(dev.http(node), &at(query), "no").send().problem(400, "bad_request");
        }
        for query in ["pr=0", "pw=4", "quorum="] {
            put(dev.http(node), &at(query), "no").send().problem(400, "bad_request");
        }
        get(dev.http(node), &at("list")).send().problem(400, "unsupported");
    });
}

#[test]
fn a_context_that_was_not_issued_for_this_key_is_refused_everywhere() {
    at_every_node(|dev, node| {
        let mut tampered = get(dev.http(node), PATH).send().context().unwrap();
        let flipped = if tampered.ends_with('A') { "B" } else { "A" };
        tampered.replace_range(tampered.len() - 1.., flipped);
        let other = put(dev.http(node), "/v1/kv/mistakes/other", "x")
            .send()
            .expect(204)
            .context()
            .unwrap();
        let long = "A".repeat(6000);
        for forged in [tampered.as_str(), &other, "AQID", "not base64!", "", &long] {
            for method in ["PUT", "GET", "DELETE"] {
                let attempt = request(dev.http(node), method, PATH)
                    .header("Quorate-Context", forged)
                    .body("no");
                let refused = attempt.send().problem(400, "forged_context");
                assert_eq!(refused["outcome"], "not_applied");
            }
        }
    });
}

#[test]
fn keys_values_and_methods_beyond_the_limits_are_refused() {
    at_every_node(|dev, node| {
        let to = dev.http(node);
        let long_key = format!("/v1/kv/mistakes/{}", "k".repeat(1100));
        let long_bucket = format!("/v1/kv/{}/k", "b".repeat(256));
        let malformed = ["%zz", "%4", "", "k/"].map(|key| format!("/v1/kv/mistakes/{key}"));
        for bad in malformed
            .iter()
            .chain([&long_key, &long_bucket, &"/v1/kv//k".to_owned()])
        {
            put(to, bad, "no").send().problem(400, "bad_request");
        }
        let refused = put(to, PATH, vec![0; (1 << 20) + 1]).send();
        assert_eq!(
            refused.header("Connection").map(str::to_lowercase).as_deref(),
            Some("close")
        );
        refused.problem(413, "too_large");
        let wrong = request(to, "PATCH", PATH).send();
        assert!(
            wrong.header("Allow").is_some_and(|allow| allow.contains("PUT")),
            "{wrong:?}"
        );
        wrong.problem(405, "method_not_allowed");
        get(to, "/v1/nothing").send().problem(404, "not_found");
        put(to, PATH, "no")
            .header("Idempotency-Key", "two words")
            .send()
            .problem(400, "bad_request");
        delete(to, PATH).send().problem(428, "context_required");
    });
}
