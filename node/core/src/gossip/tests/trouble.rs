//! Bad paths, and members that are taken out.

use super::net::{CALM, Net, ROUGH, id};
use crate::gossip::{Effect, Input, Liveness};
use std::collections::BTreeSet;
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(60);

#[test]
fn a_pair_that_cannot_reach_each_other_calls_nobody_down() {
    for seed in 0..20 {
        let mut net = Net::new(4, seed, CALM);
        net.cut.extend([(0, 1), (1, 0)]);
        net.run(A_WHILE);
        assert_eq!(net.beliefs, [], "others reach both");
    }
}

#[test]
fn neither_does_one_that_is_heard_and_does_not_hear_one_other() {
    for seed in 0..20 {
        let mut net = Net::new(4, seed, CALM);
        net.cut.insert((0, 1));
        net.run(A_WHILE);
        let down: Vec<_> = net.beliefs.iter().filter(|b| b.liveness == Liveness::Down).collect();
        assert!(down.is_empty(), "seed {seed}: {down:?}");
    }
}

#[test]
fn a_node_cut_off_calls_the_others_down_and_forgets_none_of_them() {
    let mut net = Net::new(5, 1, CALM);
    net.isolate(&[0]);
    net.run(A_WHILE);
    assert!((1..5).all(|of| net.sees(0, of) == Liveness::Down));
    assert_eq!(net.gossip(0).members().count(), 4);
    assert!((1..5).all(|by| net.sees(by, 0) == Liveness::Down));
    net.beliefs.clear();
    net.cut.clear();
    net.run(Duration::from_secs(3));
    assert!(net.is_right());
    // What the one has believed of the many is not taken from it.
    let wrong = net
        .beliefs
        .iter()
        .find(|b| b.by != 0 && b.of != 0 && b.liveness == Liveness::Down);
    assert_eq!(wrong, None);
}

fn take_out(net: &mut Net, nodes: usize, gone: usize) {
    for by in (0..nodes).filter(|&by| by != gone) {
        let members: BTreeSet<_> = (0..nodes).filter(|&of| of != gone).map(id).collect();
        let gone = [id(gone)].into();
        net.hand(by, Input::Members { members, gone });
    }
}

#[test]
fn a_node_that_was_taken_out_is_refused_for_ever_and_told_so() {
    let mut net = Net::new(4, 1, ROUGH);
    net.run(A_WHILE);
    take_out(&mut net, 4, 3);
    net.run(A_WHILE);
    let is_refused = |net: &Net| (0..3).all(|by| net.gossip(by).liveness(id(3)).is_none());
    assert!(is_refused(&net));
    assert!(
        net.other
            .iter()
            .any(|(by, effect)| *by == 3 && matches!(effect, Effect::Expelled(_)))
    );
    // Under a new process, under a higher incarnation, by way of others, and though somebody names it a member again.
    net.kill(3);
    net.start(3, 1 << 40);
    net.run(A_WHILE);
    for by in 0..3 {
        let members = (0..4).map(id).collect();
        let gone = BTreeSet::new();
        net.hand(by, Input::Members { members, gone });
    }
    net.run(A_WHILE);
    assert!(is_refused(&net));
    let answers = net.gossip(0).members().map(|(node, _)| node).collect::<Vec<_>>();
    assert_eq!(answers, [id(1), id(2)]);
}

#[test]
fn who_is_taken_out_is_not_told_more_often_than_once_a_period() {
    let mut net = Net::new(3, 1, CALM);
    net.run(A_WHILE);
    take_out(&mut net, 3, 2);
    net.other.clear();
    net.run(A_WHILE);
    let told = net.other.iter().filter(|(by, _)| *by == 2).count();
    assert!(told > 0 && told <= 2 * 121, "{told}");
}
