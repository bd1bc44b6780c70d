//! `/livez`, `/readyz` and `/startupz`, in the form of kube-apiserver: `ok`, or with `?verbose` a line for each check.
//!
//! Live: the data loop answers within five seconds; it has hung otherwise, and only a restart helps. Started and ready: it
//! answers within one. Ready also says no while the node drains. None of them asks about peers: a node that has lost its
//! peers still serves what it can, and taking it away would make an outage of a partition. Storage is not asked either: probes
//! come every second and must cost nothing, and a full disk must not take a node out of service that can still read.

use super::Gateway;
use super::render::{Answer, answer};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Plain text.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// How long a healthy data loop takes at most.
const READY_WITHIN: Duration = Duration::from_secs(1);
/// How long one that may still recover takes at most.
const LIVE_WITHIN: Duration = Duration::from_secs(5);

/// Answers the probe at `path` (`/livez` and so on): 200, or 503 with the failed check.
pub(super) async fn check(gateway: &Gateway, path: &str, query: &str) -> Answer {
    let name = path.trim_start_matches('/');
    let within = if name == "livez" { LIVE_WITHIN } else { READY_WITHIN };
    let answered = matches!(tokio::time::timeout(within, gateway.node.ping()).await, Ok(true));
    let mut checks = vec![("ping", true), ("data-loop", answered)];
    if name == "readyz" {
        checks.push(("not-draining", !gateway.draining.load(Ordering::Relaxed)));
    }
    let verbose = query.split('&').any(|pair| pair.split('=').next() == Some("verbose"));
    respond(name, &checks, verbose)
}

/// A failure always names its checks, as with kube-apiserver; the reason is in the node's log, not on an open port.
fn respond(name: &str, checks: &[(&str, bool)], verbose: bool) -> Answer {
    let passed = checks.iter().all(|(_, ok)| *ok);
    let mut body = String::new();
    for (check, ok) in checks {
        let (sign, verdict) = if *ok {
            ('+', "ok")
        } else {
            ('-', "failed: reason withheld")
        };
        writeln!(body, "[{sign}]{check} {verdict}").expect("a string takes all that is written to it");
    }
    body.push_str(name);
    body.push_str(if passed { " check passed\n" } else { " check failed\n" });
    let body = if passed && !verbose {
        Bytes::from_static(b"ok")
    } else {
        Bytes::from(body)
    };
    let status = if passed {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut answer = answer(status, TEXT, body);
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
