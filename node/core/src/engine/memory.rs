//! Who has which memory: boot generations, and the greetings that tell of them.
//!
//! A node that comes back over an older copy of its data directory (a restored disk) has forgotten what it acknowledged, without knowing. So
//! each start of a directory has a *generation*, one above the last, and each process a random *start* beside it; peers remember the
//! newest pair that they met. Who is remembered under a higher generation, or under its own with another start, stands over an older copy: it
//! says nothing more, and the shell sets the directory aside and starts with an empty one. Its data is never merged.
//!
//! ```text
//! connected ──► greetings cross ──► the peer's generation is noted, synced: "I accept you" ──► it accepts us too: up
//!                    │
//!                    ├── it remembers more of us than we are: rebuild (who has another directory than that takes a higher generation instead)
//!                    └── we remember more of it than it is: it is not let up
//! ```
//!
//! A peer is sent to only when it has said that it accepts us, so nothing is sent that is dropped, and nothing that it acknowledges to us, or we to
//! it, is done before both remember each other. Greetings are repeated until both sides know.
//!
//! A directory knows its last starts. So a copy is found out also if it was started several times before it met anybody: a start that a peer
//! remembers and the copy does not was not its own.
//!
//! That holds for starts of one directory only, so each names its directory, too. After a disk was replaced the new directory may be known to those peers
//! alone that never met the old one, and be started again, before it meets one that did. Nobody can tell then which of the two is older. Neither
//! may be trusted to be complete, nor be set aside with what it acknowledged alone: it goes on far above the other one, and reads everything again.
//! Whoever stands far below another directory of its node was replaced by that one, and is an older copy.
//!
//! Until a peer has accepted it a process coordinates no writes: what it alone acknowledged would be set aside with a directory that turns out to be an
//! older copy. But all nodes may have lost power, and one come back. So a directory that was known once takes writes again when it has met nobody for
//! [`ALONE_AFTER`]; one that was never known does not.
//!
//! What this cannot see: a copy that is put back before the directory was started again after it was made. Rejected: comparing what nodes
//! hold. An older copy of a record is what an owner has that was away, too.

use super::background::Task;
use super::rebuild::Rebuild;
use super::slots::Waiter;
use super::{Effect, Engine};
use crate::message::{Greeting, Met, PeerMessage};
use crate::place::Place;
use crate::time::Instant;
use bytes::Bytes;
use quorate_ring::NodeIndex;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Between two greetings to a peer that has not been heard to accept us.
const GREET_EVERY: Duration = Duration::from_millis(250);
/// How far above the generation that a peer remembers a directory just made begins: above all that other peers may have met since.
const LEAP: u64 = 1 << 20;
/// How far apart the generations of two directories of one node are if the higher one was set above the lower one.
const APART: u64 = LEAP / 2;
/// The half of a start that is the same for all starts of one directory.
const DIRECTORY: u64 = !0 << 32;
/// Format of the node's own note.
const OWN_FORMAT: u8 = 2;
/// Starts that a directory knows. A peer that met none of so many says nothing about it.
const STARTS: usize = 16;
/// How long after a refusal the node's own note is stored again.
const NOTE_AFTER: Duration = Duration::from_secs(1);
/// How long a process that no peer accepts leaves writes to others, if its directory was known once. Then it takes them: it may be all that came back.
const ALONE_AFTER: Duration = Duration::from_secs(10);

/// One start of a data directory. Made by [`Boot::next`] of what the last start left, and stored and synced before the engine is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Rises by one with each start.
    pub generation: u64,
    /// The directory was made by this start, or since it was made no peer has accepted it, or not all that it should hold was read from other owners.
    pub is_new: bool,
    /// The random numbers of the last starts, this one first. Their upper halves name the directory; nobody was told of one whose lower half is 0.
    pub starts: [u64; STARTS],
}

/// A note on disk that is not what this node writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the note is not in a format that this node knows")]
pub struct MalformedNote;

impl Boot {
    /// The start that follows on what is stored at [`Place::Own`]; `None` for a directory that was just made.
    pub fn next(stored: Option<&[u8]>) -> Result<Boot, MalformedNote> {
        let Some(stored) = stored else {
            return Ok(Boot {
                generation: 1,
                is_new: true,
                ..Boot::default()
            });
        };
        let last = Boot::parse(stored)?;
        let mut starts = last.starts;
        starts.rotate_right(1);
        starts[0] = starts[1] & DIRECTORY;
        Ok(Boot {
            generation: last.generation + 1,
            starts,
            ..last
        })
    }

