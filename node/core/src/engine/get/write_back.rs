//! Making sure that what a strict read returns cannot be unseen.
//!
//! A write that reached one owner of three and no more is seen by a read that asks this one, and not by the next that asks the others. So a
//! strict read replies only once N-R+1 owners hold what it returns, durably: any R owners that a later read asks are then one of these at
//! least (promise P8). Mostly that is so already, since all answers are equal. Where they differ, the merged record is written back: first
//! to those that answered something else and then, when one of these fails or is slow, to the others. An owner counts once, for an equal
//! answer or for an ack of the write-back. It may hold more by then, which is as good.
//!
//! Rejected: writing back to all N before the reply. One owner with a full disk would end all strict reads of what differs.

use crate::engine::ops::Ops;
use crate::engine::tally::{Quorum, Tally, Verdict};
use crate::engine::{Engine, Op, OpId, Timer, Work, refused};
use crate::key::Key;
use crate::message::{Held, PeerMessage, RECORD_BYTES_MAX, Refusal, Replicate};
use crate::planted;
use crate::record::Record;
use crate::request::{Code, Failure, QuorumKind, ReplicaReport, ReplicaState};
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;

/// What a read found, while it is being made durable.
pub(super) struct WriteBack {
    key: Key,
    /// Canonical bytes of what the read will return.
    record: Bytes,
    /// Their hash.
    hash: u64,
    /// Who holds it durably.
    tally: Tally,
    /// Answers that the read had got.
    answers: usize,
}

impl WriteBack {
    /// Whether an ack of `node` is still to come.
    pub(super) fn waits_for(&self, node: NodeIndex) -> bool {
        self.tally.owes(node)
    }

    /// Those who have it under way and have not acknowledged it.
    pub(super) fn owing(&self) -> impl Iterator<Item = NodeIndex> {
        self.tally.owing()
    }

    /// Whether this answer says that its owner holds it.
    fn is(&self, held: &Held, told: Option<u64>) -> bool {
        match held {
            Held::Same => told == Some(self.hash),
            Held::Record(bytes) => *bytes == self.record,
        }
    }
}

/// What a read of a key with so many owners waits for, given what was asked; and, if it is strict, how many of them have to hold what it returns,
/// so that any other such read meets one that does.
pub(super) fn quorum(asked: Quorum, owners: usize) -> (Quorum, Option<u8>) {
    if asked.kind != QuorumKind::Strict || planted::is(13) {
        return (asked, None);
    }
    let copies = u8::try_from(owners).unwrap_or(u8::MAX).saturating_sub(asked.need) + 1;
    let need = asked.need.max(copies);
    let primary = need;
    (Quorum { need, primary, ..asked }, Some(copies))
}

/// Says why a strict read needs more owners than it was asked to.
pub(super) fn explain_need(mut failure: Failure, r: u8, copies: Option<u8>) -> Failure {
    if let Some(copies) = copies.filter(|&copies| copies > r) {
        failure.detail.push_str(&format!(
            "; r is {r}, but a strict read returns only what {copies} owners hold, so that no later one returns less; raise r, or ask for a \
             sloppy quorum"
        ));
    }
    failure
}

impl Engine {
    /// Not all answers were of what will be returned. A strict read waits until enough owners hold it; the others that were behind are repaired.
    pub(super) fn get_differing(&mut self, now: Instant, id: OpId) {
        let Some(Op::Get(op)) = self.ops.get(&id) else { return };
        let record = op.merged.encode();
        let hash = Record::hash_encoded(&record);
        let behind = op.answers.compare(hash).filter(|&(_, holds)| !holds);
        let behind: Vec<NodeIndex> = behind.map(|(node, _)| node).collect();
        let holders = op.answers.compare(hash).filter(|&(_, holds)| holds);
        let copies = op.copies.unwrap_or(0);
        let quorum = Quorum {
            kind: QuorumKind::Strict,
            need: copies,
            primary: copies,
            durable: 0,
        };
        let mut tally = Tally::new(quorum, self.owners(&op.key), now);
        for (node, _) in holders {
            tally.ask(node);
            tally.settle(now, node, ReplicaState::SameDigest);
        }
        self.counters.replicas_differed += u64::from(!op.answers.agree());
        if tally.verdict() == Verdict::Met {
            let key = op.key.clone();
            self.get_reply(now, id);
            return self.repair(now, &key, &record, &behind);
        }
        let write_back = WriteBack {
            key: op.key.clone(),
            answers: op.answers.compare(hash).count(),
            record,
            hash,
            tally,
        };
        self.write_back(now, id, write_back, &behind);
    }

    /// Begins to make it durable, at those who are known not to have it.
    fn write_back(&mut self, now: Instant, id: OpId, write_back: WriteBack, behind: &[NodeIndex]) {
        let Some(Op::Get(mut op)) = self.ops.remove(&id) else {
            return;
        };
        let held = op.held + write_back.record.len();
        op.write_back = Some(write_back);
        let at = now + self.patience(&op.key);
        self.set_timer(id, &mut op, at, Timer::Hedge);
        self.ops.insert(id, Op::Get(op));
        self.ops.hold(id, held);
        // The others first: this node's own ack may come at once and be enough, and they are behind nevertheless.
        let (here, elsewhere): (Vec<NodeIndex>, Vec<NodeIndex>) = behind.iter().partition(|&&node| node == self.me);
        elsewhere
            .into_iter()
            .chain(here)
            .for_each(|node| self.send_back(now, id, node));
        self.write_back_more(now, id, false);
        self.write_back_decide(now, id);
    }

