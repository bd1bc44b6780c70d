//! Takes one node out of each partition's set of n, which gives it rank n, such that all loads are right for n - 1.
//!
//! This is a matching: each partition lets one of its nodes leave, and each node has a quota, the number of partitions
//! that it must leave. First every partition takes, among its nodes with quota left, the one whose leaving mixes the
//! rest best. A partition where none has any starts a chain: it takes a node over quota, in exchange one of the
//! partitions which that node was leaving takes another one, and so on until a node with quota is reached (an
//! augmenting path, found breadth first, so that few partitions change their minds). At last partitions trade choices
//! where that spreads the nodes better.
//!
//! With more nodes than zones, not every node may leave: see [`may_leave`]. With few partitions, or with zones of very
//! different size, some partition may then find no chain. It takes the node that is most above its share, and the
//! loads are off by that one vnode; the next n starts from the loads as they are. Rejected: a min-cost flow, which
//! would have to weigh loads against spread in one number, and costs much more than the few chains that are needed.

use crate::ring::DEPTH;

use super::sets::{Sets, Shuffle};
use super::share::{Goals, Shares};
use super::spread::Spread;
use super::stage::Stage;

/// Choices are traded between partitions in sets up to this size, which decide the owners up to n = 3.
const MIXED: usize = 4;

/// How many trades each node of each set is offered.
const ROUNDS: usize = 4;

/// Moves one node of each set of `n` to rank `n`.
pub(crate) fn peel(stage: &Stage, goals: &Goals, sets: &mut Sets, n: usize) {
    let loads = sets.loads(stage, n);
    let shares = goals.at(n - 1);
    let keep = shares.whole(stage, &loads);
    let mut peel = Peel {
        quotas: loads.iter().zip(&keep).map(|(load, keep)| load - keep).collect(),
        leaving: vec![None; sets.partitions()],
        leavers: vec![Vec::new(); loads.len()],
        spread: Spread::new(sets, n, &loads),
        loads,
        shares,
        may_leave: (0..sets.partitions())
            .map(|p| may_leave(stage, goals, sets.set(p, n)))
            .collect(),
        sets,
        n,
    };
    peel.choose();
    peel.mix();
    let slots: Vec<usize> = peel
        .leaving
        .iter()
        .map(|at| at.expect("all partitions have chosen").slot)
        .collect();
    for (p, slot) in slots.into_iter().enumerate() {
        sets.swap(p, slot, n - 1);
    }
}

/// Which slots of a set may be emptied, as bits.
///
/// All, while there are no more nodes than new zones. Beyond, each set has a node more in some zones than they need
/// for good, and some zones are settled sooner than others on the way down. So for each m below n count the surplus in
/// the zones that are settled at m: all of it has to leave in the n - m steps from n to m. Where that takes every
/// step, the node to leave is one of those. At the latest it does so for m = new zones, which keeps the last node of
/// each zone.
fn may_leave(stage: &Stage, goals: &Goals, set: &[u16]) -> u16 {
    let n = set.len();
    let zone = |slot: usize| stage.nodes[usize::from(set[slot])].zone;
    let in_zone_of = |slot: usize| (0..n).filter(move |&other| zone(other) == zone(slot));
    let needed = |slot: usize| !stage.zones[zone(slot)].covered && in_zone_of(slot).next() == Some(slot);
    let mut surplus = [0; DEPTH + 1];
    for slot in (0..n).filter(|&slot| !needed(slot)) {
        surplus[goals.settled(zone(slot)).min(n - 1)] += 1;
    }
    let mut sum = 0;
    let tight = (stage.new_zones..n).rev().find(|&m| {
        sum += surplus[m];
        sum >= n - m
    });
    let Some(tight) = tight else { return u16::MAX };
    let leaves =
        |slot: &usize| goals.settled(zone(*slot)) >= tight && (!needed(*slot) || in_zone_of(*slot).nth(1).is_some());
    (0..n).filter(leaves).fold(0, |slots, slot| slots | 1 << slot)
}

/// What a partition has chosen: the node in `slot` leaves. `at` is its place in that node's list of leavers.
#[derive(Clone, Copy)]
struct Leaving {
    slot: usize,
    at: usize,
}

/// The matching for one n.
struct Peel<'a> {
    sets: &'a Sets,
    n: usize,
    /// How many sets of n each node is in.
    loads: Vec<u32>,
    /// The shares that are to be reached, those of n - 1.
    shares: &'a Shares,
    /// How many more partitions each node must leave.
    quotas: Vec<u32>,
    may_leave: Vec<u16>,
    leaving: Vec<Option<Leaving>>,
    /// For each node the partitions that it is leaving.
    leavers: Vec<Vec<usize>>,
    spread: Spread,
}

