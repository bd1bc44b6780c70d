//! The frame that carries a [`Message`].
//!
//! A frame is self-contained: length, version and type first, so that a receiver can skip what it does not know; a CRC over
//! the rest, so that a damaged frame is never taken for another.
//!
//! ```text
//! length u32 le (of what follows the length: 6 + payload) ‖ version u8 ‖ type u8 ‖ crc32 u32 le (version ‖ type ‖ payload) ‖ payload
//! ```
//!
//! Payloads are postcard. The length is checked against a limit before anything is allocated.

use super::{Message, PeerMessage};
use bytes::{Buf, BufMut, BytesMut};
use serde::{Deserialize, Serialize};

/// The wire version that this build speaks.
pub const WIRE_VERSION: u8 = 2;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 10;
/// Largest frame between nodes: a record that several coordinators filled to the limit at once still fits.
pub const PEER_FRAME_BYTES_MAX: usize = 64 << 20;
/// Largest encoded record that is sent: a frame's worth, but for its key and the fields beside it. A larger one is not sent, since
/// the receiver would close the connection over it.
pub const RECORD_BYTES_MAX: usize = PEER_FRAME_BYTES_MAX - (64 << 10);

/// Why bytes are no frame. The connection cannot be resynchronised and is closed; every request on it has an unknown outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is over the limit or too small for a header.
    #[error("a frame of {length} bytes is outside the limits of {HEADER_BYTES} to {max}")]
    Length {
        /// What the frame said.
        length: usize,
        /// The most that is taken.
        max: usize,
    },
    /// The CRC does not fit.
    #[error("the frame's checksum does not match")]
    Checksum,
    /// A version that was not agreed on.
    #[error("wire version {got} is not spoken here (this node speaks {WIRE_VERSION})")]
    Version {
        /// What the frame said.
        got: u8,
    },
    /// The payload does not parse as its type.
    #[error("the payload of a frame of type {kind} does not parse")]
    Payload {
        /// The frame's type.
        kind: u8,
    },
}

