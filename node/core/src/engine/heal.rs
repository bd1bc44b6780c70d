//! Records that are found corrupt: set aside, and read again from the other owners.
//!
//! ```text
//! corrupt ──► set aside, an empty *incomplete* record in its place ──► other owners asked ──► merged, synced ──► from enough of them: whole again
//!                                                                          └── again, later, those that did not answer ◄──┘
//! ```
//!
//! What was there is not known, and may have been what this owner alone had acknowledged together with others. So an incomplete record gives no
//! answer to reads and is not coordinated on; what others send is merged into it and acknowledged. It is whole when as many other owners have
//! given theirs as a rebuilt tree needs ([`rebuild`](super::rebuild)). Those that have lost the record themselves give what they have since;
//! they do not count, unless all were asked. The mark is lost with the record, so this vnode counts under a new actor for the key.
//!
//! The record's part in its leaf of the Merkle tree is not known any more, so the [scrub](super::scrub) computes that leaf anew. An incomplete
//! record has an entry that no record has: no exchange finds two trees equal over it.
//!
//! Rejected: taking a corrupt record for one that was never there. A read that counts this owner's answer would miss what W of N acknowledged.

use super::background::Task;
use super::slots::Work;
use super::stored::Stored;
use super::{Effect, Engine, LoadFailed, OpId};
use crate::key::Key;
use crate::message::{PeerMessage, Pull, PullReply, RECORD_BYTES_MAX, Refusal};
use crate::place::Place;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Questions under way at once.
const ASKED_MAX: usize = 64;
/// Records that are remembered. What is beyond is found again.
const KEYS_MAX: usize = 10_000;
/// First and longest pause before those that did not answer are asked again.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What healing does with a row once it is in memory.
#[derive(Debug)]
pub(super) enum HealWork {
    /// Nothing: the row is looked at, that is all.
    Look,
    /// It was corrupt, and is set aside.
    Lose,
    /// Merge what another owner holds.
    Absorb {
        from: NodeIndex,
        whole: bool,
        record: Bytes,
    },
    /// It is whole, if enough owners have been heard.
    Complete,
    /// Tell another owner what is here.
    Give { to: NodeIndex, id: u64 },
}

/// What it goes on with once the row is synced.
#[derive(Debug)]
pub(super) enum HealWaiter {
    /// What another owner holds is merged.
    Absorbed { key: Key, from: NodeIndex, whole: bool },
    /// The record is whole.
    Completed(Key),
    /// This was asked for.
    Gave {
        to: NodeIndex,
        id: u64,
        record: Bytes,
        whole: bool,
    },
}

/// One incomplete record.
#[derive(Debug, Default)]
struct Heal {
    /// Owners whose whole record is merged.
    sound: BTreeSet<NodeIndex>,
    /// Owners who have lost it themselves, and what they have is merged.
    partial: BTreeSet<NodeIndex>,
    /// When it goes on.
    at: Instant,
    pause: Duration,
}

/// All incomplete records that are known.
#[derive(Debug, Default)]
pub(super) struct Heals {
    keys: BTreeMap<Key, Heal>,
    due: BTreeSet<(Instant, Key)>,
    asked: BTreeMap<OpId, (NodeIndex, Key)>,
}

impl Heals {
    /// Sets when a record goes on.
    fn set(&mut self, key: &Key, at: Instant) {
        if let Some(heal) = self.keys.get_mut(key) {
            self.due.remove(&(heal.at, key.clone()));
            heal.at = at;
            self.due.insert((at, key.clone()));
        }
    }

    fn end(&mut self, key: &Key) -> bool {
        self.asked.retain(|_, (_, asked)| asked != key);
        let heal = self.keys.remove(key);
        heal.is_some_and(|heal| self.due.remove(&(heal.at, key.clone())))
    }

    /// A node is gone: it owes nothing any more.
    pub(super) fn lose(&mut self, node: NodeIndex) {
        self.asked.retain(|_, (asked, _)| *asked != node);
    }
}

