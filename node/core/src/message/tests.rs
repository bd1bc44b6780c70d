//! Tests of the frame and of every message in it.

#![allow(clippy::unwrap_used)]

use super::frame::checksum;
use super::*;
use crate::request::{
    Code, Failure, Outcome, QuorumKind, ReadOptions, ReplicaReport, ReplicaState, Reply, RequestId, Role, Value, View,
    WriteOptions,
};
use bytes::{BufMut, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_ring::{Member, NodeIndex, PartitionId};

const MAX: usize = 1 << 20;

fn key() -> Key {
    Key::new(b"bucket", b"key", Some(b"sort")).unwrap()
}

fn ring() -> Ring {
    let member = |n: u8| Member {
        id: NodeId([n; 16]),
        name: format!("n{n}"),
        zone: format!("z{n}"),
        weight: 100,
        quic: format!("10.0.0.{n}:7701"),
        http: String::new(),
    };
    Ring::new(RingVersion(3), 4, (1..4).map(member).collect()).unwrap()
}

fn operations() -> Vec<Operation> {
    let request = RequestId {
        stamp_ms: 1_700_000_000_000,
        unique: u64::MAX,
    };
    let value = Value {
        content_type: "application/json".into(),
        body: Bytes::from_static(b"{}"),
    };
    vec![
        Operation::Get {
            key: key(),
            minimum: Some(Bytes::from_static(b"sealed")),
            options: ReadOptions {
                r: Some(2),
                pr: Some(1),
                quorum: Some(QuorumKind::Sloppy),
            },
        },
        Operation::Put {
            key: key(),
            context: None,
            value,
            request,
            retry: true,
            options: WriteOptions {
                w: Some(3),
                dw: Some(2),
                pw: None,
                quorum: Some(QuorumKind::Strict),
                return_representation: true,
            },
        },
        Operation::Delete {
            key: key(),
            context: Some(Bytes::from_static(b"sealed")),
            request,
            retry: false,
            options: WriteOptions::default(),
        },
    ]
}

fn responses() -> Vec<Response> {
    let report = |state| ReplicaReport {
        node: NodeIndex(2),
        role: Role::Primary,
        state,
        elapsed_us: 1234,
    };
    let view = View {
        context: Some(Bytes::from_static(b"sealed")),
        siblings: vec![
            None,
            Some(Value {
                content_type: String::new(),
                body: Bytes::new(),
            }),
        ],
        live_hash: 7,
    };
    let failure = Failure {
        code: Code::QuorumNotMet,
        outcome: Outcome::Unknown,
        detail: "2 acks needed, 1 came".into(),
        replicas: vec![report(ReplicaState::TimedOut), report(ReplicaState::Acked)],
    };
    vec![
        Ok(Reply::Written {
            context: Bytes::from_static(b"sealed"),
            view: Some(view.clone()),
            replicas: vec![report(ReplicaState::Acked)],
        }),
        Ok(Reply::Found { view, replicas: vec![] }),
        Err(failure),
    ]
}

/// At least one of every kind, and every variant inside.
fn all_messages() -> Vec<Message> {
    let hello = |role| {
        Message::Hello(Hello {
            cluster: "test".into(),
            role,
            versions: (2, 2),
            ring: (RingVersion(3), 0xfeed),
        })
    };
    let mut all = vec![
        hello(PeerRole::Client),
        hello(PeerRole::Node(NodeId([5; 16]))),
        Message::Welcome(Welcome::Accepted {
            cluster: "test".into(),
            node: NodeId([1; 16]),
            ring: ring(),
        }),
        Message::Welcome(Welcome::Refused {
            reason: "another cluster".into(),
        }),
        Message::Query(QueryRequest {
            id: 1,
            query: Query::Ring,
        }),
        Message::Query(QueryRequest {
            id: 2,
            query: Query::Status,
        }),
        Message::QueryReply(QueryReply {
            id: 1,
            answer: QueryAnswer::Ring(ring()),
        }),
        Message::QueryReply(QueryReply {
            id: 2,
            answer: QueryAnswer::Status("{}".into()),
        }),
        Message::Peer(replicate()),
    ];
    for operation in operations() {
        all.push(Message::Request(Request {
            id: 9,
            timeout_ms: 500,
            operation: operation.clone(),
        }));
        all.push(Message::Peer(PeerMessage::Forward(Forward {
            id: u64::MAX,
            timeout_us: 1,
            operation,
        })));
    }
    for response in responses() {
        all.push(Message::RequestReply(RequestReply {
            id: 9,
            response: response.clone(),
        }));
        all.push(Message::Peer(PeerMessage::ForwardReply(ForwardReply {
            id: 3,
            response,
        })));
    }
    all.extend(replies().into_iter().map(Message::Peer));
    all.extend(healing().into_iter().map(Message::Peer));
    all
}

/// What nodes say to heal.
fn healing() -> Vec<PeerMessage> {
    let (id, target, record) = (7, NodeId([6; 16]), Bytes::from_static(&[1, 0, 0, 0, 0]));
    let (partition, n) = (PartitionId(65_535), 3);
    let met = Met {
        generation: 300,
        start: u64::MAX,
    };
    let ask = |question| {
        PeerMessage::TreeAsk(TreeAsk {
            id,
            partition,
            n,
            question,
        })
    };
    let reply = |result| PeerMessage::TreeReply(TreeReply { id, result });
    let candidates = vec![Candidate {
        key: key(),
        hash: u64::MAX,
        retire: vec![7, u64::MAX],
    }];
    let settle_ask = |round| {
        let candidates = candidates.clone();
        PeerMessage::SettleAsk(SettleAsk { id, round, candidates })
    };
    let settle_reply = |objection| {
        PeerMessage::SettleReply(SettleReply {
            id,
            round: SettleRound::Second,
            refused: vec![(0, objection)],
            living: vec![u64::MAX],
        })
    };
    let entry = KeyEntry {
        key: key(),
        hash: 1,
        context: Bytes::from_static(b"context"),
    };
    let keys = TreeAnswer::Keys {
        entries: vec![entry],
        done: 1,
    };
    vec![
        PeerMessage::Greeting(Greeting {
            me: met,
            remembers: None,
            accepts: false,
            rebuilding: true,
            asks: true,
        }),
        PeerMessage::Greeting(Greeting {
            me: met,
            remembers: Some(met),
            accepts: true,
            rebuilding: false,
            asks: false,
        }),
        PeerMessage::StoreHint(StoreHint {
            id,
            target,
            key: key(),
            record: record.clone(),
        }),
        PeerMessage::FetchHint(FetchHint {
            id,
            target,
            key: key(),
            have: Some(1),
        }),
        PeerMessage::Handoff(Handoff {
            id,
            key: key(),
            record: record.clone(),
        }),
        PeerMessage::HandoffReply(HandoffReply {
            id,
            result: Err(Refusal::HintsFull),
            credit: 64,
        }),
        ask(TreeQuestion::Root(u64::MAX)),
        ask(TreeQuestion::Leaves(vec![0, 63])),
        ask(TreeQuestion::Keys {
            leaves: vec![0, 4095],
            after: Some(key()),
        }),
        reply(Ok(TreeAnswer::Same)),
        reply(Ok(TreeAnswer::Branches(vec![1, 2]))),
        reply(Ok(TreeAnswer::Leaves(vec![3]))),
        reply(Ok(keys)),
        reply(Err(Refusal::Rebuilding)),
        PeerMessage::Pull(Pull {
            id,
            key: key(),
            parts: true,
        }),
        PeerMessage::PullReply(PullReply {
            id,
            result: Ok(record),
            whole: true,
        }),
        settle_ask(SettleRound::First),
        settle_ask(SettleRound::Second),
        settle_reply(Objection::Differs),
        settle_reply(Objection::Away),
        PeerMessage::Reap(Reap { id, candidates }),
    ]
}

fn replicate() -> PeerMessage {
    PeerMessage::Replicate(Replicate {
        id: 300,
        key: key(),
        record: Bytes::from_static(&[1, 0, 0, 0, 0]),
        sync: true,
    })
}

fn replies() -> Vec<PeerMessage> {
    let refusals = [
        Refusal::ReadFailed,
        Refusal::WriteFailed,
        Refusal::Overloaded,
        Refusal::NotOwner,
        Refusal::Malformed,
        Refusal::Rebuilding,
        Refusal::HintsFull,
    ];
    let mut replies = vec![
        PeerMessage::Fetch(Fetch {
            id: 4,
            key: key(),
            have: Some(u64::MAX),
        }),
        PeerMessage::Fetch(Fetch {
            id: 4,
            key: key(),
            have: None,
        }),
        PeerMessage::FetchReply(FetchReply {
            id: 4,
            result: Ok(Held::Same),
        }),
        PeerMessage::FetchReply(FetchReply {
            id: 4,
            result: Ok(Held::Record(Bytes::from_static(b"record"))),
        }),
        PeerMessage::ReplicateReply(ReplicateReply {
            id: 5,
            result: Ok(Durability::Durable),
        }),
    ];
    for refusal in refusals {
        let result = Err(refusal);
        replies.push(PeerMessage::ReplicateReply(ReplicateReply { id: 6, result }));
        replies.push(PeerMessage::FetchReply(FetchReply {
            id: 6,
            result: Err(refusal),
        }));
    }
    replies
}

fn frame(message: &Message) -> BytesMut {
    let mut frame = BytesMut::new();
    message.encode(&mut frame);
    frame
}

/// A frame with any type and payload, and a checksum that fits.
fn crafted(version: u8, kind: u8, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_u32_le((HEADER_BYTES - 4 + payload.len()) as u32);
    frame.put_u8(version);
    frame.put_u8(kind);
    frame.put_u32_le(checksum(version, kind, payload));
    frame.put_slice(payload);
    frame
}

#[test]
fn every_message_survives_the_wire() {
    for message in all_messages() {
        let mut buffer = frame(&message);
        assert_eq!(Message::decode(&mut buffer, MAX).unwrap(), Some(message));
        assert!(buffer.is_empty());
    }
}

#[test]
fn every_kind_of_message_is_tried_here() {
    let kinds: std::collections::BTreeSet<u8> = all_messages().iter().map(Message::kind).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        [1, 2].into_iter().chain(16..=19).chain(32..=49).collect::<Vec<_>>()
    );
}

