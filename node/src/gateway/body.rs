//! Request bodies: read whole, under four limits.
//!
//! The bucket's value limit (413, at once if Content-Length tells, else as soon as it is exceeded), a time limit (408), and a budget
//! for all bodies together (503), so that memory stays flat however many clients upload at once. The fourth is what
//! the sender promised: a body that breaks off is 400 and never stored. A body that came in one piece is not copied.

use super::connection::Progress;
use super::problem::Problem;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use quorate_core::request::Code;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes of bodies that may be held at once.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicUsize,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of this many bytes.
    pub(super) fn new(bytes: usize) -> Budget {
        Budget {
            left: AtomicUsize::new(bytes),
        }
    }

    /// Takes `bytes` of it, if there are so many.
    fn take(&self, bytes: usize) -> Option<Share<'_>> {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.ok().map(|_| Share { budget: self, bytes })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body of at most `bytes_max`, within `limit`. The share is to be held as long as the bytes are.
pub(super) async fn read<'a>(
    body: Incoming,
    bytes_max: usize,
    limit: Duration,
    budget: &'a Budget,
    progress: &Progress,
) -> Result<(Bytes, Share<'a>), Problem> {
    let size = body.size_hint();
    if size.lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    // A chunked body may become as large as is allowed.
    let expected = size
        .exact()
        .and_then(|exact| usize::try_from(exact).ok())
        .unwrap_or(bytes_max);
    let Some(share) = budget.take(expected) else {
        let detail = "this node holds as many request bodies as it can; try again, or ask another node";
        return Err(Problem::coded(Code::Overloaded, detail));
    };
    let bytes = tokio::time::timeout(limit, collect(body, bytes_max))
        .await
        .unwrap_or_else(|_| {
            let detail = format!(
                "the body did not arrive within {} seconds; nothing was done",
                limit.as_secs()
            );
            Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "Request timeout",
                detail,
            ))
        })?;
    progress.body_ended();
    Ok((bytes, share))
}

/// All data frames in one piece.
async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Problem::bad_request(format!("the body broke off ({error}); nothing was stored")))?;
        // Trailers are dropped.
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len) + joined.len();
        if so_far + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        if first.is_none() && joined.is_empty() {
            first = Some(data);
            continue;
        }
        if let Some(first) = first.take() {
            let rest = usize::try_from(body.size_hint().lower()).unwrap_or(0);
            joined.reserve(first.len() + data.len() + rest.min(bytes_max));
            joined.extend_from_slice(&first);
        }
        joined.extend_from_slice(&data);
    }
    Ok(first.unwrap_or_else(|| joined.freeze()))
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("a value in this bucket has at most {bytes_max} bytes; nothing was stored");
    Problem::coded(Code::TooLarge, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_overdrawn_and_gets_back_what_was_taken() {
        let budget = Budget::new(10);
        let first = budget.take(6);
        assert!(first.is_some() && budget.take(5).is_none());
        let second = budget.take(4);
        assert!(second.is_some() && budget.take(1).is_none());
        drop(first);
        assert!(budget.take(6).is_some());
    }
}
