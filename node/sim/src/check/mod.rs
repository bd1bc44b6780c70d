//! Checkers: what must be true of a history and of the state it left.
//!
//! Each promise has its own file, a pure function from [`Facts`] to violations, and tests on histories made by hand. None of them searches: each
//! goes over the history once or a few times, so a thousand seeds a minute can afford all of them.
//!
//! What a write covers are the values that its client had been shown, and never what its context happens to say. A bug that makes contexts too
//! large makes data vanish, and a checker that believed the contexts would find that in order.
//!
//! Rejected: a general consistency checker that searches for an explanation of the history. It is exponential, and it
//! would say that something is wrong without saying which write was lost.

mod loss;
mod minimum;
mod monotone;
mod regular;
mod resurrection;
mod siblings;
mod values;

#[cfg(test)]
mod by_hand;

use crate::history::{Ending, Fate, History, Write, WriteIndex};
use crate::plan::Options;
use crate::violation::{Promise, Violation};
use crate::world::truth::Identity;
use quorate_core::bucket::{BlindWrites, Durability};
use quorate_core::record::{OVERWRITTEN_AGAIN_MAX, OVERWRITTEN_MAX, Record};
use std::collections::BTreeSet;

/// What was left of all keys at some moment after healing.
pub(crate) struct State {
    /// When.
    pub(crate) at: u64,
    /// The merge over all disks, by key.
    pub(crate) finals: Vec<Record>,
    /// How many writes had begun. Later ones are not in there.
    pub(crate) judged: usize,
    /// Overwritten writes that some disk had remembered by then under an id that says that they were sent again.
    pub(crate) resent: BTreeSet<Identity>,
}

/// Everything that a checker may look at.
pub(crate) struct Facts<'a> {
    pub(crate) options: &'a Options,
    pub(crate) history: &'a History,
    /// What is left.
    pub(crate) state: &'a State,
    /// From when on replicas were equal.
    pub(crate) converged_at: u64,
    /// By key: whether any of its history was ever dropped.
    pub(crate) settled: Vec<bool>,
    /// Every write that some disk held at some time.
    pub(crate) stored: &'a BTreeSet<Identity>,
    /// Those of relaxed durability that a power cut took from some disk.
    pub(crate) cut: &'a BTreeSet<Identity>,
    /// Keys that a power cut took any from.
    pub(crate) cut_keys: &'a BTreeSet<usize>,
    /// Those that only an owner ever knew durably that went away for good.
    pub(crate) taken_away: &'a BTreeSet<Identity>,
}

/// The facts, with what several checkers need of them.
pub(crate) struct Case<'a> {
    pub(crate) facts: &'a Facts<'a>,
    /// For each write those that may have covered it.
    coverers: Vec<Vec<WriteIndex>>,
    /// Writes of each key.
    by_key: Vec<Vec<WriteIndex>>,
}

/// Runs every checker.
pub(crate) fn all(facts: &Facts<'_>) -> Vec<Violation> {
    let case = Case::new(facts);
    let mut found = loss::check(&case);
    found.extend(siblings::check(&case));
    found.extend(resurrection::check(&case));
    found.extend(values::check(&case));
    found.extend(minimum::check(&case));
    found.extend(regular::check(&case));
    found.extend(monotone::check(&case));
    found
}

/// Runs those that judge what is left.
pub(crate) fn of_state(facts: &Facts<'_>) -> Vec<Violation> {
    let case = Case::new(facts);
    let mut found = loss::check(&case);
    found.extend(siblings::check(&case));
    found.extend(resurrection::check_state(&case));
    found
}

