//! Time and size limits. Tokio's clock is paused: it jumps ahead when everybody waits.

use super::*;
use quorate_core::bucket::{BucketProperties, BucketTable};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A gateway whose buckets take `value_bytes_max` bytes.
fn small(value_bytes_max: u32) -> World {
    let defaults = BucketProperties {
        value_bytes_max,
        ..BucketProperties::default()
    };
    World::with(GatewayOptions {
        buckets: BucketTable {
            defaults,
            ..BucketTable::default()
        },
        ..GatewayOptions::default()
    })
}

/// Everything until the server closes, and how long that took in whole seconds.
async fn until_closed(client: &mut DuplexStream) -> (String, u64) {
    let started = Instant::now();
    let mut all = Vec::new();
    timeout(Duration::from_secs(600), client.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    (String::from_utf8(all).unwrap(), started.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn headers_that_come_drop_by_drop_are_cut_off_with_408() {
    let world = World::new();
    let mut client = world.connect(Surface::Public);
    let (mut reading, mut writing) = {
        client.write_all(b"GET /v1/kv/b/k HTTP/1.1\r\n").await.unwrap();
        tokio::io::split(client)
    };
    let dripping = tokio::spawn(async move {
        while writing.write_all(b"X-A: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let started = Instant::now();
    let mut all = Vec::new();
    reading.read_to_end(&mut all).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 10);
    assert!(all.starts_with(b"HTTP/1.1 408 "));
    dripping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_after_the_header_limit_and_an_idle_one_later() {
    let world = World::new().will(written(None)).will(written(None));
    let mut silent = world.connect(Surface::Public);
    assert_eq!(until_closed(&mut silent).await, (String::new(), 10));

    let mut idle = world.connect(Surface::Public);
    for _ in 0..2 {
        idle.write_all(&text("PUT /v1/kv/b/k", "", "a")).await.unwrap();
        assert_eq!(read_response(&mut idle, false).await.status, 204);
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert_eq!(until_closed(&mut idle).await, (String::new(), 45));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_408_and_nothing_is_written() {
    let world = World::new();
    let mut client = world.connect(Surface::Public);
    client
        .write_all(&text("PUT /v1/kv/b/k", "Content-Length: 5\r\n", ""))
        .await
        .unwrap();
    let started = Instant::now();
    let got = read_response(&mut client, false).await;
    assert_eq!(
        (got.status, got.problem().as_str(), started.elapsed().as_secs()),
        (408, "request_timeout", 30)
    );
    assert_eq!(until_closed(&mut client).await.0, "");
    assert!(world.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_never_stored() {
    let world = World::new();
    let mut client = world.connect(Surface::Public);
    client
        .write_all(&text("PUT /v1/kv/b/k", "Content-Length: 5\r\n", ""))
        .await
        .unwrap();
    client.write_all(b"abc").await.unwrap();
    client.shutdown().await.unwrap();
    until_closed(&mut client).await;
    assert!(world.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_response_that_nobody_reads_does_not_hold_the_connection() {
    let world = small(1 << 20).will(found(vec![Some(Value {
        content_type: String::new(),
        body: vec![b'x'; 1 << 20].into(),
    })]));
    let mut client = world.connect_over(Surface::Public, 1024);
    client.write_all(&text("GET /v1/kv/b/k", "", "")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    let (rest, _) = until_closed(&mut client).await;
    assert!(
        rest.len() < 1 << 20,
        "the connection was cut, and what was in flight is {} bytes",
        rest.len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_value_over_the_limit_is_413_before_it_is_sent() {
    let world = small(8).will(written(None));
    assert_eq!(world.ask("PUT /v1/kv/b/k", "", "12345678").await.status, 204);
    let mut client = world.connect(Surface::Public);
    let headers = "Content-Length: 9\r\nExpect: 100-continue\r\n";
    client.write_all(&text("PUT /v1/kv/b/k", headers, "")).await.unwrap();
    let got = read_response(&mut client, false).await;
    assert_eq!(
        (got.status, got.problem().as_str(), got.header("connection")),
        (413, "too_large", Some("close"))
    );
    assert!(got.json()["detail"].as_str().unwrap().contains("8 bytes"));
    assert_eq!(until_closed(&mut client).await.0, "");
}

#[tokio::test(start_paused = true)]
async fn a_chunked_value_over_the_limit_is_413_and_the_client_may_go_on_sending() {
    let world = small(8);
    let mut client = world.connect_over(Surface::Public, 512);
    client
        .write_all(&text("PUT /v1/kv/b/k", "Transfer-Encoding: chunked\r\n", ""))
        .await
        .unwrap();
    // More than the pipe holds: without somebody who reads on, this write would never end, or fail.
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    timeout(Duration::from_secs(1), client.write_all(chunk.repeat(16).as_bytes()))
        .await
        .unwrap()
        .unwrap();
    let got = read_response(&mut client, false).await;
    assert_eq!((got.status, got.problem().as_str()), (413, "too_large"));
    assert_eq!(until_closed(&mut client).await, (String::new(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_refused_before_its_body_was_read_ends_the_connection() {
    let world = World::new().will(written(None));
    let mut client = world.connect(Surface::Public);
    client.write_all(&text("PUT /v1/kv/b/k?r=0", "", "a")).await.unwrap();
    client.write_all(&text("PUT /v1/kv/b/k", "", "a")).await.unwrap();
    let got = read_response(&mut client, false).await;
    assert_eq!((got.status, got.header("connection")), (400, Some("close")));
    assert_eq!(until_closed(&mut client).await, (String::new(), 0));
    assert!(world.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn expect_100_continue_is_answered_when_the_body_is_wanted() {
    let world = World::new().will(written(None));
    let mut client = world.connect(Surface::Public);
    let headers = "Content-Length: 2\r\nExpect: 100-continue\r\n";
    client.write_all(&text("PUT /v1/kv/b/k", headers, "")).await.unwrap();
    assert_eq!(read_response(&mut client, true).await.status, 100);
    client.write_all(b"ab").await.unwrap();
    assert_eq!(read_response(&mut client, false).await.status, 204);
}

#[tokio::test(start_paused = true)]
async fn bodies_together_have_a_budget() {
    let world = World::with(GatewayOptions {
        body_bytes_max: 10,
        ..GatewayOptions::default()
    });
    let mut first = world.connect(Surface::Public);
    first
        .write_all(&text("PUT /v1/kv/b/k", "Content-Length: 10\r\n", ""))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let second = world.ask("PUT /v1/kv/b/k", "", "a").await;
    assert_eq!((second.status, second.problem().as_str()), (503, "overloaded"));
    drop(first);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let world = world.will(written(None));
    assert_eq!(world.ask("PUT /v1/kv/b/k", "", "a").await.status, 204);
}

#[tokio::test(start_paused = true)]
async fn a_data_loop_that_hangs_gives_504_a_second_after_the_timeout() {
    for (request, body, outcome) in [("GET", "", "not_applied"), ("PUT", "a", "unknown")] {
        let world = World::new();
        let started = Instant::now();
        let got = world
            .ask(&format!("{request} /v1/kv/b/k?timeout_ms=2000"), "", body)
            .await;
        assert_eq!((got.status, got.problem().as_str()), (504, "deadline_exceeded"));
        assert_eq!(
            (got.json()["outcome"].as_str(), started.elapsed().as_secs()),
            (Some(outcome), 3)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn headers_over_the_limit_are_431() {
    let world = World::new();
    let too_many: String = (0..101).map(|at| format!("X-{at}: a\r\n")).collect();
    let too_long = format!("X-A: {}\r\n", "x".repeat(70_000));
    for headers in [too_many, too_long] {
        let mut client = world.connect(Surface::Public);
        client.write_all(&text("GET /v1/kv/b/k", &headers, "")).await.unwrap();
        assert_eq!(read_response(&mut client, false).await.status, 431);
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_finishes_the_request_under_way_and_closes_idle_connections_at_once() {
    let world = World::new();
    let mut idle = world.connect(Surface::Public);
    let mut busy = world.connect(Surface::Public);
    busy.write_all(&text("GET /v1/kv/b/k?timeout_ms=1000", "", ""))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.shutdown.send_replace(true);
    assert_eq!(until_closed(&mut idle).await, (String::new(), 0));
    let got = read_response(&mut busy, false).await;
    assert_eq!((got.status, got.header("connection")), (504, Some("close")));
    assert_eq!(until_closed(&mut busy).await, (String::new(), 0));
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::new()
        .will(found(vec![Some(value("1"))]))
        .will(found(vec![Some(value("2"))]));
    let mut client = world.connect(Surface::Public);
    client
        .write_all(&text("GET /v1/kv/b/k", "", "").repeat(2))
        .await
        .unwrap();
    assert_eq!(read_response(&mut client, false).await.text(), "1");
    assert_eq!(read_response(&mut client, false).await.text(), "2");
}
