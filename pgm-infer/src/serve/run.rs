//! A running request, whatever its protocol: its tasks are submitted, and its events are collected into one answer or sent
//! as a stream.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use super::error::ApiError;
use super::metrics::Metrics;
use super::progress::{DenoiseStep, SampleProgress};
use super::queue::QueuePermit;
use super::state::{Admission, LoadedModel, Server, ServerPhase};
use crate::TextModel;
use crate::engine::{Finish, RequestId, Task, TaskEvent, TaskHandle, TaskOutput};
use crate::sample::RowChange;

/// Events of a stream that wait for the client to read them.
const BUFFERED_EVENTS: usize = 64;
/// How long a stream waits for a client that reads nothing.
const STALLED: Duration = Duration::from_secs(60);

/// Runs blocking work, such as tokenising a long text, off the threads that serve other requests.
///
/// # Errors
/// Those of the work, and [`ApiError::panicked`] when it panics: a tokenizer is third-party code.
pub async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(ApiError::panicked()))
}

/// The tasks of an admitted request. Dropping it cancels them.
pub struct Run {
    events: mpsc::UnboundedReceiver<(usize, TaskEvent)>,
    handles: Vec<TaskHandle>,
    model: Arc<LoadedModel>,
    metrics: Arc<Metrics>,
    phase: watch::Receiver<ServerPhase>,
    // Samples of each task, and samples in all that have not ended.
    n_per_task: usize,
    n_running: usize,
    deadline: Option<Instant>,
    timeout: Duration,
    // Held until everything is sent: events that a slow client has not read yet count, too.
    _permit: Arc<QueuePermit>,
}

/// An event of a sample; samples are numbered over the tasks of a request.
enum SampleEvent {
    Step { sample: usize, steps: (usize, usize), change: RowChange },
    Done { sample: usize, output: Box<TaskOutput> },
}

impl Run {
    /// Submits the tasks, all with the same number of samples. Without `wants_steps` only the end of a sample is reported:
    /// waking a thread for each step would cost the engine time.
    ///
    /// # Errors
    /// When the engine refuses a task.
    pub fn start(
        server: &Server,
        model: &Arc<LoadedModel>,
        admission: Admission,
        tasks: &[Task],
        wants_steps: bool,
    ) -> Result<Self, ApiError> {
        let Admission { permit, deadline } = admission;
        let (sender, events) = mpsc::unbounded_channel();
        let (permit, request) = (Arc::new(permit), RequestId::new());
        let mut run = Self {
            events,
            handles: Vec::new(),
            model: Arc::clone(model),
            metrics: Arc::clone(server.metrics()),
            phase: server.phase(),
            n_per_task: tasks.first().map_or(1, |task| task.n),
            n_running: tasks.iter().map(|task| task.n).sum(),
            deadline,
            timeout: server.limits().timeout,
            _permit: Arc::clone(&permit),
        };
        for (index, task) in tasks.iter().enumerate() {
            let (sender, permit) = (sender.clone(), Arc::clone(&permit));
            let (metrics, name) = (Arc::clone(&run.metrics), model.name.clone());
            let listener = move |event: TaskEvent| {
                // The engine's thread owns a share of the places until it drops this listener.
                let _ = &permit;
                // The client has left and cannot count its samples any more.
                if let TaskEvent::Done(output) = &event
                    && sender.is_closed()
                {
                    metrics.count_sample(&name, finish_label(&output.finish));
                }
                let has_left = match event {
                    TaskEvent::Step { .. } if !wants_steps => sender.is_closed(),
                    event => sender.send((index, event)).is_err(),
                };
                if has_left { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let task = Task { timeout, request: Some(request), ..task.clone() };
            run.handles.push(model.engine.submit(task, Box::new(listener))?);
        }
        Ok(run)
    }

    // The next event; none after the last.
    async fn next(&mut self) -> Result<Option<SampleEvent>, ApiError> {
        let event = tokio::select! {
            event = self.events.recv() => event,
            Ok(_) = self.phase.wait_for(|phase| *phase == ServerPhase::Cut) => return Err(ApiError::stopping()),
        };
        let Some((task, event)) = event else {
            return if self.n_running == 0 { Ok(None) } else { Err(ApiError::engine_ended()) };
        };
        let sample = |index: usize| task * self.n_per_task + index;
        match event {
            TaskEvent::Step { index, step, n_steps, change } => {
                Ok(Some(SampleEvent::Step { sample: sample(index), steps: (step, n_steps), change }))
            }
            TaskEvent::Done(output) => {
                self.n_running -= 1;
                self.metrics.count_sample(&self.model.name, finish_label(&output.finish));
                match output.finish {
                    Finish::Complete | Finish::Stop(_) | Finish::Eos => {
                        Ok(Some(SampleEvent::Done { sample: sample(output.index), output }))
                    }
                    Finish::Timeout => Err(ApiError::timeout(self.timeout.as_secs())),
                    Finish::Cancelled => Err(ApiError::stopping()),
                }
            }
            TaskEvent::Failed { error, .. } => {
                self.metrics.count_sample(&self.model.name, "failed");
                Err(error.into())
            }
        }
    }

    /// Waits for all samples.
    ///
    /// # Errors
    /// When a sample fails, takes too long, or is ended with the server.
    pub async fn collect(mut self) -> Result<Vec<TaskOutput>, ApiError> {
        let mut outputs: Vec<Option<TaskOutput>> = (0..self.n_running).map(|_| None).collect();
        while let Some(event) = self.next().await? {
            if let SampleEvent::Done { sample, output } = event {
                outputs[sample] = Some(*output);
            }
        }
        outputs.into_iter().collect::<Option<_>>().ok_or_else(ApiError::engine_ended)
    }

    /// Sends the events of the samples in a protocol's form. The request's timeout counts for this, too: a client that
    /// reads too slowly loses the rest of the stream, and its places are free.
    pub fn stream(self, tasks: &[Task], format: impl StreamFormat) -> Response {
        let samples = SampleProgress::of_tasks(tasks, self.model.engine.model(), format.tells_steps());
        let (sender, receiver) = mpsc::channel(BUFFERED_EVENTS);
        let client = sender.clone();
        let watching = async move {
            // A task of its own, so that the client gets an error if it panics.
            let mut sending = tokio::spawn(send_events(self, samples, format, Sender(sender)).in_current_span());
            tokio::select! {
                // The client has left; dropping the run cancels its tasks.
                () = client.closed() => sending.abort(),
                ended = &mut sending => if ended.is_err() {
                    let _ = client.try_send(Ok(error_event(&ApiError::panicked())));
                },
            }
        };
        tokio::spawn(watching.in_current_span());
        let mut response = Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()).into_response();
        // nginx would hold events back to send several at once.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.handles.iter().for_each(TaskHandle::cancel);
    }
}

/// The events of a stream in one protocol's form. Samples are numbered over the request.
pub trait StreamFormat: Send + 'static {
    /// Whether the client asks for the event `denoise`.
    fn tells_steps(&self) -> bool {
        false
    }

