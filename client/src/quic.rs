//! QUIC as every connection of a cluster wants it, dialed or accepted: every limit set, tuned for a local network.
//!
//! quinn's defaults are made for the internet: they allow some hundred megabytes of buffers for each connection, never
//! send a keep-alive, and acknowledge every second packet. What is here is bounded, notices a silent peer in five
//! seconds, and asks the peer to acknowledge every 25 packets at most 5 ms late, which halves the number of datagrams
//! of a busy connection. Segmentation offload stays on: without it, an exchange costs three times as much.
//!
//! The datagram size is a parameter. Up to 1,452 bytes fit every Ethernet; where all links carry jumbo frames, larger
//! ones are cheaper. The most is [`MTU_MAX`], because ten of them are handed to the kernel at once and together must
//! fit 65,535 bytes.

use quinn::{AckFrequencyConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// A connection on which nothing was heard for so long is dead.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an otherwise quiet connection says that it is alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A handshake, hello and welcome included, takes no longer than this.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Frames above this many bytes travel alone on a unidirectional stream, so they never hold up the shared one.
pub const SHARED_FRAME_BYTES: usize = 64 << 10;
/// Datagram size unless configured: fits every Ethernet, IPv6 and tunnels' headers included.
pub const MTU_DEFAULT: u16 = 1452;
/// Largest datagram size. quinn hands ten datagrams to the kernel at once, and above 65,535 bytes the kernel drops them
/// all.
pub const MTU_MAX: u16 = 6400;

const BIDIRECTIONAL_STREAMS: u32 = 4;
const UNIDIRECTIONAL_STREAMS: u32 = 256;
const STREAM_WINDOW: u32 = 8 << 20;
const RECEIVE_WINDOW: u32 = 32 << 20;
const SEND_WINDOW: u64 = 32 << 20;
const SOCKET_BUFFER: usize = 4 << 20;
const ACK_THRESHOLD: u32 = 25;
const ACK_DELAY: Duration = Duration::from_millis(5);
const INITIAL_RTT: Duration = Duration::from_millis(5);
/// Protocol minimum: what every path carries.
const MTU_MIN: u16 = 1200;

/// Limits and timing of one connection, for datagrams of `mtu` bytes (clamped to 1,200 ..= [`MTU_MAX`]).
pub fn transport_config(mtu: u16) -> TransportConfig {
    let mtu = mtu.clamp(MTU_MIN, MTU_MAX);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(ACK_THRESHOLD.into())
        .max_ack_delay(Some(ACK_DELAY));
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(
            IdleTimeout::try_from(IDLE_TIMEOUT).expect("five seconds fit a varint of milliseconds"),
        ))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDIRECTIONAL_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(UNIDIRECTIONAL_STREAMS))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(RECEIVE_WINDOW.into())
        .send_window(SEND_WINDOW)
        .initial_mtu(mtu)
        .mtu_discovery_config(Some(discovery))
        .ack_frequency_config(Some(acks))
        .initial_rtt(INITIAL_RTT)
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(true);
    config
}

/// A UDP socket with buffers that hold a burst: 4 MiB each way, or what the system allows.
pub fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel cuts these to its own limit without an error; an error means that it wants the default.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A QUIC endpoint on `address`. With a server configuration it accepts connections too. Needs a running tokio runtime.
pub fn endpoint(address: SocketAddr, server: Option<quinn::ServerConfig>) -> io::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(65_527).map_err(io::Error::other)?;
    Endpoint::new(config, server, udp_socket(address)?, Arc::new(quinn::TokioRuntime))
}

/// How to dial: the given TLS, and [`transport_config`].
pub fn client_config(tls: rustls::ClientConfig, mtu: u16) -> Result<quinn::ClientConfig, rustls::Error> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls)
        .map_err(|_| rustls::Error::General("QUIC needs the cipher suite TLS13_AES_128_GCM_SHA256".to_owned()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport_config(mtu)));
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ten_of_the_largest_datagrams_fit_one_call_to_the_kernel() {
        assert!(usize::from(MTU_MAX) * 10 < 65_535);
    }

    #[test]
    fn every_limit_is_ours() {
        let config = format!("{:?}", transport_config(MTU_DEFAULT));
        for part in [
            "max_concurrent_bidi_streams: 4",
            "max_concurrent_uni_streams: 256",
            "max_idle_timeout: Some(5000)",
            "stream_receive_window: 8388608",
            "receive_window: 33554432",
            "send_window: 33554432",
            "initial_mtu: 1452",
            "keep_alive_interval: Some(1s)",
            "datagram_receive_buffer_size: None",
            "enable_segmentation_offload: true",
        ] {
            assert!(config.contains(part), "{part} in {config}");
        }
    }

    #[test]
    fn a_datagram_size_out_of_bounds_is_clamped() {
        assert!(format!("{:?}", transport_config(65_000)).contains("initial_mtu: 6400"));
        assert!(format!("{:?}", transport_config(1)).contains("initial_mtu: 1200"));
    }

    #[test]
    fn a_socket_is_bound_where_it_was_asked() {
        let socket = udp_socket("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(socket.local_addr().unwrap().ip().is_loopback());
    }
}
