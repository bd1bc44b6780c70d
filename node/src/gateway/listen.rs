//! The accept loop: who gets in, how many, and how it ends.
//!
//! At the cap a new connection is answered 503 and closed. Leaving it in the kernel's queue instead would make every client
//! wait in silence, and a probe would take the node for dead. Errors of `accept` never end the loop: when the process is out of file
//! descriptors it waits a little, longer each time, and connections that end free some.
//!
//! Shutdown: stop accepting; tell every connection, so that it ends after its present request; wait for
//! [`drain_limit`](super::GatewayOptions::drain_limit); cut what is left.

use super::{GatewayState, Surface, connection};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections over the cap that are being told so at once; beyond, they are closed without a word.
const REFUSALS_MAX: usize = 64;
/// How long telling takes at most.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// First and longest pause after `accept` failed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What a connection over the cap is told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
Content-Type: application/problem+json\r\nContent-Length: 226\r\n\r\n\
{\"type\":\"urn:quorate:problem:overloaded\",\"title\":\"Overloaded\",\"status\":503,\"detail\":\"this node has as many \
connections as it allows; ask another node\",\"code\":\"overloaded\",\"outcome\":\"not_applied\",\"retryable\":true,\"replicas\":[]}";

/// Accepts and serves connections until `shutdown`, then drains them.
pub(super) async fn serve(
    listener: TcpListener,
    state: GatewayState,
    surface: Surface,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut refusals = JoinSet::new();
    let mut pause = BACKOFF.0;
    let stop = shutdown.clone();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => {}
            Some(_) = refusals.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    pause = BACKOFF.0;
                    if connections.len() < state.0.options.connections_max {
                        connections.spawn(admit(stream, state.clone(), surface, stop.clone()));
                    } else {
                        state.0.metrics.connection_refused();
                        if refusals.len() < REFUSALS_MAX {
                            refusals.spawn(tokio::time::timeout(REFUSAL_LIMIT, refuse(stream)));
                        }
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, ?surface, pause_ms = pause.as_millis(), "accept failed; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(state.0.options.drain_limit, drained)
        .await
        .is_err()
    {
        tracing::warn!(?surface, left = connections.len(), "connections cut at shutdown");
        connections.shutdown().await;
    }
}

/// Waits for the shutdown. A sender that is gone means that the node is gone.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// Serves one connection and counts it while it lasts.
async fn admit(stream: TcpStream, state: GatewayState, surface: Surface, shutdown: watch::Receiver<bool>) {
    // Small responses must not wait for the client's delayed acks.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY is off");
    }
    let _open = state.0.metrics.connection_opened();
    connection::drive(stream, state.0.clone(), surface, shutdown).await;
}

/// Answers without having read a request, then waits for the client to close, so that the answer is not lost in a reset.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(FULL).await?;
    stream.shutdown().await?;
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Whether an error of `accept` concerns a connection that is gone already, and not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_refusal_has_the_length_that_it_claims_and_is_json() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{}",
            body.len()
        );
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (problem["code"].as_str(), problem["status"].as_u64()),
            (Some("overloaded"), Some(503))
        );
    }
}
