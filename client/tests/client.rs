//! The client against stand-ins for nodes: what it sends where, what it sends again, and what it says in the end.
#![allow(clippy::unwrap_used, missing_docs)]

mod fake;

use bytes::Bytes;
use fake::{Arrival, Authority, Cluster};
use quorate_client::{
    Client, Code, ConnectError, Error, IntoValue, Key, Operation, Outcome, Patience, Query, Reply, RequestId, View,
};
use quorate_core::request::{Failure, Response};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

async fn started(nodes: u8, patience: Patience) -> (Cluster, Client) {
    let authority = Authority::new();
    let cluster = Cluster::start(nodes, &authority);
    let client = Client::connect(quorate_client::ClientConfig {
        patience,
        ..cluster.config(&authority)
    })
    .await
    .unwrap();
    assert!(client.wait_connected(LONG).await);
    (cluster, client)
}

/// Nothing times out on its own.
fn patient() -> Patience {
    Patience {
        operation: LONG,
        attempt: LONG,
        hedge_after: LONG,
        suspect_after: LONG,
        ..Patience::default()
    }
}

fn written() -> Response {
    Ok(Reply::Written {
        context: Bytes::from_static(b"after"),
        view: None,
        replicas: vec![],
    })
}

fn found(values: &[&str]) -> Response {
    let siblings = values.iter().map(|value| Some(value.into_value())).collect();
    let view = View {
        context: Some(Bytes::from_static(b"seen")),
        siblings,
        live_hash: 1,
    };
    Ok(Reply::Found { view, replicas: vec![] })
}

fn failed(code: Code, outcome: Outcome) -> Response {
    Err(Failure {
        code,
        outcome,
        detail: format!("{code:?}"),
        replicas: vec![],
    })
}

fn id_of(arrival: &Arrival) -> RequestId {
    match arrival.request.operation {
        Operation::Put { request, .. } | Operation::Delete { request, .. } => request,
        Operation::Get { .. } => panic!("a read has no id"),
    }
}

#[tokio::test]
async fn requests_go_straight_to_an_owner() {
    let (mut cluster, client) = started(5, patient()).await;
    for at in 0..40 {
        let name = format!("key {at}");
        let put = tokio::spawn({
            let (client, name) = (client.clone(), name.clone());
            async move { client.bucket("b").put(&name, "v", None).await }
        });
        let arrival = cluster.next().await;
        let key = Key::new(b"b", name.as_bytes(), None).unwrap();
        assert_eq!(arrival.request.operation.key(), &key);
        let partition = cluster.ring.partition_of(key.token());
        let owners = cluster.ring.owners(partition, 3);
        assert!(
            owners.iter().any(|owner| owner.get() == arrival.node),
            "{} is not in {owners:?}",
            arrival.node
        );
        arrival.answer(written()).await;
        assert_eq!(put.await.unwrap().unwrap().context.as_bytes(), "after");
    }
}

