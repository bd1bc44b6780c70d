//! PUT and DELETE.

use super::*;

#[tokio::test]
async fn a_put_is_204_with_the_writers_context_and_its_acks() {
    let world = World::new().will(written(None));
    let headers = format!("Content-Type: text/x\r\nQuorate-Context: {CTX}\r\nIdempotency-Key: k1\r\n");
    let got = world.ask("PUT /v1/kv/b/k?w=2&dw=1", &headers, "hello").await;
    assert_eq!((got.status, got.header("quorate-context")), (204, Some("bmV3")));
    assert_eq!(got.header("quorate-acks"), Some("n1=primary;durable"));
    assert_eq!(
        (got.header("content-type"), got.header("quorate-precondition")),
        (None, None)
    );
    let Operation::Put {
        context,
        value,
        request,
        retry,
        options,
        ..
    } = world.last_asked()
    else {
        panic!("not a put")
    };
    assert_eq!(
        (context.unwrap(), value.body, value.content_type.as_str()),
        ("ctx".into(), "hello".into(), "text/x")
    );
    assert_eq!(
        (retry, options.w, options.dw, options.return_representation),
        (false, Some(2), Some(1), false)
    );
    assert_eq!(request.unique, twox_hash::XxHash3_64::oneshot(b"k1"));
    assert!(request.is_again(), "a client that gives a key may send the write again");
}

