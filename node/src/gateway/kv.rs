//! `GET HEAD PUT DELETE /v1/kv/{bucket}/{key}[/{sort}]`: from a request to an operation of the data loop, and back.
//!
//! Everything is checked before the body is read and before anything is sent, so most mistakes cost nothing and are certainly
//! `not_applied`. All replies get the same three last touches: what an advisory condition is worth, the caller's trace, and the
//! time it took.

use super::connection::Progress;
use super::headers::{self, Form, PREFERENCE_APPLIED, Preferences, QUORATE_CONTEXT, QUORATE_PRECONDITION};
use super::path::{self, Target};
use super::problem::Problem;
use super::query::{self, Parameters};
use super::render::{self, Answer};
use super::trace::{TRACEPARENT, Trace};
use super::{Gateway, body, precondition};
use crate::metrics::{OperationKind, Plane, RequestOutcome};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ETAG, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use quorate_core::key::Key;
use quorate_core::request::{Code, Operation, Outcome, ReadOptions, Reply, Value, View, WriteOptions};
use std::time::{Duration, Instant};
use tracing::Instrument;

/// Not among hyper's constants.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Methods of a record.
const METHODS: &str = "GET, HEAD, PUT, DELETE";

/// A request for one key, read and checked.
struct Ask<'a> {
    key: Key,
    headers: &'a HeaderMap,
    parameters: Parameters,
    preferences: Preferences,
    context: Option<Bytes>,
    form: Form,
    /// How long the client waits, from `started`.
    timeout: Duration,
    started: Instant,
}

/// Answers one request; `rest` is its path below [`path::PREFIX`].
pub(super) async fn handle(gateway: &Gateway, head: &Parts, rest: &str, body: Incoming, progress: &Progress) -> Answer {
    let started = Instant::now();
    let trace = Trace::of(&head.headers);
    let span =
        tracing::debug_span!("http", method = %head.method, trace = trace.as_ref().map(|trace| trace.id.as_str()));
    let result = serve(gateway, head, rest, body, progress, started)
        .instrument(span)
        .await;
    let mut answer = result.unwrap_or_else(Problem::answer);
    let headers = answer.headers_mut();
    if kind(&head.method).is_some_and(OperationKind::is_write) && precondition::is_conditional(&head.headers) {
        headers.insert(QUORATE_PRECONDITION, HeaderValue::from_static("advisory"));
    }
    if let Some(trace) = trace {
        headers.insert(TRACEPARENT, trace.value());
    }
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    let timing = HeaderValue::try_from(format!("total;dur={milliseconds:.2}")).expect("a number is visible ASCII");
    headers.insert(SERVER_TIMING, timing);
    answer
}

/// What a method does, if it is one of ours.
fn kind(method: &Method) -> Option<OperationKind> {
    match *method {
        Method::GET | Method::HEAD => Some(OperationKind::Get),
        Method::PUT => Some(OperationKind::Put),
        Method::DELETE => Some(OperationKind::Delete),
        _ => None,
    }
}

/// Reads the request, runs it, and counts how it went.
async fn serve(
    gateway: &Gateway,
    head: &Parts,
    rest: &str,
    body: Incoming,
    progress: &Progress,
    started: Instant,
) -> Result<Answer, Problem> {
    let query = head.uri.query().unwrap_or_default();
    let target = path::parse(rest)?;
    let key = match (target, kind(&head.method)) {
        (Target::Record(key), Some(_)) => key,
        (Target::Record(_), None) => return Err(Problem::method_not_allowed(&head.method, METHODS)),
        (Target::Bucket, _) => return Err(bucket(&head.method, query)),
    };
    let Some(kind) = kind(&head.method) else {
        return Err(Problem::method_not_allowed(&head.method, METHODS));
    };
    tracing::debug!(%key, "asked");
    let result = match Ask::read(gateway, key, head, query, started) {
        Err(problem) => Err(problem),
        Ok(ask) => match kind {
            OperationKind::Get => ask.get(gateway).await,
            OperationKind::Put => ask.put(gateway, body, progress).await,
            OperationKind::Delete => ask.delete(gateway).await,
        },
    };
    gateway
        .metrics
        .observe_outcome(Plane::Http, kind, outcome(&result), started.elapsed());
    result
}

