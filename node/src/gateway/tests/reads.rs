//! GET and HEAD.

use super::*;

#[tokio::test]
async fn one_value_is_raw_with_its_type_its_context_and_its_tag() {
    let world = World::new().will(found(vec![Some(value("hello"))]));
    let got = world.ask("GET /v1/kv/b/a%2Fb/%ff?r=2&timeout_ms=100", "", "").await;
    assert_eq!((got.status, got.text()), (200, "hello"));
    let want = [
        ("content-type", "text/plain"),
        ("content-length", "5"),
        ("quorate-context", CTX),
        ("etag", TAG),
        ("quorate-answers", "n1=primary;record, n2=primary;digest"),
        ("vary", "accept"),
    ];
    for (name, value) in want {
        assert_eq!(got.header(name), Some(value), "{name}");
    }
    assert!(got.header("server-timing").unwrap().starts_with("total;dur="));
    assert_eq!(got.header("quorate-deleted"), None);
    let Operation::Get {
        key,
        minimum: None,
        options,
    } = world.last_asked()
    else {
        panic!("not a plain get")
    };
    assert_eq!(
        (key.partition_key(), key.sort_key(), options.r),
        (&b"a/b"[..], Some(&b"\xff"[..]), Some(2))
    );
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let world = World::new()
        .will(found(vec![Some(value("hello"))]))
        .will(found(vec![Some(value("hello"))]));
    let mut client = world.connect(Surface::Public);
    client.write_all(&text("HEAD /v1/kv/b/k", "", "")).await.unwrap();
    let head = read_response(&mut client, true).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    // The next response on the connection starts right behind: there was no body.
    client.write_all(&text("GET /v1/kv/b/k", "", "")).await.unwrap();
    let get = read_response(&mut client, false).await;
    for name in ["content-type", "content-length", "etag", "quorate-context"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[tokio::test]
async fn head_of_an_empty_value_says_that_it_is_empty() {
    let world = World::new().will(found(vec![Some(value(""))]));
    let head = world.ask("HEAD /v1/kv/b/k", "", "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("0")));
}

#[tokio::test]
async fn a_list_that_the_reader_has_is_304_with_the_tag_of_that_list() {
    for (accept, tag) in [
        ("", "\"0000000000000abc-l\""),
        ("Accept: multipart/mixed\r\n", "\"0000000000000abc-m\""),
    ] {
        let world = World::new().will(found(vec![Some(value("a")), Some(value("b"))]));
        let got = world
            .ask("GET /v1/kv/b/k", &format!("{accept}If-None-Match: {tag}\r\n"), "")
            .await;
        assert_eq!((got.status, got.header("etag")), (304, Some(tag)));
    }
}

#[tokio::test]
async fn siblings_are_300_and_listed_in_json() {
    let world = World::new().will(found(vec![Some(value("a")), None, Some(value("\u{e9}"))]));
    let got = world.ask("GET /v1/kv/b/k", "", "").await;
    assert_eq!(
        (got.status, got.header("content-type")),
        (300, Some("application/json"))
    );
    assert_eq!(
        (got.header("quorate-context"), got.header("etag")),
        (Some(CTX), Some("\"0000000000000abc-l\""))
    );
    let want = serde_json::json!({
        "context": CTX,
        "siblings": [
            { "value": "YQ==", "content_type": "text/plain", "deleted": false },
            { "value": null, "content_type": null, "deleted": true },
            { "value": "w6k=", "content_type": "text/plain", "deleted": false },
        ],
    });
    assert_eq!(got.json(), want);
}

#[tokio::test]
async fn siblings_come_as_multipart_when_asked_for() {
    let world = World::new().will(found(vec![Some(value("a\r\n--x")), Some(value("b"))]));
    let got = world.ask("GET /v1/kv/b/k", "Accept: multipart/mixed\r\n", "").await;
    assert_eq!((got.status, got.header("etag")), (300, Some("\"0000000000000abc-m\"")));
    let boundary = got
        .header("content-type")
        .unwrap()
        .strip_prefix("multipart/mixed; boundary=")
        .unwrap();
    let parts: Vec<&str> = got.text().split(&format!("--{boundary}")).collect();
    assert_eq!(parts.len(), 4);
    assert_eq!((parts[0], parts[3]), ("", "--\r\n"));
    assert!(
        parts[1].ends_with("\r\n\r\na\r\n--x\r\n") && parts[2].ends_with("\r\n\r\nb\r\n"),
        "{parts:?}"
    );
}

#[tokio::test]
async fn one_value_beside_a_delete_is_raw_unless_the_list_is_asked_for() {
    let record = || found(vec![None, Some(value("a"))]);
    let world = World::new().will(record()).will(record()).will(record());
    for accept in ["", "Accept: application/json\r\n"] {
        let got = world.ask("GET /v1/kv/b/k", accept, "").await;
        assert_eq!(
            (got.status, got.text(), got.header("quorate-deleted")),
            (200, "a", Some("concurrent"))
        );
    }
    let got = world
        .ask(
            "GET /v1/kv/b/k",
            "Accept: application/vnd.quorate.siblings+json\r\n",
            "",
        )
        .await;
    assert_eq!(got.status, 200);
    assert_eq!(
        got.header("content-type"),
        Some("application/vnd.quorate.siblings+json")
    );
    assert_eq!(got.json()["siblings"][0]["deleted"], true);
    assert_eq!(got.json()["siblings"][1]["value"], "YQ==");
}

#[tokio::test]
async fn a_deleted_key_is_404_with_a_context_and_an_unknown_one_without() {
    let never = Ok(Reply::Found {
        view: View {
            context: None,
            siblings: vec![],
            live_hash: 0,
        },
        replicas: vec![],
    });
    let world = World::new().will(found(vec![None])).will(never);
    let deleted = world.ask("GET /v1/kv/b/k", "", "").await;
    assert_eq!((deleted.status, deleted.problem().as_str()), (404, "not_found"));
    assert_eq!(
        (deleted.header("quorate-context"), deleted.header("etag")),
        (Some(CTX), None)
    );
    assert!(deleted.header("server-timing").is_some());
    let unknown = world.ask("GET /v1/kv/b/k", "", "").await;
    assert_eq!((unknown.status, unknown.header("quorate-context")), (404, None));
}

#[tokio::test]
async fn a_reader_that_has_it_already_gets_304() {
    for headers in [
        format!("If-None-Match: {TAG}\r\n"),
        format!("If-None-Match: \"x\", W/{TAG}\r\n"),
        "If-None-Match: *\r\n".into(),
    ] {
        let world = World::new()
            .will(found(vec![Some(value("a"))]))
            .will(found(vec![Some(value("a"))]));
        let got = world.ask("HEAD /v1/kv/b/k", &headers, "").await;
        assert_eq!(
            (got.status, got.header("etag"), got.header("quorate-context")),
            (304, Some(TAG), Some(CTX))
        );
        let got = world.ask("GET /v1/kv/b/k", "If-None-Match: \"x\"\r\n", "").await;
        assert_eq!(got.status, 200);
    }
}

#[tokio::test]
async fn a_context_on_a_read_is_the_minimum_and_unmet_it_is_503() {
    let world = World::new().will(failed(Code::MinimumUnmet, Outcome::NotApplied));
    let got = world
        .ask("GET /v1/kv/b/k", &format!("Quorate-Context: {CTX}\r\n"), "")
        .await;
    assert_eq!((got.status, got.problem().as_str()), (503, "minimum_unmet"));
    assert_eq!(
        got.json()["replicas"][1],
        serde_json::json!({ "node": "n2", "role": "primary", "state": "same_digest", "elapsed_ms": 0.25 })
    );
    let Operation::Get { minimum, .. } = world.last_asked() else {
        panic!("not a get")
    };
    assert_eq!(minimum.unwrap(), "ctx");
}

#[tokio::test]
async fn a_callers_trace_goes_on() {
    let world = World::new().will(found(vec![Some(value("a"))]));
    let parent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let got = world.ask("GET /v1/kv/b/k", parent, "").await;
    assert!(
        got.header("traceparent")
            .unwrap()
            .starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    );
}

#[tokio::test]
async fn a_request_of_http_1_1_names_one_host() {
    let world = World::new().will(found(vec![Some(value("a"))]));
    for (request, status) in [
        ("GET /v1/kv/b/k HTTP/1.1\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /v1/kv/b/k HTTP/1.0\r\n\r\n", 200),
    ] {
        let mut client = world.connect(Surface::Public);
        client.write_all(request.as_bytes()).await.unwrap();
        let got = read_response(&mut client, false).await;
        assert_eq!(got.status, status, "{request}");
        if status == 400 {
            assert_eq!(got.problem(), "bad_request");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_speaks_http_2_is_told_400() {
    let world = World::new();
    let mut client = world.connect(Surface::Public);
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    assert_eq!(read_response(&mut client, false).await.status, 400);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn mistakes_are_400_before_anything_is_asked() {
    let world = World::new();
    let table = [
        ("GET /v1/kv/b/%zz", "", 400, "bad_request"),
        ("GET /v1/kv/b/k/", "", 400, "bad_request"),
        ("GET /v1/kv/b/k?tiemout_ms=1", "", 400, "bad_request"),
        ("GET /v1/kv/b/k?r=0", "", 400, "bad_request"),
        ("GET /v1/kv/b/k?timeout_ms=60001", "", 400, "bad_request"),
        ("GET /v1/kv/b/k?quorum=loose", "", 400, "bad_request"),
        ("GET /v1/kv/b/k?pr=0", "", 400, "bad_request"),
        ("GET /v1/kv/b/k?list", "", 400, "unsupported"),
        ("GET /v1/kv/b?list", "", 400, "unsupported"),
        ("POST /v1/kv/b", "", 400, "unsupported"),
        ("GET /v1/kv/b", "", 404, "not_found"),
        ("GET /v1/kv/b/k", "Quorate-Context: !\r\n", 400, "forged_context"),
        ("GET /v2", "", 404, "not_found"),
        ("GET /metrics", "", 404, "not_found"),
        ("PATCH /v1/kv/b/k", "", 405, "method_not_allowed"),
        ("POST /livez", "", 405, "method_not_allowed"),
    ];
    for (request, headers, status, code) in table {
        let got = world.ask(request, headers, "").await;
        assert_eq!((got.status, got.problem().as_str()), (status, code), "{request}");
        assert_eq!(got.json()["outcome"], "not_applied", "{request}");
        assert_eq!(got.header("allow").is_some(), status == 405, "{request}");
    }
    assert_eq!(
        world.ask("PATCH /v1/kv/b/k", "", "").await.header("allow"),
        Some("GET, HEAD, PUT, DELETE")
    );
    assert!(world.asked.lock().unwrap().is_empty());
}
