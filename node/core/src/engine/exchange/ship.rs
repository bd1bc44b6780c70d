//! Moving the records that differ, a window at a time.
//!
//! ```text
//! send:  read here, wait for the sync ──► Handoff ──► merged and synced there ──► HandoffReply
//! pull:  Pull ──► read there, wait for the sync ──► PullReply ──► merged and synced here
//! both:  a pull; then what came out of it is sent, if that is news to the peer
//! ```
//!
//! A record that was sent is not forgotten before it is answered or its connection is gone, even if its exchange has been given up: until then
//! it may arrive, and nothing about its key can be settled.

use super::keys::Todo;
use super::session::{ANSWER_MAX, End, FAILED_MAX, Phase};
use crate::engine::Engine;
use crate::engine::sizes::{self, Sizes};
use crate::engine::slots::Work;
use crate::engine::stored::Stored;
use crate::key::Key;
use crate::message::{Handoff, HandoffReply, PeerMessage, Pull, PullReply, RECORD_BYTES_MAX, Refusal};
use crate::record::Record;
use crate::time::Instant;
use crate::tree::TreeId;
use bytes::Bytes;
use quorate_ring::NodeIndex;
use std::collections::BTreeMap;

/// Records that wait for this node's disk, as a multiple of what may be on its way.
const MERGING: usize = 4;

/// What an exchange does with a row once it is in memory.
#[derive(Debug)]
pub(in crate::engine) enum RowWork {
    /// Read it, to be sent.
    Read(u64),
    /// Merge what was pulled.
    Absorb { id: u64, record: Bytes },
    /// Read it for a peer that pulls it.
    Give { to: NodeIndex, id: u64 },
}

/// What it goes on with once the row is synced.
#[derive(Debug)]
pub(in crate::engine) enum RowWaiter {
    /// This is to be sent.
    Read(u64, Bytes),
    /// What was pulled is merged: whether that changed anything, and what came out.
    Absorbed(u64, Result<(bool, Bytes), Refusal>),
    /// This was asked for.
    Give(NodeIndex, u64, Bytes),
}

/// One record under way.
#[derive(Debug)]
struct Flight {
    peer: NodeIndex,
    tree: TreeId,
    session: u64,
    key: Key,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Being read here.
    Reading,
    /// Sent, and not answered: so many bytes.
    Sent(usize),
    /// Asked for, and not answered. `both`: what comes out is sent back if it is news.
    Pulling { both: bool },
    /// Being merged here. `news_to`: the hash of the peer's record, if it may have to be sent what comes out.
    Merging { news_to: Option<u64> },
}

impl Stage {
    fn bytes_sent(self) -> usize {
        match self {
            Stage::Sent(bytes) => bytes,
            _ => 0,
        }
    }
}

/// All records under way, by number.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: BTreeMap<u64, Flight>,
    /// How many records each node takes at once.
    credits: BTreeMap<NodeIndex, u16>,
    sizes: Sizes,
}

impl Flights {
    /// A node is gone. What it brought is still being merged.
    pub(super) fn lose(&mut self, peer: NodeIndex) {
        self.credits.remove(&peer);
        self.flights
            .retain(|_, flight| flight.peer != peer || matches!(flight.stage, Stage::Merging { .. }));
    }

    /// A session has ended. What it has sent, and what is being merged, is under way all the same.
    pub(super) fn leave(&mut self, session: u64) {
        self.flights.retain(|_, flight| {
            flight.session != session || matches!(flight.stage, Stage::Sent(_) | Stage::Merging { .. })
        });
    }

    /// How many bytes were sent to a node and are not answered.
    fn bytes_sent(&self, to: NodeIndex) -> usize {
        let flights = self.flights.values().filter(|flight| flight.peer == to);
        flights.map(|flight| flight.stage.bytes_sent()).sum()
    }

    /// The record of a node under this number that is in this stage.
    fn at(&mut self, id: u64, from: NodeIndex, is: impl Fn(Stage) -> bool) -> Option<&mut Flight> {
        let flight = self.flights.get_mut(&id)?;
        (flight.peer == from && is(flight.stage)).then_some(flight)
    }
}

impl Engine {
    /// Whether a record of this key is under way between this node and another because of an exchange that this node has asked for.
    pub fn exchange_pending(&self, key: &Key) -> bool {
        self.exchange.flights.flights.values().any(|flight| flight.key == *key)
    }