    /// Sends it to one owner, or notes why not.
    fn send_back(&mut self, now: Instant, id: OpId, node: NodeIndex) {
        let is_up = node == self.me || self.peers.is_up(node);
        let Some(write_back) = writing_back(&mut self.ops, id) else {
            return;
        };
        if write_back.record.len() > RECORD_BYTES_MAX {
            write_back.tally.settle(now, node, ReplicaState::Overloaded);
        } else if !is_up {
            write_back.tally.settle(now, node, ReplicaState::Down);
        } else {
            write_back.tally.ask(node);
            let (key, record) = (write_back.key.clone(), write_back.record.clone());
            self.send_record(now, id, node, key, record);
        }
    }

    /// Sends a record to an owner, which may be this node, to be merged.
    pub(in crate::engine) fn send_record(&mut self, now: Instant, id: OpId, to: NodeIndex, key: Key, record: Bytes) {
        let (id, sync) = (id.0, true);
        if to == self.me {
            let from = self.me;
            return self.with_slot(now, &key, Work::Merge { from, id, record, sync });
        }
        self.send(to, PeerMessage::Replicate(Replicate { id, key, record, sync }));
    }

    /// Sends it to as many more owners as are needed, or to all of them.
    fn write_back_more(&mut self, now: Instant, id: OpId, all: bool) {
        let Some(write_back) = writing_back(&mut self.ops, id) else {
            return;
        };
        let tally = &write_back.tally;
        let missing = match all {
            true => usize::MAX,
            false => usize::from(tally.need()).saturating_sub(tally.promised()),
        };
        if missing == 0 {
            return;
        }
        let mut next = self.peers.rank(tally.unasked());
        // Last, as the others have been heard of, and this node's own disk has not.
        next.extend(tally.unasked().filter(|&node| node == self.me));
        let down: Vec<NodeIndex> = tally.unasked().filter(|node| !next.contains(node)).collect();
        let has_enough = next.len() >= missing;
        for node in next.into_iter().take(missing) {
            self.send_back(now, id, node);
        }
        if !has_enough {
            down.into_iter().for_each(|node| self.send_back(now, id, node));
        }
    }

    /// An owner has merged it durably, or will not.
    pub(in crate::engine) fn write_back_answer(
        &mut self,
        now: Instant,
        id: OpId,
        from: NodeIndex,
        state: ReplicaState,
    ) {
        if let Some(write_back) = writing_back(&mut self.ops, id)
            && write_back.tally.owes(from)
            && write_back.tally.settle(now, from, state)
        {
            self.write_back_more(now, id, false);
            self.write_back_decide(now, id);
        }
    }

    /// An owner answers while what others answered is written back already. It may turn out to hold just that.
    pub(super) fn late_answer(&mut self, now: Instant, id: OpId, from: NodeIndex, result: Result<Held, Refusal>) {
        let Some(Op::Get(op)) = self.ops.get_mut(&id) else {
            return;
        };
        let (Some(write_back), true) = (&mut op.write_back, op.tally.owes(from)) else {
            return;
        };
        let state = result
            .as_ref()
            .map_or_else(|&refusal| refused(refusal), |_| ReplicaState::Acked);
        op.tally.settle(now, from, state);
        if result.is_ok_and(|held| write_back.is(&held, op.told)) {
            write_back.tally.ask(from);
            self.write_back_answer(now, id, from, ReplicaState::SameDigest);
        } else if state == ReplicaState::Acked && write_back.tally.unasked().any(|node| node == from) {
            self.send_back(now, id, from);
            self.write_back_decide(now, id);
        }
    }

    /// Those it was sent to are slow.
    pub(super) fn write_back_hedge(&mut self, now: Instant, id: OpId) {
        self.write_back_more(now, id, true);
        self.write_back_decide(now, id);
    }

    fn write_back_decide(&mut self, now: Instant, id: OpId) {
        let Some(write_back) = writing_back(&mut self.ops, id) else {
            return;
        };
        match write_back.tally.verdict() {
            Verdict::Pending => {}
            Verdict::Met => self.get_reply(now, id),
            Verdict::Lost => self.get_fail(now, id, Code::QuorumNotMet, ReplicaState::Waiting),
        }
    }

    /// What is missing: `2 answers came and differ; what they make together is durable on 1 of 2 owners`, and who did what.
    pub(super) fn explain_write_back(
        &self,
        now: Instant,
        write_back: &WriteBack,
        late: ReplicaState,
    ) -> (Vec<ReplicaReport>, String) {
        let WriteBack {
            record, tally, answers, ..
        } = write_back;
        let reports = tally.reports(now, late);
        let holds = |report: &&ReplicaReport| matches!(report.state, ReplicaState::Acked | ReplicaState::SameDigest);
        let mut detail = format!(
            "{answers} answers came and differ; what they make together is durable on {} of {} owners, and a strict read returns nothing \
             that a later one might not find",
            reports.iter().filter(holds).count(),
            tally.need(),
        );
        if record.len() > RECORD_BYTES_MAX {
            detail.push_str(&format!(
                "; it has {} bytes, and {RECORD_BYTES_MAX} can be sent: read it with a sloppy quorum, resolve, and write with its context",
                record.len()
            ));
        } else {
            let others = reports.iter().filter(|report| !holds(report));
            for (at, report) in others.enumerate() {
                let name = &self.config.ring.member(report.node).name;
                detail.push_str(if at == 0 { ": " } else { ", " });
                detail.push_str(&format!("{name} {}", report.state));
            }
        }
        (reports, detail)
    }
}

/// What a read is writing back, if it is.
fn writing_back(ops: &mut Ops, id: OpId) -> Option<&mut WriteBack> {
    match ops.get_mut(&id)? {
        Op::Get(op) => op.write_back.as_mut(),
        _ => None,
    }
}
