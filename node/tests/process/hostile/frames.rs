//! What comes from a peer that is who it says it is, and is not what it should be.

use super::{PROTOCOL, Scene, key, peer_frame};
use crate::support::peer::{encoded, frame};
use crate::support::{Home, runtime};
use bytes::Bytes;
use quorate_core::bucket::Durability;
use quorate_core::message::{
    Fetch, FetchReply, ForwardReply, Held, Message, PeerMessage, Query, QueryRequest, Refusal, Replicate,
    ReplicateReply, WIRE_VERSION,
};
use quorate_core::request::{Code, Failure};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

#[test]
fn rubbish_from_a_peer_with_a_valid_certificate_costs_one_connection() {
    let home = Home::new();
    let scene = Scene::new(&home);
    let fetch = peer_frame(PeerMessage::Fetch(Fetch {
        id: 1,
        key: key(),
        have: None,
    }));
    let mut damaged = fetch.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let mut cut = fetch.clone();
    cut.truncate(20);
    cut[..4].copy_from_slice(&16_u32.to_le_bytes());
    let query = encoded(&Message::Query(QueryRequest {
        id: 1,
        query: Query::Ring,
    }));
    let cases: [(&str, Vec<u8>); 10] = [
        ("text", b"GET / HTTP/1.1\r\nHost: quorate\r\n\r\n".to_vec()),
        ("a length of 4 GiB", vec![0xff; 64]),
        (
            "a length of 1 GiB, of a right frame",
            [(1_u32 << 30).to_le_bytes().to_vec(), fetch[4..].to_vec()].concat(),
        ),
        ("a length too short for a frame", vec![1, 0, 0, 0, 1, 34]),
        ("a damaged byte", damaged),
        ("a frame cut short", cut),
        ("another version", frame(WIRE_VERSION + 1, 34, b"")),
        ("a payload that is no fetch", frame(WIRE_VERSION, 34, &[0xff; 40])),
        (
            "a fetch with bytes behind it",
            frame(WIRE_VERSION, 34, &[&fetch[10..], b"more"].concat()),
        ),
        ("a message of clients", query),
    ];
    runtime().block_on(async {
        for (what, bytes) in &cases {
            let mut peer = scene.peer().await;
            peer.write(bytes).await;
            assert_eq!(peer.closed().await, PROTOCOL, "{what}");
        }
        for (what, bytes) in [
            ("text", cases[0].1.clone()),
            ("two frames", [&fetch[..], &fetch].concat()),
            ("nothing", vec![]),
            ("half a frame", fetch[..12].to_vec()),
        ] {
            let peer = scene.peer().await;
            peer.write_alone(&bytes).await;
            // Two whole frames do no harm; whatever the node thinks of them, it goes on.
            if what != "two frames" && what != "nothing" {
                assert_eq!(peer.closed().await, PROTOCOL, "{what}, alone");
            }
        }
    });
    scene.assert_unharmed();
}

#[test]
fn frames_of_unknown_type_are_skipped_and_answers_that_nobody_asked_for_are_ignored() {
    let home = Home::new();
    let scene = Scene::new(&home);
    runtime().block_on(async {
        let mut peer = scene.peer().await;
        let failure = Failure::not_applied(Code::Overloaded, "never asked");
        let mut bytes = frame(WIRE_VERSION, 200, b"from the future");
        bytes.extend(frame(WIRE_VERSION, 250, &[0; 40_000]));
        for id in [0, 1, 7, u64::MAX] {
            bytes.extend(peer_frame(PeerMessage::ReplicateReply(ReplicateReply {
                id,
                result: Ok(Durability::Durable),
            })));
            bytes.extend(peer_frame(PeerMessage::ReplicateReply(ReplicateReply {
                id,
                result: Err(Refusal::NotOwner),
            })));
            bytes.extend(peer_frame(PeerMessage::FetchReply(FetchReply {
                id,
                result: Ok(Held::Same),
            })));
            bytes.extend(peer_frame(PeerMessage::FetchReply(FetchReply {
                id,
                result: Ok(Held::Record(Bytes::from_static(b"rubbish"))),
            })));
            bytes.extend(peer_frame(PeerMessage::ForwardReply(ForwardReply {
                id,
                response: Err(failure.clone()),
            })));
        }
        let rubbish = Replicate {
            id: 5,
            key: key(),
            record: Bytes::from_static(b"no record at all"),
            sync: false,
        };
        bytes.extend(peer_frame(PeerMessage::Replicate(rubbish)));
        bytes.extend(peer_frame(PeerMessage::Fetch(Fetch {
            id: 6,
            key: key(),
            have: None,
        })));
        peer.write(&bytes).await;
        let (mut refused, mut fetched) = (false, false);
        peer.until(|message| {
            match message {
                Message::Peer(PeerMessage::ReplicateReply(reply)) if reply.id == 5 => {
                    assert_eq!(reply.result, Err(Refusal::Malformed));
                    refused = true;
                }
                Message::Peer(PeerMessage::FetchReply(reply)) if reply.id == 6 => {
                    assert!(matches!(reply.result, Ok(Held::Record(_))), "{reply:?}");
                    fetched = true;
                }
                // Whatever the node has to say to the node that it takes us for.
                _ => {}
            }
            (refused && fetched).then_some(())
        })
        .await;
    });
    scene.assert_unharmed();
}

#[test]
fn a_peer_that_sends_random_payloads_in_right_frames_brings_nothing_down() {
    let home = Home::new();
    let scene = Scene::new(&home);
    let seed = 0x9e37_79b9;
    let mut rng = StdRng::seed_from_u64(seed);
    let kinds = [1_u8, 2, 16, 17, 18, 19, 32, 33, 34, 35, 36, 37, 99];
    runtime().block_on(async {
        for _ in 0..60 {
            let mut peer = scene.peer().await;
            for _ in 0..8 {
                let mut payload = vec![0; rng.random_range(0..200)];
                rng.fill_bytes(&mut payload);
                // Small numbers are valid lengths and variants more often than random bytes are.
                payload
                    .iter_mut()
                    .for_each(|byte| *byte %= if rng.random() { 4 } else { 255 });
                peer.write(&frame(WIRE_VERSION, kinds[rng.random_range(0..kinds.len())], &payload))
                    .await;
            }
            peer.connection.close(0_u32.into(), b"");
        }
    });
    scene.assert_unharmed();
}
