//! A day on a bad network: nobody is called down who is there.

use super::net::{Net, ROUGH, Ways};
use crate::gossip::Liveness;
use std::time::Duration;

/// How many nodes were called Down, and how many suspected, in so many hours.
fn alarms(nodes: usize, hours: u64, ways: Ways) -> (usize, usize) {
    let mut net = Net::new(nodes, hours, ways);
    let (mut down, mut suspect) = (0, 0);
    for _ in 0..hours {
        net.run(Duration::from_secs(3600));
        let count = |liveness| net.beliefs.iter().filter(|b| b.liveness == liveness).count();
        (down, suspect) = (down + count(Liveness::Down), suspect + count(Liveness::Suspect));
        net.beliefs.clear();
    }
    (down, suspect)
}

#[test]
fn nobody_is_called_down_in_a_day_with_loss_and_jitter() {
    for nodes in [2, 3, 5] {
        let (down, suspect) = alarms(nodes, 24, ROUGH);
        assert_eq!(down, 0, "{nodes} nodes, {suspect} suspected");
        println!("{nodes} nodes: suspected {suspect} times in 24 hours");
    }
}

#[test]
fn nor_of_nine_nodes_in_an_hour_with_twice_the_loss() {
    let ways = Ways { loss_pm: 100, ..ROUGH };
    assert_eq!(alarms(9, 1, ways).0, 0);
}

#[test]
fn a_good_network_suspects_nobody() {
    let ways = Ways { loss_pm: 0, ..ROUGH };
    assert_eq!(alarms(5, 2, ways), (0, 0));
}
