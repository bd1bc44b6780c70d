//! Taking in what others say.
//!
//! A frame is first evidence that its sender is there. Then come claims: each newer one replaces the older and is passed on, whether this node
//! believes it or not, since only the node that it is about can refute it, and has to hear of it. What is claimed of this node
//! itself it refutes at once.

use super::frame::{Frame, News, Saying};
use super::member::Liveness;
use super::turns::below;
use super::{Effect, FEW, Gossip};
use crate::time::Instant;
use quorate_ring::NodeId;

/// The highest incarnation. Nobody counts that far; what is beyond is made up.
pub(super) const INCARNATION_MAX: u64 = u64::MAX >> 1;
/// News in one frame that are looked at.
const NEWS_HEARD_MAX: usize = 64;

impl Gossip {
    /// A frame has come.
    pub(super) fn hear(&mut self, from: NodeId, frame: Frame) {
        if self.gone.contains(&from) {
            return self.dismiss(from);
        }
        if frame.state.version > self.state.version {
            self.effects.push_back(Effect::Behind(from));
        } else if frame.state.version == self.state.version && frame.state.digest != self.state.digest {
            self.effects.push_back(Effect::Differs(from));
        }
        if frame.saying == Saying::Gone {
            self.effects.push_back(Effect::Expelled(from));
        }
        if !self.members.contains_key(&from) {
            return;
        }
        self.heard(from);
        self.take(News {
            node: from,
            incarnation: frame.incarnation,
            liveness: Liveness::Alive,
        });
        frame.news.iter().take(NEWS_HEARD_MAX).for_each(|news| self.take(*news));
        self.answer(from, frame.saying);
    }

    /// Something has come from a member itself.
    pub(super) fn heard(&mut self, from: NodeId) {
        if let Some(member) = self.members.get_mut(&from) {
            member.heard = Some(self.now);
            self.heard_any = self.now;
        }
    }

    fn answer(&mut self, from: NodeId, saying: Saying) {
        match saying {
            Saying::Ping(number) => self.send(from, Saying::Ack(number)),
            Saying::Ack(number) => self.acked(from, number),
            Saying::PingFor(number, target) => self.relay(from, number, target),
            Saying::AckFor(number, target) => self.trial_answered(target, number),
            Saying::Tell | Saying::Gone => {}
        }
        if !matches!(saying, Saying::Ping(_)) {
            self.tell_accused(from);
        }
    }

    /// A node that spoke is told what is claimed of it, if there is something; not more often than once a period.
    fn tell_accused(&mut self, node: NodeId) {
        let (now, period) = (self.now, self.patience.period);
        let Some(member) = self.members.get_mut(&node) else {
            return;
        };
        if member.is_accused() && is_due(member.told, now, period) {
            member.told = Some(now);
            self.send(node, Saying::Tell);
        }
    }

    /// A node that was taken out of the cluster is told so, not more often than once a period.
    fn dismiss(&mut self, node: NodeId) {
        let (now, period) = (self.now, self.patience.period);
        if is_due(self.dismissed.get(&node).copied(), now, period) {
            self.dismissed.insert(node, now);
            let frame = Frame {
                incarnation: self.incarnation,
                state: self.state,
                saying: Saying::Gone,
                news: Vec::new(),
            };
            self.effects.push_back(Effect::Send { to: node, frame });
        }
    }

    /// Takes in one claim.
    fn take(&mut self, news: News) {
        if news.incarnation > INCARNATION_MAX {
            return;
        }
        if news.node == self.me {
            return self.refute(news);
        }
        let (now, recent) = (self.now, self.patience.recent);
        let Some(member) = self.members.get_mut(&news.node) else {
            return;
        };
        if news.rank() <= member.claim.rank() {
            return;
        }
        // That a node has started is of no hurry, and at the start of a cluster all have. What is bad is, and what refutes it.
        let urgent = member.is_accused() || news.liveness != Liveness::Alive;
        member.claim = news;
        self.spread.add(news, urgent);
        let was_heard = member.heard.is_some_and(|at| now.since(at) < recent);
        match news.liveness {
            Liveness::Alive | Liveness::Left => {
                self.trials.remove(&news.node);
                self.see(news.node, news.liveness);
            }
            // It was here a moment ago. Whoever says otherwise may have a bad path, so this node tries for itself.
            Liveness::Suspect | Liveness::Down if was_heard => self.begin_trial(news.node),
            Liveness::Suspect => {
                self.see(news.node, Liveness::Suspect);
                self.try_too(news.node);
            }
            Liveness::Down => {
                self.trials.remove(&news.node);
                self.see(news.node, Liveness::Down);
                self.try_too(news.node);
            }
        }
    }

    /// Asks a member that others do not reach, and tells it what is said. Of many nodes only some do.
    fn try_too(&mut self, node: NodeId) {
        if below(&mut self.rng, self.members.len()) >= FEW {
            return;
        }
        match self.members.get(&node).is_some_and(|member| member.is_here()) {
            true => self.begin_trial(node),
            false => self.ping_once(node),
        }
    }

    /// Something is claimed of this node. What is not so it refutes, by a higher incarnation; and so an earlier process of it is outranked.
    fn refute(&mut self, news: News) {
        if news.rank() <= (self.incarnation, Liveness::Alive) {
            return;
        }
        self.incarnation = (news.incarnation + 1).min(INCARNATION_MAX);
        let refutation = News {
            node: self.me,
            incarnation: self.incarnation,
            liveness: Liveness::Alive,
        };
        self.spread.add(refutation, true);
        self.tell_some();
    }
}

/// Whether something was never done, or a period ago.
fn is_due(last: Option<Instant>, now: Instant, period: std::time::Duration) -> bool {
    last.is_none_or(|at| now.since(at) >= period)
}