impl Engine {
    /// Records that were lost here and are being read again from other owners.
    pub fn healing(&self) -> usize {
        self.heals.keys.len()
    }

    /// A row is damaged, says somebody who has read it in a scan. It is looked at again, and healed if that is so.
    pub(super) fn found_corrupt(&mut self, now: Instant, place: Place) {
        match place {
            Place::Record(_) | Place::Hint(..) => self.with_place(now, place, Work::Heal(HealWork::Look)),
            // A key that was forgotten here is queued again when its record is next changed.
            Place::Settle(_) => _ = self.store_plain(place, None),
            Place::Peer(_) | Place::Dirty(..) | Place::Own => {}
        }
    }

    /// A row is lost. Returns whether something new can take its place, in the batch of what is done with the row now; if not, the disk takes no
    /// writes, and the row is found again later. It is set aside if it can be.
    pub(super) fn set_aside(&mut self, now: Instant, place: &Place, failed: LoadFailed) -> bool {
        if failed == LoadFailed::Damaged {
            self.note_damage(now);
        }
        if self.gate.is_closed(now) {
            return false;
        }
        let is_record = matches!(place, Place::Record(_));
        if is_record {
            self.counters.corrupt_records += 1;
            if failed == LoadFailed::Corrupt {
                self.effects.push_back(Effect::SetAside { place: place.clone() });
            }
        }
        is_record
    }

    /// Does healing's part with a row that is in memory.
    pub(super) fn heal_row(&mut self, place: &Place, work: HealWork, stored: &mut Stored) -> Option<HealWaiter> {
        let Place::Record(key) = place else { return None };
        match work {
            HealWork::Look => None,
            HealWork::Lose => {
                stored.lose();
                if let Some(heal) = self.heals.keys.get_mut(key) {
                    (heal.sound, heal.partial) = Default::default();
                }
                self.suspect_leaf(key);
                None
            }
            HealWork::Absorb { from, whole, record } => {
                let merged = !stored.is_incomplete() || stored.merge(&record).is_ok();
                let key = key.clone();
                merged.then_some(HealWaiter::Absorbed { key, from, whole })
            }
            HealWork::Complete => {
                if stored.is_incomplete() && self.has_sources(key) {
                    stored.complete();
                }
                (!stored.is_incomplete()).then(|| HealWaiter::Completed(key.clone()))
            }
            HealWork::Give { to, id } => Some(HealWaiter::Gave {
                to,
                id,
                record: stored.encoded().clone(),
                whole: !stored.is_incomplete() && !self.rebuilds(key),
            }),
        }
    }

    /// The row cannot be read. What was to be done is tried again; who asked is told.
    pub(super) fn heal_unreadable(&mut self, work: &HealWork) {
        if let HealWork::Give { to, id } = *work {
            self.give_part(to, id, Err(Refusal::ReadFailed), false);
        }
    }

    /// The row is synced as it was, or its store was refused.
    pub(super) fn heal_synced(&mut self, now: Instant, waiter: HealWaiter, is_synced: bool) {
        match waiter {
            HealWaiter::Gave { to, id, record, whole } => {
                let result = match is_synced {
                    true if record.len() > RECORD_BYTES_MAX => Err(Refusal::Overloaded),
                    true => Ok(record),
                    false => Err(Refusal::WriteFailed),
                };
                self.give_part(to, id, result, whole);
            }
            HealWaiter::Absorbed { key, from, whole } if is_synced => {
                let Some(heal) = self.heals.keys.get_mut(&key) else {
                    return;
                };
                match whole {
                    true => heal.sound.insert(from),
                    false => heal.partial.insert(from),
                };
                self.complete(now, &key);
            }
            HealWaiter::Completed(key) if is_synced => {
                self.counters.healed_records += u64::from(self.heals.end(&key));
                self.suspect_leaf(&key);
                if self.heals.keys.is_empty() {
                    self.background.sleep(None, Task::Heal);
                }
            }
            HealWaiter::Absorbed { .. } | HealWaiter::Completed(_) => {}
        }
    }

