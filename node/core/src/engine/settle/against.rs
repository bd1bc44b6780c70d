//! What stands against settling a record: everything that this node has and that may still carry an older copy of it to an owner.
//!
//! All of it is asked here, in one place. What arrives for a row in memory needs no question: a record is weighed in its own slot, so
//! what came before is merged by then, and what comes later ends the watch.

use crate::engine::{Engine, OpId};
use crate::key::Key;
use crate::message::{Held, Objection, PeerMessage};
use crate::record::Record;

impl Engine {
    /// What this node has that stands against settling a key.
    pub(in crate::engine) fn stands_against(&mut self, key: &Key) -> Option<Objection> {
        if self.hints_in(self.config.ring.partition_of(key.token())) {
            return Some(Objection::Hint);
        }
        let token = key.token();
        let is_of_key = |other: &Key| other.token() == token && other == key;
        // Requests that this node coordinates or has passed on, writes that are replied to and not yet acknowledged by all, and what was sent by any of
        // these, by a repair, by an exchange or as a hint (whose row may be gone), and not been answered over a connection that is still there.
        let is_under_way = self.ops.iter().any(|(_, op)| is_of_key(op.key()))
            || self.pending.may_hold(key)
            || self.handoffs.may_hold(key)
            || self.exchange_pending(key);
        is_under_way.then_some(Objection::UnderWay)
    }

    /// Takes note of what a message brings: a copy that is not the record that is watched may be sent on from here.
    pub(in crate::engine) fn settle_overhear(&mut self, message: &PeerMessage) {
        if self.settling.watches.is_empty() {
            return;
        }
        match message {
            PeerMessage::StoreHint(m) => self.settling.watches.end(&m.key),
            PeerMessage::FetchReply(m) => {
                if let (Ok(Held::Record(record)), Some(op)) = (&m.result, self.ops.get(&OpId(m.id))) {
                    let hash = Record::hash_encoded(record);
                    self.settling.watches.came(op.key(), hash);
                }
            }
            // What an owner merges is taken in at once: it changes the owner's record, which ends the watch, or it is gone.
            _ => {}
        }
    }
}
