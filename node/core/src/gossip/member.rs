//! What is known of one member: what is claimed of it, and what this node makes of that.
//!
//! A *claim* is the newest that anybody has said: it is ordered by incarnation, then by how bad it is, so that all nodes end
//! with the same one whatever order news come in. The *view* is what this node believes. They differ for a moment: who has
//! just heard from a node itself does not believe that it is down because somebody else says so, and tries for itself.

use super::frame::News;
use crate::time::Instant;
use quorate_ring::NodeId;
use serde::{Deserialize, Serialize};

/// How a node is. Later ones outrank earlier ones of the same incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It did not answer somebody. Asked last, until it refutes that.
    Suspect,
    /// It had time to refute that, and has not.
    Down,
    /// It said itself that it stops.
    Left,
}

impl News {
    /// What is ordered: news with a higher one replace those with a lower one.
    pub(super) fn rank(&self) -> (u64, Liveness) {
        (self.incarnation, self.liveness)
    }
}

/// One other member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) claim: News,
    pub(super) view: Liveness,
    /// When it was last heard itself.
    pub(super) heard: Option<Instant>,
    /// When it was last told, out of turn, what is claimed of it.
    pub(super) told: Option<Instant>,
}

impl Member {
    /// One of whom nothing is known. It counts as alive until it is found not to be.
    pub(super) fn new(node: NodeId) -> Member {
        Member {
            claim: News {
                node,
                incarnation: 0,
                liveness: Liveness::Alive,
            },
            view: Liveness::Alive,
            heard: None,
            told: None,
        }
    }

    /// Whether something is claimed of it that it would want to refute.
    pub(super) fn is_accused(&self) -> bool {
        self.claim.liveness != Liveness::Alive
    }

    /// Whether it takes part, as far as this node knows.
    pub(super) fn is_here(&self) -> bool {
        matches!(self.view, Liveness::Alive | Liveness::Suspect)
    }
}
