//! Somebody on the other end of QUIC who need not keep any rule: valid or invalid certificates, any hello, any bytes.

use bytes::BytesMut;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use quorate_client::quic;
use quorate_client::tls::{ALPN, ClientTls, provider, roots};
use quorate_core::message::{
    Greeting, Hello, Message, PEER_FRAME_BYTES_MAX, PeerMessage, PeerRole, WIRE_VERSION, Welcome,
};
use quorate_ring::{NodeId, Ring};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long the node may take to answer or to close.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection with its shared stream, before or after the welcome.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    receive: RecvStream,
    buffer: BytesMut,
    _endpoint: Endpoint,
}

/// How the node closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// By itself, with this code.
    Code(u64),
    /// Below it, because the handshake failed.
    ByTls,
    /// It does not know the connection any more.
    Forgotten,
}

/// TLS with a certificate from files.
pub(crate) fn tls(ca: &Path, stem: &Path) -> rustls::ClientConfig {
    let files = ClientTls::from_files(ca, &stem.with_extension("pem"), &stem.with_extension("key")).unwrap();
    files.rustls_config().unwrap()
}

/// TLS without a certificate of our own.
pub(crate) fn tls_without_certificate(ca: &Path) -> rustls::ClientConfig {
    let roots = roots(&std::fs::read(ca).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// A hello as a node sends it; `digest` stands for all that nodes must agree on.
pub(crate) fn node_hello(id: NodeId, ring: &Ring, digest: u64) -> Hello {
    Hello {
        cluster: "dev".into(),
        role: PeerRole::Node(id),
        versions: (WIRE_VERSION, WIRE_VERSION),
        ring: (ring.version(), digest),
    }
}

/// A hello as a client sends it.
pub(crate) fn client_hello() -> Hello {
    Hello {
        cluster: "dev".into(),
        role: PeerRole::Client,
        versions: (WIRE_VERSION, WIRE_VERSION),
        ring: (quorate_ring::RingVersion(0), 0),
    }
}

/// A whole frame with a right checksum, whatever is in it.
pub(crate) fn frame(version: u8, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut checked = vec![version, kind];
    checked.extend(payload);
    let mut frame = (6 + payload.len() as u32).to_le_bytes().to_vec();
    frame.extend([version, kind]);
    frame.extend(crc32(&checked).to_le_bytes());
    frame.extend(payload);
    frame
}

/// CRC-32 as in Ethernet and zip, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0xedb8_8320
        } else {
            crc >> 1
        }
    };
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// A message as a frame.
pub(crate) fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    bytes.to_vec()
}

impl Peer {
    /// Dials, and opens the shared stream. With TLS 1.3 a node that refuses our certificate shows it only afterwards.
    pub(crate) async fn dial(to: SocketAddr, tls: rustls::ClientConfig, server_name: &str) -> Result<Peer, String> {
        let endpoint = quic::endpoint((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap();
        let config = quic::client_config(tls, quic::MTU_DEFAULT).unwrap();
        let connecting = endpoint.connect_with(config, to, server_name).unwrap();
        let connection = timeout(PATIENCE, connecting)
            .await
            .expect("an answer in time")
            .map_err(|error| error.to_string())?;
        let (send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        Ok(Peer {
            connection,
            send,
            receive,
            buffer: BytesMut::new(),
            _endpoint: endpoint,
        })
    }

    /// Sends bytes. That the node has closed shows later, in [`closed`](Peer::closed).
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.send.write_all(bytes))
            .await
            .expect("room in time");
    }

    /// Sends bytes alone on a stream of their own.
    pub(crate) async fn write_alone(&self, bytes: &[u8]) {
        let mut stream = self.connection.open_uni().await.unwrap();
        let _ = stream.write_all(bytes).await;
        let _ = stream.finish();
    }

    /// The next message, or why there is none.
    pub(crate) async fn next(&mut self) -> Result<Message, String> {
        loop {
            if let Some(message) =
                Message::decode(&mut self.buffer, PEER_FRAME_BYTES_MAX).map_err(|error| error.to_string())?
            {
                return Ok(message);
            }
            match timeout(PATIENCE, self.receive.read_chunk(64 << 10, true))
                .await
                .expect("an answer in time")
            {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err("the stream ended".into()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Says hello, and gives the answer.
    pub(crate) async fn greet(&mut self, hello: Hello) -> Result<Welcome, String> {
        self.write(&encoded(&Message::Hello(hello))).await;
        match self.next().await? {
            Message::Welcome(welcome) => Ok(welcome),
            other => Err(format!("{other:?} is no welcome")),
        }
    }

    /// The first message that this takes for an answer, whatever else the node says before it. All of that within the usual patience: a node
    /// says something all the time.
    pub(crate) async fn until<T>(&mut self, mut is_it: impl FnMut(Message) -> Option<T>) -> T {
        let answer = async {
            loop {
                if let Some(answer) = is_it(self.next().await.unwrap()) {
                    return answer;
                }
            }
        };
        timeout(PATIENCE, answer).await.expect("the answer in time")
    }

    /// The next greeting that is like this.
    pub(crate) async fn greeting(&mut self, is_right: impl Fn(&Greeting) -> bool) -> Greeting {
        self.until(|message| match message {
            Message::Peer(PeerMessage::Greeting(greeting)) => is_right(&greeting).then_some(greeting),
            _ => None,
        })
        .await
    }

    /// Waits until the node has closed the connection, and says how.
    pub(crate) async fn closed(&self) -> Closed {
        let error = timeout(PATIENCE, self.connection.closed())
            .await
            .expect("closed in time");
        match error {
            ConnectionError::ApplicationClosed(close) => Closed::Code(close.error_code.into_inner()),
            ConnectionError::ConnectionClosed(_) => Closed::ByTls,
            ConnectionError::Reset => Closed::Forgotten,
            other => panic!("the node did not close the connection: {other}"),
        }
    }
}
