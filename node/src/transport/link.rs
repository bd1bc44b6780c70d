//! One connection after its welcome: frames in, frames out, until it ends.

use super::{Outbox, close};
use bytes::BytesMut;
use quinn::{Connection, RecvStream, SendStream};
use quorate_client::quic::HANDSHAKE_TIMEOUT;
use quorate_core::message::{HEADER_BYTES, Message};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

/// Room for one read of the shared stream.
const READ_BYTES: usize = 64 << 10;
/// A frame on a stream of its own has to arrive within this time.
const LARGE_FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes in messages as they arrive.
pub(crate) trait Sink {
    /// Takes whole frames off the front of `buffer`. An error ends the connection.
    fn frames(&self, buffer: &mut BytesMut) -> Result<(), String>;
}

/// Runs a connection until it ends, and returns why it did. Everything it owns is gone when this returns.
pub(crate) async fn run(
    connection: &Connection,
    outbox: &Outbox,
    sink: &impl Sink,
    (send, receive): (SendStream, RecvStream),
    buffer: BytesMut,
    frame_max: usize,
) -> String {
    let reason = tokio::select! {
        reason = read(receive, buffer, sink) => { connection.close(close::PROTOCOL, reason.as_bytes()); reason }
        reason = read_large(connection, sink, frame_max) => { connection.close(close::PROTOCOL, reason.as_bytes()); reason }
        reason = outbox.write(connection, send) => { connection.close(close::TOO_SLOW, reason.as_bytes()); reason }
        error = connection.closed() => error.to_string(),
    };
    // The cause of the connection's end says more than the failed read that it led to.
    match connection.close_reason() {
        Some(quinn::ConnectionError::LocallyClosed) | None => reason,
        Some(error) => error.to_string(),
    }
}

/// Reads the shared stream.
async fn read(mut stream: RecvStream, mut buffer: BytesMut, sink: &impl Sink) -> String {
    loop {
        if let Err(reason) = sink.frames(&mut buffer) {
            return reason;
        }
        buffer.reserve(READ_BYTES);
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return "the other side closed its stream".into(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

/// Reads frames that come alone, one after the other: so at most one of them is in memory.
async fn read_large(connection: &Connection, sink: &impl Sink, frame_max: usize) -> String {
    loop {
        let mut stream = match connection.accept_uni().await {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        let bytes = match timeout(LARGE_FRAME_TIMEOUT, stream.read_to_end(frame_max)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => return format!("a frame on a stream of its own: {error}"),
            Err(_) => return format!("a frame on a stream of its own took more than {LARGE_FRAME_TIMEOUT:?}"),
        };
        let mut buffer = BytesMut::from(&bytes[..]);
        if let Err(reason) = sink.frames(&mut buffer) {
            return reason;
        }
        if !buffer.is_empty() {
            return "a stream of its own held something other than one frame".into();
        }
    }
}

/// Reads the first message of a connection. What arrived behind it stays in `buffer`.
pub(super) async fn read_first(stream: &mut RecvStream, buffer: &mut BytesMut, max: usize) -> Result<Message, String> {
    let reading = async {
        loop {
            match Message::decode(buffer, max) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            if stream.read_buf(buffer).await.map_err(|error| error.to_string())? == 0 {
                return Err("the stream ended before the first message".into());
            }
        }
    };
    timeout(HANDSHAKE_TIMEOUT, reading)
        .await
        .unwrap_or_else(|_| Err("no first message in time".into()))
}

/// Writes one message at once.
pub(super) async fn write_first(stream: &mut SendStream, message: &Message) -> Result<(), String> {
    let mut buffer = BytesMut::with_capacity(HEADER_BYTES + 256);
    message.encode(&mut buffer);
    stream.write_all(&buffer).await.map_err(|error| error.to_string())
}