impl Message {
    /// The frame's type byte. Never reused for another meaning.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Message::Hello(_) => 1,
            Message::Welcome(_) => 2,
            Message::Request(_) => 16,
            Message::RequestReply(_) => 17,
            Message::Query(_) => 18,
            Message::QueryReply(_) => 19,
            Message::Peer(PeerMessage::Replicate(_)) => 32,
            Message::Peer(PeerMessage::ReplicateReply(_)) => 33,
            Message::Peer(PeerMessage::Fetch(_)) => 34,
            Message::Peer(PeerMessage::FetchReply(_)) => 35,
            Message::Peer(PeerMessage::Forward(_)) => 36,
            Message::Peer(PeerMessage::ForwardReply(_)) => 37,
            Message::Peer(PeerMessage::Greeting(_)) => 38,
            Message::Peer(PeerMessage::StoreHint(_)) => 39,
            Message::Peer(PeerMessage::FetchHint(_)) => 40,
            Message::Peer(PeerMessage::Handoff(_)) => 41,
            Message::Peer(PeerMessage::HandoffReply(_)) => 42,
            Message::Peer(PeerMessage::TreeAsk(_)) => 43,
            Message::Peer(PeerMessage::TreeReply(_)) => 44,
            Message::Peer(PeerMessage::Pull(_)) => 45,
            Message::Peer(PeerMessage::PullReply(_)) => 46,
            Message::Peer(PeerMessage::SettleAsk(_)) => 47,
            Message::Peer(PeerMessage::SettleReply(_)) => 48,
            Message::Peer(PeerMessage::Reap(_)) => 49,
        }
    }

    /// Appends the message as one frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_bytes(0, HEADER_BYTES);
        let mut sink = Sink(out);
        let written = match self {
            Message::Hello(m) => sink.put(m),
            Message::Welcome(m) => sink.put(m),
            Message::Request(m) => sink.put(m),
            Message::RequestReply(m) => sink.put(m),
            Message::Query(m) => sink.put(m),
            Message::QueryReply(m) => sink.put(m),
            Message::Peer(PeerMessage::Replicate(m)) => sink.put(m),
            Message::Peer(PeerMessage::ReplicateReply(m)) => sink.put(m),
            Message::Peer(PeerMessage::Fetch(m)) => sink.put(m),
            Message::Peer(PeerMessage::FetchReply(m)) => sink.put(m),
            Message::Peer(PeerMessage::Forward(m)) => sink.put(m),
            Message::Peer(PeerMessage::ForwardReply(m)) => sink.put(m),
            Message::Peer(PeerMessage::Greeting(m)) => sink.put(m),
            Message::Peer(PeerMessage::StoreHint(m)) => sink.put(m),
            Message::Peer(PeerMessage::FetchHint(m)) => sink.put(m),
            Message::Peer(PeerMessage::Handoff(m)) => sink.put(m),
            Message::Peer(PeerMessage::HandoffReply(m)) => sink.put(m),
            Message::Peer(PeerMessage::TreeAsk(m)) => sink.put(m),
            Message::Peer(PeerMessage::TreeReply(m)) => sink.put(m),
            Message::Peer(PeerMessage::Pull(m)) => sink.put(m),
            Message::Peer(PeerMessage::PullReply(m)) => sink.put(m),
            Message::Peer(PeerMessage::SettleAsk(m)) => sink.put(m),
            Message::Peer(PeerMessage::SettleReply(m)) => sink.put(m),
            Message::Peer(PeerMessage::Reap(m)) => sink.put(m),
        };
        written.expect("a buffer grows, and messages hold no unserializable type");
        let frame = &mut out[start..];
        let length = (frame.len() - 4) as u32;
        frame[4] = WIRE_VERSION;
        frame[5] = self.kind();
        let crc = checksum(frame[4], frame[5], &frame[HEADER_BYTES..]);
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[6..10].copy_from_slice(&crc.to_le_bytes());
    }

    /// Takes the next whole frame off the front of `buffer`. `Ok(None)`: more bytes are needed. Frames of unknown type are skipped.
    pub fn decode(buffer: &mut BytesMut, max: usize) -> Result<Option<Message>, FrameError> {
        loop {
            let Some(length) = buffer.first_chunk::<4>() else {
                return Ok(None);
            };
            let length = u32::from_le_bytes(*length) as usize;
            if length < HEADER_BYTES - 4 || length + 4 > max {
                return Err(FrameError::Length {
                    length: length.saturating_add(4),
                    max,
                });
            }
            if buffer.len() < 4 + length {
                return Ok(None);
            }
            buffer.advance(4);
            let mut frame = buffer.split_to(length).freeze();
            let (version, kind, crc) = (frame.get_u8(), frame.get_u8(), frame.get_u32_le());
            if crc != checksum(version, kind, &frame) {
                return Err(FrameError::Checksum);
            }
            if version != WIRE_VERSION {
                return Err(FrameError::Version { got: version });
            }
            if let Some(message) = Message::parse(kind, &frame)? {
                return Ok(Some(message));
            }
        }
    }

    /// The message in a payload of this type; `None` if the type is unknown.
    fn parse(kind: u8, payload: &[u8]) -> Result<Option<Message>, FrameError> {
        fn of<'a, T: Deserialize<'a>>(kind: u8, payload: &'a [u8]) -> Result<T, FrameError> {
            match postcard::take_from_bytes(payload) {
                Ok((message, [])) => Ok(message),
                // Bytes left over mean that the sender's message has more fields than ours, under the same version.
                _ => Err(FrameError::Payload { kind }),
            }
        }
        let peer = |message| Some(Message::Peer(message));
        Ok(match kind {
            1 => Some(Message::Hello(of(kind, payload)?)),
            2 => Some(Message::Welcome(of(kind, payload)?)),
            16 => Some(Message::Request(of(kind, payload)?)),
            17 => Some(Message::RequestReply(of(kind, payload)?)),
            18 => Some(Message::Query(of(kind, payload)?)),
            19 => Some(Message::QueryReply(of(kind, payload)?)),
            32 => peer(PeerMessage::Replicate(of(kind, payload)?)),
            33 => peer(PeerMessage::ReplicateReply(of(kind, payload)?)),
            34 => peer(PeerMessage::Fetch(of(kind, payload)?)),
            35 => peer(PeerMessage::FetchReply(of(kind, payload)?)),
            36 => peer(PeerMessage::Forward(of(kind, payload)?)),
            37 => peer(PeerMessage::ForwardReply(of(kind, payload)?)),
            38 => peer(PeerMessage::Greeting(of(kind, payload)?)),
            39 => peer(PeerMessage::StoreHint(of(kind, payload)?)),
            40 => peer(PeerMessage::FetchHint(of(kind, payload)?)),
            41 => peer(PeerMessage::Handoff(of(kind, payload)?)),
            42 => peer(PeerMessage::HandoffReply(of(kind, payload)?)),
            43 => peer(PeerMessage::TreeAsk(of(kind, payload)?)),
            44 => peer(PeerMessage::TreeReply(of(kind, payload)?)),
            45 => peer(PeerMessage::Pull(of(kind, payload)?)),
            46 => peer(PeerMessage::PullReply(of(kind, payload)?)),
            47 => peer(PeerMessage::SettleAsk(of(kind, payload)?)),
            48 => peer(PeerMessage::SettleReply(of(kind, payload)?)),
            49 => peer(PeerMessage::Reap(of(kind, payload)?)),
            _ => None,
        })
    }
}

pub(super) fn checksum(version: u8, kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[version, kind]);
    hasher.update(payload);
    hasher.finalize()
}

/// Postcard output appended to a buffer, without an intermediate vector.
struct Sink<'a>(&'a mut BytesMut);

impl Sink<'_> {
    fn put<T: Serialize>(&mut self, message: &T) -> postcard::Result<()> {
        postcard::serialize_with_flavor(message, Sink(self.0))
    }
}

impl postcard::ser_flavors::Flavor for Sink<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
