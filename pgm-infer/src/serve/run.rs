//! A running request, whatever its protocol: its tasks are submitted, and their events come back.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::backlog::Backlog;
use super::error::ApiError;
use super::metrics::Metrics;
use super::queue::QueuePermit;
use super::state::{Admission, LoadedModel, Server, ServerPhase};
use crate::engine::{
    EventListener, Finish, ImageEngine, ImageTask, RequestId, Task, TaskEvent, TaskHandle, TaskInput, TaskOutput,
};
use crate::sample::{RowChange, SampleRequest, SampleSettings};

/// Runs blocking work, such as tokenising a long text, off the threads that serve other requests.
///
/// # Errors
/// Those of the work, and [`ApiError::panicked`] when it panics: a tokenizer is third-party code.
pub async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(ApiError::panicked()))
}

/// An admitted request: what all of its runs share.
#[derive(Clone)]
pub struct RunningRequest {
    model: String,
    request: RequestId,
    metrics: Arc<Metrics>,
    phase: watch::Receiver<ServerPhase>,
    deadline: Option<Instant>,
    timeout: Duration,
    // Held until everything is sent: events that a slow client has not read yet count, too.
    permit: Arc<QueuePermit>,
}

impl RunningRequest {
    /// A request for the model of this name.
    pub fn new(server: &Server, model: &str, admission: Admission) -> Self {
        let Admission { permit, deadline } = admission;
        Self {
            model: model.to_string(),
            request: RequestId::new(),
            metrics: Arc::clone(server.metrics()),
            phase: server.phase(),
            deadline,
            timeout: server.limits().timeout,
            permit: Arc::new(permit),
        }
    }

    /// When the request must be over.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The error of a request that is not over then.
    pub fn late(&self) -> ApiError {
        ApiError::timeout(self.timeout.as_secs())
    }