#[test]
fn a_frame_may_arrive_in_two_parts_cut_anywhere() {
    for message in all_messages() {
        let whole = frame(&message);
        for cut in 0..whole.len() {
            let mut buffer = BytesMut::from(&whole[..cut]);
            assert_eq!(Message::decode(&mut buffer, MAX), Ok(None), "first {cut} bytes");
            assert_eq!(buffer.len(), cut, "nothing is taken before all is there");
            buffer.put_slice(&whole[cut..]);
            assert_eq!(Message::decode(&mut buffer, MAX).unwrap().as_ref(), Some(&message));
        }
    }
}

#[test]
fn frames_that_arrive_together_come_out_one_by_one() {
    let messages = all_messages();
    let mut buffer = BytesMut::new();
    messages.iter().for_each(|message| message.encode(&mut buffer));
    for message in messages {
        assert_eq!(Message::decode(&mut buffer, MAX), Ok(Some(message)));
    }
    assert_eq!(Message::decode(&mut buffer, MAX), Ok(None));
}

#[test]
fn a_flipped_bit_never_makes_another_message() {
    for message in all_messages() {
        let whole = frame(&message);
        for bit in 0..whole.len() * 8 {
            let mut buffer = whole.clone();
            buffer[bit / 8] ^= 1 << (bit % 8);
            match Message::decode(&mut buffer, MAX) {
                Err(_) => {}
                // A longer length waits for bytes that do not come; they would not fit the checksum either.
                Ok(None) => assert!(bit < 32, "bit {bit} of {message:?}"),
                Ok(Some(other)) => panic!("bit {bit} of {message:?} gave {other:?}"),
            }
        }
    }
}

