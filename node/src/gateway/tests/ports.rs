//! Health, and the admin port.

use super::*;

/// One request to the admin port.
async fn admin(world: &World, request: &str) -> Got {
    let mut client = world.connect(Surface::Admin);
    client.write_all(&text(request, "", "")).await.unwrap();
    read_response(&mut client, request.starts_with("HEAD")).await
}

#[tokio::test]
async fn healthy_probes_say_ok_on_both_ports() {
    let world = World::new();
    for path in ["/livez", "/readyz", "/startupz"] {
        for got in [
            world.ask(&format!("GET {path}"), "", "").await,
            admin(&world, &format!("GET {path}")).await,
        ] {
            assert_eq!((got.status, got.text()), (200, "ok"), "{path}");
        }
    }
    let got = world.ask("GET /readyz?verbose", "", "").await;
    assert_eq!(
        got.text(),
        "[+]ping ok\n[+]data-loop ok\n[+]not-draining ok\nreadyz check passed\n"
    );
    assert_eq!(world.ask("HEAD /livez", "", "").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_data_loop_fails_the_probes() {
    let world = World::new();
    world.healthy.send_replace(false);
    for path in ["livez", "readyz", "startupz"] {
        let got = world.ask(&format!("GET /{path}"), "", "").await;
        assert_eq!(got.status, 503);
        assert!(
            got.text()
                .contains("[+]ping ok\n[-]data-loop failed: reason withheld\n"),
            "{}",
            got.text()
        );
        assert!(got.text().ends_with(&format!("{path} check failed\n")));
    }
    assert!(
        admin(&world, "GET /metrics")
            .await
            .text()
            .contains("quorate_data_loop_up 0")
    );
    assert_eq!(admin(&world, "GET /v1/cluster/status").await.problem(), "not_ready");
}

#[tokio::test]
async fn a_draining_node_is_alive_but_not_ready() {
    let world = World::new();
    world.state.set_draining(true);
    assert_eq!(world.ask("GET /readyz", "", "").await.status, 503);
    assert_eq!(world.ask("GET /livez", "", "").await.status, 200);
    world.state.set_draining(false);
    assert_eq!(world.ask("GET /readyz", "", "").await.status, 200);
}

#[tokio::test]
async fn metrics_count_requests_by_outcome() {
    let world = World::new()
        .will(found(vec![Some(value("a"))]))
        .will(found(vec![None]))
        .will(found(vec![Some(value("a")), Some(value("b"))]))
        .will(failed(Code::QuorumNotMet, Outcome::Unknown));
    for _ in 0..3 {
        world.ask("GET /v1/kv/b/k", "", "").await;
    }
    world.ask("PUT /v1/kv/b/k", "", "a").await;
    let got = admin(&world, "GET /metrics").await;
    assert_eq!(
        got.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    for labels in [
        r#""get",outcome="ok""#,
        r#""get",outcome="not_found""#,
        r#""get",outcome="siblings""#,
        r#""put",outcome="unknown""#,
    ] {
        let line = format!("quorate_requests_total{{plane=\"http\",operation={labels}}} 1\n");
        assert!(got.text().contains(&line), "{line}{}", got.text());
    }
    assert!(
        got.text()
            .contains("quorate_http_responses_total{port=\"http\",status=\"503\"} 1\n"),
        "{}",
        got.text()
    );
}

#[tokio::test]
async fn status_and_ring_are_json() {
    let world = World::new();
    assert_eq!(admin(&world, "GET /v1/cluster/status").await.json()["name"], "n1");
    let ring = admin(&world, "GET /v1/cluster/ring").await.json();
    assert_eq!(
        (ring["version"].as_u64(), ring["partitions"].as_u64()),
        (Some(1), Some(16))
    );
    assert_eq!(
        (ring["members"][0]["name"].as_str(), ring.get("placement")),
        (Some("n1"), None)
    );
    let placed = admin(&world, "GET /v1/cluster/ring?bucket=b&key=%ff").await.json();
    let list = placed["placement"]["preference_list"].as_array().unwrap();
    assert_eq!((list.len(), list[0]["role"].as_str()), (3, Some("primary")));
    for bad in ["?bucket=b", "?key=k", "?node=1", "?bucket=b&key=", "?bucket=b&key=%"] {
        assert_eq!(
            admin(&world, &format!("GET /v1/cluster/ring{bad}")).await.problem(),
            "bad_request",
            "{bad}"
        );
    }
}

#[tokio::test]
async fn the_admin_port_serves_no_keys() {
    let world = World::new();
    assert_eq!(admin(&world, "GET /v1/kv/b/k").await.problem(), "not_found");
    assert_eq!(admin(&world, "POST /metrics").await.problem(), "method_not_allowed");
}

#[tokio::test]
async fn hints_and_repair_are_told_and_a_post_begins_a_repair() {
    let world = World::new();
    let hints = admin(&world, "GET /v1/cluster/hints").await.json();
    assert_eq!(
        (&hints["node"], &hints["hints"]),
        (&"n1".into(), &serde_json::json!([]))
    );
    for (method, status) in [("GET", 200), ("POST", 202)] {
        let got = admin(&world, &format!("{method} /v1/cluster/repair")).await;
        assert_eq!(
            (got.status, &got.json()["exchange"]["trees"]),
            (status, &0.into()),
            "{method}"
        );
    }
    let mut off = node_status();
    off.healing.exchange.enabled = false;
    assert!(super::super::admin::repair_answer(off.clone(), false).is_ok());
    assert!(super::super::admin::repair_answer(off, true).is_err());
    let refused = admin(&world, "DELETE /v1/cluster/repair").await;
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, Some("GET, HEAD, POST"))
    );
    assert_eq!(world.ask("GET /v1/cluster/hints", "", "").await.status, 404);
}
