//! One connection after its welcome: frames in, frames out, until it ends.

use super::{Outbox, close};
use bytes::BytesMut;
use quinn::{Connection, RecvStream, SendStream};
use quorate_client::quic::HANDSHAKE_TIMEOUT;
use quorate_core::message::{HEADER_BYTES, Message};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Room for one read of the shared stream.
const READ_BYTES: usize = 64 << 10;

/// Takes in messages as they arrive.
pub(crate) trait Sink {
    /// Streams beside the shared one that are read at once. Each holds a frame of the largest size in memory.
    const STREAMS: usize;
    /// How long such a stream may take.
    const STREAM_PATIENCE: Duration;

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
        reason = read_beside(connection, sink, frame_max) => { connection.close(close::PROTOCOL, reason.as_bytes()); reason }
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

/// Reads frames that come beside the shared stream: a large one alone, or several that nobody waits for. Several such streams
/// are read at once, if the sink has it so, since one of low priority may take its time and must not hold up a large frame.
async fn read_beside<S: Sink>(connection: &Connection, sink: &S, frame_max: usize) -> String {
    let mut reading = JoinSet::new();
    loop {
        let bytes = tokio::select! {
            Some(read) = reading.join_next() => read.unwrap_or_else(|error| Err(error.to_string())),
            accepted = connection.accept_uni(), if reading.len() < S::STREAMS => match accepted {
                Ok(stream) => {
                    reading.spawn_local(read_whole(stream, frame_max, S::STREAM_PATIENCE));
                    continue;
                }
                Err(error) => return error.to_string(),
            },
        };
        if let Err(reason) = bytes.and_then(|mut bytes| whole_frames(sink, &mut bytes)) {
            return reason;
        }
    }
}

async fn read_whole(mut stream: RecvStream, bytes_max: usize, patience: Duration) -> Result<BytesMut, String> {
    match timeout(patience, stream.read_to_end(bytes_max)).await {
        Ok(Ok(bytes)) => Ok(BytesMut::from(&bytes[..])),
        Ok(Err(error)) => Err(format!("frames on a stream of their own: {error}")),
        Err(_) => Err(format!("frames on a stream of their own took more than {patience:?}")),
    }
}

fn whole_frames(sink: &impl Sink, bytes: &mut BytesMut) -> Result<(), String> {
    sink.frames(bytes)?;
    match bytes.is_empty() {
        true => Ok(()),
        false => Err("a stream of its own held something other than whole frames".into()),
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
