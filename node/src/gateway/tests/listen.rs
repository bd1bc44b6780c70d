//! The accept loop, over real sockets.

use super::*;
use crate::gateway::serve_http;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Serves on a free port.
async fn listening(world: &World) -> (std::net::SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (
        address,
        tokio::spawn(serve_http(listener, world.state.clone(), world.shutdown.subscribe())),
    )
}

/// The status line that a connection gives first.
async fn first_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn a_connection_over_the_cap_is_answered_503_and_a_closed_one_makes_room() {
    let world = World::with(GatewayOptions {
        connections_max: 1,
        ..GatewayOptions::default()
    });
    let (address, _server) = listening(&world).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(&text("GET /livez", "", "")).await.unwrap();
    assert_eq!(first_line(&mut first).await, "HTTP/1.1 200 OK\r\n");
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(first_line(&mut second).await, "HTTP/1.1 503 Service Unavailable\r\n");
    drop(first);
    // The server sees the close a moment later; until then a new connection is refused.
    loop {
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(&text("GET /livez", "", "")).await.unwrap();
        if first_line(&mut third).await == "HTTP/1.1 200 OK\r\n" {
            break;
        }
    }
}

#[tokio::test]
async fn shutdown_ends_the_listener_and_its_connections() {
    let world = World::new();
    let (address, server) = listening(&world).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(&text("GET /livez", "", "")).await.unwrap();
    assert_eq!(first_line(&mut idle).await, "HTTP/1.1 200 OK\r\n");
    world.shutdown.send_replace(true);
    server.await.unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
