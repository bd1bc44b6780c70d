//! Clients with valid certificates that overstep.

use super::{PROTOCOL, Scene, TOO_SLOW, key, peer_frame};
use crate::support::http::put;
use crate::support::peer::{Closed, encoded};
use crate::support::{Home, runtime};
use bytes::Bytes;
use quorate_client::{Key, Operation, ReadOptions};
use quorate_core::bucket::Durability;
use quorate_core::message::{Fetch, Message, PeerMessage, Replicate, ReplicateReply, Request};

/// What such a client may cost: what operations may hold, what may wait for one connection, and room for both to grow.
const MEMORY_BYTES_MAX: u64 = 640 << 20;

#[test]
fn a_client_that_speaks_like_a_node_is_cut_off_and_changes_nothing() {
    let home = Home::new();
    let scene = Scene::new(&home);
    runtime().block_on(async {
        let record = Bytes::from_static(b"anything");
        let messages = [
            PeerMessage::Replicate(Replicate {
                id: 1,
                key: key(),
                record,
                sync: false,
            }),
            PeerMessage::Fetch(Fetch {
                id: 1,
                key: key(),
                have: None,
            }),
            PeerMessage::ReplicateReply(ReplicateReply {
                id: 1,
                result: Ok(Durability::Durable),
            }),
        ];
        for message in messages {
            let mut peer = scene.client().await;
            peer.write(&peer_frame(message)).await;
            assert_eq!(peer.closed().await, PROTOCOL);
        }
        let mut peer = scene.client().await;
        peer.write(&(64_u32 << 20).to_le_bytes()).await;
        assert_eq!(peer.closed().await, PROTOCOL, "a frame above the limit of clients");
    });
    scene.assert_unharmed();
}

#[test]
fn a_client_that_asks_and_never_reads_is_dropped_and_the_memory_stays_bounded() {
    let home = Home::new();
    let scene = Scene::new(&home);
    let before = resident_bytes(&scene);
    // Small enough for the shared stream, and too large for it. Either asks for more than a gigabyte.
    for (name, value_bytes, requests) in [("small", 60_000, 20_000), ("large", 1_000_000, 2_000)] {
        let path = format!("/v1/kv/scene/{name}");
        put(scene.dev.http(scene.victim), &path, vec![5; value_bytes])
            .send()
            .expect(204);
        let closed = runtime().block_on(async {
            let mut peer = scene.client().await;
            let key = Key::new(b"scene", name.as_bytes(), None).unwrap();
            let get = |id| {
                let operation = Operation::Get {
                    key: key.clone(),
                    minimum: None,
                    options: ReadOptions::default(),
                };
                encoded(&Message::Request(Request {
                    id,
                    timeout_ms: 5000,
                    operation,
                }))
            };
            peer.write(&(0..requests).flat_map(get).collect::<Vec<u8>>()).await;
            peer.closed().await
        });
        // When it has forgotten the connection before we have heard of its end, it says so to what we still send.
        assert!([TOO_SLOW, Closed::Forgotten].contains(&closed), "{closed:?}");
        let after = resident_bytes(&scene);
        assert!(
            after < before + MEMORY_BYTES_MAX,
            "{} MiB before, {} MiB after",
            before >> 20,
            after >> 20
        );
    }
    scene.assert_unharmed();
}

/// Memory of the victim.
fn resident_bytes(scene: &Scene<'_>) -> u64 {
    let path = format!("/proc/{}/status", scene.dev.pid(scene.victim).as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