    /// What is to be stored at [`Place::Own`].
    pub fn note(&self) -> Bytes {
        let bytes = vec![OWN_FORMAT];
        let bytes = postcard::to_extend(self, bytes);
        bytes.expect("a vector grows, and two numbers serialize").into()
    }

    fn parse(stored: &[u8]) -> Result<Boot, MalformedNote> {
        match stored.split_first() {
            Some((&OWN_FORMAT, rest)) => postcard::from_bytes(rest).map_err(|_| MalformedNote),
            _ => Err(MalformedNote),
        }
    }

    /// Whether the directory was made by this start: nothing is in it that another start did.
    fn is_first(&self) -> bool {
        self.is_new && self.generation == 1
    }
}

/// How a process stands to one of the same node that a peer remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is that process or a later one, and knows what that one knew or knows that it does not.
    Later,
    /// They stood over two directories, and neither was set above the other.
    Unclear,
    /// It stands over an older copy.
    Older,
}

/// How a connected peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// There is no connection.
    Down,
    /// Greetings are under way.
    Greeting,
    /// It stands over an older copy of its data directory, and is not let up.
    Refused,
    /// Up.
    Up,
}

/// The connection to a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// The peer has said who it is, and that is what is remembered.
    heard: bool,
    /// What the peer says is taken in.
    accepts: bool,
    /// The peer takes in what we say.
    accepted: bool,
    /// The peer has lost its memory, and has not read everything again.
    rebuilding: bool,
    refused: bool,
    up: bool,
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Acquaintance {
    /// The newest process of it that was ever met.
    remembered: Option<Met>,
    /// That is durable.
    is_noted: bool,
    /// Notes of it that are being stored.
    storing: u32,
    link: Option<Link>,
}

impl Acquaintance {
    fn is_settled(&self) -> bool {
        self.link.is_none_or(|link| link.accepts && link.accepted)
    }
}

/// This node's present start, and what it remembers of all others.
#[derive(Debug)]
pub(super) struct Memory {
    me: Met,
    /// The last starts of the directory, this one first.
    starts: [u64; STARTS],
    /// That is durable, so peers may be told.
    is_noted: bool,
    /// The directory was made by this process, so its generation may still rise.
    is_first: bool,
    /// Not all that it should hold is there, or no peer has ever accepted it, as far as is noted durably.
    is_new: bool,
    /// The generation that is being stored instead.
    rising: Option<u64>,
    /// Some peer has accepted this start.
    is_known: bool,
    /// When this process began.
    began: Option<Instant>,
    /// Why this node has fallen silent.
    silent: Option<String>,
    peers: Vec<Acquaintance>,
}

impl Memory {
    pub(super) fn new(boot: Boot, seed: [u8; 32], members: usize) -> Memory {
        let mut rng = ChaCha12Rng::from_seed(seed);
        rng.set_stream(2);
        let drawn = rng.next_u64();
        // One that has something in it and was never named has no name. All copies of it have none, too.
        let directory = match boot.starts[0] & DIRECTORY {
            0 if boot.is_new => drawn & DIRECTORY,
            directory => directory,
        };
        let me = Met {
            generation: boot.generation,
            start: directory | drawn & !DIRECTORY,
        };
        let mut starts = boot.starts;
        starts[0] = me.start;
        Memory {
            me,
            starts,
            is_noted: false,
            is_first: boot.is_first(),
            is_new: boot.is_new,
            rising: None,
            // Alone, nobody else could know of it.
            is_known: members == 1,
            began: None,
            silent: None,
            peers: vec![Acquaintance::default(); members],
        }
    }

    /// How this process stands to one of this node that a peer remembers.
    fn standing(&self, met: Met) -> Standing {
        match compare_directories(self.me, met) {
            // Nothing is in a directory that this process made but what it has taken in itself.
            Some(Standing::Older) if self.is_first => return Standing::Unclear,
            Some(standing) => return standing,
            None => {}
        }
        let before = self.me.generation.checked_sub(met.generation);
        let is_older =
            match before.map(|before| usize::try_from(before).ok().and_then(|before| self.starts.get(before))) {
                None => met.start != self.me.start,
                Some(Some(&start)) => met.start != start && met.start != self.me.start,
                Some(None) => false,
            };
        match is_older {
            true => Standing::Older,
            false => Standing::Later,
        }
    }

    /// Whether this node has fallen silent.
    pub(super) fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// Time passes, from the first input on.
    pub(super) fn tick(&mut self, now: Instant) {
        self.began.get_or_insert(now);
    }

