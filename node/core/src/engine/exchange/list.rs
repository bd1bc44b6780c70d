//! Making lists of keys, scan by scan, for an exchange of this node's or for a peer that asks.

use super::keys::{Listing, Page};
use crate::engine::background::Reader;
use crate::engine::{Engine, LoadFailed, ScanPage};
use crate::message::Refusal;
use crate::place::Place;
use crate::time::Instant;
use crate::tree::TreeId;
use quorate_ring::NodeIndex;

/// For whom keys are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lister {
    /// An exchange of this node's, by its number.
    Session(TreeId, u64),
    /// The question of a peer under this number.
    Peer(NodeIndex, u64),
}

impl Engine {
    /// Goes on with a list, or hands it out when it is complete.
    pub(super) fn list(&mut self, now: Instant, lister: Lister, mut listing: Listing) {
        match listing.next_scan(&self.trees) {
            Some(scan) => {
                let number = self.new_op().0;
                self.exchange.listings.insert(number, (lister, listing));
                self.begin_scan(Reader::Exchange(number), scan);
            }
            None => self.end_list(now, lister, Ok(listing.end())),
        }
    }

    /// Rows of a list have been read.
    pub(in crate::engine) fn listed(&mut self, now: Instant, number: u64, result: Result<ScanPage, LoadFailed>) {
        let Some((lister, mut listing)) = self.exchange.listings.remove(&number) else {
            return;
        };
        match result {
            // A scan that reads nothing and does not end would be asked for again and again.
            Ok(page) if page.done || !page.rows.is_empty() => {
                for key in listing.take(page, &self.trees, &self.config.buckets) {
                    self.found_corrupt(now, Place::Record(key));
                }
                self.list(now, lister, listing);
            }
            _ => self.end_list(now, lister, Err(Refusal::ReadFailed)),
        }
        self.wake_exchange(now);
    }

    fn end_list(&mut self, now: Instant, lister: Lister, page: Result<Page, Refusal>) {
        match lister {
            Lister::Session(tree, id) => self.take_mine(now, tree, id, page),
            Lister::Peer(node, id) => self.answer_keys(now, node, id, page),
        }
    }
}
