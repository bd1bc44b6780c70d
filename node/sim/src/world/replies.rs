//! Replies: what a client learns, and whether it may be true.
//!
//! Checked here is what one reply can be held to by itself: that there is one (P12), in time, that it names the acks it claims, that its values
//! were written (P3), and that what has to be refused is refused.

use super::clients::Held;
use super::event::Event;
use super::log::unseal;
use super::requests::What;
use super::{World, micros};
use crate::history::{Ending, Need, WriteIndex};
use crate::probes::Probe;
use crate::violation::Promise;
use bytes::Bytes;
use quorate_core::context::Context;
use quorate_core::dot::Dot;
use quorate_core::message::{Message, RequestReply};
use quorate_core::request::{
    Code, Failure, Operation, Outcome, ReplicaReport, ReplicaState, Reply, Response, Role, View,
};

impl World {
    /// The engine replies.
    pub(super) fn reply(&mut self, at: usize, handle: u64, response: Response) {
        let pending = &mut self.pending[handle as usize];
        pending.replies += 1;
        let (replies, handed_in, timeout) = (pending.replies, pending.handed_in, pending.timeout_us);
        if replies > 1 {
            self.violated(Promise::P12, || {
                format!("request {handle} was replied to {replies} times")
            });
        }
        let undisturbed =
            handed_in.filter(|&(since, _)| self.nodes[at].disturbed_at < since || self.nodes[at].disturbed_at == 0);
        if let Some((since, _)) = undisturbed
            && self.now > since + timeout
        {
            let late = self.now - since;
            self.violated(Promise::P12, || {
                format!("request {handle} was replied to after {late} us, not within {timeout} us")
            });
        }
        if let Ok(Reply::Written { context, .. }) = &response {
            self.check_durable(handle, context);
            self.acknowledged();
        }
        let bytes = self.encode(Message::RequestReply(RequestReply { id: handle, response }));
        if !self.net.chance(self.lost_replies_pm) {
            let delay = self.net.range(20, 500);
            self.queue.push(self.now + delay, Event::Reply(handle, bytes));
        }
    }

    /// An acknowledged write is on as many synced disks as it asked for. Its dot is what the returned context has more than the one that
    /// came with it; a retry of an overwritten write has none. What was forgotten since is not there to be seen.
    fn check_durable(&mut self, handle: u64, context: &Bytes) {
        let pending = &self.pending[handle as usize];
        let What::Write { index, attempt } = pending.what else {
            return;
        };
        let write = &self.history.writes[index];
        let (Operation::Put { context: before, .. } | Operation::Delete { context: before, .. }) = &write.operation
        else {
            return;
        };
        let before = before.as_deref().and_then(unseal).unwrap_or_default();
        let Some(dot) = unseal(context).and_then(|after| one_more(&before.context, &after.context)) else {
            return;
        };
        let need = write.attempts[attempt].need;
        let (owners, all) = self.truth.synced_nodes(pending.key, dot);
        let least = need.owners.min(need.durable);
        let lost = self.plan.options.forgets || self.plan.options.loses;
        // What need not be on disk yet is stored all the same, unless power was cut since.
        let made = (write.request.unique, write.payload);
        let (here, stored) = self.truth.applied_nodes(pending.key, dot);
        let is_cut = self.truth.cut.contains(&made);
        if (here < need.owners.into() || stored < need.all.into()) && !lost && !is_cut {
            self.violated(Promise::P12, || {
                format!("request {handle} was acknowledged with {need:?}, and {here} owners and {stored} nodes in all have stored it")
            });
        }
        if (owners < usize::from(least) || all < usize::from(need.durable)) && !lost {
            self.violated(Promise::P12, || {
                format!("request {handle} was acknowledged with {need:?}, and {owners} owners and {all} nodes in all have synced it")
            });
        }
    }

    /// The client stops waiting. It knows nothing.
    pub(super) fn give_up(&mut self, handle: u64) {
        let pending = &mut self.pending[handle as usize];
        if !std::mem::replace(&mut pending.waiting, false) {
            return;
        }
        self.clients[pending.client].waits_for -= 1;
        if let What::Write { index, attempt } = pending.what {
            self.probes.hit(Probe::UnknownOutcome);
            if self.watch.timeouts_fail {
                self.history.writes[index].attempts[attempt].ending = Ending::NotApplied;
            }
        }
    }

