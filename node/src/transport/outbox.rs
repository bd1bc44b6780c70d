//! What waits to be written to one connection.
//!
//! Frames queue up in one buffer while the data loop works through a burst; the writer task then takes the buffer as it is and
//! hands it to QUIC in one piece. So a burst costs one write, and a request costs no task. A frame above 64 KiB travels
//! alone, on a stream of its own: in the shared stream a megabyte would hold up every small answer behind it. What nobody waits
//! for goes behind both: see [`Bulk`].
//!
//! The queues are bounded. A peer or client that is so far behind is as good as gone: the connection is closed, which tells both
//! sides the truth about what was under way.

use super::bulk::Bulk;
use bytes::{Bytes, BytesMut};
use quorate_client::quic::SHARED_FRAME_BYTES;
use quorate_core::message::Message;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use tokio::sync::Notify;

/// Bytes that may wait for one connection.
const OUTBOX_BYTES_MAX: usize = 64 << 20;
/// Bytes of bulk that may wait beside these. Peers ask for no more than they have announced to take, so this is not met in practice.
const BULK_BYTES_MAX: usize = 128 << 20;
/// Room to start with, and what is kept between bursts.
const BUFFER_BYTES: usize = 64 << 10;
/// Streams of large frames send only when the shared stream has nothing to send.
const LARGE_PRIORITY: i32 = -1;

/// Frames on their way out of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    shared: RefCell<BytesMut>,
    wake_shared: Notify,
    large: RefCell<VecDeque<Bytes>>,
    large_bytes: Cell<usize>,
    wake_large: Notify,
    bulk: Bulk,
    overflow: Notify,
}

impl Outbox {
    pub(crate) fn new() -> Rc<Outbox> {
        Rc::new(Outbox {
            shared: RefCell::new(BytesMut::with_capacity(BUFFER_BYTES)),
            wake_shared: Notify::new(),
            large: RefCell::default(),
            large_bytes: Cell::new(0),
            wake_large: Notify::new(),
            bulk: Bulk::default(),
            overflow: Notify::new(),
        })
    }

    /// Queues a message. Never blocks; if the bound is passed, the connection will be closed, and what comes after goes nowhere.
    pub(crate) fn push(&self, message: &Message) {
        if self.is_full() {
            return self.overflow.notify_one();
        }
        if matches!(message, Message::Peer(message) if message.is_bulk()) {
            return self.bulk.push(message);
        }
        let mut shared = self.shared.borrow_mut();
        let (start, was_empty) = (shared.len(), shared.is_empty());
        message.encode(&mut shared);
        if shared.len() - start > SHARED_FRAME_BYTES {
            let frame = Bytes::copy_from_slice(&shared[start..]);
            shared.truncate(start);
            self.large_bytes.set(self.large_bytes.get() + frame.len());
            self.large.borrow_mut().push_back(frame);
            self.wake_large.notify_one();
        } else if was_empty {
            self.wake_shared.notify_one();
        }
    }

    /// Whether more is queued than the bound allows, so that nothing more should be made for this connection.
    pub(crate) fn is_full(&self) -> bool {
        self.shared.borrow().len() + self.large_bytes.get() > OUTBOX_BYTES_MAX || self.bulk.bytes() > BULK_BYTES_MAX
    }

    /// Writes what is queued, as it comes, until the connection fails or the outbox overflows. Returns why it ended.
    pub(crate) async fn write(&self, connection: &quinn::Connection, stream: quinn::SendStream) -> String {
        tokio::select! {
            error = self.write_shared(stream) => error,
            error = self.write_large(connection) => error,
            error = self.bulk.write(connection) => error,
            () = self.overflow.notified() => format!("more than {OUTBOX_BYTES_MAX} bytes, or {BULK_BYTES_MAX} of bulk, were waiting for it"),
        }
    }

    async fn write_shared(&self, mut stream: quinn::SendStream) -> String {
        loop {
            let chunk = self.shared.borrow_mut().split().freeze();
            if chunk.is_empty() {
                self.wake_shared.notified().await;
            } else if let Err(error) = stream.write_chunk(chunk).await {
                return error.to_string();
            }
        }
    }

    /// One large frame after the other, beside the shared stream: a receiver that is slow to take one holds up no small frame.
    async fn write_large(&self, connection: &quinn::Connection) -> String {
        loop {
            let next = self.large.borrow_mut().pop_front();
            let Some(frame) = next else {
                self.wake_large.notified().await;
                continue;
            };
            let bytes = frame.len();
            if let Err(error) = write_alone(connection, frame).await {
                return error;
            }
            self.large_bytes.set(self.large_bytes.get() - bytes);
        }
    }
}

/// Writes a frame to a stream of its own, which yields to the shared one.
async fn write_alone(connection: &quinn::Connection, frame: Bytes) -> Result<(), String> {
    let mut stream = connection.open_uni().await.map_err(|error| error.to_string())?;
    stream.set_priority(LARGE_PRIORITY).map_err(|error| error.to_string())?;
    stream.write_chunk(frame).await.map_err(|error| error.to_string())?;
    stream.finish().map_err(|error| error.to_string())
}
