//! Making lists of keys, scan by scan, for an exchange of this node's or for a peer that asks.
//!
//! A scan keeps the disk, and in the shell the engine's own thread, from clients. So scans are small, and only a few are begun a
//! [turn](TURN), fewer the busier this node is; in between, what clients want is done.
//!
//! A list ends before what cannot be read for good. One that would begin there fails, and whoever asked goes [round](super::round) it.

use super::keys::{Listing, Page};
use super::session::ANSWER_MAX;
use crate::engine::background::Reader;
use crate::engine::{Engine, LoadFailed, ScanPage};
use crate::message::Refusal;
use crate::place::Place;
use crate::time::Instant;
use crate::tree::TreeId;
use quorate_ring::NodeIndex;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Scans are begun this often, and so many at once on an idle node.
const TURN: Duration = Duration::from_millis(1);
const SCANS: u16 = 8;

/// For whom keys are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lister {
    /// An exchange of this node's, by its number.
    Session(TreeId, u64),
    /// The question of a peer under this number.
    Peer(NodeIndex, u64),
}

/// All lists that are being made, by number.
#[derive(Debug, Default)]
pub(super) struct Lists {
    lists: BTreeMap<u64, (Lister, Listing)>,
    /// Those that wait for their next scan. May name some that are gone.
    ready: VecDeque<u64>,
    /// When scans may be begun again.
    next_turn: Instant,
}

impl Lists {
    /// Keeps only the lists that are made for some.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&Lister) -> bool) {
        self.lists.retain(|_, (lister, _)| is_kept(lister));
    }

    /// How many are made for a peer.
    pub(super) fn for_peer(&self, peer: NodeIndex) -> usize {
        let listers = self.lists.values().map(|(lister, _)| lister);
        listers
            .filter(|lister| matches!(lister, Lister::Peer(node, _) if *node == peer))
            .count()
    }

    /// When the next scan is to be begun.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.ready.is_empty()).then_some(self.next_turn)
    }
}

impl Engine {
    /// Begins a list.
    pub(super) fn list(&mut self, lister: Lister, listing: Listing) {
        let number = self.new_op().0;
        let lists = &mut self.exchange.lists;
        lists.lists.insert(number, (lister, listing));
        lists.ready.push_back(number);
    }

    /// Begins the scans of this turn.
    pub(super) fn run_lists(&mut self, now: Instant) {
        if self.exchange.lists.next().is_none_or(|at| at > now) {
            return;
        }
        self.exchange.lists.next_turn = now + TURN;
        let mut left = self.exchange.pace.window(SCANS);
        while left > 0
            && let Some(number) = self.exchange.lists.ready.pop_front()
        {
            let Some((lister, listing)) = self.exchange.lists.lists.get_mut(&number) else {
                continue;
            };
            left -= 1;
            let lister = *lister;
            match listing.next_scan(&self.trees) {
                Some(scan) => self.begin_scan(Reader::Exchange(number), scan),
                None => {
                    let listed = self.exchange.lists.lists.remove(&number);
                    let page = listed.map(|(_, listing)| listing.end()).unwrap_or_default();
                    self.end_list(now, lister, Ok(page));
                }
            }
        }
    }

    /// Rows of a list have been read.
    pub(in crate::engine) fn listed(&mut self, now: Instant, number: u64, result: Result<ScanPage, LoadFailed>) {
        let lists = &mut self.exchange.lists;
        let Some((lister, listing)) = lists.lists.get_mut(&number) else {
            return;
        };
        let lister = *lister;
        match result {
            // A scan that reads nothing and does not end would be asked for again and again.
            Ok(page) if page.done || !page.rows.is_empty() => {
                let damaged = listing.take(page, &self.trees, &self.config.buckets);
                lists.ready.push_back(number);
                for key in damaged {
                    self.found_corrupt(now, Place::Record(key));
                }
                self.get_on(now, lister);
            }
            failed => {
                let listed = lists.lists.remove(&number);
                let is_damaged = matches!(failed, Err(LoadFailed::Corrupt | LoadFailed::Damaged));
                if is_damaged {
                    self.note_damage(now);
                }
                let page = match listed {
                    Some((_, listing)) if is_damaged && listing.has_some() => Ok(listing.end()),
                    // Who asks goes round what is damaged, and comes back for what cannot be read now.
                    _ if is_damaged => Err(Refusal::ReadFailed),
                    _ => Err(Refusal::Overloaded),
                };
                self.end_list(now, lister, page);
            }
        }
        self.wake_exchange(now);
    }

    /// Puts the end of a session off, since its list gets on.
    fn get_on(&mut self, now: Instant, lister: Lister) {
        if let Lister::Session(tree, id) = lister
            && let Some(session) = self.exchange.sessions.get_mut(&tree)
            && session.id == id
        {
            session.deadline = now + ANSWER_MAX;
        }
    }

    fn end_list(&mut self, now: Instant, lister: Lister, page: Result<Page, Refusal>) {
        match lister {
            Lister::Session(tree, id) => self.take_mine(now, tree, id, page),
            Lister::Peer(node, id) => self.answer_keys(now, node, id, page),
        }
    }
}
