//! One operation from call to end: attempts, hedges, retries, and the verdict when time is up.
//!
//! - One attempt at a time. The exception is a read that takes longer than [`Patience::hedge_after`](crate::Patience):
//!   it is sent to a second owner too, and the first answer counts.
//! - An attempt has its own patience, 500 ms at first and doubled each time, within the deadline of the whole. The node
//!   is told nine tenths of it, so that its account of who did not answer arrives before we stop listening.
//! - After a lost connection or a silence the next attempt goes at once to another owner. After a failure that may pass
//!   (overload, too few owners) it waits: exponential backoff from 10 ms to 1 s, full jitter.
//! - Every retry of a write is the same write: same value, same context, same request id. Once an attempt's outcome is
//!   unknown, retries say so (`retry: true`), and the coordinator then covers nothing that the writer was not shown.
//! - When time is up, the outcome is `NotApplied` only if that is certain for every attempt.
//!
//! Rejected: hedged writes. Two coordinators that mint for one write at the same time leave two siblings to be removed.

use crate::client::{Client, Shared};
use crate::error::{Attempts, Error, Reported};
use crate::exchange::{Answer, Call, Lost, NotTaken};
use crate::topology::{Choice, Route};
use quorate_core::bucket::VALUE_BYTES_MAX;
use quorate_core::message::{Message, Request};
use quorate_core::request::{Code, Failure, Operation, Outcome, Reply};
use quorate_ring::NodeId;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// First and largest limit of the pause before a retry.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How long to wait for a connection before looking again, in case the notice was missed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const PATIENCE_MAX: Duration = Duration::from_secs(60);

impl Client {
    /// Carries out one operation within `timeout`, with retries; says what it took. The request id of a write is the
    /// caller's ([`Client::request_id`]). Most programs want [`Client::bucket`](Client::bucket) instead.
    pub async fn execute(&self, operation: Operation, timeout: Duration) -> Result<(Reply, Attempts), Error> {
        check_size(&operation)?;
        let patience = self.shared().patience.attempt;
        let run = Run {
            shared: self.shared(),
            write: operation.is_write(),
            message: Message::Request(Request {
                id: 0,
                timeout_ms: 0,
                operation,
            }),
            timeout,
            deadline: Instant::now() + timeout,
            patience,
            backoff: BACKOFF.0,
            certain: true,
            attempts: Attempts::default(),
            last: None,
        };
        run.run().await
    }
}

/// Refuses what every node would close the connection for, so that one large value does not fail the requests beside it.
fn check_size(operation: &Operation) -> Result<(), Error> {
    match operation {
        Operation::Put { value, .. } if value.body.len() > VALUE_BYTES_MAX as usize => Err(Error::Failed {
            code: Code::TooLarge,
            outcome: Outcome::NotApplied,
            detail: format!(
                "a value of {} bytes is more than any node takes ({VALUE_BYTES_MAX})",
                value.body.len()
            ),
            replicas: Vec::new(),
        }),
        _ => Ok(()),
    }
}

/// How an attempt ended.
enum End {
    Reply(Reply),
    Failure(Failure),
    /// No answer in time.
    TimedOut(Duration),
    /// The connection ended.
    Lost(Lost),
    /// Nothing was sent.
    NotTaken(NotTaken),
    /// The answer is not one to a request.
    Wrong,
}

/// An attempt's end, and whose it is.
struct Ended {
    by: Route,
    end: End,
}

/// What to do next.
enum Next {
    Stop(Box<Result<Reply, Error>>),
    Again { avoid: Option<NodeId>, pause: bool },
}

struct Run<'a> {
    shared: &'a Shared,
    message: Message,
    write: bool,
    timeout: Duration,
    deadline: Instant,
    /// For the next attempt.
    patience: Duration,
    backoff: Duration,
    /// Whether every attempt so far was certainly not applied.
    certain: bool,
    attempts: Attempts,
    last: Option<Failure>,
}