impl<'a> Case<'a> {
    pub(crate) fn new(facts: &'a Facts<'a>) -> Case<'a> {
        let writes = &facts.history.writes;
        let mut coverers = vec![Vec::new(); writes.len()];
        let mut by_key = vec![Vec::new(); facts.options.keys.len()];
        for (index, write) in writes.iter().enumerate() {
            by_key[write.key].push(index);
            write
                .covers
                .iter()
                .filter(|&&covered| covered != index)
                .for_each(|&covered| coverers[covered].push(index));
        }
        let mut case = Case {
            facts,
            coverers,
            by_key,
        };
        case.drop_unapplied();
        case
    }

    /// Takes writes that had no effect out of the coverers.
    fn drop_unapplied(&mut self) {
        let mut coverers = std::mem::take(&mut self.coverers);
        coverers
            .iter_mut()
            .for_each(|by| by.retain(|&index| self.may_be_applied(index)));
        self.coverers = coverers;
    }

    /// Whether a write may have had an effect. Either some disk held it, or it was acknowledged, or so many later ids were remembered instead that
    /// it may have been overwritten without a trace before its first sync.
    pub(crate) fn may_be_applied(&self, index: WriteIndex) -> bool {
        let write = &self.writes()[index];
        match write.fate() {
            Fate::Failed => false,
            Fate::Acked => true,
            Fate::Unknown => {
                self.facts.stored.contains(&(write.request.unique, write.payload)) || self.is_beyond_window(index)
            }
        }
    }

    pub(crate) fn writes(&self) -> &'a [Write] {
        &self.facts.history.writes
    }

    /// Those that had been shown this write, and may have been applied.
    pub(crate) fn coverers(&self, of: WriteIndex) -> &[WriteIndex] {
        &self.coverers[of]
    }

    pub(crate) fn of_key(&self, key: usize) -> &[WriteIndex] {
        &self.by_key[key]
    }

    /// Whether the final state must tell of it.
    pub(crate) fn is_judged(&self, index: WriteIndex) -> bool {
        index < self.facts.state.judged
    }

    /// Whether it may have been coordinated more than once: sent again by its client, by a node that passed it on, or by a
    /// network that repeats itself.
    pub(crate) fn may_be_repeated(&self, index: WriteIndex) -> bool {
        let options = self.facts.options;
        let attempts = &self.writes()[index].attempts;
        // A coordinator that cannot read its disk, or that is refused by it, lets another owner try.
        let may_pass_on = options.loses || options.disk.read_error_pm > 0 || options.disk.refused_pm > 0;
        let is_passed_on = may_pass_on || attempts.iter().any(|attempt| attempt.forwarded);
        attempts.len() > 1 || is_passed_on || options.network.duplicate_pm > 0
    }

    /// Whether the bucket's policy let some blind write take this one away, without anybody having been shown it. Such a write covers what its
    /// coordinator holds: anything that was sent before it was over.
    pub(crate) fn may_be_replaced(&self, index: WriteIndex) -> bool {
        let write = &self.writes()[index];
        self.facts.options.properties(write.key).blind_writes == BlindWrites::Replace
            && self.of_key(write.key).iter().any(|&other| {
                let by = &self.writes()[other];
                other != index
                    && by.blind
                    && by.attempts.iter().any(|a| !a.retry)
                    && self.may_be_applied(other)
                    && (by.attempts.len() > 1 || by.over_at() > write.start())
            })
    }

    /// Whether a write that so many owners acknowledged is sure to be met by a quorum that overlaps: owners forget nothing, or read again
    /// what they have lost from as many others as it takes.
    pub(crate) fn is_remembered(&self, key: usize, acks: u8) -> bool {
        let (options, properties) = (self.facts.options, self.facts.options.properties(key));
        let meets = !options.loses || acks + self.sources(key) > properties.n;
        // Of relaxed durability a power cut takes what was acknowledged.
        let is_kept = properties.durability == Durability::Durable || !self.facts.cut_keys.contains(&key);
        !options.forgets && meets && is_kept
    }

    /// Whether a power cut may have taken this write, though it was acknowledged: nobody waited for a disk, which is what relaxed durability
    /// promises, and some disk lost it that had not synced it. A process that ends alone takes nothing.
    pub(crate) fn may_be_cut(&self, index: WriteIndex) -> bool {
        let write = &self.writes()[index];
        let mut acked = write.attempts.iter().filter(|a| a.ending == Ending::Acked);
        acked.all(|a| a.need.durable == 0) && self.facts.cut.contains(&(write.request.unique, write.payload))
    }

    /// Whether an owner that went away for good took it along: no owner that is left ever knew of it durably. For those that are left its disk is lost.
    pub(crate) fn is_taken_away(&self, index: WriteIndex) -> bool {
        let write = &self.writes()[index];
        self.facts.taken_away.contains(&(write.request.unique, write.payload))
    }

    /// From how many other owners one that has lost its disk reads everything again, before it answers reads.
    pub(crate) fn sources(&self, key: usize) -> u8 {
        let properties = self.facts.options.properties(key);
        let w = properties.w.unwrap_or(properties.majority());
        let r = properties.r.unwrap_or(properties.majority());
        (properties.n + 1 - w).max(r).min(properties.n - 1)
    }

    /// Whether nobody may remember this write's id any more, so that a late copy of it is taken for a new write: too many younger ones were
    /// overwritten, or the record was dropped with its list.
    pub(crate) fn may_be_forgotten(&self, index: WriteIndex) -> bool {
        self.is_beyond_window(index) || self.facts.settled[self.writes()[index].key]
    }

    /// Whether its time may have been over by then, by some node's clock.
    pub(crate) fn may_expire(&self, index: WriteIndex, at: u64) -> bool {
        let write = &self.writes()[index];
        self.ttl_us(write.key)
            .is_some_and(|ttl| at.saturating_add(self.facts.options.skew_us() + 1_000) >= write.start() + ttl)
    }

    /// Whether its time must have been over by then, by every node's clock.
    pub(crate) fn must_expire(&self, index: WriteIndex, at: u64) -> bool {
        let write = &self.writes()[index];
        let latest = self.facts.options.skew_us() + 1_000;
        let over = |ttl| write.over_at().saturating_add(ttl + latest) < at;
        !self.may_be_repeated(index) && self.ttl_us(write.key).is_some_and(over)
    }

    fn ttl_us(&self, key: usize) -> Option<u64> {
        let ttl = self.facts.options.properties(key).ttl_seconds;
        ttl.map(|seconds| u64::from(seconds) * 1_000_000)
    }

    /// Whether so many younger writes of the key may have been overwritten that nobody remembers this one's id: then a late copy of it may come
    /// back. The list goes by the stamps, not by when things happened.
    pub(crate) fn is_beyond_window(&self, index: WriteIndex) -> bool {
        let write = &self.writes()[index];
        let (age, window) = (write.request.again(), self.window(write));
        let younger = |&&other: &&WriteIndex| self.writes()[other].request.again() > age;
        self.of_key(write.key).iter().filter(younger).count() >= window
    }

    /// How many younger ones it takes. The long window is for a write whose every copy says that it may be sent again; and for one of which only some
    /// do if such a one was overwritten, and no disk loses what it remembers.
    fn window(&self, write: &Write) -> usize {
        let options = self.facts.options;
        let is_kept = !options.forgets && !options.loses;
        let was_resent = is_kept && self.facts.state.resent.contains(&(write.request.unique, write.payload));
        match write.request.is_again() || was_resent {
            true => OVERWRITTEN_AGAIN_MAX,
            false => OVERWRITTEN_MAX,
        }
    }
}

/// A line about a write, for reports.
pub(crate) fn describe(case: &Case<'_>, index: WriteIndex) -> String {
    let write = &case.writes()[index];
    let kind = if write.is_delete() { "delete" } else { "put" };
    let value = write
        .value
        .as_ref()
        .and_then(|v| v.body.first_chunk::<8>())
        .map_or(0, |id| u64::from_le_bytes(*id));
    format!(
        "write {index} ({kind} of key {}, value {value}, id {:x}, sent at {}, {} attempts, {:?})",
        write.key,
        write.request.unique,
        write.start(),
        write.attempts.len(),
        write.fate()
    )
}

pub(crate) fn broken(promise: Promise, detail: String) -> Violation {
    Violation { promise, detail }
}
