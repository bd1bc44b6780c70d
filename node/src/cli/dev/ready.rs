//! Waiting until the cluster serves: every node says so over HTTP, and all of them are connected to each other.

use super::layout::Place;
use crate::cli::survey::survey;
use quorate_client::{Client, ClientConfig};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(1);
/// More than any answer to a probe.
const ANSWER_BYTES: usize = 4096;

/// Returns a connected client when all nodes serve and see each other. Waits for ever: nodes may be started by hand.
pub(super) async fn wait(places: Vec<Place>, config: PathBuf) -> Client {
    for place in &places {
        while !is_ready(place.http).await {
            sleep(PAUSE).await;
        }
    }
    let client = loop {
        if let Some(client) = connect(&config).await {
            break client;
        }
        sleep(PAUSE).await;
    };
    while !survey(&client, LIMIT).await.is_complete() {
        sleep(PAUSE).await;
    }
    client
}

async fn connect(config: &PathBuf) -> Option<Client> {
    Client::connect(ClientConfig::from_file(config).ok()?).await.ok()
}

async fn is_ready(http: SocketAddr) -> bool {
    matches!(timeout(LIMIT, probe(http)).await, Ok(Ok(true)))
}

/// One GET of `/readyz`, by hand: all that is wanted is the status.
async fn probe(http: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(http).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES as u64).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpListener;

    async fn probe_a_server_that_says(answer: &'static [u8]) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 256];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(serve, is_ready(address)).1
    }

    #[tokio::test]
    async fn only_a_200_counts_as_ready() {
        assert!(probe_a_server_that_says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await);
        assert!(!probe_a_server_that_says(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await);
        assert!(!probe_a_server_that_says(b"").await);
    }
}
