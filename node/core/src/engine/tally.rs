//! Counting answers towards a quorum.
//!
//! A tally has one line for each owner of the key and, in a sloppy quorum, one for each fallback that was asked instead of an owner. Lines
//! are of distinct nodes; so nobody is counted twice, however often a message is repeated. A request is decided as soon as its need is
//! met, or can no longer be met by those who have not answered. The tally does not know who else could be asked: whoever coordinates
//! adds a [stand-in](Tally::stand_in) first and asks for the verdict then.
//!
//! An owner and the fallbacks that stand in for it count once, whoever of them answers. Answers are counted in three ways at once: all of them,
//! those of owners, and the durable ones. A strict quorum takes no stand-ins at
//! all. Riak counted `pr` and `pw` over who was *asked*, when the request began; an owner that went away meanwhile was counted still.

use crate::planted;
use crate::request::{QuorumKind, ReplicaReport, ReplicaState, Role};
use crate::time::Instant;
use quorate_ring::{NodeIndex, Ring};

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quorum {
    /// Whether fallbacks may stand in for owners.
    pub(super) kind: QuorumKind,
    /// Answers of distinct nodes. Invariant: no less than `primary` and `durable`.
    pub(super) need: u8,
    /// Of these, owners'.
    pub(super) primary: u8,
    /// Of these, durable ones. Answers to reads always are.
    pub(super) durable: u8,
}

impl Quorum {
    /// Whether fallbacks may stand in for owners.
    pub(super) fn takes_fallbacks(&self) -> bool {
        self.kind == QuorumKind::Sloppy || planted::is(8)
    }

    /// `2 acks`, or `3 acks (2 of owners)`.
    pub(super) fn in_words(&self, what: &str) -> String {
        let what = match self.need {
            1 => what.trim_end_matches('s'),
            _ => what,
        };
        let mut parts = Vec::new();
        if self.kind == QuorumKind::Sloppy && self.primary > 0 {
            parts.push(format!("{} of owners", self.primary));
        }
        if 0 < self.durable && self.durable < self.need {
            parts.push(format!("{} durable", self.durable));
        }
        match parts.is_empty() {
            true => format!("{} {what}", self.need),
            false => format!("{} {what} ({})", self.need, parts.join(", ")),
        }
    }
}

/// How a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not decided.
    Pending,
    /// Enough nodes answered.
    Met,
    /// Too few of those that have lines can still answer.
    Lost,
}

/// One node's line.
#[derive(Clone, Debug)]
struct Line {
    node: NodeIndex,
    /// The owner for which it was asked, if it is a fallback.
    stands_for: Option<NodeIndex>,
    state: ReplicaState,
    asked: bool,
    elapsed_us: u32,
}

impl Line {
    fn new(node: NodeIndex) -> Line {
        Line {
            node,
            stands_for: None,
            state: ReplicaState::Waiting,
            asked: false,
            elapsed_us: 0,
        }
    }

    fn is_owner(&self) -> bool {
        self.stands_for.is_none()
    }

    /// May still answer.
    fn is_open(&self) -> bool {
        self.state == ReplicaState::Waiting
    }

    fn has_answered(&self) -> bool {
        is_answer(self.state)
    }

    fn is_durable(&self) -> bool {
        self.has_answered() && self.state != ReplicaState::Accepted
    }
}

/// Answers so far, and how many are needed.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    quorum: Quorum,
    started: Instant,
    lines: Vec<Line>,
}

impl Tally {
    /// Nobody asked, nobody answered.
    pub(super) fn new(quorum: Quorum, owners: &[NodeIndex], started: Instant) -> Tally {
        let mut lines = Vec::with_capacity(owners.len() + 1);
        lines.extend(owners.iter().map(|&node| Line::new(node)));
        Tally { quorum, started, lines }
    }

    /// Takes it away, and leaves one without lines.
    pub(super) fn take(&mut self) -> Tally {
        let lines = std::mem::take(&mut self.lines);
        Tally { lines, ..*self }
    }

    /// What is waited for.
    pub(super) fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// How many answers are needed.
    pub(super) fn need(&self) -> u8 {
        self.quorum.need
    }

