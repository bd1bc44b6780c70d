//! The node's UDP socket and its QUIC endpoint: one for listening and dialing, so that peers know each other's address.

use super::block::{BlockList, BlockableSocket};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime};
use quorate_client::quic;
use rand::RngCore;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Largest UDP payload that is received: as much as the protocol has.
const UDP_PAYLOAD_MAX: u16 = 65_527;

/// Opens the endpoint. `reset_secret` must be the same at every start of this node; `blocked` only for `quorate dev`.
pub(crate) fn open(
    address: SocketAddr,
    server: ServerConfig,
    reset_secret: [u8; 32],
    blocked: Option<BlockList>,
) -> io::Result<Endpoint> {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(reset_secret)));
    config.cid_generator(|| Box::new(RandomIds));
    config.max_udp_payload_size(UDP_PAYLOAD_MAX).map_err(io::Error::other)?;
    let socket = quic::udp_socket(address)?;
    let runtime = Arc::new(TokioRuntime);
    match blocked {
        None => Endpoint::new(config, Some(server), socket, runtime),
        Some(blocked) => {
            let inner = runtime.wrap_udp_socket(socket)?;
            let socket = Arc::new(BlockableSocket { inner, blocked });
            Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)
        }
    }
}

/// Bytes of a connection id.
const ID_BYTES: usize = 8;

/// Connection ids that any process of this node takes for its own. quinn's usual ones carry a mark that is drawn anew at each start, and
/// packets with another mark are dropped in silence: then a node that was killed and started again would never send a reset.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        rand::rng().fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Signs stateless resets. With a key that outlives the process, a peer whose packets reach a node that was killed and started
/// again learns at once that its connection is gone, and need not wait for the idle timeout (RFC 9000, section 10.3).
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        // `blake3::Hash` compares in constant time.
        match <[u8; blake3::OUT_LEN]>::try_from(signature) {
            Ok(signature) if expected == signature => Ok(()),
            _ => Err(CryptoError),
        }
    }
}
