//! Going round what is damaged: an exchange reads all that can be read.
//!
//! Where a file is damaged no list of keys can be made, and nobody can say which keys there were. If an exchange failed for that, a node that
//! has lost its memory would never have read its trees from this peer; and the peer, which starts over when all others are whole, would
//! never do so. So fewer leaves are asked for, half as many each time, and more again behind the damage. A single leaf that cannot be listed is left
//! out, and the peer counts as one that was asked and does not know all.
//!
//! A peer that is known to have missed something is sent all that is here of such a leaf, as if it held nothing: then what it missed is brought,
//! and this node may start over itself. Rejected: a peer that leaves the leaf out by itself and does not say so. Who asks would take what
//! is damaged for what was never there.

use super::Lister;
use super::keys::{Page, Upto};
use super::session::{End, Phase, Session};
use crate::engine::Engine;
use crate::time::Instant;
use crate::tree::TreeId;

/// Leaves that are asked for at once.
pub(super) const LEAVES_ASKED_MAX: usize = 512;

/// Whose list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Mine,
    Theirs,
}

/// On which side leaves were left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeftOut {
    pub(super) mine: bool,
    pub(super) theirs: bool,
}

impl LeftOut {
    pub(super) fn any(self) -> bool {
        self.mine || self.theirs
    }
}

impl Session {
    /// A page could be listed: the next one may be longer.
    pub(super) fn grow(&mut self) {
        self.at_once = (self.at_once * 2).min(LEAVES_ASKED_MAX);
    }

    /// The first of the leaves that are left has been dealt with.
    fn skip_leaf(&mut self) {
        self.leaves.drain(..1);
        self.after = None;
    }
}

impl Engine {
    /// A list of keys met damage right where it began, here or at the peer.
    pub(super) fn go_round(&mut self, now: Instant, tree: TreeId, side: Side) {
        let Some(session) = self.exchange.sessions.get_mut(&tree) else {
            return;
        };
        let Phase::Keys { lists, .. } = &mut session.phase else {
            return self.end_session(now, tree, End::Failed);
        };
        let asked = lists.asked.at.len();
        if asked <= 1 {
            match side {
                Side::Mine => session.left_out.mine = true,
                Side::Theirs => session.left_out.theirs = true,
            }
            session.left_out.mine |= lists.is_mine_damaged;
            if side == Side::Theirs && session.marks.is_some() && !lists.is_mine_damaged {
                let upto = Upto { done: 1, last: None };
                lists.theirs = Some(Page {
                    upto,
                    ..Page::default()
                });
                return self.compare_keys(now, tree);
            }
            session.skip_leaf();
        }
        session.at_once = (asked / 2).max(1);
        let lister = Lister::Session(tree, session.id);
        self.exchange.lists.retain(|kept| *kept != lister);
        self.next_page(now, tree);
    }
}
