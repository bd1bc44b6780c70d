//! Frames that nobody waits for, on their way out of one connection: handoffs, exchanges, settling.
//!
//! They have a queue of their own and leave it in chunks of several whole frames, each on a unidirectional stream of the lowest
//! priority. QUIC fills each packet from the stream of the highest priority that has something to send, so a chunk gets what
//! room the frames leave that somebody waits for. That holds only for what QUIC has not sent yet, and data that it was given takes room
//! in the connection's send window, which all streams share; so no more than [`IN_FLIGHT_MAX`] chunks are given to it before the
//! first of them has arrived. The receiver takes a chunk in one turn, which is another reason to keep chunks small.
//!
//! Rejected: one long stream of low priority. A frame that the receiver is slow to take would hold up all that follow it, and its
//! flow control would have to be tuned; a chunk is acknowledged as a whole.

use bytes::{Bytes, BytesMut};
use quorate_core::message::Message;
use std::cell::RefCell;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// A chunk has at most this many bytes, unless it is one frame that is larger.
const CHUNK_BYTES: usize = 32 << 10;
/// Chunks under way at once.
pub(crate) const IN_FLIGHT_MAX: usize = 6;
/// Streams of bulk send only when no other stream has anything to send, streams of large frames included.
const PRIORITY: i32 = -2;

/// What waits, in order.
#[derive(Debug, Default)]
struct Queue {
    /// Full chunks.
    closed: VecDeque<Bytes>,
    /// The one that is being filled.
    open: BytesMut,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, message: &Message) {
        let start = self.open.len();
        message.encode(&mut self.open);
        let end = self.open.len();
        self.bytes += end - start;
        if end > CHUNK_BYTES && start > 0 {
            let frame = self.open.split_off(start);
            let chunk = std::mem::replace(&mut self.open, frame);
            self.closed.push_back(chunk.freeze());
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        let chunk = match self.closed.pop_front() {
            Some(chunk) => chunk,
            None if self.open.is_empty() => return None,
            None => self.open.split().freeze(),
        };
        self.bytes -= chunk.len();
        Some(chunk)
    }
}

/// The bulk part of an [`Outbox`](super::Outbox).
#[derive(Debug, Default)]
pub(super) struct Bulk {
    queue: RefCell<Queue>,
    wake: Notify,
}

impl Bulk {
    /// Queues a message.
    pub(super) fn push(&self, message: &Message) {
        self.queue.borrow_mut().push(message);
        self.wake.notify_one();
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.queue.borrow().bytes
    }

    /// Writes what is queued, as it comes, until the connection fails. Returns why it did.
    pub(super) async fn write(&self, connection: &quinn::Connection) -> String {
        let mut in_flight = VecDeque::new();
        loop {
            if in_flight.len() >= IN_FLIGHT_MAX
                && let Some(arrival) = in_flight.pop_front()
            {
                // An error is the connection's end, which the next write tells of too.
                if let Err(error) = arrival.await {
                    let error: quinn::StoppedError = error;
                    return error.to_string();
                }
            }
            let next = self.queue.borrow_mut().pop();
            let Some(chunk) = next else {
                self.wake.notified().await;
                continue;
            };
            match write_chunk(connection, chunk).await {
                Ok(stream) => in_flight.push_back(stream.stopped()),
                Err(error) => return error,
            }
        }
    }
}

async fn write_chunk(connection: &quinn::Connection, chunk: Bytes) -> Result<quinn::SendStream, String> {
    let mut stream = connection.open_uni().await.map_err(|error| error.to_string())?;
    stream.set_priority(PRIORITY).map_err(|error| error.to_string())?;
    stream.write_chunk(chunk).await.map_err(|error| error.to_string())?;
    stream.finish().map_err(|error| error.to_string())?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use quorate_core::key::Key;
    use quorate_core::message::{Handoff, PeerMessage};

    fn handoff(id: u64, bytes: usize) -> Message {
        Message::Peer(PeerMessage::Handoff(Handoff {
            id,
            key: Key::new(b"bucket", b"key", None).unwrap(),
            record: Bytes::from(vec![7; bytes]),
        }))
    }

    /// The numbers of the frames of each chunk, in the order in which they leave.
    fn chunks(queue: &mut Queue) -> Vec<(usize, Vec<u64>)> {
        let mut chunks = Vec::new();
        while let Some(chunk) = queue.pop() {
            let (bytes, mut buffer) = (chunk.len(), BytesMut::from(&chunk[..]));
            let mut ids = Vec::new();
            while let Some(Message::Peer(PeerMessage::Handoff(m))) = Message::decode(&mut buffer, 1 << 20).unwrap() {
                ids.push(m.id);
            }
            assert!(buffer.is_empty(), "a chunk holds whole frames");
            chunks.push((bytes, ids));
        }
        chunks
    }

    #[test]
    fn frames_leave_in_order_in_chunks_of_several_and_a_larger_one_alone() {
        let mut queue = Queue::default();
        for id in 0..100 {
            queue.push(&handoff(id, 1000));
        }
        queue.push(&handoff(100, 100_000));
        queue.push(&handoff(101, 10));
        let chunks = chunks(&mut queue);
        let ids: Vec<u64> = chunks.iter().flat_map(|(_, ids)| ids.clone()).collect();
        assert_eq!(ids, (0..102).collect::<Vec<u64>>());
        assert!(
            chunks
                .iter()
                .all(|(bytes, ids)| *bytes <= CHUNK_BYTES || ids.len() == 1)
        );
        assert_eq!(chunks.len(), 6, "four of small frames, the large one, and the last");
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn what_waits_is_counted() {
        let mut queue = Queue::default();
        for id in 0..100 {
            queue.push(&handoff(id, 1000));
        }
        let all = queue.bytes;
        assert!(all > 100_000);
        let first = queue.pop().unwrap();
        assert_eq!(queue.bytes, all - first.len());
    }
}