    /// Notes that a fallback was asked instead of an owner. Nothing if it has a line already, or if no fallbacks are taken.
    pub(super) fn stand_in(&mut self, fallback: NodeIndex, owner: NodeIndex) {
        if self.quorum.takes_fallbacks() && !self.has(fallback) {
            self.lines.push(Line {
                stands_for: Some(owner),
                asked: true,
                ..Line::new(fallback)
            });
        }
    }

    /// Whether a node has a line.
    pub(super) fn has(&self, node: NodeIndex) -> bool {
        self.lines.iter().any(|line| line.node == node)
    }

    /// For which owner a fallback was asked; `None` for owners and strangers.
    pub(super) fn stands_for(&self, node: NodeIndex) -> Option<NodeIndex> {
        self.lines.iter().find(|line| line.node == node)?.stands_for
    }

    /// Notes that a node was asked.
    pub(super) fn ask(&mut self, node: NodeIndex) {
        if let Some(line) = self.line(node) {
            line.asked = true;
        }
    }

    /// Notes a node's answer, or why none will come. The first one counts, but a durable one after one that was not. Returns whether it
    /// was news.
    pub(super) fn settle(&mut self, now: Instant, node: NodeIndex, state: ReplicaState) -> bool {
        let elapsed_us = micros(now, self.started);
        match self.line(node) {
            Some(line) if line.is_open() || (line.state == ReplicaState::Accepted && state == ReplicaState::Acked) => {
                (line.state, line.elapsed_us) = (state, elapsed_us);
                true
            }
            _ => false,
        }
    }

    /// How the request stands. A node that has a line and was not asked yet may still answer.
    pub(super) fn verdict(&self) -> Verdict {
        let Quorum {
            need, primary, durable, ..
        } = self.quorum;
        let (mut met, mut open) = ([0u8; 3], [0u8; 3]);
        for owner in self.lines.iter().filter(|line| line.is_owner()) {
            // An owner and who stands in for it are one answer: what a fallback keeps goes home to that owner, and is one copy then.
            let stand_ins = || self.lines.iter().filter(|line| line.stands_for == Some(owner.node));
            let any = |is: fn(&Line) -> bool| is(owner) || stand_ins().any(is);
            let [answered, durable, waits] = [any(Line::has_answered), any(Line::is_durable), any(Line::is_open)];
            let is_in = owner.has_answered() || (planted::is(8) && answered);
            met[0] += u8::from(answered);
            met[1] += u8::from(is_in);
            met[2] += u8::from(durable);
            open[0] += u8::from(!answered && waits);
            open[1] += u8::from(!is_in && (owner.is_open() || (planted::is(8) && waits)));
            open[2] += u8::from(!durable && (waits || answered));
        }
        let needs = [need, primary, durable];
        if (0..3).all(|way| met[way] >= needs[way]) {
            Verdict::Met
        } else if (0..3).any(|way| met[way] + open[way] < needs[way]) {
            Verdict::Lost
        } else {
            Verdict::Pending
        }
    }

    /// Whether every owner has answered.
    pub(super) fn is_complete(&self) -> bool {
        self.lines.iter().all(|l| is_answer(l.state))
    }

    /// How many answers are still to come from those who were asked, plus those that came.
    pub(super) fn promised(&self) -> usize {
        let is_promised = |line: &&Line| line.has_answered() || (line.asked && line.is_open());
        self.lines.iter().filter(is_promised).count()
    }

    /// Owners that could still be asked.
    pub(super) fn unasked(&self) -> impl Iterator<Item = NodeIndex> {
        self.lines.iter().filter(|l| !l.asked && l.is_open()).map(|l| l.node)
    }

    /// Nodes that were asked and have not answered.
    pub(super) fn owing(&self) -> impl Iterator<Item = NodeIndex> {
        self.lines.iter().filter(|l| l.asked && l.is_open()).map(|l| l.node)
    }

    /// Whether the node was asked and has not answered.
    pub(super) fn owes(&self, node: NodeIndex) -> bool {
        self.owing().any(|n| n == node)
    }