    /// Waits for `turn`, and no longer than the request may take.
    ///
    /// # Errors
    /// When its time is over, and when the server ends it.
    pub async fn wait<T>(&self, turn: impl Future<Output = T>) -> Result<T, ApiError> {
        let mut phase = self.phase.clone();
        let until = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            turn = turn => Ok(turn),
            () = until => Err(self.late()),
            Ok(_) = phase.wait_for(|phase| *phase == ServerPhase::Cut) => Err(ApiError::stopping()),
        }
    }

    fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    // Passes the events of task `index` on. Without `wants_steps` only the end of a sample is reported: waking a thread for
    // each step would cost the engine time.
    fn listener(
        &self,
        sender: &mpsc::UnboundedSender<(usize, TaskEvent)>,
        backlog: &Backlog,
        index: usize,
        wants_steps: bool,
    ) -> EventListener {
        let (sender, permit, backlog) = (sender.clone(), Arc::clone(&self.permit), backlog.clone());
        let (metrics, name) = (Arc::clone(&self.metrics), self.model.clone());
        Box::new(move |event: TaskEvent| {
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
                TaskEvent::Step { ref change, .. } if !backlog.push(change) => true,
                event => sender.send((index, event)).is_err(),
            };
            if has_left { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }
}

/// Tasks of an admitted request. Dropping it cancels them.
pub struct Run {
    request: RunningRequest,
    events: mpsc::UnboundedReceiver<(usize, TaskEvent)>,
    backlog: Backlog,
    handles: Vec<TaskHandle>,
    // Samples of each task, and samples in all that have not ended.
    n_per_task: usize,
    n_running: usize,
}

/// An event of a sample; samples are numbered over the tasks of a request.
pub enum SampleEvent {
    Step { sample: usize, steps: (usize, usize), change: RowChange },
    Done { sample: usize, output: Box<TaskOutput> },
}

impl Run {
    /// Submits the tasks of a request for text, all with the same number of samples. Without `wants_steps` only the ends of
    /// the samples are reported.
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
        let request = RunningRequest::new(server, &model.name, admission);
        let (sender, events) = mpsc::unbounded_channel();
        let n_per_task = tasks.first().map_or(1, |task| task.n);
        let n_running = tasks.iter().map(|task| task.n).sum();
        let n_tokens = tasks.iter().map(|task| task.n * row_length(task)).sum();
        let backlog = Backlog::new(n_tokens, &tasks.first().map(|task| task.settings).unwrap_or_default());
        let mut run = Self { request, events, backlog, handles: Vec::new(), n_per_task, n_running };
        for (index, task) in tasks.iter().enumerate() {
            let listener = run.request.listener(&sender, &run.backlog, index, wants_steps);
            let (timeout, request) = (run.request.time_left(), Some(run.request.request));
            let task = Task { timeout, request, ..task.clone() };
            run.handles.push(model.engine.submit(task, listener)?);
        }
        Ok(run)
    }

    /// Submits one row of a request for pictures, which may have several runs.
    ///
    /// # Errors
    /// When the engine refuses the row.
    pub fn start_row(
        request: &RunningRequest,
        engine: &ImageEngine,
        row: SampleRequest,
        settings: SampleSettings,
        wants_steps: bool,
    ) -> Result<Self, ApiError> {
        let (sender, events) = mpsc::unbounded_channel();
        let backlog = Backlog::new(row.length, &settings);
        let listener = request.listener(&sender, &backlog, 0, wants_steps);
        let (timeout, id) = (request.time_left(), Some(request.request));
        let task = ImageTask { timeout, request: id, ..ImageTask::new(vec![row], settings) };
        let handles = vec![engine.submit(task, listener)?];
        Ok(Self { request: request.clone(), events, backlog, handles, n_per_task: 1, n_running: 1 })
    }

    /// The request of this run.
    pub fn request(&self) -> &RunningRequest {
        &self.request
    }

    /// The next event; none after the last.
    ///
    /// # Errors
    /// When a sample fails, takes too long, or is ended with the server; when the client reads much more slowly than the steps
    /// are done.
    pub async fn next(&mut self) -> Result<Option<SampleEvent>, ApiError> {
        if self.backlog.is_full() {
            return Err(ApiError::too_slow());
        }
        let event = tokio::select! {
            event = self.events.recv() => event,
            Ok(_) = self.request.phase.wait_for(|phase| *phase == ServerPhase::Cut) => return Err(ApiError::stopping()),
        };
        let Some((task, event)) = event else {
            return if self.n_running == 0 { Ok(None) } else { Err(ApiError::engine_ended()) };
        };
        let sample = |index: usize| task * self.n_per_task + index;
        match event {
            TaskEvent::Step { index, step, n_steps, change } => {
                self.backlog.pop(&change);
                Ok(Some(SampleEvent::Step { sample: sample(index), steps: (step, n_steps), change }))
            }
            TaskEvent::Done(output) => {
                self.n_running -= 1;
                self.request.metrics.count_sample(&self.request.model, finish_label(&output.finish));
                match output.finish {
                    Finish::Complete | Finish::Stop(_) | Finish::Eos => {
                        Ok(Some(SampleEvent::Done { sample: sample(output.index), output }))
                    }
                    Finish::Timeout => Err(self.request.late()),
                    Finish::Cancelled => Err(ApiError::stopping()),
                }
            }
            TaskEvent::Failed { error, .. } => {
                self.request.metrics.count_sample(&self.request.model, "failed");
                Err(error.into())
            }
        }
    }

    /// Waits for all samples.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn collect(mut self) -> Result<Vec<TaskOutput>, ApiError> {
        let mut outputs: Vec<Option<TaskOutput>> = (0..self.n_running).map(|_| None).collect();
        while let Some(event) = self.next().await? {
            if let SampleEvent::Done { sample, output } = event {
                outputs[sample] = Some(*output);
            }
        }
        outputs.into_iter().collect::<Option<_>>().ok_or_else(ApiError::engine_ended)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.handles.iter().for_each(TaskHandle::cancel);
    }
}

fn row_length(task: &Task) -> usize {
    match &task.text {
        TaskInput::Row(row) => row.request.length,
        _ => 0,
    }
}

fn finish_label(finish: &Finish) -> &'static str {
    match finish {
        Finish::Complete => "complete",
        Finish::Stop(_) | Finish::Eos => "stop",
        Finish::Cancelled => "cancelled",
        Finish::Timeout => "timeout",
    }
}
