//! Peers and clients that break the rules of the wire, some with valid certificates. Each costs at most its own connection.

mod clients;
mod frames;
mod identity;

use crate::support::dev::NODES;
use crate::support::http::{get, put};
use crate::support::peer::{Closed, Peer, client_hello, encoded, node_hello, tls};
use crate::support::{Dev, Home, runtime};
use quorate_client::tls::{NODE_SERVER_NAME, node_server_name};
use quorate_client::{Key, Ring};
use quorate_core::message::{Greeting, Hello, Message, PeerMessage, Welcome};
use quorate_ring::NodeId;
use std::path::PathBuf;

/// The code of a connection that was closed for what came on it.
const PROTOCOL: Closed = Closed::Code(2);
/// The code of a connection that was refused for its hello or certificate.
const REFUSED: Closed = Closed::Code(1);
/// The code of a connection that did not take what was sent.
const TOO_SLOW: Closed = Closed::Code(3);

/// A cluster in which we take the place of one node. Of two nodes the one with the smaller id dials, so that is who we are.
struct Scene<'h> {
    home: &'h Home,
    dev: Dev<'h>,
    ring: Ring,
    /// What all nodes agree on.
    digest: u64,
    /// Whose place we take: the smallest id. It is down.
    me: usize,
    /// Whom we call: the largest id.
    victim: usize,
}

impl<'h> Scene<'h> {
    fn new(home: &'h Home) -> Scene<'h> {
        let mut dev = home.dev();
        let ring = runtime().block_on(async { dev.client().await.ring() });
        let mut nodes = NODES;
        nodes.sort_by_key(|node| id(&ring, *node));
        let [me, _, victim] = nodes;
        put(dev.http(1), "/v1/kv/scene/key", "safe").send().expect(204);
        dev.tell(&format!("kill {me}"), &format!("n{me} killed"));
        let mut scene = Scene {
            home,
            dev,
            ring,
            digest: 0,
            me,
            victim,
        };
        scene.digest = runtime().block_on(scene.agreed_digest());
        scene
    }

    /// A node tells the digest that it wants to whoever comes with another one and a right certificate.
    async fn agreed_digest(&self) -> u64 {
        let mut peer = self.dial(self.my_tls()).await;
        let Ok(Welcome::Refused { reason }) = peer.greet(self.hello()).await else {
            panic!("a wrong digest was accepted")
        };
        let before = reason.split(" here").next().unwrap();
        u64::from_str_radix(before.rsplit(' ').next().unwrap(), 16).unwrap_or_else(|_| panic!("no digest in: {reason}"))
    }

    /// The hello of the node whose place we take.
    fn hello(&self) -> Hello {
        node_hello(id(&self.ring, self.me), &self.ring, self.digest)
    }

    fn ca(&self) -> PathBuf {
        self.home.dir().join("ca.pem")
    }

    fn my_tls(&self) -> rustls::ClientConfig {
        tls(&self.ca(), &self.home.file(self.me, "node"))
    }

    fn client_tls(&self) -> rustls::ClientConfig {
        tls(&self.ca(), &self.home.dir().join("client"))
    }

    /// A connection to the victim with TLS of this kind, before the hello.
    async fn dial(&self, tls: rustls::ClientConfig) -> Peer {
        let name = node_server_name(id(&self.ring, self.victim));
        Peer::dial(self.dev.quic(self.victim), tls, &name).await.unwrap()
    }

    /// A connection on which the victim takes us for the node whose place we take: it has let us in.
    async fn peer(&self) -> Peer {
        let mut peer = self.dial(self.my_tls()).await;
        let welcome = peer.greet(self.hello()).await.unwrap();
        assert!(matches!(welcome, Welcome::Accepted { .. }), "{welcome:?}");
        // We say that we are the very process that it met last.
        let met = peer.greeting(|_| true).await;
        let greeting = Greeting {
            me: met.remembers.expect("the node was up before"),
            remembers: Some(met.me),
            accepts: true,
            rebuilding: false,
            asks: true,
        };
        peer.write(&peer_frame(PeerMessage::Greeting(greeting))).await;
        peer.greeting(|greeting| greeting.accepts).await;
        peer
    }

    /// A connection as a client.
    async fn client(&self) -> Peer {
        let mut peer = Peer::dial(self.dev.quic(self.victim), self.client_tls(), NODE_SERVER_NAME)
            .await
            .unwrap();
        assert!(matches!(peer.greet(client_hello()).await, Ok(Welcome::Accepted { .. })));
        peer
    }

    /// Node and cluster do as if nothing had happened. Then everything is stopped.
    fn assert_unharmed(mut self) {
        assert_eq!(
            get(self.dev.http(self.victim), "/v1/kv/scene/key")
                .send()
                .expect(200)
                .text(),
            "safe"
        );
        let written = put(self.dev.http(self.victim), "/v1/kv/scene/after", "x")
            .send()
            .expect(204);
        assert!(written.context().is_some());
        self.home.assert_no_panic();
        self.dev.tell(&format!("start {}", self.me), "started");
        self.dev.wait_until_whole();
        for node in NODES {
            assert_eq!(
                get(self.dev.http(node), "/v1/kv/scene/key?r=3")
                    .send()
                    .expect(200)
                    .text(),
                "safe"
            );
        }
        self.dev.stop();
    }
}

fn id(ring: &Ring, node: usize) -> NodeId {
    let name = format!("n{node}");
    ring.members().iter().find(|member| member.name == name).unwrap().id
}

fn key() -> Key {
    Key::new(b"scene", b"key", None).unwrap()
}

fn peer_frame(message: PeerMessage) -> Vec<u8> {
    encoded(&Message::Peer(message))
}
