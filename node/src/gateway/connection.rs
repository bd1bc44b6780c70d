//! One connection: hyper speaks HTTP on it, and this file watches the time.
//!
//! ```text
//!            a byte comes            headers complete            response is made
//!   Idle ------------------> Head ---------------------> Serving ------------------> Idle
//!   75 s, then close         10 s, then 408              own limits (body, timeout)
//! ```
//!
//! A new connection starts in Head: whoever connects has something to ask. In any state, a response that the client does not take
//! for 30 s ends the connection. So no client, slow on purpose or not, holds a connection for ever.
//!
//! Closing is done with care too. When the server ends a connection while the client still sends a body (it was too large, say),
//! closing at once would reset it, and the client would never see the response. So we stop sending, and go on reading and discarding
//! for a moment (nginx calls it lingering close).
//!
//! Rejected: hyper's own `header_read_timeout`. It runs while a kept-alive connection is idle too, so it cannot be short for one and
//! long for the other, and it ends in a close without a response.

use super::listen::stopped;
use super::{Gateway, GatewayOptions, Surface, route};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

/// Largest head of a request, in bytes; hyper allows 100 headers in it. Also the size of its buffer for one connection.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long a lingering close lasts.
const LINGER: Duration = Duration::from_secs(2);
/// How much it discards.
const LINGER_BYTES_MAX: usize = 64 << 20;
/// When nothing is due, the timer is set this far ahead.
const NEVER: Duration = Duration::from_secs(3600);

/// Sent as it is when headers come too slowly: hyper is in the middle of a request and cannot answer.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
/// Sent to who begins with the preface of HTTP/2: hyper leaves that to the caller.
const NOT_HTTP_2: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Where a connection stands, shared by its stream, its requests and its timer. One task touches it, so the lock is always free.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    phase: Phase,
    /// When the phase has lasted too long.
    due: Option<Instant>,
    /// When a response has been stuck for too long.
    write_due: Option<Instant>,
    /// Whether bytes came that belong to the next request.
    fed: bool,
    /// Whether the client's body has not been read to its end.
    body_pending: bool,
    /// Whether the client has ended its side.
    ended: bool,
    header_limit: Duration,
    idle_limit: Duration,
    write_limit: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Head,
    Serving,
}