#[test]
fn a_frame_of_unknown_type_is_skipped() {
    let mut buffer = crafted(WIRE_VERSION, 250, b"from the future");
    buffer.unsplit(crafted(WIRE_VERSION, 0, b""));
    let message = Message::Peer(replicate());
    message.encode(&mut buffer);
    buffer.unsplit(crafted(WIRE_VERSION, 99, b"more"));
    assert_eq!(Message::decode(&mut buffer, MAX), Ok(Some(message)));
    assert_eq!(Message::decode(&mut buffer, MAX), Ok(None));
    assert!(buffer.is_empty());
}

#[test]
fn a_frame_of_another_version_is_refused() {
    for got in [0, WIRE_VERSION + 1, 255] {
        let mut buffer = crafted(got, 33, &[1, 0]);
        assert_eq!(Message::decode(&mut buffer, MAX), Err(FrameError::Version { got }));
    }
}

#[test]
fn a_length_outside_the_limits_is_refused_before_more_bytes_are_waited_for() {
    for length in [0u32, 5, 97, u32::MAX - 3, u32::MAX] {
        let mut buffer = BytesMut::from(&length.to_le_bytes()[..]);
        let capacity = buffer.capacity();
        let error = Message::decode(&mut buffer, 100).unwrap_err();
        assert!(
            matches!(error, FrameError::Length { max: 100, .. }),
            "{length}: {error}"
        );
        assert_eq!(buffer.capacity(), capacity, "nothing was allocated");
    }
    let exact = crafted(WIRE_VERSION, 99, &[0; 90]);
    assert_eq!(Message::decode(&mut exact.clone(), 100), Ok(None));
    assert!(Message::decode(&mut exact.clone(), 99).is_err());
}