#[tokio::test]
async fn a_lost_connection_is_retried_elsewhere_under_the_same_id() {
    let (mut cluster, client) = started(3, patient()).await;
    let put = tokio::spawn(async move { client.bucket("b").put("k", "v", None).await });
    let first = cluster.next().await;
    assert!(!first.retry());
    first.cut_connection();
    let second = cluster.next().await;
    assert_ne!(first.node, second.node);
    assert_eq!(id_of(&first), id_of(&second));
    assert!(second.retry());
    second.answer(written()).await;
    put.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_write_that_went_to_a_silent_node_is_resent_long_before_its_attempt_ends() {
    let patience = Patience {
        suspect_after: Duration::from_millis(20),
        ..patient()
    };
    let (mut cluster, client) = started(3, patience).await;
    let put = tokio::spawn(async move { client.bucket("b").put("k", "v", None).await });
    let first = cluster.next().await;
    let second = cluster.next().await;
    assert_ne!(first.node, second.node);
    assert_eq!(id_of(&first), id_of(&second));
    assert!(second.retry());
    second.answer(written()).await;
    put.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failure_that_is_certain_is_retried_as_if_new() {
    let (mut cluster, client) = started(3, patient()).await;
    let put = tokio::spawn(async move { client.bucket("b").put("k", "v", None).await });
    let first = cluster.next().await;
    first.answer(failed(Code::Overloaded, Outcome::NotApplied)).await;
    let second = cluster.next().await;
    assert_eq!(id_of(&first), id_of(&second));
    assert!(!second.retry(), "nothing of the first attempt is left behind");
    second.answer(failed(Code::QuorumNotMet, Outcome::Unknown)).await;
    let third = cluster.next().await;
    assert!(third.retry(), "the second may have been applied");
    third.answer(written()).await;
    put.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_attempt_that_is_not_answered_is_retried_elsewhere() {
    let (mut cluster, client) = started(
        3,
        Patience {
            attempt: Duration::from_millis(20),
            ..patient()
        },
    )
    .await;
    let put = tokio::spawn(async move { client.bucket("b").put("k", "v", None).await });
    let first = cluster.next().await;
    let second = cluster.next().await;
    assert_ne!(first.node, second.node);
    assert_eq!(id_of(&first), id_of(&second));
    assert!(second.retry());
    second.answer(written()).await;
    put.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_slow_read_is_hedged_and_the_first_answer_counts() {
    let (mut cluster, client) = started(
        3,
        Patience {
            hedge_after: Duration::from_millis(20),
            ..patient()
        },
    )
    .await;
    let get = tokio::spawn(async move { client.bucket("b").get("k").await });
    let first = cluster.next().await;
    let second = cluster.next().await;
    assert_ne!(first.node, second.node);
    second.answer(found(&["v"])).await;
    assert_eq!(get.await.unwrap().unwrap().one(), Some(&"v".into_value()));
}

#[tokio::test]
async fn a_failure_that_cannot_pass_is_returned_at_once() {
    let (mut cluster, client) = started(3, patient()).await;
    let put = tokio::spawn(async move { client.bucket("b").put("k", "v", None).await });
    cluster
        .next()
        .await
        .answer(failed(Code::TooLarge, Outcome::NotApplied))
        .await;
    let error = put.await.unwrap().unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Some(Code::TooLarge), Outcome::NotApplied)
    );
}

#[tokio::test]
async fn a_certain_failure_after_an_unknown_attempt_stays_unknown() {
    let (mut cluster, client) = started(3, patient()).await;
    let put = tokio::spawn(async move { client.bucket("b").put("k", "v", None).await });
    cluster.next().await.cut_connection();
    cluster
        .next()
        .await
        .answer(failed(Code::TooManySiblings, Outcome::NotApplied))
        .await;
    let error = put.await.unwrap().unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (Some(Code::TooManySiblings), Outcome::Unknown)
    );
}

/// Runs one put with a short deadline; the nodes answer each attempt with `response`, or not at all.
async fn deadline_after(response: Option<Response>) -> Error {
    let (mut cluster, client) = started(3, patient()).await;
    let bucket = client.bucket("b").with_timeout(Duration::from_millis(50));
    let put = tokio::spawn(async move { bucket.put("k", "v", None).await });
    tokio::spawn(async move {
        loop {
            let arrival = cluster.next().await;
            if let Some(response) = response.clone() {
                arrival.answer(response).await;
            }
        }
    });
    let error = put.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    error
}

#[tokio::test]
async fn a_deadline_says_whether_the_write_may_have_happened() {
    let silence = deadline_after(None).await;
    assert_eq!(silence.outcome(), Outcome::Unknown);
    let certain = deadline_after(Some(failed(Code::Overloaded, Outcome::NotApplied))).await;
    assert_eq!(
        (certain.code(), certain.outcome()),
        (Some(Code::Overloaded), Outcome::NotApplied)
    );
    let unknown = deadline_after(Some(failed(Code::QuorumNotMet, Outcome::Unknown))).await;
    assert_eq!(
        (unknown.code(), unknown.outcome()),
        (Some(Code::QuorumNotMet), Outcome::Unknown)
    );
}

#[tokio::test]
async fn a_read_is_never_unknown() {
    let (_cluster, client) = started(1, patient()).await;
    let error = client
        .bucket("b")
        .with_timeout(Duration::from_millis(20))
        .get("k")
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[tokio::test]
async fn a_node_of_another_authority_is_refused() {
    let cluster = Cluster::start(1, &Authority::new());
    let error = Client::connect(cluster.config(&Authority::new())).await.unwrap_err();
    let ConnectError::NoneAnswered { reasons } = error else {
        panic!("{error}")
    };
    assert!(reasons[0].contains("certificate"), "{reasons:?}");
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let authority = Authority::new();
    let cluster = Cluster::start(1, &authority);
    let config = quorate_client::ClientConfig {
        cluster: "other".to_owned(),
        ..cluster.config(&authority)
    };
    let error = Client::connect(config).await.unwrap_err().to_string();
    assert!(
        error.contains("cluster other was expected there, but cluster test answers"),
        "{error}"
    );
}

#[tokio::test]
async fn large_values_travel_on_streams_of_their_own() {
    let (mut cluster, client) = started(1, patient()).await;
    let large = "x".repeat(1 << 20);
    let work = tokio::spawn({
        let (bucket, large) = (client.bucket("b"), large.clone());
        async move {
            bucket.put("k", large, None).await.unwrap();
            bucket.get("k").await.unwrap()
        }
    });
    let put = cluster.next().await;
    assert!(put.bulk);
    put.answer(written()).await;
    let get = cluster.next().await;
    assert!(!get.bulk);
    get.answer(found(&[&large])).await;
    assert_eq!(work.await.unwrap().one().unwrap().body, large);
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let (mut cluster, client) = started(1, patient()).await;
    let put = tokio::spawn({
        let client = client.clone();
        async move { client.bucket("b").put("k", "v", None).await }
    });
    cluster.next().await.send(&[0xff; 64]).await;
    let closed = cluster.next_close().await;
    assert!(closed.to_string().contains("outside the limits"), "{closed}");
    let again = cluster.next().await;
    assert!(again.retry(), "over a new connection");
    again.answer(written()).await;
    put.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_of_the_wrong_kind_is_an_error() {
    let (mut cluster, client) = started(1, patient()).await;
    let put = tokio::spawn(async move { client.bucket("b").put("k", "v", None).await });
    cluster.next().await.answer(found(&["v"])).await;
    assert!(matches!(put.await.unwrap(), Err(Error::WrongAnswer { .. })));
}

#[tokio::test]
async fn update_resends_the_same_value_while_the_outcome_is_unknown() {
    let (mut cluster, client) = started(3, patient()).await;
    let mut runs = 0;
    let update = tokio::spawn(async move {
        let bucket = client.bucket("b");
        let written = bucket.update("k", |siblings| {
            runs += 1;
            format!("{} of {}", runs, siblings.len()).into_value()
        });
        written.await
    });
    cluster.next().await.answer(found(&["a", "b"])).await;
    let first = cluster.next().await;
    first.cut_connection();
    let second = cluster.next().await;
    assert_eq!(id_of(&first), id_of(&second));
    let Operation::Put { value, context, .. } = &second.request.operation else {
        panic!()
    };
    assert_eq!(
        (&value.body[..], context.as_deref()),
        (&b"1 of 2"[..], Some(&b"seen"[..]))
    );
    second.answer(written()).await;
    update.await.unwrap().unwrap();
}

#[tokio::test]
async fn update_reads_again_only_when_the_context_was_certainly_refused() {
    let (mut cluster, client) = started(3, patient()).await;
    let bucket = client.bucket("b");
    let update = tokio::spawn(async move { bucket.update("k", |siblings| siblings[0].clone()).await });
    cluster.next().await.answer(found(&["a"])).await;
    let first = cluster.next().await;
    first.answer(failed(Code::ForgedContext, Outcome::NotApplied)).await;
    cluster.next().await.answer(found(&["b"])).await;
    let second = cluster.next().await;
    assert_ne!(id_of(&first), id_of(&second), "another value is another write");
    second.answer(failed(Code::BadRequest, Outcome::NotApplied)).await;
    assert_eq!(update.await.unwrap().unwrap_err().code(), Some(Code::BadRequest));
}

#[tokio::test]
async fn a_query_to_a_stranger_is_refused() {
    let (_cluster, client) = started(1, patient()).await;
    let stranger = quorate_client::NodeId([9; 16]);
    assert!(matches!(
        client.query(stranger, Query::Ring, LONG).await,
        Err(Error::Unreachable { .. })
    ));
    assert_eq!(client.node_named("n1"), Some(quorate_client::NodeId([1; 16])));
}

#[tokio::test]
async fn closing_tells_the_nodes() {
    let (mut cluster, client) = started(1, patient()).await;
    client.close().await;
    let closed = cluster.next_close().await;
    assert!(closed.to_string().contains("client"), "{closed}");
}
