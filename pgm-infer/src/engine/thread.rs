//! The thread that runs an engine's model, and how a task gets there.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::options::EngineOptions;
use super::queue::{Job, SampleQueue};
use super::reader::TaskReader;
use super::sample::TaskState;
use super::stream::Events;
use super::task::{EventListener, OrderFactory, RequestId, TaskEvent, TaskFailure, TaskHandle, TaskOutput};
use super::worker::{Worker, WorkerModel};
use crate::InferError;
use crate::sample::{SampleRequest, SampleSettings};

/// Samples of a task, at most.
pub(super) const MAX_SAMPLES: usize = 1 << 16;

/// A model's thread. Dropping it ends the thread after the current step; tasks that are not done end as cancelled.
#[derive(Debug)]
pub(super) struct EngineThread {
    sender: Option<Sender<Job>>,
    worker: Option<JoinHandle<()>>,
}

/// A task whose rows are known.
pub(super) struct Submission {
    pub(super) rows: Vec<SampleRequest>,
    pub(super) settings: SampleSettings,
    pub(super) order: Option<OrderFactory>,
    pub(super) reader: TaskReader,
    pub(super) request: Option<RequestId>,
    pub(super) timeout: Option<Duration>,
}

impl EngineThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`InferError::Setting`] for an empty batch, [`InferError::Device`] when the system has no thread left.
    pub(super) fn start(model: WorkerModel, options: &EngineOptions) -> Result<Self, InferError> {
        if options.max_batch == 0 {
            return Err(InferError::Setting { name: "--max-batch", value: "0".into(), problem: "must be at least 1" });
        }
        let (sender, jobs) = channel();
        let (options, queue) = (options.clone(), SampleQueue::new(jobs));
        let worker = std::thread::Builder::new()
            .name("pgm-engine".into())
            .spawn(move || Worker::new(&model, options, queue).run())
            .map_err(|error| InferError::Device(format!("cannot start the engine's thread: {error}")))?;
        Ok(Self { sender: Some(sender), worker: Some(worker) })
    }

    /// Whether the thread runs.
    pub(super) fn is_alive(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| !worker.is_finished())
    }

    /// Submits a task that the model can do.
    ///
    /// # Errors
    /// [`InferError::Device`] when the thread has ended.
    pub(super) fn submit(&self, submission: Submission, listener: EventListener) -> Result<TaskHandle, InferError> {
        let Submission { rows, settings, order, reader, request, timeout } = submission;
        let now = Instant::now();
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        let cancelled = Arc::new(AtomicBool::new(false));
        let (listener, shared) = (Some(listener), Arc::clone(&cancelled));
        let state = TaskState { reader, deadline, queued: now, listener, cancelled: shared };
        let request = request.unwrap_or_else(RequestId::new);
        let job = Job { requests: rows, settings, order, request, state };
        self.sender.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        Ok(TaskHandle { cancelled, deadline })
    }
}

/// Checks the number of a task's samples.
///
/// # Errors
/// [`InferError::Setting`] for none and for too many.
pub(super) fn check_n(n: usize) -> Result<(), InferError> {
    if n == 0 || n > MAX_SAMPLES {
        let problem = "must be at least 1 and at most 65536";
        return Err(InferError::Setting { name: "-n", value: n.to_string(), problem });
    }
    Ok(())
}

/// Waits for all `n` samples of a task. `observe` sees each event and can stop the task.
///
/// # Errors
/// Why a sample failed; the other samples are in the [`TaskFailure`].
pub(super) fn wait(
    mut events: Events,
    n: usize,
    observe: &mut dyn FnMut(&TaskEvent) -> ControlFlow<()>,
) -> Result<Vec<TaskOutput>, TaskFailure> {
    let (mut answers, mut failed) = (Vec::new(), None);
    while let Some(event) = events.next() {
        let lost = matches!(&event, TaskEvent::Failed { error: InferError::Device(_), .. });
        if observe(&event).is_break() || lost {
            events.handle().cancel();
        }
        match event {
            TaskEvent::Done(answer) => answers.push(*answer),
            TaskEvent::Failed { error, partial, .. } => failed = failed.or(Some((error, partial))),
            TaskEvent::Step { .. } => {}
        }
    }
    answers.sort_by_key(|answer| answer.index);
    if answers.len() == n {
        return Ok(answers);
    }
    let (error, partial) = failed.unwrap_or_else(|| (gone(), None));
    Err(TaskFailure { error: Box::new(error), partial: partial.map(Box::new), answers })
}

fn gone() -> InferError {
    InferError::Device("the engine's thread has ended".into())
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        self.sender = None;
        // A listener that holds the engine drops it on the worker itself, which then ends without a join.
        if let Some(worker) = self.worker.take().filter(|worker| worker.thread().id() != std::thread::current().id()) {
            let _ = worker.join();
        }
    }
}