impl Peel<'_> {
    fn choose(&mut self) {
        let mut shuffle = Shuffle(self.n as u64);
        for p in 0..self.sets.partitions() {
            let first = shuffle.below(self.n);
            let open = (0..self.n)
                .map(|slot| (slot + first) % self.n)
                .filter(|&slot| self.quotas[self.node(p, slot)] > 0);
            let best = open
                .filter(|&slot| self.may(p, slot))
                .min_by_key(|&slot| self.spread.cost(self.sets.set(p, self.n), slot));
            match best {
                Some(slot) => self.take_quota(p, slot),
                None => self.chain(p),
            }
        }
    }

    fn node(&self, p: usize, slot: usize) -> usize {
        usize::from(self.sets.row(p)[slot])
    }

    fn may(&self, p: usize, slot: usize) -> bool {
        self.may_leave[p] & 1 << slot != 0
    }

    fn take_quota(&mut self, p: usize, slot: usize) {
        let node = self.node(p, slot);
        self.quotas[node] -= 1;
        self.leave(p, slot);
    }

    /// Lets the node in `slot` leave `p`, whatever its quota.
    fn leave(&mut self, p: usize, slot: usize) {
        let node = self.node(p, slot);
        self.leaving[p] = Some(Leaving {
            slot,
            at: self.leavers[node].len(),
        });
        self.leavers[node].push(p);
        self.spread.leave(self.sets.set(p, self.n), slot);
    }

    /// Takes back what `p` has chosen.
    fn stay(&mut self, p: usize) {
        let Some(Leaving { slot, at }) = self.leaving[p].take() else {
            return;
        };
        let node = self.node(p, slot);
        self.leavers[node].swap_remove(at);
        if let Some(&moved) = self.leavers[node].get(at) {
            self.leaving[moved] = self.leaving[moved].map(|leaving| Leaving { at, ..leaving });
        }
        self.spread.stay(self.sets.set(p, self.n), slot);
    }

    /// Lets a node leave `p` at the end of a chain: one with quota, else the one most above its share.
    fn chain(&mut self, p: usize) {
        let links = self.links(p);
        let last = links.len() - 1;
        let with_quota = self.quotas[links[last].node] > 0;
        let end = if with_quota { last } else { self.most_above(&links) };
        self.quotas[links[end].node] -= u32::from(with_quota);
        let mut at = Some(end);
        while let Some(link) = at.map(|at| links[at]) {
            self.stay(link.p);
            self.leave(link.p, link.slot);
            at = link.before;
        }
    }

    /// What can be reached from `p`, nearest first. Ends with the first node that has quota left, if there is one.
    fn links(&self, p: usize) -> Vec<Link> {
        let mut links = Vec::new();
        let mut seen = vec![false; self.quotas.len()];
        self.link(p, None, &mut seen, &mut links);
        let mut at = 0;
        while at < links.len() && self.quotas[links[links.len() - 1].node] == 0 {
            for &p in &self.leavers[links[at].node] {
                self.link(p, Some(at), &mut seen, &mut links);
            }
            at += 1;
        }
        links
    }

    /// Appends the nodes that may leave `p` and were not seen yet, up to the first with quota.
    fn link(&self, p: usize, before: Option<usize>, seen: &mut [bool], links: &mut Vec<Link>) {
        for slot in (0..self.n).filter(|&slot| self.may(p, slot)) {
            let node = self.node(p, slot);
            if links.last().is_some_and(|link: &Link| self.quotas[link.node] > 0) {
                return;
            }
            if !std::mem::replace(&mut seen[node], true) {
                links.push(Link { p, slot, node, before });
            }
        }
    }

    /// The link to the node that holds most above its share, in vnodes.
    fn most_above(&self, links: &[Link]) -> usize {
        let above = |at: &usize| {
            let node = links[*at].node;
            let holds = self.loads[node] as usize - self.leavers[node].len();
            self.shares.above(node, holds)
        };
        (0..links.len())
            .max_by_key(above)
            .expect("some node of each set may leave: more nodes than zones, or all may")
    }
}

/// Trades between partitions of what they have chosen, which keeps all quotas met, to spread the nodes better.
impl Peel<'_> {
    fn mix(&mut self) {
        if self.n > MIXED {
            return;
        }
        let mut shuffle = Shuffle(self.n as u64);
        for _ in 0..ROUNDS {
            for p in 0..self.sets.partitions() {
                for slot in 0..self.n {
                    let leavers = &self.leavers[self.node(p, slot)];
                    if self.may(p, slot) && !leavers.is_empty() {
                        let other = leavers[shuffle.below(leavers.len())];
                        self.trade(p, slot, other);
                    }
                }
            }
        }
    }

    /// Lets `p` give up the node in `slot`, as `other` does now, and `other` the one that `p` does, if it helps.
    fn trade(&mut self, p: usize, slot: usize, other: usize) {
        let (p_slot, other_slot) = (self.slot(p), self.slot(other));
        let gives = self.sets.row(p)[p_slot];
        let taken = (0..self.n).find(|&at| self.sets.row(other)[at] == gives && self.may(other, at));
        let Some(taken) = taken.filter(|_| p != other && p_slot != slot) else {
            return;
        };
        self.stay(p);
        self.stay(other);
        let now = self.cost_of_both((p, p_slot), (other, other_slot));
        let then = self.cost_of_both((p, slot), (other, taken));
        let (p_slot, other_slot) = if then < now {
            (slot, taken)
        } else {
            (p_slot, other_slot)
        };
        self.leave(p, p_slot);
        self.leave(other, other_slot);
    }

    fn slot(&self, p: usize) -> usize {
        self.leaving[p].expect("all partitions have chosen").slot
    }

    /// What two partitions' choices cost together: the second one depends on the first, where they concern one pair.
    fn cost_of_both(&mut self, one: (usize, usize), other: (usize, usize)) -> i64 {
        let (one_set, other_set) = (self.sets.set(one.0, self.n), self.sets.set(other.0, self.n));
        let cost = self.spread.cost(one_set, one.1);
        self.spread.leave(one_set, one.1);
        let both = cost + self.spread.cost(other_set, other.1);
        self.spread.stay(one_set, one.1);
        both
    }
}

/// One exchange on the way to a node with quota: `p` lets the node in `slot` leave, instead of the node of `before`.
#[derive(Clone, Copy)]
struct Link {
    p: usize,
    slot: usize,
    node: usize,
    before: Option<usize>,
}