    /// Sends off records as long as there is room for them.
    pub(super) fn ship(&mut self, now: Instant) {
        let sessions = self.exchange.sessions.values().filter(|session| session.has_todo());
        let trees: Vec<TreeId> = sessions.map(|session| session.tree).collect();
        for tree in trees {
            let Some(session) = self.exchange.sessions.get(&tree) else {
                continue;
            };
            let (id, peer) = (session.id, session.peer);
            for _ in 0..self.room(peer) {
                if self.slots.are_full((self.config.limits.slots_max / 2).max(1)) {
                    return;
                }
                let session = self.exchange.sessions.get_mut(&tree);
                let Some(Phase::Ship { todo, flying }) = session.filter(|s| s.id == id).map(|s| &mut s.phase) else {
                    break;
                };
                let Some((key, what)) = todo.pop_front() else { break };
                *flying += 1;
                self.take_off(now, (id, peer, tree), key, what);
            }
        }
    }

    /// How many more records may be under way with a node. Its credit is about what it is sent, and as old as the last answer to that.
    fn room(&self, peer: NodeIndex) -> usize {
        let Flights {
            flights,
            credits,
            sizes,
        } = &self.exchange.flights;
        let (mut all, mut merging, mut sent) = (0, 0, 0);
        for flight in flights.values().filter(|flight| flight.peer == peer) {
            all += 1;
            merging += usize::from(matches!(flight.stage, Stage::Merging { .. }));
            sent += usize::from(matches!(flight.stage, Stage::Sent(_)));
        }
        if self.exchange.flights.bytes_sent(peer) >= sizes::BYTES_MAX {
            return 0;
        }
        let limit = self.config.limits.handoff_window;
        let credit = match sent {
            0 => limit,
            _ => credits.get(&peer).copied().unwrap_or(limit),
        };
        let window = self.exchange.pace.window(limit.min(credit));
        let window = window.min(sizes.window()).max(1);
        window
            .saturating_sub(all - merging)
            .min((MERGING * window).saturating_sub(all))
    }

    fn take_off(&mut self, now: Instant, (session, peer, tree): (u64, NodeIndex, TreeId), key: Key, what: Todo) {
        let id = self.new_op().0;
        let stage = match what {
            Todo::Send => Stage::Reading,
            Todo::Pull => Stage::Pulling { both: false },
            Todo::Both => Stage::Pulling { both: true },
        };
        let flight = Flight {
            peer,
            tree,
            session,
            key: key.clone(),
            stage,
        };
        self.exchange.flights.flights.insert(id, flight);
        match what {
            Todo::Send => self.with_slot(now, &key, Work::Exchange(RowWork::Read(id))),
            Todo::Pull | Todo::Both => self.send(peer, PeerMessage::Pull(Pull { id, key, parts: false })),
        }
    }

    /// A peer has sent what it was asked for, or refused to.
    pub(in crate::engine) fn pull_reply(&mut self, now: Instant, from: NodeIndex, message: PullReply) {
        let PullReply { id, result, .. } = message;
        if let Ok(record) = &result {
            self.exchange.flights.sizes.weigh(record);
        }
        let is_pulled = |stage| matches!(stage, Stage::Pulling { .. });
        let Some(flight) = self.exchange.flights.at(id, from, is_pulled) else {
            return;
        };
        match result {
            Ok(record) => {
                let both = flight.stage == Stage::Pulling { both: true };
                let news_to = both.then(|| Record::hash_encoded(&record));
                flight.stage = Stage::Merging { news_to };
                let key = flight.key.clone();
                self.with_slot(now, &key, Work::Exchange(RowWork::Absorb { id, record }));
                self.wake_exchange(now);
            }
            Err(_) => self.land(now, id, false),
        }
    }

    /// A peer has merged what it was sent, or refused to.
    pub(in crate::engine) fn exchange_delivered(&mut self, now: Instant, from: NodeIndex, message: &HandoffReply) {
        self.exchange.flights.credits.insert(from, message.credit);
        let is_sent = |stage| matches!(stage, Stage::Sent(_));
        if self.exchange.flights.at(message.id, from, is_sent).is_some() {
            self.land(now, message.id, message.result.is_ok());
        }
    }

    /// Does an exchange's part with a row that is in memory.
    pub(in crate::engine) fn exchange_row(&mut self, work: RowWork, stored: &mut Stored) -> RowWaiter {
        match work {
            RowWork::Read(id) => RowWaiter::Read(id, stored.encoded().clone()),
            RowWork::Absorb { id, record } => {
                let merged = stored.merge(&record).map_err(|_| Refusal::Malformed);
                let merged = merged.map(|changed| (changed, stored.encoded().clone()));
                RowWaiter::Absorbed(id, merged)
            }
            RowWork::Give { to, id } => RowWaiter::Give(to, id, stored.encoded().clone()),
        }
    }

    /// The row is synced as it was, or its store was refused.
    pub(in crate::engine) fn exchange_synced(&mut self, now: Instant, waiter: RowWaiter, synced: Result<(), Refusal>) {
        match waiter {
            RowWaiter::Read(id, record) => match synced {
                Ok(()) => self.hand_off(now, id, record),
                Err(_) => self.land(now, id, false),
            },
            RowWaiter::Absorbed(id, merged) => self.absorbed(now, id, synced.and(merged)),
            RowWaiter::Give(to, id, record) => self.give(to, id, synced.map(|()| record)),
        }
    }

