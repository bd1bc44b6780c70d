//! The HTTP gateway, spoken to without a library of ours: HTTP/1.1, keep-alive, one connection for each operation in
//! flight.
//!
//! Slots are dealt to the endpoints in turn. A connection that ends is opened again by the next operation of its slot.
//! There are no retries, so what is measured is the gateway and not a client's patience. 300 is a success: the record
//! has siblings.

use super::{Failed, Found, Target, Write, Wrote};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

const CONTEXT: &str = "quorate-context";
const SIBLINGS_JSON: &str = "application/json";

pub(crate) struct Http {
    /// `host:port`.
    endpoints: Vec<String>,
    bucket: String,
    timeout: Duration,
    /// One for each slot; empty while in use.
    connections: Vec<RefCell<Option<SendRequest<Full<Bytes>>>>>,
}

/// A response, read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Http {
    /// `endpoints` are `host:port` or `http://host:port`, at least one.
    pub(crate) fn new(endpoints: &[String], bucket: &str, slots: u16, timeout: Duration) -> Http {
        let host = |endpoint: &String| endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Http {
            endpoints: endpoints.iter().map(host).collect(),
            bucket: bucket.to_owned(),
            timeout,
            connections: (0..slots).map(|_| RefCell::default()).collect(),
        }
    }

    fn endpoint(&self, slot: usize) -> &str {
        &self.endpoints[slot % self.endpoints.len()]
    }

    async fn connect(&self, slot: usize) -> Result<SendRequest<Full<Bytes>>, String> {
        let kept = self.connections[slot].borrow_mut().take();
        if let Some(mut kept) = kept
            && kept.ready().await.is_ok()
        {
            return Ok(kept);
        }
        let endpoint = self.endpoint(slot);
        let stream = TcpStream::connect(endpoint)
            .await
            .map_err(|error| format!("{endpoint}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (send, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        spawn_local(connection);
        Ok(send)
    }

    fn request(&self, slot: usize, name: &str, write: Option<Write<String>>) -> Result<Request<Full<Bytes>>, String> {
        let method = if write.is_some() { Method::PUT } else { Method::GET };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v1/kv/{}/{name}", self.bucket))
            .header(HOST, self.endpoint(slot));
        let mut body = Bytes::new();
        if let Some(write) = write {
            body = write.value;
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            if let Some(context) = write.context {
                request = request.header(CONTEXT, context);
            }
            if write.want_record {
                request = request.header("prefer", HeaderValue::from_static("return=representation"));
            }
        }
        request.body(Full::new(body)).map_err(|error| error.to_string())
    }

    /// One exchange. The connection is kept only if the exchange was whole.
    async fn exchange(&self, slot: usize, name: &str, write: Option<Write<String>>) -> Result<Answer, Failed> {
        let is_write = write.is_some();
        let not_sent = |reason: String| Failed { unknown: false, reason };
        let sent = |reason: String| Failed {
            unknown: is_write,
            reason,
        };
        let request = self.request(slot, name, write).map_err(not_sent)?;
        let connecting = tokio::time::timeout(self.timeout, self.connect(slot)).await;
        let mut connection = connecting
            .unwrap_or_else(|_| Err("no connection in time".to_owned()))
            .map_err(not_sent)?;
        let exchange = async {
            let response = connection
                .send_request(request)
                .await
                .map_err(|error| sent(error.to_string()))?;
            let (parts, body) = response.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| sent(error.to_string()))?
                .to_bytes();
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        let late = || sent(format!("no answer within {} ms", self.timeout.as_millis()));
        let answer = tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(late()))?;
        *self.connections[slot].borrow_mut() = Some(connection);
        Ok(answer)
    }
}

fn context(answer: &Answer) -> Option<String> {
    answer.headers.get(CONTEXT)?.to_str().ok().map(str::to_owned)
}

/// What a body with a record holds: one value, or several as JSON.
fn found(answer: &Answer) -> Found<String> {
    let values = match answer.status {
        StatusCode::OK => 1,
        StatusCode::MULTIPLE_CHOICES => siblings(answer),
        _ => 0,
    };
    Found {
        context: context(answer),
        values,
    }
}

fn siblings(answer: &Answer) -> usize {
    let json = answer
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(SIBLINGS_JSON.as_bytes()));
    let parsed = json
        .then(|| serde_json::from_slice::<serde_json::Value>(&answer.body).ok())
        .flatten();
    let listed = parsed.and_then(|body| {
        let live = |sibling: &&serde_json::Value| sibling["deleted"] != serde_json::Value::Bool(true);
        Some(body["siblings"].as_array()?.iter().filter(live).count())
    });
    listed.unwrap_or(2)
}

/// A refusal, with what the problem document says.
fn refused(answer: &Answer, write: bool) -> Failed {
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    // Without a word about the outcome, only a request that was refused for what it is was certainly not applied.
    let unknown = match problem["outcome"].as_str() {
        Some(outcome) => outcome == "unknown",
        None => answer.status.is_server_error(),
    };
    let detail = problem["detail"]
        .as_str()
        .or(problem["title"].as_str())
        .unwrap_or("no problem document");
    Failed {
        unknown: unknown && write,
        reason: format!("{}: {detail}", answer.status.as_u16()),
    }
}

impl Target for Http {
    /// As it stands in the header.
    type Context = String;

    async fn get(&self, slot: usize, name: &str) -> Result<Found<String>, Failed> {
        let answer = self.exchange(slot, name, None).await?;
        match answer.status {
            StatusCode::OK | StatusCode::MULTIPLE_CHOICES | StatusCode::NOT_FOUND => Ok(found(&answer)),
            _ => Err(refused(&answer, false)),
        }
    }

    async fn put(&self, slot: usize, name: &str, write: Write<String>) -> Result<Wrote<String>, Failed> {
        let answer = self.exchange(slot, name, Some(write)).await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(Wrote {
                context: context(&answer),
                record: None,
            }),
            StatusCode::OK | StatusCode::MULTIPLE_CHOICES => Ok(Wrote {
                context: context(&answer),
                record: Some(found(&answer)),
            }),
            _ => Err(refused(&answer, true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Answer {
            status,
            headers,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn siblings_are_counted_without_the_deletes() {
        let body = r#"{"context":"x","siblings":[{"value":"YQ=="},{"value":"Yg=="},{"deleted":true}]}"#;
        assert_eq!(found(&answer(300, body)).values, 2);
        assert_eq!(found(&answer(200, "")).values, 1);
        assert_eq!(found(&answer(404, "{}")).values, 0);
    }

    #[test]
    fn a_problem_says_whether_a_write_may_have_happened() {
        assert!(refused(&answer(503, r#"{"outcome":"unknown","detail":"x"}"#), true).unknown);
        assert!(!refused(&answer(503, r#"{"outcome":"not_applied","detail":"x"}"#), true).unknown);
        assert!(
            refused(&answer(502, "<html>"), true).unknown,
            "a stranger in between said nothing about it"
        );
        assert!(
            !refused(&answer(503, r#"{"outcome":"unknown"}"#), false).unknown,
            "reads change nothing"
        );
        assert_eq!(refused(&answer(409, r#"{"detail":"full"}"#), true).reason, "409: full");
    }
}