    fn give_part(&mut self, to: NodeIndex, id: u64, result: Result<Bytes, Refusal>, whole: bool) {
        self.send(to, PeerMessage::PullReply(PullReply { id, result, whole }));
    }

    /// A record is incomplete: sees to it that it is read again.
    pub(super) fn heal(&mut self, now: Instant, key: &Key) {
        if !self.heals.keys.contains_key(key) && self.heals.keys.len() < KEYS_MAX {
            let heal = Heal {
                pause: PAUSE_MIN,
                at: now,
                ..Heal::default()
            };
            self.heals.keys.insert(key.clone(), heal);
            self.heals.set(key, now);
            self.background.wake(now, Task::Heal);
        }
    }

    /// A peer has come: it is asked at once.
    pub(super) fn heal_more(&mut self, now: Instant) {
        let keys: Vec<Key> = self.heals.keys.keys().cloned().collect();
        keys.iter().for_each(|key| self.heals.set(key, now));
        self.wake_heals(now);
    }

    fn wake_heals(&mut self, now: Instant) {
        if let Some(&(at, _)) = self.heals.due.first() {
            self.background.wake(at.max(now), Task::Heal);
        }
    }

    /// Goes on with the records that are due.
    pub(super) fn run_heals(&mut self, now: Instant) {
        while self.heals.asked.len() < ASKED_MAX
            && let Some((at, key)) = self.heals.due.first().cloned()
            && at <= now
        {
            let Some(heal) = self.heals.keys.get_mut(&key) else {
                self.heals.due.pop_first();
                continue;
            };
            let pause = heal.pause;
            heal.pause = (pause * 2).min(PAUSE_MAX);
            self.heals.set(&key, now + pause);
            self.ask_owners(now, &key);
        }
        // With too many under way, their answers make room; those that never come are given up when their records are due.
        let after = match self.heals.asked.len() < ASKED_MAX {
            true => now,
            false => now + PAUSE_MIN,
        };
        self.wake_heals(after);
    }

    /// Asks the connected owners that have not given all that they have.
    fn ask_owners(&mut self, now: Instant, key: &Key) {
        if self.has_sources(key) {
            return self.complete(now, key);
        }
        self.heals.asked.retain(|_, (_, asked)| asked != key);
        let Some(heal) = self.heals.keys.get(key) else { return };
        let is_wanted = |&node: &NodeIndex| node != self.me && self.peers.is_up(node) && !heal.sound.contains(&node);
        let wanted: Vec<NodeIndex> = self.owners(key).iter().copied().filter(is_wanted).collect();
        for node in wanted {
            let id = self.new_op();
            self.heals.asked.insert(id, (node, key.clone()));
            let (id, key) = (id.0, key.clone());
            self.send(node, PeerMessage::Pull(Pull { id, key, parts: true }));
        }
    }

    /// An owner has answered. Returns whether it was asked.
    pub(super) fn heal_answer(&mut self, now: Instant, from: NodeIndex, reply: &PullReply) -> bool {
        let id = OpId(reply.id);
        if self.heals.asked.get(&id).is_none_or(|(node, _)| *node != from) {
            return false;
        }
        let Some((_, key)) = self.heals.asked.remove(&id) else {
            return false;
        };
        if let Ok(record) = &reply.result {
            let (whole, record) = (reply.whole, record.clone());
            self.with_slot(now, &key, Work::Heal(HealWork::Absorb { from, whole, record }));
        }
        self.wake_heals(now);
        true
    }

    /// Makes the record whole if enough owners have been heard.
    fn complete(&mut self, now: Instant, key: &Key) {
        if self.has_sources(key) {
            self.with_slot(now, key, Work::Heal(HealWork::Complete));
        }
    }

    fn has_sources(&self, key: &Key) -> bool {
        self.heals.keys.get(key).is_some_and(|heal| {
            let n = self.config.buckets.of(key.bucket()).n;
            self.are_enough(n, self.owners(key), &heal.sound, &heal.partial)
        })
    }
}
