//! Are the ports free? Asked before anything starts, so that the answer names the port and not a log file.

use super::layout::Place;
use crate::cli::CliError;
use crate::cli::error::plain;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long children of a `quorate dev` that was killed may need to end.
const LEFTOVERS: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// Fails with the first port that cannot be had. Waits a little if nodes of an earlier run may still be stopping.
pub(super) fn check(places: &[Place]) -> Result<(), CliError> {
    let leftovers = places.iter().any(|place| place.file("pid").exists());
    let deadline = Instant::now() + if leftovers { LEFTOVERS } else { Duration::ZERO };
    loop {
        match places.iter().try_for_each(check_node) {
            Err(_) if Instant::now() < deadline => sleep(PAUSE),
            ended => return ended,
        }
    }
}

fn check_node(place: &Place) -> Result<(), CliError> {
    free("HTTP", place, place.http, TcpListener::bind(place.http).map(drop))?;
    free("QUIC", place, place.quic, UdpSocket::bind(place.quic).map(drop))?;
    free("admin", place, place.admin, TcpListener::bind(place.admin).map(drop))
}

fn free(what: &str, place: &Place, address: SocketAddr, bound: io::Result<()>) -> Result<(), CliError> {
    let Err(error) = bound else { return Ok(()) };
    let name = &place.name;
    Err(match error.kind() {
        io::ErrorKind::AddrInUse => plain(format!("port {} ({what} of {name}) is in use", address.port()))
            .hint("stop what uses it, or choose other ports with --http-port"),
        _ => plain(format!("cannot listen on {address} ({what} of {name}): {error}")),
    })
}
