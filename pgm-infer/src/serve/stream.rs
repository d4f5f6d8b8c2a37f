//! Server-sent events to one client, whatever they tell.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use super::error::ApiError;
use super::run::{RunningRequest, in_background};

/// Events of a text's stream that wait for the client to read them.
pub const TEXT_EVENTS: usize = 64;
/// As [`TEXT_EVENTS`], of a stream of pictures, each of which is a whole file.
pub const PICTURE_EVENTS: usize = 2;
/// Bytes of a piece of a large answer.
const PIECE: usize = 64 << 10;
/// How long a stream waits for a client that reads nothing.
const STALLED: Duration = Duration::from_secs(60);

/// Why a client did not take something.
enum NotTaken {
    Left,
    Late,
    Stalled,
}

/// Waits until the other end takes `value`, at most until `deadline` and no longer than `patience`.
async fn hand<T>(
    to: &mpsc::Sender<T>,
    value: T,
    deadline: Option<Instant>,
    patience: Duration,
) -> Result<(), NotTaken> {
    let stalled = Instant::now() + patience;
    let until = deadline.map_or(stalled, |deadline| deadline.min(stalled));
    match tokio::time::timeout_at(until.into(), to.send(value)).await {
        Ok(sent) => sent.map_err(|_| NotTaken::Left),
        Err(_) if until < stalled => Err(NotTaken::Late),
        Err(_) => Err(NotTaken::Stalled),
    }
}

/// The client's end of a stream.
#[derive(Clone)]
pub struct Client {
    events: mpsc::Sender<Result<sse::Event, Infallible>>,
    patience: Duration,
}

impl Client {
    /// Waits until the client takes the event, at most until the request's `deadline` and no longer than [`STALLED`].
    ///
    /// # Errors
    /// `late` at the deadline, and another for a client that reads nothing for so long.
    pub async fn send(
        &self,
        event: sse::Event,
        deadline: Option<Instant>,
        late: impl FnOnce() -> ApiError,
    ) -> Result<(), ApiError> {
        match hand(&self.events, Ok(event), deadline, self.patience).await {
            // A client that has left needs no error.
            Ok(()) | Err(NotTaken::Left) => Ok(()),
            Err(NotTaken::Late) => Err(late()),
            Err(NotTaken::Stalled) => Err(ApiError::stalled(self.patience.as_secs())),
        }
    }
}

/// A response whose events `send` sends. The work ends when the client leaves. Its error is the last event: it is sent when
/// all that the work holds is dropped. At most `buffered` events wait for the client.
pub fn respond<F>(buffered: usize, send: impl FnOnce(Client) -> F) -> Response
where
    F: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    respond_with(buffered, STALLED, send)
}

fn respond_with<F>(buffered: usize, patience: Duration, send: impl FnOnce(Client) -> F) -> Response
where
    F: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (events, receiver) = mpsc::channel(buffered);
    let client = Client { events, patience };
    let work = send(client.clone());
    let failed = client.clone();
    let sending = async move {
        if let Err(error) = work.await {
            let _ = failed.send(error_event(&error), None, || error).await;
        }
    };
    let watching = async move {
        // A task of its own, so that the client gets an error if it panics.
        let mut sending = tokio::spawn(sending.in_current_span());
        tokio::select! {
            // The client has left; dropping the work cancels its tasks.
            () = client.events.closed() => sending.abort(),
            ended = &mut sending => if ended.is_err() {
                let _ = client.events.try_send(Ok(error_event(&ApiError::panicked())));
            },
        }
    };
    tokio::spawn(watching.in_current_span());
    let mut response = Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()).into_response();
    // nginx would hold events back to send several at once.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A JSON answer that is sent piece by piece; `value` makes it on a thread that may block. It holds the request's places
/// until the client has taken its last piece, and is cut off when the client reads nothing for a minute or the request is
/// late.
///
/// # Errors
/// Those of `value`, and [`ApiError::panicked`] when it panics.
pub async fn answer<T: Serialize>(
    request: RunningRequest,
    value: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let held = request.clone();
    let written = in_background(move || {
        // The work goes on if the client leaves.
        let _held = held;
        serde_json::to_vec(&value()?).map_err(|_| ApiError::panicked())
    });
    let json = written.await?;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    let (length, mut rest) = (json.len(), Bytes::from(json));
    let sending = async move {
        while !rest.is_empty() {
            let piece = rest.split_to(PIECE.min(rest.len()));
            if hand(&sender, Ok(piece), request.deadline(), STALLED).await.is_err() {
                return;
            }
        }
    };
    tokio::spawn(sending.in_current_span());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    Ok((headers, Body::from_stream(ReceiverStream::new(receiver))).into_response())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a stream of five events behind `wait`, for which the client reads nothing.
    async fn read_late(wait: Duration, patience: Duration, deadline: Option<Instant>) -> String {
        let late = || ApiError::timeout(1);
        let response = respond_with(1, patience, move |client| async move {
            for number in 0..5 {
                client.send(event(&number), deadline, late).await?;
            }
            Ok(())
        });
        tokio::time::sleep(wait).await;
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_gets_what_was_sent_and_an_error() {
        let (short, long) = (Duration::from_secs(3), Duration::from_secs(60));
        let in_time = read_late(short, long, None).await;
        assert!(in_time.contains("data: 0") && in_time.ends_with("data: 4\n\n"), "{in_time}");
        // Longer than the wait for one event, shorter than that for the event and the error.
        let stalled = read_late(short * 3 / 2, short, None).await;
        assert!(stalled.contains("data: 0") && stalled.contains("stalled"), "{stalled}");
        assert!(!stalled.contains("data: 4"), "{stalled}");
        let late = read_late(short, long, Some(Instant::now())).await;
        assert!(late.contains("data: 0") && late.contains("timeout") && !late.contains("data: 4"), "{late}");
    }
}
