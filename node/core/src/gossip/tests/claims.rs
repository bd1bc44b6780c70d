//! What one node makes of what it hears: incarnations, and who is believed.

use super::net::id;
use crate::gossip::{Effect, Frame, Gossip, GossipConfig, Input, Liveness, News, Patience, Saying, StateMark};
use crate::time::Instant;

const ME: usize = 0;

fn ms(ms: u64) -> Instant {
    Instant(10_000_000 + 1000 * ms)
}

/// A node with this incarnation among three others.
fn gossip(incarnation: u64) -> Gossip {
    let config = GossipConfig {
        me: id(ME),
        incarnation,
        seed: [1; 32],
        patience: Patience::default(),
    };
    let mut gossip = Gossip::new(config);
    let members = (0..4).map(id).collect();
    gossip.handle(
        ms(0),
        Input::Members {
            members,
            gone: [id(9)].into(),
        },
    );
    gossip
}

fn frame(saying: Saying, news: Vec<News>) -> Frame {
    Frame {
        incarnation: 5,
        state: StateMark::default(),
        saying,
        news,
    }
}

fn news(node: usize, incarnation: u64, liveness: Liveness) -> News {
    News {
        node: id(node),
        incarnation,
        liveness,
    }
}

fn hear(gossip: &mut Gossip, at: Instant, from: usize, saying: Saying, news: Vec<News>) -> Vec<Effect> {
    let from = id(from);
    let frame = frame(saying, news);
    gossip.handle(at, Input::Frame { from, frame });
    std::iter::from_fn(|| gossip.poll_effect()).collect()
}

fn sent_to(effects: &[Effect], node: usize) -> Vec<&Frame> {
    let to_node = |effect| match effect {
        &Effect::Send { to, ref frame } if to == id(node) => Some(frame),
        _ => None,
    };
    effects.iter().filter_map(to_node).collect()
}

#[test]
fn what_is_claimed_of_a_node_it_refutes_by_a_higher_incarnation() {
    let table = [
        (3, Liveness::Suspect, 3, 4),
        (3, Liveness::Down, 7, 8),
        (3, Liveness::Left, 3, 4),
        (3, Liveness::Alive, 3, 3),
        // An earlier process of this node.
        (3, Liveness::Alive, 9, 10),
        (3, Liveness::Suspect, 2, 3),
        // Nobody counts that far.
        (3, Liveness::Down, u64::MAX, 3),
    ];
    for (mine, liveness, claimed, after) in table {
        let mut gossip = gossip(mine);
        let claim = news(ME, claimed, liveness);
        let effects = hear(&mut gossip, ms(1), 1, Saying::Ping(1), vec![claim]);
        assert_eq!(gossip.incarnation(), after, "{liveness:?} {claimed}");
        let ack = sent_to(&effects, 1)
            .into_iter()
            .find(|frame| frame.saying == Saying::Ack(1))
            .unwrap();
        assert_eq!(ack.incarnation, after);
    }
}

#[test]
fn claims_are_ordered_by_incarnation_and_then_by_how_bad_they_are() {
    use Liveness::{Alive, Down, Left, Suspect};
    let order = [(1, Suspect), (1, Down), (2, Alive), (2, Suspect), (2, Left), (3, Alive)];
    for (first, &(i, a)) in order.iter().enumerate() {
        for (second, &(j, b)) in order.iter().enumerate() {
            let mut gossip = gossip(0);
            hear(&mut gossip, ms(1), 1, Saying::Tell, vec![news(2, i, a), news(2, j, b)]);
            let last = if first < second { b } else { a };
            assert_eq!(gossip.liveness(id(2)), Some(last), "{i} {a:?}, then {j} {b:?}");
        }
    }
}