    /// The row cannot be read.
    pub(in crate::engine) fn exchange_unreadable(&mut self, now: Instant, work: RowWork) {
        match work {
            RowWork::Read(id) | RowWork::Absorb { id, .. } => self.land(now, id, false),
            RowWork::Give { to, id } => self.give(to, id, Err(Refusal::ReadFailed)),
        }
    }

    /// What was pulled is merged.
    fn absorbed(&mut self, now: Instant, id: u64, merged: Result<(bool, Bytes), Refusal>) {
        let Ok((changed, record)) = merged else {
            return self.land(now, id, false);
        };
        self.counters.exchange_received += u64::from(changed);
        let Some(flight) = self.exchange.flights.flights.get(&id) else {
            return;
        };
        let Flight {
            tree, session, stage, ..
        } = *flight;
        let session = self.exchange.sessions.get_mut(&tree).filter(|s| s.id == session);
        let goes_on = session.is_some();
        if let Some(session) = session {
            session.ended.received += u64::from(changed);
        }
        match stage {
            Stage::Merging { news_to: Some(theirs) } if goes_on && theirs != Record::hash_encoded(&record) => {
                self.hand_off(now, id, record);
            }
            _ => self.land(now, id, true),
        }
    }

    /// Sends a record that is synced here.
    fn hand_off(&mut self, now: Instant, id: u64, record: Bytes) {
        let flights = &mut self.exchange.flights;
        flights.sizes.weigh(&record);
        let Some(to) = flights.flights.get(&id).map(|flight| flight.peer) else {
            return;
        };
        if record.len() > RECORD_BYTES_MAX {
            self.counters.exchange_too_large += 1;
            return self.land(now, id, true);
        }
        if flights.bytes_sent(to) >= sizes::BYTES_MAX {
            return self.hold_back(now, id);
        }
        let Some(flight) = flights.flights.get_mut(&id) else {
            return;
        };
        flight.stage = Stage::Sent(record.len());
        let key = flight.key.clone();
        let session = self.exchange.sessions.get_mut(&flight.tree);
        if let Some(session) = session.filter(|s| s.id == flight.session) {
            session.ended.sent += 1;
        }
        self.counters.exchange_sent += 1;
        self.counters.exchange_bytes_sent += (key.encoded().len() + record.len()) as u64;
        self.send(to, PeerMessage::Handoff(Handoff { id, key, record }));
    }

    /// There is no room for a record: it is read again when there is, once something that was sent is answered.
    fn hold_back(&mut self, now: Instant, id: u64) {
        let Some(flight) = self.exchange.flights.flights.get(&id) else {
            return;
        };
        let session = self.exchange.sessions.get_mut(&flight.tree);
        let phase = session.filter(|s| s.id == flight.session).map(|s| &mut s.phase);
        let Some(Phase::Ship { todo, flying }) = phase else {
            return self.land(now, id, false);
        };
        todo.push_front((flight.key.clone(), Todo::Send));
        *flying -= 1;
        self.exchange.flights.flights.remove(&id);
    }

    /// Sends a peer what it pulls.
    fn give(&mut self, to: NodeIndex, id: u64, record: Result<Bytes, Refusal>) {
        let result = match record {
            Ok(record) if record.len() > RECORD_BYTES_MAX => {
                self.counters.exchange_too_large += 1;
                Err(Refusal::Overloaded)
            }
            Ok(record) => {
                self.counters.exchange_sent += 1;
                self.counters.exchange_bytes_sent += record.len() as u64;
                Ok(record)
            }
            Err(refusal) => Err(refusal),
        };
        self.send(
            to,
            PeerMessage::PullReply(PullReply {
                id,
                result,
                whole: true,
            }),
        );
    }

    /// A record is where it was to go, or could not be brought there.
    fn land(&mut self, now: Instant, id: u64, well: bool) {
        let Some(flight) = self.exchange.flights.flights.remove(&id) else {
            return;
        };
        self.wake_exchange(now);
        let tree = flight.tree;
        let session = self.exchange.sessions.get_mut(&tree);
        let Some(session) = session.filter(|session| session.id == flight.session) else {
            return;
        };
        session.deadline = now + ANSWER_MAX;
        session.ended.failed += u64::from(!well);
        if let Phase::Ship { flying, .. } = &mut session.phase {
            *flying -= 1;
        }
        if session.ended.failed > FAILED_MAX {
            self.end_session(now, tree, End::Failed);
        } else if session.phase.is_done() {
            self.next_page(now, tree);
        }
    }
}