#[tokio::test]
async fn a_put_without_a_type_is_an_octet_stream_and_may_be_empty_or_chunked() {
    let world = World::new().will(written(None)).will(written(None));
    assert_eq!(
        world.ask("PUT /v1/kv/b/k", "Content-Length: 0\r\n", "").await.status,
        204
    );
    let Operation::Put {
        value, context: None, ..
    } = world.last_asked()
    else {
        panic!("not a blind put")
    };
    assert_eq!(
        (value.body.len(), value.content_type.as_str()),
        (0, "application/octet-stream")
    );

    let mut client = world.connect(Surface::Public);
    client
        .write_all(&text("PUT /v1/kv/b/k", "Transfer-Encoding: chunked\r\n", ""))
        .await
        .unwrap();
    for part in ["3\r\nabc\r\n", "2\r\nde\r\n", "0\r\n\r\n"] {
        client.write_all(part.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read_response(&mut client, false).await.status, 204);
    let Operation::Put { value, .. } = world.last_asked() else {
        panic!("not a put")
    };
    assert_eq!(value.body, "abcde");
}

#[tokio::test]
async fn the_record_comes_back_when_it_is_preferred() {
    let world = World::new()
        .will(written(Some(view(vec![Some(value("a"))]))))
        .will(written(Some(view(vec![Some(value("a")), Some(value("b"))]))))
        .will(written(Some(view(vec![None]))));
    let prefer = "Prefer: return=representation, wait=2\r\n";
    let one = world.ask("PUT /v1/kv/b/k", prefer, "a").await;
    assert_eq!(
        (one.status, one.text(), one.header("quorate-context")),
        (200, "a", Some(CTX))
    );
    assert_eq!(one.header("preference-applied"), Some("return=representation, wait=2"));
    assert_eq!(
        (one.header("etag"), one.header("quorate-acks")),
        (Some(TAG), Some("n1=primary;durable"))
    );
    let two = world.ask("PUT /v1/kv/b/k", prefer, "b").await;
    assert_eq!((two.status, two.json()["siblings"].as_array().unwrap().len()), (300, 2));
    let context = format!("{prefer}Quorate-Context: {CTX}\r\n");
    let deleted = world.ask("DELETE /v1/kv/b/k", &context, "").await;
    assert_eq!((deleted.status, deleted.header("quorate-context")), (200, Some(CTX)));
    assert_eq!(deleted.json()["siblings"][0]["deleted"], true);
}

#[tokio::test]
async fn a_delete_needs_a_context() {
    let world = World::new().will(written(None));
    let got = world.ask("DELETE /v1/kv/b/k", "", "").await;
    assert_eq!((got.status, got.problem().as_str()), (428, "context_required"));
    assert!(world.asked.lock().unwrap().is_empty());
    let got = world
        .ask("DELETE /v1/kv/b/k", &format!("Quorate-Context: {CTX}\r\n"), "")
        .await;
    assert_eq!((got.status, got.header("quorate-context")), (204, Some("bmV3")));
}

#[tokio::test]
async fn a_failed_write_says_what_became_of_it() {
    let table = [
        (Code::BadRequest, Outcome::NotApplied, 400),
        (Code::ForgedContext, Outcome::NotApplied, 400),
        (Code::ContextRequired, Outcome::NotApplied, 428),
        (Code::TooManySiblings, Outcome::NotApplied, 409),
        (Code::IdempotencyReuse, Outcome::NotApplied, 409),
        (Code::TooLarge, Outcome::NotApplied, 413),
        (Code::Unavailable, Outcome::NotApplied, 503),
        (Code::QuorumNotMet, Outcome::Unknown, 503),
        (Code::Overloaded, Outcome::NotApplied, 503),
        (Code::DeadlineExceeded, Outcome::Unknown, 504),
        (Code::Stopping, Outcome::Unknown, 503),
    ];
    for (code, outcome, status) in table {
        let world = World::new().will(failed(code, outcome));
        let got = world.ask("PUT /v1/kv/b/k", "", "a").await;
        assert_eq!(
            (got.status, got.problem()),
            (
                status,
                serde_json::to_value(code).unwrap().as_str().unwrap().to_string()
            )
        );
        let document = got.json();
        assert_eq!(document["outcome"], serde_json::to_value(outcome).unwrap());
        assert_eq!(document["retryable"], code.retryable());
        assert_eq!(document["replicas"][2]["state"], "waiting");
        let words = if outcome == Outcome::Unknown {
            "is unknown"
        } else {
            "was not applied"
        };
        assert!(document["detail"].as_str().unwrap().contains(words), "{document}");
        assert_eq!(got.header("quorate-context"), None);
    }
}

#[tokio::test]
async fn conditions_are_checked_and_labelled_as_advice() {
    let there = || found(vec![Some(value("a"))]);
    let absent = || found(vec![None]);
    let table = [
        (format!("If-Match: {TAG}"), there(), 204),
        ("If-Match: \"x\"".to_string(), there(), 412),
        ("If-Match: *".to_string(), absent(), 412),
        ("If-None-Match: *".to_string(), there(), 412),
        ("If-None-Match: *".to_string(), absent(), 204),
        (
            "If-Match: *".to_string(),
            failed(Code::Unavailable, Outcome::NotApplied),
            503,
        ),
    ];
    for (header, read, status) in table {
        let world = World::new().will(read).will(written(None));
        let got = world.ask("PUT /v1/kv/b/k", &format!("{header}\r\n"), "a").await;
        assert_eq!(got.status, status, "{header}");
        assert_eq!(got.header("quorate-precondition"), Some("advisory"), "{header}");
        if status == 412 {
            assert_eq!(
                (got.problem().as_str(), got.header("quorate-context")),
                ("precondition_failed", Some(CTX))
            );
        }
    }
}

#[tokio::test]
async fn mistakes_in_a_write_are_400_and_nothing_is_asked() {
    let world = World::new();
    let long = format!("Idempotency-Key: {}\r\n", "x".repeat(256));
    let table = [
        ("Idempotency-Key: a b\r\n", "bad_request"),
        (long.as_str(), "bad_request"),
        ("Quorate-Context: \r\n", "forged_context"),
        ("Quorate-Context: AAAA\r\nQuorate-Context: AAAA\r\n", "bad_request"),
        ("Content-Type: a\r\nContent-Type: b\r\n", "bad_request"),
    ];
    for (headers, code) in table {
        let got = world.ask("PUT /v1/kv/b/k", headers, "a").await;
        assert_eq!((got.status, got.problem().as_str()), (400, code), "{headers}");
    }
    assert!(world.asked.lock().unwrap().is_empty());
}