    /// Whether nobody else has accepted this process yet. Until then it acknowledges no writes: its directory may turn out to be an older copy, or
    /// its generation one that peers know already, and what it alone had acknowledged would be set aside. For one that was known once
    /// this ends after a while: it may be alone because all others are gone.
    pub(super) fn is_unknown(&self, now: Instant) -> bool {
        let was_known = !self.is_new;
        let is_alone = self.began.is_some_and(|began| now.since(began) >= ALONE_AFTER);
        !(self.is_known || (was_known && is_alone))
    }

    /// Whether what this peer says is taken in.
    pub(super) fn accepts(&self, node: NodeIndex) -> bool {
        let peer = self.peers.get(usize::from(node.0));
        !self.is_silent() && peer.and_then(|peer| peer.link).is_some_and(|link| link.accepts)
    }

    /// Whether the node's own note is to be stored: nothing of this start is, or not that the directory is no new one any more.
    pub(super) fn is_unnoted(&self, is_rebuilt: bool) -> bool {
        !self.is_noted || self.is_new != self.stays_new(is_rebuilt)
    }

    /// Whether the directory is still a new one.
    fn stays_new(&self, is_rebuilt: bool) -> bool {
        self.is_new && !(is_rebuilt && self.is_known)
    }

    /// Whether a peer has said that it is rebuilding, and not yet that it is done.
    pub(super) fn says_rebuilding(&self, node: NodeIndex) -> bool {
        let peer = self.peers.get(usize::from(node.0));
        peer.and_then(|peer| peer.link).is_some_and(|link| link.rebuilding)
    }

    /// The peers that are connected.
    fn connected(&self) -> Vec<NodeIndex> {
        let peers = self.peers.iter().enumerate();
        let connected = peers.filter(|(_, peer)| peer.link.is_some());
        connected.map(|(at, _)| NodeIndex(at as u16)).collect()
    }

    fn peer(&mut self, node: NodeIndex) -> Option<&mut Acquaintance> {
        self.peers.get_mut(usize::from(node.0))
    }

    /// The peers whose connections are not settled.
    fn unsettled(&self) -> Vec<NodeIndex> {
        let peers = self.peers.iter().enumerate();
        let unsettled = peers.filter(|(_, peer)| !peer.is_settled());
        unsettled.map(|(at, _)| NodeIndex(at as u16)).collect()
    }
}

/// How a process of a node stands to another one over another directory. `None` if it is one directory.
fn compare_directories(present: Met, other: Met) -> Option<Standing> {
    if (present.start ^ other.start) & DIRECTORY == 0 {
        return None;
    }
    Some(match (present.generation, other.generation) {
        (present, other) if present >= other.saturating_add(APART) => Standing::Later,
        (present, other) if other >= present.saturating_add(APART) => Standing::Older,
        _ => Standing::Unclear,
    })
}

/// Whether a peer that is now `present` is not to be let up by one who `remembered` it: it stands over an older copy, or has to go above that first.
/// A process is never older than itself: its generation may have risen since it sent what arrives late.
fn is_older(present: Met, remembered: Met) -> bool {
    match compare_directories(present, remembered) {
        Some(standing) => standing != Standing::Later,
        None => present.start != remembered.start && present.generation <= remembered.generation,
    }
}

impl Engine {
    /// Takes in a note that was found on disk: what was stored at [`Place::Peer`] or [`Place::Dirty`]. For the start of a node, before the
    /// first input. [`Place::Own`] comes with the configuration, as [`Boot`].
    pub fn restore_note(&mut self, place: Place, payload: &[u8]) -> Result<(), MalformedNote> {
        match place {
            Place::Peer(node) => {
                let met = postcard::from_bytes(payload).map_err(|_| MalformedNote)?;
                let index = self.config.ring.index_of(node);
                if let Some(peer) = index.and_then(|index| self.memory.peer(index)) {
                    (peer.remembered, peer.is_noted) = (Some(met), true);
                }
            }
            Place::Dirty(node, partition) => self.dirty.restore(node, partition),
            Place::Own | Place::Record(_) | Place::Hint(..) | Place::Settle(_) => {}
        }
        Ok(())
    }

    /// Why this node has fallen silent, if it has: its data directory is an older copy, or damaged.
    pub fn silent(&self) -> Option<&str> {
        self.memory.silent.as_deref()
    }