#[test]
fn who_was_heard_a_moment_ago_is_not_down_because_another_says_so() {
    for (heard, believed) in [(ms(1), Liveness::Alive), (ms(0), Liveness::Down)] {
        let mut gossip = gossip(0);
        hear(&mut gossip, heard, 2, Saying::Tell, vec![]);
        let effects = hear(&mut gossip, ms(1000), 1, Saying::Tell, vec![news(2, 5, Liveness::Down)]);
        assert_eq!(gossip.liveness(id(2)), Some(believed));
        // It is asked in either case, and told what is said of it.
        let asked = sent_to(&effects, 2);
        assert!(
            asked
                .iter()
                .any(|frame| frame.news.contains(&news(2, 5, Liveness::Down))),
            "{asked:?}"
        );
    }
}

#[test]
fn who_speaks_is_told_what_is_claimed_of_it() {
    let mut gossip = gossip(0);
    hear(&mut gossip, ms(1), 1, Saying::Tell, vec![news(2, 5, Liveness::Down)]);
    assert_eq!(gossip.liveness(id(2)), Some(Liveness::Down));
    let effects = hear(&mut gossip, ms(2), 2, Saying::Ping(9), vec![]);
    let ack = sent_to(&effects, 2)[0];
    assert_eq!((ack.saying, ack.news[0]), (Saying::Ack(9), news(2, 5, Liveness::Down)));
    let effects = hear(&mut gossip, ms(3), 2, Saying::Ack(77), vec![]);
    assert_eq!(sent_to(&effects, 2)[0].news[0], news(2, 5, Liveness::Down));
    let again = hear(&mut gossip, ms(4), 2, Saying::Ack(78), vec![]);
    assert!(sent_to(&again, 2).is_empty(), "not with every frame");
}

#[test]
fn strangers_and_those_who_were_taken_out_are_not_heard() {
    let mut gossip = gossip(0);
    let claims = vec![
        news(1, 9, Liveness::Down),
        news(8, 1, Liveness::Alive),
        news(9, 1, Liveness::Alive),
    ];
    assert_eq!(hear(&mut gossip, ms(1), 8, Saying::Ping(1), claims.clone()), []);
    let refused = hear(&mut gossip, ms(1), 9, Saying::Ping(1), claims.clone());
    assert_eq!(sent_to(&refused, 9)[0].saying, Saying::Gone);
    assert_eq!(gossip.liveness(id(1)), Some(Liveness::Alive));
    hear(&mut gossip, ms(1), 2, Saying::Tell, claims);
    assert_eq!((gossip.liveness(id(8)), gossip.liveness(id(9))), (None, None));
}

#[test]
fn who_has_another_state_of_the_cluster_is_noticed() {
    let mut gossip = gossip(0);
    let mine = StateMark { version: 4, digest: 40 };
    gossip.handle(ms(1), Input::State(mine));
    while gossip.poll_effect().is_some() {}
    let table = [
        ((3, 30), None),
        ((4, 40), None),
        ((5, 50), Some(Effect::Behind(id(8)))),
        ((4, 41), Some(Effect::Differs(id(8)))),
    ];
    for ((version, digest), expected) in table {
        let state = StateMark { version, digest };
        let frame = Frame {
            state,
            ..frame(Saying::Tell, vec![])
        };
        // Also from a node that is no member yet, as far as is known here.
        gossip.handle(ms(2), Input::Frame { from: id(8), frame });
        assert_eq!(gossip.poll_effect(), expected);
    }
}

#[test]
fn a_node_alone_asks_nobody() {
    let mut gossip = gossip(0);
    gossip.handle(
        ms(1),
        Input::Members {
            members: [id(ME)].into(),
            gone: [].into(),
        },
    );
    assert_eq!((gossip.poll_timeout(), gossip.members().count()), (None, 0));
    gossip.handle(ms(5000), Input::Tick);
    assert_eq!(gossip.poll_effect(), None);
}

#[test]
fn a_frame_survives_the_wire() {
    let frame = frame(Saying::PingFor(u64::MAX, id(3)), vec![news(1, 1 << 40, Liveness::Left)]);
    let bytes = postcard::to_stdvec(&frame).unwrap();
    assert_eq!(postcard::from_bytes::<Frame>(&bytes).unwrap(), frame);
}