    /// A reply reaches its client.
    pub(super) fn client_reply(&mut self, handle: u64, bytes: Bytes) {
        let Some(Message::RequestReply(RequestReply { response, .. })) = self.decode(bytes) else {
            return;
        };
        let pending = &mut self.pending[handle as usize];
        if !std::mem::replace(&mut pending.waiting, false) {
            return self.probes.hit(Probe::LateReply);
        }
        pending.succeeded = response.is_ok();
        self.clients[pending.client].waits_for -= 1;
        let (must_fail, what) = (pending.must_fail, pending.what.clone());
        if must_fail && response.is_ok() {
            self.violated(Promise::P12, || {
                format!("request {handle} was to be refused, and succeeded")
            });
        }
        match (what, response) {
            (
                What::Write { index, attempt },
                Ok(Reply::Written {
                    context,
                    view,
                    replicas,
                }),
            ) => {
                self.written(handle, (index, attempt), context, view, &replicas);
            }
            (What::Read { need, minimum }, Ok(Reply::Found { view, replicas })) => {
                self.check_acks(handle, &replicas, need);
                let values = self.values(handle, &view);
                let context = view.context.as_deref().and_then(unseal).unwrap_or_default().context;
                self.hold(handle, view.context, values.clone());
                self.note_read(handle, values, context, (need, minimum));
            }
            (what, Err(failure)) => self.failed(handle, &what, &failure),
            (_, Ok(_)) => self.violated(Promise::P12, || {
                format!("request {handle} was answered as another kind of request")
            }),
        }
    }

    fn written(
        &mut self,
        handle: u64,
        (index, attempt): (WriteIndex, usize),
        context: Bytes,
        view: Option<View>,
        replicas: &[ReplicaReport],
    ) {
        let write = &mut self.history.writes[index];
        let sent = &mut write.attempts[attempt];
        (sent.ending, sent.end) = (Ending::Acked, Some(self.now));
        let need = sent.need;
        let shown: Vec<WriteIndex> = write.covers.iter().copied().chain([index]).collect();
        self.probes.hit_if(write.is_delete(), Probe::DeleteAcked);
        self.check_acks(handle, replicas, need);
        match view {
            Some(view) => {
                self.probes.hit(Probe::Representation);
                let values = self.values(handle, &view);
                self.hold(handle, view.context, values);
            }
            None => self.hold(handle, Some(context), shown),
        }
    }

    fn failed(&mut self, handle: u64, what: &What, failure: &Failure) {
        if let What::Write { index, attempt } = *what {
            let sent = &mut self.history.writes[index].attempts[attempt];
            sent.end = Some(self.now);
            let certain = failure.outcome == Outcome::NotApplied;
            sent.ending = if certain { Ending::NotApplied } else { Ending::Unknown };
            self.probes.hit(if certain {
                Probe::NotApplied
            } else {
                Probe::UnknownOutcome
            });
        } else if failure.outcome == Outcome::Unknown {
            self.violated(Promise::P12, || format!("read {handle} failed with an unknown outcome"));
        }
        let probe = match failure.code {
            Code::ForgedContext => Probe::Forged,
            Code::Unsupported => return,
            Code::ContextRequired => Probe::ContextRequired,
            Code::TooManySiblings => Probe::TooManySiblings,
            Code::IdempotencyReuse => Probe::IdReused,
            Code::TooLarge => Probe::TooLarge,
            Code::Unavailable => Probe::Unavailable,
            Code::QuorumNotMet | Code::DeadlineExceeded => Probe::QuorumNotMet,
            Code::MinimumUnmet => Probe::MinimumUnmet,
            Code::Overloaded => Probe::Overloaded,
            Code::BadRequest => Probe::BadRequest,
            Code::NotOwner | Code::Stopping => return,
        };
        self.probes.hit(probe);
    }