impl Progress {
    fn new(options: &GatewayOptions) -> Progress {
        let header_limit = options.header_limit;
        Progress(Arc::new(Mutex::new(State {
            phase: Phase::Head,
            due: Some(Instant::now() + header_limit),
            write_due: None,
            fed: false,
            body_pending: false,
            ended: false,
            header_limit,
            idle_limit: options.idle_limit,
            write_limit: options.write_limit,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The headers of a request are complete.
    fn request_began(&self, has_body: bool) {
        let mut state = self.state();
        (state.phase, state.due, state.fed, state.body_pending) = (Phase::Serving, None, false, has_body);
    }

    /// The body of the present request has been read.
    pub(super) fn body_ended(&self) {
        let mut state = self.state();
        (state.fed, state.body_pending) = (false, false);
    }

    /// The response is made and goes out. Whether the connection ends with it, because what follows on it is a body that
    /// nobody has read.
    fn request_ended(&self) -> bool {
        let mut state = self.state();
        let (phase, limit) = if state.fed {
            (Phase::Head, state.header_limit)
        } else {
            (Phase::Idle, state.idle_limit)
        };
        (state.phase, state.due) = (phase, Some(Instant::now() + limit));
        state.body_pending
    }

    /// The stream gave this many bytes.
    fn read(&self, bytes: usize) {
        let mut state = self.state();
        state.ended |= bytes == 0;
        state.fed |= bytes > 0;
        if bytes > 0 && state.phase == Phase::Idle {
            (state.phase, state.due) = (Phase::Head, Some(Instant::now() + state.header_limit));
        }
    }

    /// The stream took bytes, or did not.
    fn wrote(&self, stuck: bool) {
        let mut state = self.state();
        state.write_due = match state.write_due {
            _ if !stuck => None,
            None => Some(Instant::now() + state.write_limit),
            due => due,
        };
    }

    /// When to look again, `None` if nothing is due.
    fn due(&self) -> Option<Instant> {
        let state = self.state();
        [state.due, state.write_due].into_iter().flatten().min()
    }

    /// Whether a 408 can be sent: part of a request came, and no response is half sent.
    fn owes_timeout_response(&self) -> bool {
        let state = self.state();
        state.phase == Phase::Head && state.fed && state.write_due.is_none()
    }

    /// Whether the client may still be sending what nobody will read.
    fn must_linger(&self) -> bool {
        let state = self.state();
        state.body_pending && !state.ended
    }
}

/// A stream that tells [`Progress`] what goes over it.
#[derive(Debug)]
struct Watched<S> {
    stream: S,
    progress: Progress,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if poll.is_ready() {
            self.progress.read(buf.filled().len() - before);
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.progress.wrote(poll.is_pending());
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.progress.wrote(poll.is_pending());
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Serves a connection to its end: the client's, a time limit, or `shutdown`, after which the request under way is finished.
pub(super) async fn drive<S>(stream: S, gateway: Arc<Gateway>, surface: Surface, shutdown: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Progress::new(&gateway.options);
    let watched = Watched {
        stream,
        progress: progress.clone(),
    };
    let (mut stream, end) = speak(watched, gateway, surface, shutdown).await;
    let last_words = match end {
        End::TimedOut if progress.owes_timeout_response() => REQUEST_TIMEOUT,
        End::Http2 => NOT_HTTP_2,
        End::TimedOut | End::Closed => b"",
    };
    if !last_words.is_empty() {
        // One try: if the client does not even take this, it is gone.
        let _ = tokio::time::timeout(LINGER, stream.write_all(last_words)).await;
        let _ = stream.shutdown().await;
    }
    if end == End::Http2 || (end == End::Closed && progress.must_linger()) {
        let _ = tokio::time::timeout(LINGER, discard(&mut stream)).await;
    }
}

/// How hyper's part of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By one side or an error; all that had to be said was said.
    Closed,
    /// By a limit.
    TimedOut,
    /// By the preface of HTTP/2, which has not been answered.
    Http2,
}

/// Lets hyper serve the stream and keeps the limits. Gives the stream back, and how it ended.
async fn speak<S>(
    watched: Watched<S>,
    gateway: Arc<Gateway>,
    surface: Surface,
    mut shutdown: watch::Receiver<bool>,
) -> (S, End)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = watched.progress.clone();
    let service = service_fn(|request| {
        let (gateway, progress) = (gateway.clone(), progress.clone());
        async move {
            progress.request_began(!hyper::body::Body::is_end_stream(request.body()));
            let mut answer = route::handle(&gateway, surface, request, &progress).await;
            if progress.request_ended() {
                answer
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(watched), service);
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    let mut stop = pin!(stopped(&mut shutdown));
    let mut stopping = false;
    let end = poll_fn(|cx| {
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            let Err(error) = result else {
                return Poll::Ready(End::Closed);
            };
            tracing::debug!(%error, "connection ended");
            return Poll::Ready(match error.is_parse_version_h2() {
                true => End::Http2,
                false => End::Closed,
            });
        }
        // The timer is only moved to an earlier time; when it fires early, it is set again. So a busy connection
        // costs a timer operation every few seconds, not one per request.
        let due = progress.due();
        if due.is_some_and(|due| due < timer.deadline()) {
            timer.as_mut().reset(due.unwrap_or_else(Instant::now));
        }
        while timer.as_mut().poll(cx).is_ready() {
            match due {
                Some(due) if due <= Instant::now() => return Poll::Ready(End::TimedOut),
                due => timer.as_mut().reset(due.unwrap_or_else(|| Instant::now() + NEVER)),
            }
        }
        Poll::Pending
    })
    .await;
    (connection.into_parts().io.into_inner().stream, end)
}

/// Reads and drops what still comes.
async fn discard<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut buffer = vec![0; 16 << 10];
    let mut total = 0;
    while total < LINGER_BYTES_MAX {
        match stream.read(&mut buffer).await {
            Ok(bytes) if bytes > 0 => total += bytes,
            _ => return,
        }
    }
}
