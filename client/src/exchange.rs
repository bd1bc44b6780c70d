//! What one connection shares between the callers, its writer and its reader: bytes to send, and calls that wait.
//!
//! A call puts its frame at the end of a common buffer and a slot into a table; the writer takes the whole buffer at
//! once, so a burst of calls is one write and a few full datagrams; the reader fills slots by number and wakes whoever
//! waits. There is no task, no channel and no allocation for a call. (A task and a channel for each cost 30 % more in a
//! prototype of the data path.)
//!
//! Both are bounded: above [`PENDING_MAX`] waiting calls or [`QUEUED_BYTES_MAX`] unsent bytes a call is refused at
//! once, since a queue that grows only turns overload into timeouts.
//!
//! A slot's number is its place in the table and a running number, so an answer that comes after its caller gave up
//! cannot be taken for the answer to a later call in the same place.

use bytes::{Bytes, BytesMut};
use quorate_core::message::{Message, QueryAnswer};
use quorate_core::request::{Operation, Response};
use slab::Slab;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

use crate::quic::SHARED_FRAME_BYTES;

/// Most calls that may wait on one connection.
pub(crate) const PENDING_MAX: usize = 16_384;
/// Most bytes that may wait to be sent on one connection. A single larger frame is taken when nothing else waits.
pub(crate) const QUEUED_BYTES_MAX: usize = 8 << 20;
/// Room for everything in a request but value and context: keys, names, numbers.
const REQUEST_OVERHEAD: usize = 4 << 10;

/// What comes back for a call.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a request.
    Response(Response),
    /// To a query.
    Query(QueryAnswer),
}

/// Why a call was not taken. Nothing was sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Too much waits already.
    Full {
        /// How many calls wait.
        pending: usize,
    },
    /// The connection has ended.
    Closed,
}

/// The connection ended before the answer came. The request may have been carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost(pub(crate) Arc<str>);

enum Slot {
    Waiting { number: u32, waker: Option<Waker> },
    Answered { number: u32, answer: Answer },
}

impl Slot {
    fn number(&self) -> u32 {
        match self {
            Slot::Waiting { number, .. } | Slot::Answered { number, .. } => *number,
        }
    }
}

#[derive(Default)]
struct State {
    out: BytesMut,
    bulk: VecDeque<Bytes>,
    /// Bytes in `bulk` and of those under way on their own streams.
    bulk_bytes: usize,
    slots: Slab<Slot>,
    next: u32,
    closed: Option<Arc<str>>,
}

/// Frames for the writer to send.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Whole frames for the shared stream.
    Shared(Bytes),
    /// One frame for a stream of its own. Report it with [`Exchange::bulk_sent`] when it is done.
    Bulk(Bytes),
    /// Nothing at the moment: wait for [`Exchange::more`].
    Nothing,
    /// The connection has ended.
    Closed,
}

/// See the module's description.
#[derive(Default)]
pub(crate) struct Exchange {
    state: Mutex<State>,
    pending: AtomicUsize,
    wake: Notify,
}

impl Exchange {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change, so a poisoned state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls wait.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Queues a request or query under a new number, which is written into `message`. The frame is sent even if the
    /// [`Call`] is dropped.
    pub(crate) fn call(self: &Arc<Exchange>, message: &mut Message) -> Result<Call, NotTaken> {
        let mut state = self.lock();
        if state.closed.is_some() {
            return Err(NotTaken::Closed);
        }
        let queued = state.out.len() + state.bulk_bytes;
        let large = body_bytes(message) + REQUEST_OVERHEAD;
        if state.slots.len() >= PENDING_MAX || (queued > 0 && queued + large > QUEUED_BYTES_MAX) {
            return Err(NotTaken::Full {
                pending: state.slots.len(),
            });
        }
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        let at = state.slots.insert(Slot::Waiting { number, waker: None });
        let id = u64::from(number) << 32 | at as u64;
        set_id(message, id);
        let idle = state.out.is_empty() && state.bulk.is_empty();
        push(&mut state, message, large);
        self.pending.store(state.slots.len(), Ordering::Relaxed);
        drop(state);
        if idle {
            self.wake.notify_one();
        }
        Ok(Call {
            exchange: self.clone(),
            id,
            done: false,
        })
    }