/// Requests for a whole bucket are not served yet, each with its own explanation.
fn bucket(method: &Method, query: &str) -> Problem {
    match *method {
        Method::GET | Method::HEAD => match query::parse(query) {
            Err(problem) => problem,
            Ok(_) => Problem::not_found("a path names a key: /v1/kv/{bucket}/{key}"),
        },
        Method::POST => Problem::unsupported("making keys by POST is not served yet; choose a key and PUT it"),
        _ => Problem::method_not_allowed(method, ""),
    }
}

/// How a request is counted.
fn outcome(result: &Result<Answer, Problem>) -> RequestOutcome {
    match result {
        Ok(answer) if answer.status() == StatusCode::MULTIPLE_CHOICES => RequestOutcome::Siblings,
        Ok(_) => RequestOutcome::Ok,
        Err(problem) if problem.status == StatusCode::NOT_FOUND => RequestOutcome::NotFound,
        Err(problem) => RequestOutcome::from(problem.outcome),
    }
}

impl<'a> Ask<'a> {
    /// Reads what all methods share.
    fn read(gateway: &Gateway, key: Key, head: &'a Parts, query: &str, started: Instant) -> Result<Ask<'a>, Problem> {
        let headers = &head.headers;
        let parameters = query::parse(query)?;
        let preferences = headers::preferences(headers);
        let context = headers::context(headers)?;
        let timeout = parameters
            .timeout
            .or(preferences.wait)
            .unwrap_or(gateway.options.timeout);
        Ok(Ask {
            key,
            headers,
            parameters,
            preferences,
            context,
            form: headers::form(headers),
            timeout,
            started,
        })
    }

    /// What is left of the timeout, at least a millisecond.
    fn left(&self) -> Duration {
        self.timeout
            .saturating_sub(self.started.elapsed())
            .max(Duration::from_millis(1))
    }

    fn get_operation(&self, minimum: Option<Bytes>) -> Operation {
        let options = ReadOptions {
            r: self.parameters.r,
            pr: self.parameters.pr,
            quorum: self.parameters.quorum,
        };
        Operation::Get {
            key: self.key.clone(),
            minimum,
            options,
        }
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions {
            w: self.parameters.w,
            dw: self.parameters.dw,
            pw: self.parameters.pw,
            quorum: self.parameters.quorum,
            return_representation: self.preferences.representation == Some(true),
        }
    }

    /// GET and HEAD: hyper leaves the body of an answer to HEAD away and keeps its length.
    async fn get(&self, gateway: &Gateway) -> Result<Answer, Problem> {
        let ring = gateway.node.ring();
        let response = gateway
            .request(self.get_operation(self.context.clone()), self.left())
            .await;
        let (view, replicas) = match response {
            Ok(Reply::Found { view, replicas }) => (view, replicas),
            Ok(Reply::Written { .. }) => return Err(crossed()),
            Err(failure) => return Err(Problem::failure(failure, false, ring)),
        };
        let fresh = view.values().next().is_some() && precondition::not_modified(self.headers, view.live_hash);
        let mut result = if fresh {
            Ok(not_modified(&view, render::tag(&view, self.form)))
        } else {
            render::found(&view, self.form)
        };
        let headers = match &mut result {
            Ok(answer) => answer.headers_mut(),
            Err(problem) => &mut problem.headers,
        };
        render::answers(headers, &replicas, ring);
        self.preference_applied(headers, false);
        result
    }

    async fn put(mut self, gateway: &Gateway, body: Incoming, progress: &Progress) -> Result<Answer, Problem> {
        let content_type = headers::content_type(self.headers)?;
        let request = headers::request_id(self.headers)?;
        let bytes_max = gateway.options.buckets.of(self.key.bucket()).value_bytes_max as usize;
        let (body, _share) = body::read(body, bytes_max, gateway.options.body_limit, &gateway.bodies, progress).await?;
        // The timeout starts when the request is complete: a slow upload is the client's own time.
        self.started = Instant::now();
        self.check_precondition(gateway).await?;
        let operation = Operation::Put {
            key: self.key.clone(),
            context: self.context.clone(),
            value: Value { content_type, body },
            request,
            retry: false,
            options: self.write_options(),
        };
        self.write(gateway, operation).await
    }

    async fn delete(&self, gateway: &Gateway) -> Result<Answer, Problem> {
        let request = headers::request_id(self.headers)?;
        if self.context.is_none() {
            return Err(Problem::coded(
                Code::ContextRequired,
                "a DELETE needs the Quorate-Context of what it deletes; read the key and send back the header that comes with it. \
                 This request was not applied and never will be.",
            ));
        }
        self.check_precondition(gateway).await?;
        let operation = Operation::Delete {
            key: self.key.clone(),
            context: self.context.clone(),
            request,
            retry: false,
            options: self.write_options(),
        };
        self.write(gateway, operation).await
    }

    /// Reads the key and compares, if the write has a condition.
    async fn check_precondition(&self, gateway: &Gateway) -> Result<(), Problem> {
        if !precondition::is_conditional(self.headers) {
            return Ok(());
        }
        let view = match gateway.request(self.get_operation(None), self.left()).await {
            Ok(Reply::Found { view, .. }) => view,
            Ok(Reply::Written { .. }) => return Err(crossed()),
            Err(mut failure) => {
                failure.detail.insert_str(0, "the condition could not be checked: ");
                return Err(Problem::failure(failure, true, gateway.node.ring()));
            }
        };
        let Some(condition) = precondition::unmet(self.headers, &view) else {
            return Ok(());
        };
        let detail = format!("{condition}. This request was not applied and never will be.");
        let mut problem = Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition_failed",
            "Precondition failed",
            detail,
        );
        render::label(&mut problem.headers, &view);
        if view.values().next().is_some() {
            problem.headers.insert(ETAG, render::tag(&view, self.form));
        }
        Err(problem)
    }