impl Run<'_> {
    async fn run(mut self) -> Result<(Reply, Attempts), Error> {
        let mut avoid = None;
        while Instant::now() < self.deadline {
            let Some(route) = self.route(avoid) else {
                self.wait_for_a_connection().await;
                continue;
            };
            let ended = self.attempt(route).await;
            match self.judge(ended) {
                Next::Stop(result) => return result.map(|reply| (reply, self.attempts)),
                Next::Again { avoid: next, pause } => {
                    avoid = next;
                    if pause {
                        self.pause().await;
                    }
                }
            }
        }
        Err(self.out_of_time())
    }

    fn operation(&mut self) -> &mut Operation {
        match &mut self.message {
            Message::Request(request) => &mut request.operation,
            _ => unreachable!("a run is made with a request"),
        }
    }

    fn route(&self, avoid: Option<NodeId>) -> Option<Route> {
        let Message::Request(request) = &self.message else {
            return None;
        };
        let choice = Choice {
            avoid,
            now_us: self.shared.now_us(),
            cooling: self.shared.patience.cooling,
            turn: self.shared.turn(),
        };
        self.shared.topology().route(request.operation.key(), choice)
    }

    async fn wait_for_a_connection(&self) {
        let again = (Instant::now() + LOOK_AGAIN).min(self.deadline);
        let _ = timeout_at(again, self.shared.connected.notified()).await;
    }

    async fn pause(&mut self) {
        let pause = self.shared.jitter(self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
        sleep(pause.min(self.deadline.saturating_duration_since(Instant::now()))).await;
    }

    /// Sends the request to one node and waits; if it is a read and takes long, to a second one.
    async fn attempt(&mut self, route: Route) -> Ended {
        let now = Instant::now();
        let until = (now + self.patience).min(self.deadline);
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
        self.tell(until - now);
        let sent_us = route.connection.now_us();
        let mut call = match self.send(&route) {
            Ok(call) => call,
            Err(end) => return Ended { by: route, end },
        };
        let patience = &self.shared.patience;
        let soft = now
            + if self.write {
                patience.suspect_after
            } else {
                patience.hedge_after
            };
        if soft < until {
            if let Ok(answer) = timeout_at(soft, &mut call).await {
                return Ended {
                    by: route,
                    end: end(answer),
                };
            }
            if self.suspect(&route, sent_us) && self.goes_on_early(&route) {
                let end = End::TimedOut(soft - now);
                return Ended { by: route, end };
            }
            if let Some(second) = self.hedge(&route) {
                return race((route, call), second, until, until - now).await;
            }
        }
        let Ok(answer) = timeout_at(until, &mut call).await else {
            self.suspect(&route, sent_us);
            return Ended {
                by: route,
                end: End::TimedOut(until - now),
            };
        };
        Ended {
            by: route,
            end: end(answer),
        }
    }

    /// The node's deadline is a little earlier than ours, so that its account of who did not answer arrives in time.
    fn tell(&mut self, patience: Duration) {
        if let Message::Request(request) = &mut self.message {
            request.timeout_ms = u32::try_from(patience.mul_f64(0.9).as_millis())
                .unwrap_or(u32::MAX)
                .max(1);
        }
    }

    fn send(&mut self, route: &Route) -> Result<Call, End> {
        let call = route
            .connection
            .exchange
            .call(&mut self.message)
            .map_err(End::NotTaken)?;
        self.attempts.sent += 1;
        Ok(call)
    }

    /// A node that was silent since then, on all requests, pauses. One that answers others is only slow with ours. Returns whether
    /// it was silent.
    fn suspect(&self, route: &Route, sent_us: u64) -> bool {
        let silent = route.connection.silent_since(sent_us);
        if silent {
            let cooling = self.shared.patience.cooling;
            route.node.circuit.failed(self.shared.now_us(), cooling);
        }
        silent
    }

    /// Whether a write that went to a silent node is resent at once rather than waited for: the node is most likely dead. Only the first
    /// attempt, because a cluster whose disks are slow is silent too, and must not be asked five times for the same.
    fn goes_on_early(&self, route: &Route) -> bool {
        let other = || self.route(Some(route.node.id));
        self.write && self.attempts.sent <= 1 && other().is_some_and(|other| other.node.id != route.node.id)
    }

    /// The same read at a second node, if there is one.
    fn hedge(&mut self, first: &Route) -> Option<(Route, Call)> {
        if self.write {
            return None;
        }
        let second = self
            .route(Some(first.node.id))
            .filter(|second| second.node.id != first.node.id)?;
        let call = self.send(&second).ok()?;
        self.attempts.hedged = true;
        Some((second, call))
    }

    /// What an attempt's end means for the operation.
    fn judge(&mut self, Ended { by, end }: Ended) -> Next {
        let node = &by.node;
        let again = |pause| Next::Again {
            avoid: Some(node.id),
            pause,
        };
        match end {
            End::Reply(reply) => {
                node.circuit.succeeded();
                self.attempts.answered_by = Some(node.id);
                Next::Stop(Box::new(Ok(reply)))
            }
            End::Failure(failure) => {
                node.circuit.succeeded();
                self.failure(&by, failure)
            }
            End::TimedOut(after) => {
                self.unknown();
                self.attempts
                    .failed(&node.name, format!("timed out after {} ms", after.as_millis()));
                again(false)
            }
            End::Lost(Lost(reason)) => {
                self.unknown();
                self.attempts.failed(&node.name, format!("connection lost: {reason}"));
                again(false)
            }
            End::Wrong => {
                let error = Error::WrongAnswer {
                    node: node.name.clone(),
                };
                Next::Stop(Box::new(Err(error)))
            }
            End::NotTaken(NotTaken::Full { pending }) if self.certain => Next::Stop(Box::new(Err(Error::Overloaded {
                node: node.name.clone(),
                pending,
            }))),
            End::NotTaken(reason) => {
                self.attempts.failed(&node.name, format!("not sent: {reason:?}"));
                again(true)
            }
        }
    }

    fn failure(&mut self, by: &Route, failure: Failure) -> Next {
        if failure.outcome == Outcome::Unknown {
            self.unknown();
        }
        if !failure.code.retryable() {
            let error = Error::Failed {
                code: failure.code,
                outcome: self.outcome(),
                replicas: self.shared.name_replicas(&failure.replicas),
                detail: failure.detail,
            };
            return Next::Stop(Box::new(Err(error)));
        }
        self.attempts.failed(&by.node.name, failure.detail.clone());
        let pause = !matches!(failure.code, Code::NotOwner | Code::Stopping) || self.attempts.sent > 2;
        self.last = Some(failure);
        Next::Again {
            avoid: Some(by.node.id),
            pause,
        }
    }

    /// An attempt may have been applied: the next one says that it is a retry.
    fn unknown(&mut self) {
        self.certain = false;
        match self.operation() {
            Operation::Put { retry, .. } | Operation::Delete { retry, .. } => *retry = true,
            Operation::Get { .. } => {}
        }
    }

    fn outcome(&self) -> Outcome {
        if self.certain || !self.write {
            Outcome::NotApplied
        } else {
            Outcome::Unknown
        }
    }

    fn out_of_time(self) -> Error {
        let outcome = self.outcome();
        let last = self.last.map(|failure| {
            let replicas = self.shared.name_replicas(&failure.replicas);
            Box::new(Reported { failure, replicas })
        });
        Error::Deadline {
            outcome,
            timeout: self.timeout,
            attempts: self.attempts,
            last,
        }
    }
}

fn end(answer: Result<Answer, Lost>) -> End {
    match answer {
        Ok(Answer::Response(Ok(reply))) => End::Reply(reply),
        Ok(Answer::Response(Err(failure))) => End::Failure(failure),
        Ok(Answer::Query(_)) => End::Wrong,
        Err(lost) => End::Lost(lost),
    }
}

/// The first reply of two; a failure only if the other one fails too.
async fn race(first: (Route, Call), second: (Route, Call), until: Instant, patience: Duration) -> Ended {
    let ((first, mut first_call), (second, mut second_call)) = (first, second);
    let timer = sleep_until(until);
    tokio::pin!(timer);
    let (by, ended, other, call) = tokio::select! {
        answer = &mut first_call => (first, end(answer), second, &mut second_call),
        answer = &mut second_call => (second, end(answer), first, &mut first_call),
        () = &mut timer => return Ended { by: first, end: End::TimedOut(patience) },
    };
    if matches!(ended, End::Reply(_)) {
        return Ended { by, end: ended };
    }
    tokio::select! {
        answer = call => Ended { by: other, end: end(answer) },
        () = &mut timer => Ended { by, end: ended },
    }
}