    /// Owners from which no answer will come, or none has come yet if `late`, and for which nobody stands in that has answered or may
    /// still answer.
    pub(super) fn unattended(&self, late: bool) -> impl Iterator<Item = NodeIndex> {
        let is_away = move |l: &&Line| l.is_owner() && !l.has_answered() && (late || !l.is_open());
        let attended = |owner| {
            let mut stand_ins = self.lines.iter().filter(move |l| l.stands_for == Some(owner));
            stand_ins.any(|l| l.has_answered() || l.is_open())
        };
        self.lines
            .iter()
            .filter(is_away)
            .map(|l| l.node)
            .filter(move |&owner| !attended(owner))
    }

    /// Owners that have not answered, and for which nobody has that stands in for them.
    pub(super) fn behind(&self) -> impl Iterator<Item = NodeIndex> {
        let is_behind = |l: &&Line| l.is_owner() && !l.has_answered();
        let kept = |owner| self.lines.iter().any(|l| l.stands_for == Some(owner) && l.is_durable());
        self.lines
            .iter()
            .filter(is_behind)
            .map(|l| l.node)
            .filter(move |&owner| !kept(owner))
    }

    /// Whether nobody owes anything.
    pub(super) fn is_settled(&self) -> bool {
        self.lines.iter().all(|line| !line.is_open())
    }

    /// Forgets all answers, to ask again. Fallbacks are forgotten altogether.
    pub(super) fn reset(&mut self) {
        self.lines.retain(Line::is_owner);
        for line in &mut self.lines {
            (line.state, line.asked) = (ReplicaState::Waiting, false);
        }
    }

    /// A report a line. `late` is what becomes of those who were asked and have not answered.
    pub(super) fn reports(&self, now: Instant, late: ReplicaState) -> Vec<ReplicaReport> {
        let report = |line: &Line| {
            let open = line.is_open();
            ReplicaReport {
                node: line.node,
                role: match line.is_owner() {
                    true => Role::Primary,
                    false => Role::Fallback,
                },
                state: match (open, line.asked) {
                    (true, true) => late,
                    (true, false) => ReplicaState::NotAsked,
                    (false, _) => line.state,
                },
                elapsed_us: match (open, line.asked) {
                    (true, true) => micros(now, self.started),
                    _ => line.elapsed_us,
                },
            }
        };
        self.lines.iter().map(report).collect()
    }

    /// Says in words who did what: `2 acks needed, 1 came: n2 timed out after 500 ms, n3 is down`.
    pub(super) fn explain(&self, what: &str, reports: &[ReplicaReport], ring: &Ring) -> String {
        let came = reports.iter().filter(|r| is_answer(r.state)).count();
        let mut text = format!("{} needed, {came} came", self.quorum.in_words(what));
        let others = reports.iter().filter(|r| !is_answer(r.state));
        for (at, report) in others.enumerate() {
            text.push_str(if at == 0 { ": " } else { ", " });
            text.push_str(&ring.member(report.node).name);
            text.push(' ');
            text.push_str(&report.state.to_string());
            if report.state == ReplicaState::TimedOut {
                text.push_str(&format!(" after {} ms", report.elapsed_us / 1000));
            }
        }
        if came + reports.iter().filter(|r| !is_answer(r.state)).count() < usize::from(self.quorum.need) {
            text.push_str(&format!(
                " (the ring has only {} owners for this key)",
                self.lines.iter().filter(|line| line.is_owner()).count()
            ));
        }
        text
    }

    fn line(&mut self, node: NodeIndex) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.node == node)
    }
}

fn is_answer(state: ReplicaState) -> bool {
    matches!(
        state,
        ReplicaState::Acked | ReplicaState::SameDigest | ReplicaState::Accepted
    )
}

