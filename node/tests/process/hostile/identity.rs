//! Who may come in: the certificate, the hello, and that they agree.

use super::{REFUSED, Scene, id};
use crate::support::dev::NODES;
use crate::support::peer::{Closed, Peer, encoded, node_hello, tls, tls_without_certificate};
use crate::support::{Home, eventually, runtime};
use quorate_client::tls::node_server_name;
use quorate_core::message::{Message, PeerRole, Query, QueryRequest, WIRE_VERSION, Welcome};
use quorate_node::certs::{Authority, CA_DAYS, CertificateInfo, Validity};
use quorate_node::tls::Identity;
use quorate_ring::{NodeId, RingVersion};
use std::path::{Path, PathBuf};

#[test]
fn a_hello_that_does_not_fit_is_refused_with_the_reason() {
    let home = Home::new();
    let scene = Scene::new(&home);
    let right = scene.hello();
    let other = NODES
        .into_iter()
        .find(|node| ![scene.me, scene.victim].contains(node))
        .unwrap();
    let mut cases = vec![right.clone(); 7];
    cases[0].role = PeerRole::Node(id(&scene.ring, other));
    cases[1].role = PeerRole::Node(NodeId([7; 16]));
    cases[2].role = PeerRole::Client;
    cases[3].cluster = "another".into();
    cases[4].versions = (WIRE_VERSION + 1, WIRE_VERSION + 9);
    cases[5].ring.1 ^= 1;
    cases[6].ring.0 = RingVersion(99);
    let reasons = [
        "the certificate says",
        "the certificate says",
        "the certificate says",
        "this is cluster",
        "no common wire version",
        " differ",
        " differ",
    ];
    runtime().block_on(async {
        for (hello, expected) in cases.into_iter().zip(reasons) {
            let mut peer = scene.dial(scene.my_tls()).await;
            match peer.greet(hello).await {
                Ok(Welcome::Refused { reason }) => assert!(reason.contains(expected), "{reason}"),
                other => panic!("{other:?} instead of: {expected}"),
            }
            assert_eq!(peer.closed().await, REFUSED);
        }
        // Not a hello at all, and none.
        for bytes in [
            encoded(&Message::Query(QueryRequest {
                id: 1,
                query: Query::Ring,
            })),
            b"hello?".repeat(10),
            vec![0xff; 5000],
            vec![],
        ] {
            let mut peer = scene.dial(scene.my_tls()).await;
            peer.write(&bytes).await;
            peer.closed().await;
        }
        // The larger of two ids does not dial. Our place is the smallest, so this is the victim's own certificate, at the other node.
        let stolen = tls(&scene.ca(), &home.file(scene.victim, "node"));
        let name = node_server_name(id(&scene.ring, other));
        let mut peer = Peer::dial(scene.dev.quic(other), stolen, &name).await.unwrap();
        match peer
            .greet(node_hello(id(&scene.ring, scene.victim), &scene.ring, scene.digest))
            .await
        {
            Ok(Welcome::Refused { reason }) => assert!(reason.contains("smaller id dials"), "{reason}"),
            other => panic!("{other:?}"),
        }
    });
    scene.assert_unharmed();
}

/// A certificate of this authority in a directory of its own.
fn issue(authority: &Authority, identity: &Identity, validity: Validity, directory: &Path) -> PathBuf {
    std::fs::create_dir_all(directory).unwrap();
    let stem = directory.join("some");
    authority
        .issue(identity, validity)
        .unwrap()
        .write(&stem.with_extension("pem"), &stem.with_extension("key"))
        .unwrap();
    stem
}

#[test]
fn certificates_that_the_cluster_did_not_issue_or_that_have_ended_let_nobody_in() {
    let home = Home::new();
    let scene = Scene::new(&home);
    let ours = Authority::load(&scene.ca(), &home.dir().join("ca.key")).unwrap();
    let (foreign, _) = Authority::create("dev", Validity::days(CA_DAYS)).unwrap();
    let me = Identity::Node(id(&scene.ring, scene.me));
    let expired = issue(&ours, &me, Validity::days(0), &home.scratch().join("expired"));
    eventually("the certificate has ended", || {
        let info = CertificateInfo::read(&expired.with_extension("pem")).unwrap().remove(0);
        (!info.is_valid_now()).then_some(())
    });
    let stranger = Identity::Node(NodeId([9; 16]));
    let at = |name: &str| home.scratch().join(name);
    let cases = [
        ("no certificate", tls_without_certificate(&scene.ca())),
        (
            "another CA",
            tls(&scene.ca(), &issue(&foreign, &me, Validity::days(1), &at("foreign"))),
        ),
        ("expired", tls(&scene.ca(), &expired)),
    ];
    let client = Identity::client("mallory").unwrap();
    let client_tls = tls(&scene.ca(), &issue(&ours, &client, Validity::days(1), &at("client")));
    let stranger_tls = tls(
        &scene.ca(),
        &issue(&ours, &stranger, Validity::days(1), &at("stranger")),
    );
    runtime().block_on(async {
        for (what, tls) in cases {
            let name = node_server_name(id(&scene.ring, scene.victim));
            // With TLS 1.3 the refusal comes after our own handshake, or already with it.
            let Ok(mut peer) = Peer::dial(scene.dev.quic(scene.victim), tls, &name).await else {
                continue;
            };
            let answer = peer.greet(scene.hello()).await;
            assert!(answer.is_err(), "{what}: {answer:?}");
            assert_eq!(peer.closed().await, Closed::ByTls, "{what}");
        }
        // A client's certificate does not make a node, whatever the hello says.
        let mut peer = scene.dial(client_tls).await;
        let answer = peer.greet(scene.hello()).await;
        assert!(matches!(answer, Ok(Welcome::Refused { .. })), "{answer:?}");
        // Nor does a node's certificate of our CA for somebody who is no member.
        let mut peer = scene.dial(stranger_tls).await;
        let answer = peer.greet(node_hello(NodeId([9; 16]), &scene.ring, scene.digest)).await;
        assert!(
            matches!(&answer, Ok(Welcome::Refused { reason }) if reason.contains("not a member")),
            "{answer:?}"
        );
    });
    scene.assert_unharmed();
}
