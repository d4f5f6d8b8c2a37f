//! Server-sent events to one client, whatever they tell.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use super::error::ApiError;

/// Events of a stream that wait for the client to read them.
const BUFFERED_EVENTS: usize = 64;
/// How long a stream waits for a client that reads nothing.
const STALLED: Duration = Duration::from_secs(60);

/// The client's end of a stream.
#[derive(Clone)]
pub struct Client(mpsc::Sender<Result<sse::Event, Infallible>>);

impl Client {
    /// Whether the client took the event in time.
    pub async fn send(&self, event: sse::Event, deadline: Option<Instant>) -> bool {
        let stalled = Instant::now() + STALLED;
        let until = deadline.map_or(stalled, |deadline| deadline.min(stalled));
        matches!(tokio::time::timeout_at(until.into(), self.0.send(Ok(event))).await, Ok(Ok(())))
    }
}

/// A response whose events `send` sends. The work ends when the client leaves. Its error is the last event: it is sent when
/// all that the work holds is dropped.
pub fn respond<F>(send: impl FnOnce(Client) -> F) -> Response
where
    F: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(BUFFERED_EVENTS);
    let client = Client(sender);
    let work = send(client.clone());
    let failed = client.clone();
    let sending = async move {
        if let Err(error) = work.await {
            let _ = failed.send(error_event(&error), None).await;
        }
    };
    let watching = async move {
        // A task of its own, so that the client gets an error if it panics.
        let mut sending = tokio::spawn(sending.in_current_span());
        tokio::select! {
            // The client has left; dropping the work cancels its tasks.
            () = client.0.closed() => sending.abort(),
            ended = &mut sending => if ended.is_err() {
                let _ = client.0.try_send(Ok(error_event(&ApiError::panicked())));
            },
        }
    };
    tokio::spawn(watching.in_current_span());
    let mut response = Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()).into_response();
    // nginx would hold events back to send several at once.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn error_event(error: &ApiError) -> sse::Event {
    error.log();
    event(&error.body())
}

/// An event whose data is JSON.
pub fn event(data: &impl Serialize) -> sse::Event {
    json(sse::Event::default(), data)
}

/// An event with a name whose data is JSON.
pub fn named_event(name: &str, data: &impl Serialize) -> sse::Event {
    json(sse::Event::default().event(name), data)
}

fn json(event: sse::Event, data: &impl Serialize) -> sse::Event {
    event.data(serde_json::to_string(data).unwrap_or_default())
}
