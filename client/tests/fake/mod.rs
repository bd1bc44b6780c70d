//! A cluster of stand-ins for nodes: real QUIC and TLS on loopback, and a test that decides what each of them answers.
//!
//! Every request that arrives at any of them comes out of [`Cluster::next`], with the means to answer it. So a test is
//! a plain conversation, in order, without timing: what is not answered is simply never answered.

use bytes::BytesMut;
use quinn::{Connection, Endpoint, SendStream, VarInt};
use quorate_client::tls::{self, ClientTls};
use quorate_client::{ClientConfig, Member, NodeId, Operation, Ring, RingVersion, quic};
use quorate_core::message::{Message, Request, RequestReply, Welcome};
use quorate_core::request::Response;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::sync::{Mutex, mpsc};

const FRAME_MAX: usize = 64 << 20;

/// A certificate authority of its own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Certificate and key, as PEM.
    fn issue(&self, names: Vec<String>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn client(&self) -> ClientTls {
        let (certificate, key) = self.issue(vec!["test.client.quorate".to_owned()]);
        ClientTls::from_pem(&self.pem, certificate, key)
    }

    fn server(&self, id: NodeId) -> quinn::ServerConfig {
        let (certificate, key) = self.issue(vec![tls::node_server_name(id), tls::NODE_SERVER_NAME.to_owned()]);
        let roots = Arc::new(tls::roots(self.pem.as_bytes()).unwrap());
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, tls::provider());
        let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(
                tls::certificates("certificate", certificate.as_bytes()).unwrap(),
                tls::private_key(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![tls::ALPN.to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(Arc::new(quic::transport_config(quic::MTU_DEFAULT)));
        config
    }
}

/// A request that reached one of the nodes.
pub(crate) struct Arrival {
    /// Which node, as an index into the ring's members.
    pub(crate) node: usize,
    pub(crate) request: Request,
    /// Whether it came on a stream of its own.
    pub(crate) bulk: bool,
    connection: Connection,
    shared: Arc<Mutex<SendStream>>,
}

impl Arrival {
    pub(crate) async fn answer(&self, response: Response) {
        let mut frame = BytesMut::new();
        Message::RequestReply(RequestReply {
            id: self.request.id,
            response,
        })
        .encode(&mut frame);
        if frame.len() > quic::SHARED_FRAME_BYTES {
            let mut stream = self.connection.open_uni().await.unwrap();
            stream.write_all(&frame).await.unwrap();
            stream.finish().unwrap();
        } else {
            self.send(&frame).await;
        }
    }

    pub(crate) async fn send(&self, bytes: &[u8]) {
        self.shared.lock().await.write_all(bytes).await.unwrap();
    }

    pub(crate) fn cut_connection(&self) {
        self.connection.close(VarInt::from_u32(9), b"cut by the test");
    }

    pub(crate) fn retry(&self) -> bool {
        match self.request.operation {
            Operation::Put { retry, .. } | Operation::Delete { retry, .. } => retry,
            Operation::Get { .. } => false,
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) ring: Ring,
    pub(crate) endpoints: Vec<String>,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    closed: mpsc::UnboundedReceiver<quinn::ConnectionError>,
    _endpoints: Vec<Endpoint>,
}

impl Cluster {
    pub(crate) fn start(nodes: u8, authority: &Authority) -> Cluster {
        let ids: Vec<NodeId> = (1..=nodes).map(|n| NodeId([n; 16])).collect();
        let listening: Vec<Endpoint> = ids
            .iter()
            .map(|id| quic::endpoint("127.0.0.1:0".parse().unwrap(), Some(authority.server(*id))).unwrap())
            .collect();
        let endpoints: Vec<String> = listening.iter().map(|e| e.local_addr().unwrap().to_string()).collect();
        let member = |(id, address): (&NodeId, &String)| Member {
            id: *id,
            name: format!("n{}", id.0[0]),
            zone: "z".to_owned(),
            weight: 1,
            quic: address.clone(),
            http: String::new(),
        };
        let ring = Ring::new(RingVersion(1), 4, ids.iter().zip(&endpoints).map(member).collect()).unwrap();
        let ((arrived, arrivals), (close, closed)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        for (node, endpoint) in listening.iter().enumerate() {
            let serving = Serving {
                node,
                id: ids[node],
                ring: ring.clone(),
                arrived: arrived.clone(),
                close: close.clone(),
            };
            tokio::spawn(listen(endpoint.clone(), serving));
        }
        Cluster {
            ring,
            endpoints,
            arrivals,
            closed,
            _endpoints: listening,
        }
    }

    pub(crate) fn config(&self, authority: &Authority) -> ClientConfig {
        ClientConfig::new(self.endpoints.clone(), authority.client())
    }

    /// The next request that reaches any node.
    pub(crate) async fn next(&mut self) -> Arrival {
        self.arrivals.recv().await.unwrap()
    }

    /// The next end of a connection, as a node sees it.
    pub(crate) async fn next_close(&mut self) -> quinn::ConnectionError {
        self.closed.recv().await.unwrap()
    }
}

#[derive(Clone)]
struct Serving {
    node: usize,
    id: NodeId,
    ring: Ring,
    arrived: mpsc::UnboundedSender<Arrival>,
    close: mpsc::UnboundedSender<quinn::ConnectionError>,
}

async fn listen(endpoint: Endpoint, serving: Serving) {
    while let Some(incoming) = endpoint.accept().await {
        let serving = serving.clone();
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                tokio::spawn(serve(connection.clone(), serving.clone()));
                let _ = serving.close.send(connection.closed().await);
            }
        });
    }
}

async fn serve(connection: Connection, serving: Serving) -> Option<()> {
    let (mut send, mut receive) = connection.accept_bi().await.ok()?;
    let mut buffer = BytesMut::new();
    let Message::Hello(_) = frame(&mut receive, &mut buffer).await? else {
        return None;
    };
    let mut welcome = BytesMut::new();
    let accepted = Welcome::Accepted {
        cluster: "test".to_owned(),
        node: serving.id,
        ring: serving.ring.clone(),
    };
    Message::Welcome(accepted).encode(&mut welcome);
    send.write_all(&welcome).await.ok()?;
    let shared = Arc::new(Mutex::new(send));
    tokio::spawn(serve_bulk(connection.clone(), serving.clone(), shared.clone()));
    while let Some(message) = frame(&mut receive, &mut buffer).await {
        serving.pass(message, false, &connection, &shared);
    }
    Some(())
}

async fn serve_bulk(connection: Connection, serving: Serving, shared: Arc<Mutex<SendStream>>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let mut bytes = BytesMut::from(&stream.read_to_end(FRAME_MAX).await.unwrap()[..]);
        let message = Message::decode(&mut bytes, FRAME_MAX).unwrap().unwrap();
        serving.pass(message, true, &connection, &shared);
    }
}

impl Serving {
    fn pass(&self, message: Message, bulk: bool, connection: &Connection, shared: &Arc<Mutex<SendStream>>) {
        if let Message::Request(request) = message {
            let (connection, shared) = (connection.clone(), shared.clone());
            let _ = self.arrived.send(Arrival {
                node: self.node,
                request,
                bulk,
                connection,
                shared,
            });
        }
    }
}

async fn frame(receive: &mut quinn::RecvStream, buffer: &mut BytesMut) -> Option<Message> {
    loop {
        if let Some(message) = Message::decode(buffer, FRAME_MAX).unwrap() {
            return Some(message);
        }
        if receive.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
