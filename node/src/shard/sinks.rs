//! Where the frames of a connection go: a peer's to the engine as messages, a client's as requests.

use super::Shard;
use crate::transport::{BULK_IN_FLIGHT_MAX, Outbox, Sink};
use bytes::BytesMut;
use quorate_core::engine::Input;
use quorate_core::message::{Message, PEER_FRAME_BYTES_MAX};
use quorate_ring::NodeIndex;
use std::rc::Rc;
use std::time::Duration;

/// After so many requests of one burst a look is taken at how far their sender is behind with reading.
const REQUESTS_PER_LOOK: u32 = 32;

/// Takes in what one connection to a peer brings.
pub(crate) struct PeerSink {
    shard: Rc<Shard>,
    pub(super) node: NodeIndex,
    pub(super) generation: u64,
}

impl PeerSink {
    pub(super) fn new(shard: Rc<Shard>, node: NodeIndex, generation: u64) -> PeerSink {
        PeerSink {
            shard,
            node,
            generation,
        }
    }
}

impl Sink for PeerSink {
    /// One more than there are chunks of bulk under way, so that a large frame gets past them.
    const STREAMS: usize = BULK_IN_FLIGHT_MAX + 1;
    /// Bulk waits for everything else, and that may be long on a connection that has all it can carry. One that is dead ends by itself.
    const STREAM_PATIENCE: Duration = Duration::from_secs(600);

    fn frames(&self, buffer: &mut BytesMut) -> Result<(), String> {
        self.shard.turn(|inner| {
            if inner.peers[usize::from(self.node.0)].generation != self.generation {
                return Err("replaced by a newer connection".into());
            }
            loop {
                match Message::decode(buffer, PEER_FRAME_BYTES_MAX) {
                    Ok(Some(Message::Peer(message))) => {
                        inner.engine.handle(
                            inner.now(),
                            Input::Message {
                                from: self.node,
                                message,
                            },
                        );
                    }
                    Ok(Some(_)) => return Err("a node sent a message that only clients send".into()),
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(error.to_string()),
                }
            }
        })
    }
}

/// Takes in what one client's connection brings.
pub(crate) struct ClientSink {
    shard: Rc<Shard>,
    outbox: Rc<Outbox>,
    frame_max: usize,
}

impl ClientSink {
    pub(super) fn new(shard: Rc<Shard>, outbox: Rc<Outbox>, frame_max: usize) -> ClientSink {
        ClientSink {
            shard,
            outbox,
            frame_max,
        }
    }
}

impl Sink for ClientSink {
    const STREAMS: usize = 1;
    const STREAM_PATIENCE: Duration = Duration::from_secs(30);

    fn frames(&self, buffer: &mut BytesMut) -> Result<(), String> {
        self.shard.turn(|inner| {
            for count in 1_u32.. {
                match Message::decode(buffer, self.frame_max) {
                    Ok(Some(Message::Request(request))) => inner.client_request(&self.outbox, request),
                    Ok(Some(Message::Query(query))) => inner.query(&self.outbox, query),
                    Ok(Some(_)) => return Err("a client sent a message that only nodes send".into()),
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(error.to_string()),
                }
                // A few bytes of requests can ask for a thousand times as many of replies; they are not made for one who does not read.
                if count.is_multiple_of(REQUESTS_PER_LOOK) {
                    inner.carry_out();
                    if self.outbox.is_full() {
                        return Err("the client does not read its replies".into());
                    }
                }
            }
            Ok(())
        })
    }
}