#[test]
fn a_payload_that_is_too_short_or_too_long_is_refused() {
    for message in all_messages() {
        let kind = message.kind();
        let payload = frame(&message)[HEADER_BYTES..].to_vec();
        let mut longer = crafted(WIRE_VERSION, kind, &[&payload[..], &[0]].concat());
        assert_eq!(
            Message::decode(&mut longer, MAX),
            Err(FrameError::Payload { kind }),
            "{message:?}"
        );
        let mut shorter = crafted(WIRE_VERSION, kind, &payload[..payload.len() - 1]);
        assert_eq!(
            Message::decode(&mut shorter, MAX),
            Err(FrameError::Payload { kind }),
            "{message:?}"
        );
    }
}

#[test]
fn a_key_that_no_key_has_is_refused() {
    let mut payload = vec![1]; // id
    payload.extend([4, 1, b'b', 0, 0]); // the key: bucket `b`, an empty partition key
    payload.extend([0]); // have: nothing
    let mut buffer = crafted(WIRE_VERSION, 34, &payload);
    assert_eq!(Message::decode(&mut buffer, MAX), Err(FrameError::Payload { kind: 34 }));
}

/// These bytes are what other builds expect. If this test has to change, so does the wire version.
#[test]
fn the_bytes_of_a_replicate_frame_are_fixed() {
    let bytes: Vec<String> = frame(&Message::Peer(replicate()))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let expected = [
        "21000000",                                   // length: 33
        "02 20",                                      // version 2, type 32
        "36813abe",                                   // crc32 of version, type and payload
        "ac02",                                       // id 300
        "11 06 6275636b6574 0003 6b6579 01 736f7274", // 17 bytes of key
        "05 01 00 00 00 00",                          // 5 bytes of record
        "01",                                         // sync
    ];
    assert_eq!(bytes.concat(), expected.concat().replace(' ', ""));
}

proptest! {
    #[test]
    fn rubbish_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = Message::decode(&mut buffer, MAX) {}
    }

    #[test]
    fn rubbish_with_a_checksum_that_fits_never_panics(kind in 0u8..40, payload in vec(any::<u8>(), 0..200)) {
        let mut buffer = crafted(WIRE_VERSION, kind, &payload);
        if let Ok(Some(message)) = Message::decode(&mut buffer, MAX) {
            let mut again = frame(&message);
            prop_assert_eq!(Message::decode(&mut again, MAX), Ok(Some(message)));
        }
    }
}