    /// How a peer stands.
    pub fn peer_state(&self, node: NodeIndex) -> PeerState {
        match self.memory.peers.get(usize::from(node.0)).and_then(|peer| peer.link) {
            None => PeerState::Down,
            Some(link) if link.refused => PeerState::Refused,
            Some(link) if link.up => PeerState::Up,
            Some(_) => PeerState::Greeting,
        }
    }

    /// The generation of this start. Higher than the configuration's if peers remembered a former directory of this node.
    pub fn generation(&self) -> u64 {
        self.memory.me.generation
    }

    /// A connection is there.
    pub(super) fn peer_connected(&mut self, now: Instant, node: NodeIndex) {
        if self.memory.is_silent() {
            return;
        }
        if let Some(peer) = self.memory.peer(node) {
            peer.link = Some(Link::default());
            self.greet(node, false);
            self.background.wake(now + GREET_EVERY, Task::Greet);
        }
    }

    /// A connection is gone.
    pub(super) fn peer_disconnected(&mut self, now: Instant, node: NodeIndex) {
        if let Some(peer) = self.memory.peer(node) {
            peer.link = None;
        }
        self.peers.down(node);
        self.exchange_peer_down(now, node);
        self.heals.lose(node);
        self.source_goes();
        self.lose(now, node);
        self.end_greeting();
    }

    /// Greets again who may not have heard it.
    pub(super) fn greet_again(&mut self, now: Instant) {
        for node in self.memory.unsettled() {
            self.greet(node, true);
            self.background.wake(now + GREET_EVERY, Task::Greet);
        }
    }

    fn end_greeting(&mut self) {
        if self.memory.unsettled().is_empty() {
            self.background.sleep(None, Task::Greet);
        }
    }

    fn greet(&mut self, to: NodeIndex, asks: bool) {
        if !self.memory.is_noted {
            return;
        }
        let (me, rebuilding) = (self.memory.me, self.memory.is_new);
        if let Some(peer) = self.memory.peer(to)
            && let Some(link) = peer.link
        {
            let greeting = Greeting {
                me,
                remembers: peer.remembered,
                accepts: link.accepts,
                rebuilding,
                asks,
            };
            self.send(to, PeerMessage::Greeting(greeting));
        }
    }

    /// A peer says who it is, and what it remembers of this node.
    pub(super) fn greeted(&mut self, now: Instant, from: NodeIndex, greeting: Greeting) {
        if self.memory.is_silent() {
            return;
        }
        if let Some(met) = greeting.remembers {
            match self.memory.standing(met) {
                Standing::Later => {}
                Standing::Unclear => return self.go_above(now, met),
                Standing::Older => return self.remembered_as(now, from, met),
            }
        }
        let Some(peer) = self.memory.peer(from) else { return };
        let Some(link) = &mut peer.link else { return };
        if peer.remembered.is_some_and(|met| is_older(greeting.me, met)) {
            self.counters.peers_refused += u64::from(!std::mem::replace(&mut link.refused, true));
            return;
        }
        // Greetings may overtake each other, and no process loses its memory; but one whose generation rises may have found out that it has.
        let is_news = peer
            .remembered
            .is_none_or(|met| met.generation < greeting.me.generation);
        let is_source_now = link.heard && link.rebuilding && !greeting.rebuilding;
        link.rebuilding = greeting.rebuilding && (link.rebuilding || !link.heard || is_news);
        link.heard = true;
        link.refused = false;
        link.accepted |= greeting.accepts;
        if is_news {
            (peer.remembered, peer.is_noted) = (Some(greeting.me), false);
        }
        if is_news || (!peer.is_noted && peer.storing == 0) {
            peer.storing += 1;
            self.note_peer(from);
        }
        self.accept(now, from, greeting.asks);
        if is_source_now {
            self.source_comes(now);
        }
    }

    fn note_peer(&mut self, node: NodeIndex) {
        let met = self.memory.peer(node).and_then(|peer| peer.remembered);
        let Some(met) = met else { return };
        let note = postcard::to_allocvec(&met).expect("two numbers serialize");
        let ticket = self.store_plain(Place::Peer(self.config.ring.member(node).id), Some(note.into()));
        self.slots.wait(ticket, vec![Waiter::PeerNoted(node)]);
    }

    /// What is to be known of this start at the next one.
    pub(super) fn own(&self) -> Boot {
        let Memory { me, rising, .. } = self.memory;
        let mut starts = [0; STARTS];
        match rising {
            Some(_) => starts[0] = me.start,
            None => starts = self.memory.starts,
        }
        Boot {
            generation: rising.unwrap_or(me.generation),
            is_new: self.memory.stays_new(self.rebuild.is_done()),
            starts,
        }
    }