    /// Sends a write and answers it.
    async fn write(&self, gateway: &Gateway, operation: Operation) -> Result<Answer, Problem> {
        let ring = gateway.node.ring();
        let (context, view, replicas) = match gateway.request(operation, self.left()).await {
            Ok(Reply::Written {
                context,
                view,
                replicas,
            }) => (context, view, replicas),
            Ok(Reply::Found { .. }) => return Err(crossed()),
            Err(failure) => return Err(Problem::failure(failure, true, ring)),
        };
        let mut answer = match &view {
            Some(view) => render::representation(view, self.form),
            None => render::empty(StatusCode::NO_CONTENT),
        };
        let headers = answer.headers_mut();
        // With the record goes the record's context, which `representation` has put in.
        headers
            .entry(QUORATE_CONTEXT)
            .or_insert_with(|| headers::context_value(&context));
        render::acks(headers, &replicas, ring);
        self.preference_applied(headers, view.is_some());
        Ok(answer)
    }

    /// Says which preferences had an effect (RFC 7240, section 3).
    fn preference_applied(&self, headers: &mut HeaderMap, representation: bool) {
        let mut applied = Vec::new();
        match self.preferences.representation {
            Some(true) if representation => applied.push("return=representation".to_string()),
            Some(false) if headers.contains_key(super::headers::QUORATE_ACKS) => {
                applied.push("return=minimal".to_string())
            }
            _ => {}
        }
        if let (None, Some(wait)) = (self.parameters.timeout, self.preferences.wait) {
            applied.push(format!("wait={}", wait.as_secs()));
        }
        if !applied.is_empty() {
            let value = HeaderValue::try_from(applied.join(", ")).expect("words and numbers are visible ASCII");
            headers.insert(PREFERENCE_APPLIED, value);
        }
    }
}

/// 304, with what a 200 would have said about the record.
fn not_modified(view: &View, tag: HeaderValue) -> Answer {
    let mut answer = render::empty(StatusCode::NOT_MODIFIED);
    render::label(answer.headers_mut(), view);
    answer.headers_mut().insert(ETAG, tag);
    answer
}

/// The data loop answered another question. A mistake of ours, so nothing certain can be said.
fn crossed() -> Problem {
    let detail = "the node gave an answer that does not fit the request; whether a write was applied is unknown";
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Problem {
        outcome: Outcome::Unknown,
        ..Problem::new(status, "internal", "Internal error", detail)
    }
}