    /// A success names as many answers of distinct nodes as it needed, owners' among them; and who is called an owner is one.
    fn check_acks(&mut self, handle: u64, replicas: &[ReplicaReport], need: Need) {
        use ReplicaState::{Accepted, Acked, SameDigest};
        let key = self.pending[handle as usize].key;
        let of = |role, states: &[ReplicaState]| {
            let mut nodes: Vec<usize> = replicas
                .iter()
                .filter(|r| r.role == role && states.contains(&r.state))
                .map(|r| r.node.get())
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        };
        let any = [Accepted, Acked, SameDigest];
        let (primaries, fallbacks) = (of(Role::Primary, &any), of(Role::Fallback, &any));
        let durable = of(Role::Primary, &any[1..]).len() + of(Role::Fallback, &any[1..]).len();
        let owners = self.truth.owners(key);
        let named_well =
            primaries.iter().all(|node| owners.contains(node)) && fallbacks.iter().all(|node| !owners.contains(node));
        let counts = (primaries.len() + fallbacks.len(), primaries.len(), durable);
        let enough = counts.0 >= need.all.into() && counts.1 >= need.owners.into() && counts.2 >= need.durable.into();
        self.probes.hit_if(!fallbacks.is_empty(), Probe::FallbackCounted);
        let is_early = replicas.iter().any(|r| r.state == Accepted);
        self.probes.hit_if(is_early, Probe::RelaxedAck);
        if !enough || !named_well {
            self.violated(Promise::P12, || {
                format!("request {handle} succeeded by owners {primaries:?} and fallbacks {fallbacks:?}, {durable} durable, and needed {need:?}")
            });
        }
    }

    /// Which writes the values of a view are. One that nobody wrote there is P3's; one that is there twice is P11's.
    fn values(&mut self, handle: u64, view: &View) -> Vec<WriteIndex> {
        let key = self.pending[handle as usize].key;
        let mut values: Vec<WriteIndex> = Vec::new();
        for value in view.values() {
            match self.history.by_value(key, value) {
                Some(index) if values.contains(&index) => {
                    self.violated(Promise::P11, || {
                        format!("request {handle} was shown write {index} twice")
                    });
                }
                Some(index) => values.push(index),
                None => self.violated(Promise::P3, || {
                    format!("request {handle} was shown a value that nobody wrote to key {key}")
                }),
            }
        }
        values
    }

    /// The client keeps a context, and what it was shown with it.
    fn hold(&mut self, handle: u64, context: Option<Bytes>, mut shown: Vec<WriteIndex>) {
        let Some(sealed) = context else { return };
        let (client, key) = (self.pending[handle as usize].client, self.pending[handle as usize].key);
        let is_session = self.is_session(client);
        let held = self.clients[client].contexts.entry(key).or_default();
        let opened = |sealed: &Bytes| unseal(sealed).unwrap_or_default().context;
        if let Some(last) = held.last().filter(|_| is_session)
            && opened(&sealed).covers(&opened(&last.sealed))
        {
            // What a session has seen with one context it has seen with each that covers it.
            shown.extend(last.shown.iter());
            shown.sort_unstable();
            shown.dedup();
        }
        let shown = shown.into();
        held.push(Held { sealed, shown });
    }

    /// At the end: every request that reached a process which is still there was replied to.
    pub(super) fn check_replies(&mut self) {
        for handle in 0..self.pending.len() {
            let pending = &self.pending[handle];
            let lives = pending
                .handed_in
                .is_some_and(|(_, life)| self.lives(pending.node, life));
            let over = pending.start + pending.timeout_us + micros(1_000) < self.now;
            if lives && over && pending.replies == 0 {
                let node = pending.node;
                self.violated(Promise::P12, || {
                    format!("request {handle} to node {node} was never replied to")
                });
            }
        }
    }
}

/// The dot that `after` has more than `before`, if it is one.
fn one_more(before: &Context, after: &Context) -> Option<Dot> {
    let grown = after
        .vector()
        .iter()
        .filter(|&&(actor, upto)| upto > before.reach(actor));
    let mut dots = grown.map(|&(actor, counter)| Dot { actor, counter });
    let mut lone = after
        .lone()
        .iter()
        .copied()
        .filter(|dot| !before.lone().contains(dot) && dot.counter > before.reach(dot.actor));
    match (dots.next(), dots.next(), lone.next(), lone.next()) {
        (Some(dot), None, None, None) | (None, None, Some(dot), None) => Some(dot),
        _ => None,
    }
}
