//! Cutting this node off from others, for `quorate dev`: datagrams to and from blocked addresses vanish.
//!
//! That is what a partition looks like from inside: nothing is refused, nothing answers. It is done below QUIC, on the socket, so all that
//! stands above it (keep-alives, timeouts, reconnects) is the real thing. Only a node that was started by `quorate dev` has it.

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

/// The addresses that are cut off.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockList(Arc<RwLock<BTreeSet<SocketAddr>>>);

impl BlockList {
    /// Cuts off exactly these addresses.
    pub(crate) fn set(&self, addresses: BTreeSet<SocketAddr>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn contains(&self, address: &SocketAddr) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(address)
    }
}

/// A socket that loses what goes to and comes from blocked addresses.
#[derive(Debug)]
pub(crate) struct BlockableSocket {
    pub(crate) inner: Arc<dyn AsyncUdpSocket>,
    pub(crate) blocked: BlockList,
}

impl AsyncUdpSocket for BlockableSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.blocked.contains(&transmit.destination) {
            Ok(())
        } else {
            self.inner.try_send(transmit)
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = polled {
            for received in meta.iter_mut().take(count).filter(|m| self.blocked.contains(&m.addr)) {
                // An empty datagram is what quinn skips; taking it out would mean moving the buffers behind it.
                received.len = 0;
            }
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