    /// Stores it.
    pub(super) fn note_own(&mut self) {
        let boot = self.own();
        let ticket = self.store_plain(Place::Own, Some(boot.note()));
        self.slots.wait(ticket, vec![Waiter::OwnNoted(boot)]);
    }

    /// Lets a peer in, if it has said who it is and that is noted. `again`: it wants to be told, also if it was.
    fn accept(&mut self, now: Instant, node: NodeIndex, again: bool) {
        let Some(peer) = self.memory.peer(node) else { return };
        let Some(link) = &mut peer.link else { return };
        if !link.heard || !peer.is_noted || link.refused {
            return;
        }
        let is_news = !std::mem::replace(&mut link.accepts, true);
        let comes_up = link.accepted && !std::mem::replace(&mut link.up, link.accepted);
        if is_news || again {
            self.greet(node, false);
        }
        if comes_up {
            self.memory.is_known = true;
            self.end_greeting();
            self.come_up(now, node);
            self.note_rebuilt();
        }
    }

    /// A note of a peer has been stored, or could not be. One that is not let up for that greets again.
    pub(super) fn peer_noted(&mut self, now: Instant, node: NodeIndex, is_stored: bool) {
        let Some(peer) = self.memory.peer(node) else { return };
        peer.storing -= 1;
        if is_stored && peer.storing == 0 {
            peer.is_noted = true;
            self.accept(now, node, false);
        }
    }

    /// A peer remembers another directory of this node, and it is not known which is older. If this one was just made, or made while peers
    /// who met the other one were away, it goes on above that one. All that may have been acknowledged over the other is read again.
    fn go_above(&mut self, now: Instant, met: Met) {
        let memory = &mut self.memory;
        let generation = met.generation.max(memory.me.generation).saturating_add(LEAP);
        if memory.rising.is_none_or(|rising| rising < generation) {
            memory.rising = Some(generation);
            if !memory.is_first && !std::mem::replace(&mut memory.is_new, true) {
                self.rebuild = Rebuild::all(self.me, &self.config.ring, &self.config.buckets);
                self.exchange_wanted(now);
            }
            self.note_own();
        }
    }

    /// A peer remembers a newer process of this node than this one: this is an older copy.
    fn remembered_as(&mut self, now: Instant, by: NodeIndex, met: Met) {
        let reason = format!(
            "{} remembers start {} of this node's data directory, and this is start {}: the directory is an older copy",
            self.config.ring.member(by).name,
            met.generation,
            self.memory.me.generation,
        );
        self.fall_silent(now, reason);
    }

    /// The node's own note is stored: everybody is told what is new in it. If it was refused, a peer's next greeting raises the generation again.
    pub(super) fn own_noted(&mut self, now: Instant, boot: Boot, is_stored: bool) {
        let memory = &mut self.memory;
        memory.rising.take_if(|rising| *rising == boot.generation);
        if !is_stored {
            return self.background.wake(now + NOTE_AFTER, Task::NoteOwn);
        }
        memory.is_noted = true;
        if boot.generation > memory.me.generation {
            (memory.me.generation, memory.starts) = (boot.generation, boot.starts);
        }
        // What was noted before the directory turned out to be a new one says nothing.
        memory.is_new &= boot.is_new || memory.rising.is_some();
        memory.connected().into_iter().for_each(|node| self.greet(node, false));
    }

    /// From now on this node says nothing, and takes nothing in.
    pub(super) fn fall_silent(&mut self, now: Instant, reason: String) {
        self.memory.silent = Some(reason.clone());
        for at in 0..self.memory.peers.len() {
            self.peer_disconnected(now, NodeIndex(at as u16));
        }
        self.end_operations(now);
        self.effects.push_back(Effect::Rebuild { reason });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_start_is_one_above_what_the_last_left_and_keeps_whether_the_directory_is_new() {
        let first = Boot::next(None).unwrap();
        assert!(first.is_first());
        let second = Boot::next(Some(&first.note())).unwrap();
        assert_eq!((second.generation, second.is_new, second.is_first()), (2, true, false));
        let known = Boot {
            is_new: false,
            ..second
        };
        assert!(!Boot::next(Some(&known.note())).unwrap().is_new);
        for note in [&b""[..], b"\x02\x01\x00", b"\x01", b"\x01\x01"] {
            assert_eq!(Boot::next(Some(note)), Err(MalformedNote));
        }
    }
}