fn micros(now: Instant, since: Instant) -> u32 {
    u32::try_from(now.since(since).as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReplicaState::{Accepted, Acked, Down, Lost, Waiting};

    const A: NodeIndex = NodeIndex(0);
    const B: NodeIndex = NodeIndex(1);
    const C: NodeIndex = NodeIndex(2);
    const FALLBACK: NodeIndex = NodeIndex(7);

    fn tally_of(quorum: Quorum) -> Tally {
        let mut tally = Tally::new(quorum, &[A, B, C], Instant(0));
        [A, B, C].into_iter().for_each(|n| tally.ask(n));
        tally
    }

    fn strict(need: u8) -> Tally {
        tally_of(Quorum {
            kind: QuorumKind::Strict,
            need,
            primary: need,
            durable: 0,
        })
    }

    fn sloppy(need: u8, primary: u8, durable: u8) -> Tally {
        tally_of(Quorum {
            kind: QuorumKind::Sloppy,
            need,
            primary,
            durable,
        })
    }

    #[test]
    fn a_repeated_ack_is_counted_once() {
        let mut tally = strict(2);
        assert!(tally.settle(Instant(1), A, Acked));
        assert!(!tally.settle(Instant(2), A, Acked));
        assert_eq!(tally.verdict(), Verdict::Pending);
        assert!(tally.settle(Instant(3), B, Acked));
        assert_eq!(tally.verdict(), Verdict::Met);
    }

    #[test]
    fn a_request_is_lost_as_soon_as_its_quorum_is_out_of_reach() {
        let mut tally = strict(2);
        tally.settle(Instant(1), A, Down);
        assert_eq!(tally.verdict(), Verdict::Pending);
        tally.settle(Instant(1), B, Lost);
        assert_eq!(tally.verdict(), Verdict::Lost);
        assert!(tally.owes(C));
    }

    #[test]
    fn a_stranger_is_not_counted() {
        let mut tally = strict(1);
        assert!(!tally.settle(Instant(1), FALLBACK, Acked));
        assert_eq!(tally.verdict(), Verdict::Pending);
    }

    #[test]
    fn a_fallback_counts_in_a_sloppy_quorum_and_has_no_line_in_a_strict_one() {
        for (mut tally, verdict) in [(sloppy(2, 0, 0), Verdict::Met), (strict(2), Verdict::Lost)] {
            tally.settle(Instant(1), A, Acked);
            tally.settle(Instant(1), B, Down);
            tally.settle(Instant(1), C, Down);
            tally.stand_in(FALLBACK, B);
            tally.settle(Instant(2), FALLBACK, Acked);
            assert_eq!(tally.verdict(), verdict);
        }
    }

    #[test]
    fn a_fallback_never_counts_towards_the_owners_that_are_needed() {
        let mut tally = sloppy(2, 2, 0);
        tally.settle(Instant(1), A, Acked);
        tally.settle(Instant(1), B, Down);
        tally.stand_in(FALLBACK, B);
        tally.settle(Instant(2), FALLBACK, Acked);
        assert_eq!(tally.verdict(), Verdict::Pending);
        tally.settle(Instant(3), C, Acked);
        assert_eq!(tally.verdict(), Verdict::Met);
        let roles: Vec<Role> = tally.reports(Instant(3), Waiting).iter().map(|r| r.role).collect();
        assert_eq!(roles, [Role::Primary, Role::Primary, Role::Primary, Role::Fallback]);
    }

    #[test]
    fn a_fallback_is_asked_for_one_owner_only_and_once() {
        let mut tally = sloppy(3, 0, 0);
        tally.settle(Instant(1), B, Down);
        tally.settle(Instant(1), C, Down);
        tally.stand_in(FALLBACK, B);
        tally.stand_in(FALLBACK, C);
        assert_eq!(tally.stands_for(FALLBACK), Some(B));
        assert_eq!(tally.unattended(false).collect::<Vec<_>>(), [C]);
        assert_eq!(tally.unattended(true).collect::<Vec<_>>(), [A, C]);
        assert_eq!(tally.behind().collect::<Vec<_>>(), [A, B, C]);
        tally.settle(Instant(1), FALLBACK, Acked);
        assert_eq!(tally.behind().collect::<Vec<_>>(), [A, C]);
        tally.reset();
        assert!(!tally.has(FALLBACK));
    }

    #[test]
    fn an_ack_that_is_not_durable_may_become_one_and_only_then_counts_as_one() {
        let mut tally = sloppy(2, 0, 1);
        assert!(tally.settle(Instant(1), A, Accepted));
        assert!(tally.settle(Instant(1), B, Accepted));
        assert_eq!(tally.verdict(), Verdict::Pending);
        assert!(tally.settle(Instant(2), B, Acked));
        assert!(!tally.settle(Instant(2), B, Accepted));
        assert_eq!(tally.verdict(), Verdict::Met);
    }
}
