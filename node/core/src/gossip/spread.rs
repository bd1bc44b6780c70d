//! News on their way: what is new goes along with every frame until it has been sent often enough.
//!
//! Rumours that each node passes on to about three times log2(n) others reach all of n nodes but for a few in a million
//! (Demers et al., Epidemic Algorithms, PODC 1987), and those hear of it by asking the node itself. What is urgent goes first: that a node
//! is away, and that it is not. That a node has started, under which incarnation, goes along where there is room, and less often: at the start of a cluster
//! of a thousand nodes there is a thousand times that to tell.

use super::frame::{NEWS_MAX, News};
use quorate_ring::NodeId;
use std::collections::BTreeMap;

/// Urgent news are sent so many times log2(n) times, others log2(n) times.
const TIMES: u32 = 3;
/// News in one frame that are not urgent.
const OTHERS_MAX: usize = 3;

/// News that are being passed on, one for each node at most.
#[derive(Debug, Default)]
pub(super) struct Spread {
    urgent: Queue,
    others: Queue,
}

/// News, and how often each was sent.
#[derive(Debug, Default)]
struct Queue(BTreeMap<NodeId, (News, u32)>);

impl Spread {
    /// Something is new. It takes the place of older news of the same node.
    pub(super) fn add(&mut self, news: News, urgent: bool) {
        let (queue, other) = match urgent {
            true => (&mut self.urgent, &mut self.others),
            false => (&mut self.others, &mut self.urgent),
        };
        other.0.remove(&news.node);
        queue.0.insert(news.node, (news, 0));
    }

    /// The node is no member any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.urgent.0.remove(&node);
        self.others.0.remove(&node);
    }

    /// What goes with the next frame, to one of `nodes` nodes: first what is `due` in any case, then what was sent least.
    pub(super) fn take(&mut self, nodes: usize, due: impl Iterator<Item = News>) -> Vec<News> {
        let mut taken: Vec<News> = due.take(NEWS_MAX).collect();
        let log = usize::BITS - nodes.leading_zeros();
        let room = NEWS_MAX - taken.len();
        self.urgent.take(room, TIMES * log, &mut taken);
        let room = (NEWS_MAX - taken.len()).min(OTHERS_MAX);
        self.others.take(room, log, &mut taken);
        taken
    }
}

impl Queue {
    /// Takes up to `count`, those first that were sent least, and forgets what has been sent `enough` times.
    fn take(&mut self, count: usize, enough: u32, into: &mut Vec<News>) {
        if count == 0 || self.0.is_empty() {
            return;
        }
        let mut waiting: Vec<(u32, NodeId)> = self.0.iter().map(|(&node, &(_, times))| (times, node)).collect();
        if waiting.len() > count {
            waiting.select_nth_unstable(count - 1);
            waiting.truncate(count);
        }
        waiting.sort_unstable();
        for (times, node) in waiting {
            let Some((news, sent)) = self.0.get_mut(&node) else {
                continue;
            };
            if !into.contains(news) {
                into.push(*news);
            }
            *sent = times + 1;
            if *sent >= enough {
                self.0.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gossip::Liveness;
    use std::iter::empty;

    fn news(node: u8, incarnation: u64) -> News {
        News {
            node: NodeId([node; 16]),
            incarnation,
            liveness: Liveness::Suspect,
        }
    }

    #[test]
    fn each_piece_is_sent_a_few_times_log_n_and_the_newest_first() {
        let mut spread = Spread::default();
        (0..20).for_each(|node| spread.add(news(node, 1), node < 10));
        let mut sent = BTreeMap::new();
        for _ in 0..100 {
            let taken = spread.take(9, empty());
            assert!(taken.len() <= NEWS_MAX);
            taken.iter().for_each(|n| *sent.entry(n.node.0[0]).or_insert(0) += 1);
        }
        for node in 0..20 {
            assert_eq!(sent[&node], if node < 10 { 12 } else { 4 }, "log2(9) is four bits");
        }
        assert_eq!(spread.take(9, empty()), []);
        spread.add(news(1, 1), true);
        spread.take(9, empty());
        spread.add(news(2, 1), true);
        spread.add(news(0, 1), false);
        assert_eq!(spread.take(9, empty()), [news(2, 1), news(1, 1), news(0, 1)]);
    }

    #[test]
    fn what_is_due_goes_in_any_case_and_once() {
        let mut spread = Spread::default();
        spread.add(news(1, 1), false);
        spread.add(news(1, 2), true);
        assert_eq!(spread.take(3, [news(1, 2)].into_iter()), [news(1, 2)]);
        assert_eq!(spread.take(3, [news(7, 1)].into_iter()), [news(7, 1), news(1, 2)]);
        spread.forget(NodeId([1; 16]));
        assert_eq!(spread.take(3, empty()), []);
    }
}
