//! Real handshakes over QUIC on loopback: who is let in, and who is not.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::certs::{Authority, Issued, Validity};
use quinn::{ConnectionError, Endpoint};
use quorate_client::quic::{MTU_DEFAULT, client_config, endpoint};
use quorate_client::tls::{NODE_SERVER_NAME, node_server_name};
use quorate_ring::NodeId;
use std::net::{Ipv4Addr, SocketAddr};
use tempfile::TempDir;

const A: NodeId = NodeId([0xaa; 16]);
const B: NodeId = NodeId([0xbb; 16]);

fn now() -> Validity {
    Validity::days(1)
}

fn authority() -> Authority {
    Authority::create("test", now()).unwrap().0
}

fn credentials(ca: &Authority, issued: &Issued, me: &Identity) -> Result<Credentials, NodeTlsError> {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let files = TlsFiles {
        ca: at("ca.pem"),
        certificate: at("node.pem"),
        key: at("node.key"),
    };
    std::fs::write(&files.ca, ca.certificate()).unwrap();
    issued.write(&files.certificate, &files.key).unwrap();
    Credentials::load(&files, me)
}

fn node(ca: &Authority, id: NodeId, validity: Validity) -> Credentials {
    let identity = Identity::Node(id);
    credentials(ca, &ca.issue(&identity, validity).unwrap(), &identity).unwrap()
}

fn dialing(trusts: &Authority, issued: &Issued) -> rustls::ClientConfig {
    ClientTls::from_pem(trusts.certificate(), &issued.certificate, &issued.key)
        .rustls_config()
        .unwrap()
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn listen(server: &Credentials) -> Endpoint {
    endpoint(
        loopback(),
        Some(server_config(server.server().unwrap(), MTU_DEFAULT).unwrap()),
    )
    .unwrap()
}

/// What both ends of one handshake got: the server's view of the client, and how it ended for the client.
async fn handshake(
    server: &Credentials,
    client: rustls::ClientConfig,
    name: &str,
) -> (Result<Identity, String>, Result<(), ConnectionError>) {
    let server = listen(server);
    let address = server.local_addr().unwrap();
    let dialer = endpoint(loopback(), None).unwrap();
    let config = client_config(client, MTU_DEFAULT).unwrap();
    let accept = async {
        let connection = server
            .accept()
            .await
            .unwrap()
            .await
            .map_err(|error| error.to_string())?;
        // Held until the client has seen that it was let in.
        let greeted = connection.open_uni().await.map_err(|error| error.to_string());
        let identity = peer_identity(&connection).map_err(|error| error.to_string());
        if let Ok(mut stream) = greeted {
            stream.write_all(b"hello").await.unwrap();
            stream.finish().unwrap();
            let _closed_by_client = connection.closed().await;
        }
        identity
    };
    let dial = async {
        let connection = dialer.connect_with(config, address, name).unwrap().await?;
        // A client has shown its certificate only after its own handshake is done, so a refusal comes a little later.
        let greeted = connection.accept_uni().await;
        connection.close(0u8.into(), b"");
        greeted.map(|_| ())
    };
    tokio::join!(accept, dial)
}

#[tokio::test]
async fn nodes_and_clients_are_let_in_and_known_by_their_certificates() {
    let ca = authority();
    let server = node(&ca, A, now());
    for identity in [
        Identity::Node(B),
        Identity::client("alice").unwrap(),
        Identity::admin("root").unwrap(),
    ] {
        let client = dialing(&ca, &ca.issue(&identity, now()).unwrap());
        for name in [NODE_SERVER_NAME.to_owned(), node_server_name(A)] {
            let (seen, ended) = handshake(&server, client.clone(), &name).await;
            assert_eq!(seen.as_ref(), Ok(&identity));
            assert_eq!(ended, Ok(()));
        }
    }
}

#[tokio::test]
async fn who_shows_no_certificate_is_refused() {
    let ca = authority();
    let mut client = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(ca.certificate().as_bytes()).unwrap())
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    let (seen, ended) = handshake(&node(&ca, A, now()), client, NODE_SERVER_NAME).await;
    assert!(seen.unwrap_err().contains("peer sent no certificates"));
    assert!(ended.unwrap_err().to_string().contains("certificate"));
}

