//! Finding out whether a member is there.
//!
//! ```text
//!   0 ms   ping
//! 150 ms   ping, and three others are asked to ping it
//! 275 ms   the same
//! 400 ms   suspected: everybody hears of it. From here on only a refutation ends the trial
//!    …     every 100 ms: ping with the accusation, and one other is asked
//! 1400 ms  Down. 1900 ms if this node has heard nobody all the while, since then it is probably cut off itself
//! ```
//!
//! With 5 % of frames lost a direct way fails once in ten times, and one by way of another node once in five. Before a member is suspected three direct ways
//! and six others have failed, and before it is Down ten and ten more. Only who has tried all that says Down; others believe it,
//! unless they have heard the member themselves a moment ago.
//!
//! A node that was suspended wakes to find all its trials overdue. It begins them anew: what it did not hear says nothing.

use super::member::Liveness;
use super::turns::below;
use super::{Gossip, News, Saying};
use crate::time::Instant;
use quorate_ring::NodeId;
use std::time::Duration;

/// Others that are asked to ping.
const ASKED: usize = 3;

/// A member is being asked whether it is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    /// The number of all its pings.
    number: u64,
    began: Instant,
    /// When something is to be done about it.
    pub(super) next: Instant,
    /// Since when this node accuses the member of not being there.
    accused: Option<Instant>,
}

impl Gossip {
    /// Notices that this node was suspended. It has not heard what was said meanwhile, and knows less than before.
    pub(super) fn look_at_time(&mut self) {
        let Some(due) = self.period_at else { return };
        if self.now.since(due) <= self.patience.period {
            return;
        }
        (self.period_at, self.heard_any) = (Some(self.now), self.now);
        for node in std::mem::take(&mut self.trials).into_keys() {
            self.begin_trial(node);
        }
    }

    /// This node's turn to ask: some members that are there, and one that is not, which may be back.
    pub(super) fn run_period(&mut self) {
        let Some(due) = self.period_at.filter(|&at| at <= self.now) else {
            return;
        };
        self.period_at = Some(due + self.patience.period);
        for _ in 0..self.turns.at_once() {
            let members = &self.members;
            let is_here = |node| members.get(&node).is_some_and(|member| member.is_here());
            if let Some(node) = self.turns.next(is_here) {
                self.begin_trial(node);
            }
        }
        let away = self.members.values().filter(|member| !member.is_here());
        let away: Vec<NodeId> = away.map(|member| member.claim.node).collect();
        if !away.is_empty() {
            let node = away[below(&mut self.rng, away.len())];
            self.ping_once(node);
        }
    }

    /// Asks a member whether it is there, unless it is being asked.
    pub(super) fn begin_trial(&mut self, node: NodeId) {
        let is_here = self.members.get(&node).is_some_and(|member| member.is_here());
        if !is_here || self.trials.contains_key(&node) {
            return;
        }
        let number = self.new_number();
        let trial = Trial {
            number,
            began: self.now,
            next: self.now + self.patience.ask_others_after,
            accused: None,
        };
        self.trials.insert(node, trial);
        self.send(node, Saying::Ping(number));
    }

    /// Asks a member once and draws no conclusion if it does not answer.
    pub(super) fn ping_once(&mut self, node: NodeId) {
        let number = self.new_number();
        self.send(node, Saying::Ping(number));
    }

    /// Goes on with all trials that are due.
    pub(super) fn run_trials(&mut self) {
        let due = self.trials.iter().filter(|(_, trial)| trial.next <= self.now);
        let due: Vec<(NodeId, Trial)> = due.map(|(&node, &trial)| (node, trial)).collect();
        due.into_iter().for_each(|(node, trial)| self.run_trial(node, trial));
    }

    fn run_trial(&mut self, node: NodeId, mut trial: Trial) {
        let (now, patience) = (self.now, self.patience);
        match trial.accused {
            Some(since) if now >= since + self.time_to_refute(trial.began) => {
                self.trials.remove(&node);
                return self.find(node, Liveness::Down);
            }
            Some(_) => self.ask_again(node, trial.number, 1),
            None if now >= trial.began + patience.suspect_after => {
                trial.accused = Some(now);
                self.find(node, Liveness::Suspect);
                self.ask_again(node, trial.number, 1);
            }
            None => self.ask_again(node, trial.number, ASKED),
        }
        let half = (patience.suspect_after.saturating_sub(patience.ask_others_after)) / 2;
        trial.next = match trial.accused {
            Some(_) => now + patience.again_every,
            None => (now + half.max(Duration::from_millis(1))).min(trial.began + patience.suspect_after),
        };
        self.trials.insert(node, trial);
    }

    /// Pings once more, and has others ping.
    fn ask_again(&mut self, node: NodeId, number: u64, others: usize) {
        self.send(node, Saying::Ping(number));
        let here = self
            .members
            .values()
            .filter(|member| member.view == Liveness::Alive && member.claim.node != node);
        let mut here: Vec<NodeId> = here.map(|member| member.claim.node).collect();
        for _ in 0..others.min(here.len()) {
            let at = below(&mut self.rng, here.len());
            let other = here.swap_remove(at);
            self.send(other, Saying::PingFor(number, node));
        }
    }

    /// How long a suspect has for its refutation, if the trial began then.
    fn time_to_refute(&self, began: Instant) -> Duration {
        let mut others = self.members.values().filter(|member| member.is_here());
        let is_deaf = self.heard_any < began && others.nth(1).is_some();
        match is_deaf {
            true => self.patience.refute_within_if_deaf,
            false => self.patience.refute_within,
        }
    }

    /// The member has not answered, or has not refuted: everybody hears of it.
    fn find(&mut self, node: NodeId, found: Liveness) {
        let Some(member) = self.members.get_mut(&node) else {
            return;
        };
        let liveness = member.claim.liveness.max(found);
        let news = News {
            liveness,
            ..member.claim
        };
        let is_news = news != member.claim;
        member.claim = news;
        self.see(node, found);
        if is_news {
            self.spread.add(news, true);
            self.tell_some();
        }
    }

    /// A member on trial has answered, here or to somebody else. Who is accused has to refute as well.
    pub(super) fn trial_answered(&mut self, node: NodeId, number: u64) {
        let is_accused = self.members.get(&node).is_some_and(|member| member.is_accused());
        if !is_accused && self.trials.get(&node).is_some_and(|trial| trial.number == number) {
            self.trials.remove(&node);
        }
    }
}
