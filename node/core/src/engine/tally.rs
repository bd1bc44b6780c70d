//! Counting answers towards a quorum.
//!
//! A tally has one line for each owner of the key, and owners are distinct nodes; so nobody is counted twice, however often a message is
//! repeated. A request is decided as soon as its need is met, or can no longer be met by those who have not answered.

use crate::request::{ReplicaReport, ReplicaState, Role};
use crate::time::Instant;
use quorate_ring::{NodeIndex, Ring};

/// How a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not decided.
    Pending,
    /// Enough owners answered.
    Met,
    /// Too few can still answer.
    Lost,
}

/// One owner's line.
#[derive(Clone, Debug)]
struct Line {
    node: NodeIndex,
    state: ReplicaState,
    asked: bool,
    elapsed_us: u32,
}

/// Answers so far, and how many are needed.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    need: u8,
    started: Instant,
    lines: Vec<Line>,
}

impl Tally {
    /// Nobody asked, nobody answered.
    pub(super) fn new(need: u8, owners: &[NodeIndex], started: Instant) -> Tally {
        let line = |&node| Line {
            node,
            state: ReplicaState::Waiting,
            asked: false,
            elapsed_us: 0,
        };
        Tally {
            need,
            started,
            lines: owners.iter().map(line).collect(),
        }
    }

    /// How many answers are needed.
    pub(super) fn need(&self) -> u8 {
        self.need
    }

    /// Notes that an owner was asked.
    pub(super) fn ask(&mut self, node: NodeIndex) {
        if let Some(line) = self.line(node) {
            line.asked = true;
        }
    }

    /// Notes an owner's answer, or why none will come. The first one counts. Returns whether it was news.
    pub(super) fn settle(&mut self, now: Instant, node: NodeIndex, state: ReplicaState) -> bool {
        let elapsed_us = micros(now, self.started);
        match self.line(node) {
            Some(line) if line.state == ReplicaState::Waiting => {
                (line.state, line.elapsed_us) = (state, elapsed_us);
                true
            }
            _ => false,
        }
    }

    /// How the request stands. An owner that was not asked yet may still answer.
    pub(super) fn verdict(&self) -> Verdict {
        let met = self.lines.iter().filter(|l| is_answer(l.state)).count();
        let open = self.lines.iter().filter(|l| l.state == ReplicaState::Waiting).count();
        if met >= usize::from(self.need) {
            Verdict::Met
        } else if met + open < usize::from(self.need) {
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
        self.lines
            .iter()
            .filter(|l| is_answer(l.state) || (l.asked && l.state == ReplicaState::Waiting))
            .count()
    }

    /// Owners that could still be asked.
    pub(super) fn unasked(&self) -> impl Iterator<Item = NodeIndex> {
        self.lines
            .iter()
            .filter(|l| !l.asked && l.state == ReplicaState::Waiting)
            .map(|l| l.node)
    }

    /// Owners that were asked and have not answered.
    pub(super) fn owing(&self) -> impl Iterator<Item = NodeIndex> {
        self.lines
            .iter()
            .filter(|l| l.asked && l.state == ReplicaState::Waiting)
            .map(|l| l.node)
    }

    /// Whether the owner was asked and has not answered.
    pub(super) fn owes(&self, node: NodeIndex) -> bool {
        self.owing().any(|n| n == node)
    }

    /// Forgets all answers, to ask again.
    pub(super) fn reset(&mut self) {
        for line in &mut self.lines {
            (line.state, line.asked) = (ReplicaState::Waiting, false);
        }
    }

    /// A report a line. `late` is what becomes of those who were asked and have not answered.
    pub(super) fn reports(&self, now: Instant, late: ReplicaState) -> Vec<ReplicaReport> {
        let report = |line: &Line| {
            let open = line.state == ReplicaState::Waiting;
            ReplicaReport {
                node: line.node,
                role: Role::Primary,
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
        let mut text = format!("{} {what} needed, {came} came", self.need);
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
        if came + reports.iter().filter(|r| !is_answer(r.state)).count() < usize::from(self.need) {
            text.push_str(&format!(
                " (the ring has only {} owners for this key)",
                self.lines.len()
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
    use ReplicaState::{Acked, Down, Lost};

    const A: NodeIndex = NodeIndex(0);
    const B: NodeIndex = NodeIndex(1);
    const C: NodeIndex = NodeIndex(2);

    fn tally(need: u8) -> Tally {
        let mut tally = Tally::new(need, &[A, B, C], Instant(0));
        [A, B, C].into_iter().for_each(|n| tally.ask(n));
        tally
    }

    #[test]
    fn a_repeated_ack_is_counted_once() {
        let mut tally = tally(2);
        assert!(tally.settle(Instant(1), A, Acked));
        assert!(!tally.settle(Instant(2), A, Acked));
        assert_eq!(tally.verdict(), Verdict::Pending);
        assert!(tally.settle(Instant(3), B, Acked));
        assert_eq!(tally.verdict(), Verdict::Met);
    }

    #[test]
    fn a_request_is_lost_as_soon_as_its_quorum_is_out_of_reach() {
        let mut tally = tally(2);
        tally.settle(Instant(1), A, Down);
        assert_eq!(tally.verdict(), Verdict::Pending);
        tally.settle(Instant(1), B, Lost);
        assert_eq!(tally.verdict(), Verdict::Lost);
        assert!(tally.owes(C));
    }

    #[test]
    fn a_stranger_is_not_counted() {
        let mut tally = tally(1);
        assert!(!tally.settle(Instant(1), NodeIndex(7), Acked));
        assert_eq!(tally.verdict(), Verdict::Pending);
    }
}