    /// A step that changes something: the named event `denoise`.
    fn denoise(&self, step: DenoiseStep) -> sse::Event;

    /// The given text that is repeated before a sample's, if the request asks for it.
    fn echo(&self, sample: usize) -> Option<&str>;

    /// New text of a sample.
    fn text(&self, sample: usize, seed: u64, text: &str) -> sse::Event;

    /// The end of a sample; `rest` is the text that was not sent yet.
    fn done(&mut self, sample: usize, rest: &str, output: &TaskOutput, model: &TextModel) -> sse::Event;

    /// The end of the stream.
    fn end(&self) -> Vec<sse::Event>;
}

// The client's end of a stream.
struct Sender(mpsc::Sender<Result<sse::Event, Infallible>>);

impl Sender {
    // Whether the client took the event in time.
    async fn send(&self, event: sse::Event, deadline: Option<Instant>) -> bool {
        let stalled = Instant::now() + STALLED;
        let until = deadline.map_or(stalled, |deadline| deadline.min(stalled));
        matches!(tokio::time::timeout_at(until.into(), self.0.send(Ok(event))).await, Ok(Ok(())))
    }
}

// The run is dropped before an error is sent. Its places are free when the engine has dropped its listeners, too.
async fn send_events(run: Run, samples: Vec<SampleProgress>, format: impl StreamFormat, client: Sender) {
    if let Err(error) = try_send_events(run, samples, format, &client).await {
        let _ = client.send(error_event(&error), None).await;
    }
}

async fn try_send_events(
    mut run: Run,
    mut samples: Vec<SampleProgress>,
    mut format: impl StreamFormat,
    client: &Sender,
) -> Result<(), ApiError> {
    let (loaded, deadline) = (Arc::clone(&run.model), run.deadline);
    let model = loaded.engine.model();
    let mut events = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        events.extend(sample.start(index).map(|step| format.denoise(step)));
        events.extend(format.echo(index).map(|text| format.text(index, sample.seed(), text)));
    }
    loop {
        for event in events.drain(..) {
            if !client.send(event, deadline).await {
                return Err(ApiError::timeout(run.timeout.as_secs()));
            }
        }
        match run.next().await? {
            Some(SampleEvent::Step { sample: index, steps, change }) => {
                let sample = &mut samples[index];
                events.extend(sample.apply(index, steps, &change, model).map(|step| format.denoise(step)));
                events.extend(sample.new_text(model).map(|text| format.text(index, sample.seed(), &text)));
            }
            Some(SampleEvent::Done { sample: index, output }) => {
                let text = output.blanks.first().map_or("", |blank| blank.text.as_str());
                events.push(format.done(index, samples[index].rest(text), &output, model));
            }
            None => break,
        }
    }
    for event in format.end() {
        client.send(event, deadline).await;
    }
    Ok(())
}

fn error_event(error: &ApiError) -> sse::Event {
    error.log();
    event(&error.body())
}

/// An event whose data is JSON.
pub fn event(data: &impl Serialize) -> sse::Event {
    json(sse::Event::default(), data)
}

/// The event `denoise`, whose data is JSON.
pub fn denoise_event(data: &impl Serialize) -> sse::Event {
    json(sse::Event::default().event("denoise"), data)
}

fn json(event: sse::Event, data: &impl Serialize) -> sse::Event {
    event.data(serde_json::to_string(data).unwrap_or_default())
}

fn finish_label(finish: &Finish) -> &'static str {
    match finish {
        Finish::Complete => "complete",
        Finish::Stop(_) | Finish::Eos => "stop",
        Finish::Cancelled => "cancelled",
        Finish::Timeout => "timeout",
    }
}