    /// Hands an answer to whoever waits for it; drops it if nobody does any more.
    pub(crate) fn answer(&self, id: u64, answer: Answer) {
        let (number, at) = ((id >> 32) as u32, (id & u64::from(u32::MAX)) as usize);
        let mut state = self.lock();
        let waker = match state.slots.get_mut(at) {
            Some(slot @ Slot::Waiting { .. }) if slot.number() == number => {
                match std::mem::replace(slot, Slot::Answered { number, answer }) {
                    Slot::Waiting { waker, .. } => waker,
                    Slot::Answered { .. } => None,
                }
            }
            _ => None,
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends it: whoever waits is told that the connection is lost. The first reason stays.
    pub(crate) fn close(&self, reason: &str) {
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(reason.into());
        state.out.clear();
        state.bulk.clear();
        let waiting: Vec<Waker> = state
            .slots
            .iter_mut()
            .filter_map(|(_, slot)| match slot {
                Slot::Waiting { waker, .. } => waker.take(),
                Slot::Answered { .. } => None,
            })
            .collect();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        self.wake.notify_one();
    }

    /// Why it was closed, if it was.
    pub(crate) fn close_reason(&self) -> Option<Arc<str>> {
        self.lock().closed.clone()
    }

    /// What to send next: everything that was queued for the shared stream since the last call, or one bulk frame.
    pub(crate) fn take(&self) -> Outgoing {
        let mut state = self.lock();
        if state.closed.is_some() {
            return Outgoing::Closed;
        }
        if !state.out.is_empty() {
            return Outgoing::Shared(state.out.split().freeze());
        }
        state.bulk.pop_front().map_or(Outgoing::Nothing, Outgoing::Bulk)
    }

    /// Waits until [`Exchange::take`] may have something new.
    pub(crate) async fn more(&self) {
        self.wake.notified().await;
    }

    /// A bulk frame of so many bytes has been handed to QUIC.
    pub(crate) fn bulk_sent(&self, bytes: usize) {
        let mut state = self.lock();
        state.bulk_bytes = state.bulk_bytes.saturating_sub(bytes);
    }

    fn forget(&self, at: usize, state: &mut State) -> Option<Slot> {
        let slot = state.slots.try_remove(at);
        self.pending.store(state.slots.len(), Ordering::Relaxed);
        slot
    }
}

/// Appends the frame to the shared buffer, or to the bulk frames if it is too large.
fn push(state: &mut State, message: &Message, large: usize) {
    if large <= SHARED_FRAME_BYTES {
        message.encode(&mut state.out);
        return;
    }
    let mut frame = BytesMut::with_capacity(large);
    message.encode(&mut frame);
    if frame.len() <= SHARED_FRAME_BYTES {
        state.out.unsplit(frame);
    } else {
        state.bulk_bytes += frame.len();
        state.bulk.push_back(frame.freeze());
    }
}

fn body_bytes(message: &Message) -> usize {
    let Message::Request(request) = message else { return 0 };
    match &request.operation {
        Operation::Get { minimum: context, .. } | Operation::Delete { context, .. } => {
            context.as_ref().map_or(0, Bytes::len)
        }
        Operation::Put { value, context, .. } => {
            value.body.len() + value.content_type.len() + context.as_ref().map_or(0, Bytes::len)
        }
    }
}

fn set_id(message: &mut Message, id: u64) {
    match message {
        Message::Request(request) => request.id = id,
        Message::Query(query) => query.id = id,
        _ => debug_assert!(false, "only requests and queries are calls"),
    }
}

/// An answer that is waited for. Dropping it gives the answer up, not the request.
pub(crate) struct Call {
    exchange: Arc<Exchange>,
    id: u64,
    done: bool,
}

impl Future for Call {
    type Output = Result<Answer, Lost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let call = &mut *self;
        let at = (call.id & u64::from(u32::MAX)) as usize;
        let mut state = call.exchange.lock();
        let lost = state.closed.clone();
        match (state.slots.get_mut(at), lost) {
            (Some(Slot::Waiting { waker, .. }), None) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
            _ => call.done = true,
        }
        let slot = call.exchange.forget(at, &mut state);
        let reason = state.closed.clone();
        drop(state);
        match slot {
            Some(Slot::Answered { answer, .. }) => Poll::Ready(Ok(answer)),
            _ => Poll::Ready(Err(Lost(reason.unwrap_or_else(|| "closed".into())))),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.done {
            let mut state = self.exchange.lock();
            self.exchange
                .forget((self.id & u64::from(u32::MAX)) as usize, &mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::value::IntoValue;
    use quorate_core::key::Key;
    use quorate_core::message::Request;
    use quorate_core::request::{Code, Failure, RequestId, WriteOptions};
    use std::task::Waker;

    fn put(bytes: usize) -> Message {
        let operation = Operation::Put {
            key: Key::new(b"b", b"k", None).unwrap(),
            context: None,
            value: vec![7; bytes].into_value(),
            request: RequestId { stamp_ms: 1, unique: 2 },
            retry: false,
            options: WriteOptions::default(),
        };
        Message::Request(Request {
            id: 0,
            timeout_ms: 1000,
            operation,
        })
    }

    fn poll(call: &mut Call) -> Poll<Result<Answer, Lost>> {
        Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn no(text: &str) -> Answer {
        Answer::Response(Err(Failure::not_applied(Code::Overloaded, text)))
    }

    fn detail(answer: Poll<Result<Answer, Lost>>) -> String {
        match answer {
            Poll::Ready(Ok(Answer::Response(Err(failure)))) => failure.detail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_burst_leaves_in_one_piece() {
        let exchange = Arc::new(Exchange::default());
        let calls: Vec<Call> = (0..100).map(|_| exchange.call(&mut put(10)).unwrap()).collect();
        let Outgoing::Shared(bytes) = exchange.take() else {
            panic!()
        };
        let mut bytes = BytesMut::from(bytes);
        for call in &calls {
            let Some(Message::Request(request)) = Message::decode(&mut bytes, 1 << 20).unwrap() else {
                panic!()
            };
            assert_eq!(request.id, call.id);
        }
        assert!(bytes.is_empty());
        assert!(matches!(exchange.take(), Outgoing::Nothing));
    }

    #[test]
    fn answers_find_their_calls_in_any_order() {
        let exchange = Arc::new(Exchange::default());
        let mut first = exchange.call(&mut put(1)).unwrap();
        let mut second = exchange.call(&mut put(1)).unwrap();
        assert!(poll(&mut first).is_pending());
        exchange.answer(second.id, no("second"));
        exchange.answer(first.id, no("first"));
        assert_eq!(detail(poll(&mut first)), "first");
        assert_eq!(detail(poll(&mut second)), "second");
        assert_eq!(exchange.pending(), 0);
    }

    #[test]
    fn a_late_answer_is_not_taken_for_a_later_calls() {
        let exchange = Arc::new(Exchange::default());
        let old = exchange.call(&mut put(1)).unwrap();
        let old_id = old.id;
        drop(old);
        let mut new = exchange.call(&mut put(1)).unwrap();
        assert_eq!(old_id as u32, new.id as u32, "the same place in the table");
        exchange.answer(old_id, no("late"));
        exchange.answer(u64::MAX, no("never asked"));
        assert!(poll(&mut new).is_pending());
    }

    #[test]
    fn large_frames_go_alone_and_the_limit_holds() {
        let exchange = Arc::new(Exchange::default());
        let _large = exchange.call(&mut put(QUEUED_BYTES_MAX + 1)).unwrap();
        assert_eq!(exchange.call(&mut put(1)).err(), Some(NotTaken::Full { pending: 1 }));
        let Outgoing::Bulk(frame) = exchange.take() else {
            panic!()
        };
        assert!(exchange.call(&mut put(1)).is_err(), "still under way");
        exchange.bulk_sent(frame.len());
        assert!(exchange.call(&mut put(1)).is_ok());
    }

    #[test]
    fn more_calls_than_the_limit_are_refused() {
        let exchange = Arc::new(Exchange::default());
        let calls: Vec<Call> = (0..PENDING_MAX).map(|_| exchange.call(&mut put(1)).unwrap()).collect();
        let _ = exchange.take();
        assert_eq!(
            exchange.call(&mut put(1)).err(),
            Some(NotTaken::Full { pending: PENDING_MAX })
        );
        drop(calls);
        assert!(exchange.call(&mut put(1)).is_ok());
    }

    #[test]
    fn closing_tells_everyone_who_waits_and_refuses_new_calls() {
        let exchange = Arc::new(Exchange::default());
        let (mut waiting, mut answered) = (exchange.call(&mut put(1)).unwrap(), exchange.call(&mut put(1)).unwrap());
        exchange.answer(answered.id, no("in time"));
        exchange.close("gone");
        exchange.close("a later reason");
        assert!(matches!(poll(&mut waiting), Poll::Ready(Err(Lost(reason))) if &*reason == "gone"));
        assert_eq!(detail(poll(&mut answered)), "in time");
        assert_eq!(exchange.call(&mut put(1)).err(), Some(NotTaken::Closed));
        assert!(matches!(exchange.take(), Outgoing::Closed));
    }
}