#[tokio::test]
async fn certificates_of_another_ca_expired_and_not_yet_valid_ones_are_refused() {
    let (ca, other) = (authority(), authority());
    let server = node(&ca, A, now());
    let alice = Identity::client("alice").unwrap();
    let cases = [
        (&other, now(), "invalid peer certificate"),
        (&ca, Validity::seconds(-7200, -3600), "certificate expired"),
        (&ca, Validity::seconds(3600, 7200), "certificate not valid yet"),
    ];
    for (issuer, validity, reason) in cases {
        let client = dialing(&ca, &issuer.issue(&alice, validity).unwrap());
        let (seen, ended) = handshake(&server, client, NODE_SERVER_NAME).await;
        let seen = seen.unwrap_err();
        assert!(seen.contains(reason), "{reason}: {seen}");
        assert!(ended.is_err(), "{reason}");
    }
}

#[tokio::test]
async fn a_client_refuses_a_server_of_another_ca_and_expired_ones() {
    let (ca, other) = (authority(), authority());
    let client = dialing(&ca, &ca.issue(&Identity::client("alice").unwrap(), now()).unwrap());
    for server in [node(&other, A, now()), node(&ca, A, Validity::seconds(-7200, -3600))] {
        let (seen, ended) = handshake(&server, client.clone(), NODE_SERVER_NAME).await;
        assert!(seen.is_err() && ended.is_err());
    }
}

#[tokio::test]
async fn the_certificate_of_node_b_does_not_pass_for_node_a() {
    let ca = authority();
    let client = dialing(&ca, &ca.issue(&Identity::Node(A), now()).unwrap());
    let (seen, ended) = handshake(&node(&ca, B, now()), client, &node_server_name(A)).await;
    assert!(seen.is_err());
    assert!(ended.unwrap_err().to_string().contains("not valid for name"));
    let as_b = ca.issue(&Identity::Node(B), now()).unwrap();
    let error = credentials(&ca, &as_b, &Identity::Node(A)).err().unwrap().to_string();
    assert!(
        error.contains(&format!("is the certificate of node {B}, but this is node {A}")),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_certificate_does_not_serve() {
    let ca = authority();
    let alice = Identity::client("alice").unwrap();
    let issued = ca.issue(&alice, now()).unwrap();
    assert!(credentials(&ca, &issued, &Identity::Node(A)).is_err());
    let server = credentials(&ca, &issued, &alice).unwrap();
    let (_, ended) = handshake(&server, dialing(&ca, &issued), "alice.client.quorate").await;
    assert!(ended.is_err(), "its certificate is not for servers");
}

#[test]
fn early_data_tickets_and_resumption_are_off() {
    let ca = authority();
    let config = node(&ca, A, now()).server().unwrap();
    assert_eq!(config.max_early_data_size, 0);
    assert_eq!(config.send_tls13_tickets, 0);
    assert!(!config.session_storage.can_cache());
    assert_eq!(config.alpn_protocols, [ALPN]);
}

#[tokio::test]
async fn a_second_connection_cannot_send_early_data() {
    let ca = authority();
    let server = listen(&node(&ca, A, now()));
    let address = server.local_addr().unwrap();
    let mut tls = dialing(&ca, &ca.issue(&Identity::client("alice").unwrap(), now()).unwrap());
    // A client that would like to.
    tls.enable_early_data = true;
    tls.resumption = rustls::client::Resumption::in_memory_sessions(16);
    let config = client_config(tls, MTU_DEFAULT).unwrap();
    let dialer = endpoint(loopback(), None).unwrap();
    let accepting = tokio::spawn(async move {
        for _ in 0..2 {
            let connection = server.accept().await.unwrap().await.unwrap();
            connection.open_uni().await.unwrap().write_all(b"hello").await.unwrap();
            connection.closed().await;
        }
    });
    for _ in 0..2 {
        let connecting = dialer.connect_with(config.clone(), address, NODE_SERVER_NAME).unwrap();
        let connecting = connecting
            .into_0rtt()
            .map(|_| ())
            .expect_err("there is nothing to resume");
        let connection = connecting.await.unwrap();
        connection.accept_uni().await.unwrap();
        connection.close(0u8.into(), b"");
    }
    accepting.await.unwrap();
}
