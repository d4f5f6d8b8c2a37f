//! The connections of a listener: how many are open, how long they may be silent, and how they end.
//!
//! `axum::serve` has no such settings. hyper's own timeout for headers also runs between two requests, and its graceful end
//! waits for the rest of a header that has begun. So a connection is watched here: it is [`Idle`](Phase::Idle), a
//! [`Head`](Phase::Head) arrives, or a request is [`Running`](Phase::Running) until its response is written.

use std::io::{IoSlice, Result as IoResult};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::serve::Listener;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// How often the log says that no further connection is accepted, at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The connections that a server keeps open.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// How many, at most. Further ones wait in the listener's backlog.
    pub max: usize,
    /// How long the header of a request may take, from its first byte, or from the begin of a new connection.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long a client may take none of what is sent to it.
    pub write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max: 1024,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
        }
    }
}

/// Serves the connections of a listener until `stop` is ready. Then the listener is closed, connections without a running
/// request end at once, and the others when their response is written. Returns when all have ended.
pub async fn serve_connections<L: Listener>(
    mut listener: L,
    app: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()> + Send,
) {
    let max = u32::try_from(limits.max).unwrap_or(u32::MAX).clamp(1, 1 << 24);
    let places = Arc::new(Semaphore::new(max as usize));
    let (stopping, stopped) = watch::channel(false);
    let (mut stop, mut told): (_, Option<Instant>) = (pin!(stop), None);
    loop {
        if places.available_permits() == 0 && told.is_none_or(|told| told.elapsed() >= LOG_INTERVAL) {
            told = Some(Instant::now());
            tracing::warn!("{max} connections are open, the most that are served; further ones wait until one ends");
        }
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await.0)
        };
        let (place, io) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        let (app, stopped) = (app.clone(), stopped.clone());
        tokio::spawn(async move {
            serve_connection(io, app, limits, stopped).await;
            drop(place);
        });
    }
    drop(listener);
    stopping.send_replace(true);
    let _ = places.acquire_many(max).await;
}

async fn serve_connection<I: AsyncRead + AsyncWrite + Unpin>(
    io: I,
    app: Router,
    limits: ConnectionLimits,
    mut stopped: watch::Receiver<bool>,
) {
    let phase = Arc::new(watch::Sender::new(Phase::Head(Instant::now())));
    let mut phases = phase.subscribe();
    let (blocked, mut writes) = watch::channel(None);
    let io = TokioIo::new(WatchedIo { io, phase: Arc::clone(&phase), blocked });
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |request: axum::http::Request<Incoming>| {
        let (running, response) = (Running::begin(&phase), app.call(request));
        async move { response.await.map(|response| response.map(|body| WatchedBody { body, _running: running })) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut is_stopping = *stopped.borrow_and_update();
    if is_stopping {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        let blocked: Option<Instant> = *writes.borrow_and_update();
        let blocked_until = blocked.and_then(|since| since.checked_add(limits.write_timeout));
        let ends_at = match *phases.borrow_and_update() {
            Phase::Head(_) if is_stopping => return,
            Phase::Head(since) => since.checked_add(limits.header_timeout),
            Phase::Idle(since) => since.checked_add(limits.idle_timeout),
            Phase::Running => None,
        };
        let ends_at = ends_at.into_iter().chain(blocked_until).min();
        let late = async {
            match ends_at {
                Some(ends_at) => tokio::time::sleep_until(ends_at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("a connection broke off: {error}");
                }
                return;
            }
            Ok(()) = phases.changed() => {}
            Ok(()) = writes.changed() => {}
            _ = stopped.wait_for(|stopped| *stopped), if !is_stopping => {
                is_stopping = true;
                // An idle connection ends with this, another one after its response.
                connection.as_mut().graceful_shutdown();
            }
            () = late => {
                tracing::debug!("a connection was closed that had no request, or whose client took nothing of its answer");
                return;
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    // Since the end of a response.
    Idle(Instant),
    // Since the first byte of a header, or the begin of the connection.
    Head(Instant),
    Running,
}

/// A running request: until it is dropped, with its response, the connection is not idle.
struct Running(Arc<watch::Sender<Phase>>);

impl Running {
    fn begin(phase: &Arc<watch::Sender<Phase>>) -> Self {
        phase.send_replace(Phase::Running);
        Self(Arc::clone(phase))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_replace(Phase::Idle(Instant::now()));
    }
}

/// The body of a response. hyper drops it when all of it is written.
struct WatchedBody {
    body: Body,
    _running: Running,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose first byte after a pause begins a header.
struct WatchedIo<I> {
    io: I,
    phase: Arc<watch::Sender<Phase>>,
    // Since when the client has taken nothing of what waits for it.
    blocked: watch::Sender<Option<Instant>>,
}

impl<I> WatchedIo<I> {
    fn watched<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.blocked.send_if_modified(|blocked| {
            let changes = polled.is_pending() != blocked.is_some();
            if changes {
                *blocked = polled.is_pending().then(Instant::now);
            }
            changes
        });
        polled
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for WatchedIo<I> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<IoResult<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.phase.send_if_modified(|phase| {
                let begins = matches!(phase, Phase::Idle(_));
                if begins {
                    *phase = Phase::Head(Instant::now());
                }
                begins
            });
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for WatchedIo<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<IoResult<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watched(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(context, parts);
        self.watched(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
