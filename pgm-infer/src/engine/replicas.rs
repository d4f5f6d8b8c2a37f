//! The replicas of an engine's model: one on each device, all behind one queue of tasks.
//!
//! Each sample goes to the replica that has the fewest, so the samples of a task may be spread. That is the shortest wait:
//! a request for many samples uses all devices, and a sample's tokens depend on its seed alone. A replica whose device
//! fails gets no more samples until it works again.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::Device;

use super::options::EngineOptions;
use super::queue::{Job, JobRow};
use super::reader::TaskReader;
use super::sample::{SharedTask, TaskState};
use super::status::{LoadGuard, Replica, ReplicaState, ReplicaStatus};
use super::stream::Events;
use super::task::{EventListener, OrderFactory, RequestId, TaskEvent, TaskFailure, TaskHandle, TaskOutput};
use super::thread::EngineThread;
use super::worker::WorkerModel;
use crate::InferError;
use crate::sample::{SampleRequest, SampleSettings};
use crate::unwind::{catch, drop_caught};

/// Samples of a task, at most.
const MAX_SAMPLES: usize = 1 << 16;

/// A task whose rows are known.
pub(super) struct Submission {
    pub(super) rows: Vec<SampleRequest>,
    pub(super) settings: SampleSettings,
    pub(super) order: Option<OrderFactory>,
    pub(super) reader: TaskReader,
    pub(super) request: Option<RequestId>,
    pub(super) timeout: Option<Duration>,
}

/// Copies of a model, each on its own thread. Dropping it ends the threads.
#[derive(Debug)]
pub(super) struct Replicas<M> {
    copies: Vec<(EngineThread, Arc<M>)>,
    // Held while samples are distributed, so that two tasks do not take the same replica for the least loaded.
    choice: Mutex<()>,
}

impl<M> Drop for Replicas<M> {
    fn drop(&mut self) {
        // A listener that holds the engine drops it on a worker. That one cannot wait for itself, nor for another, which may wait
        // for the listener's task.
        if self.copies.iter().any(|(thread, _)| thread.is_current()) {
            self.copies.iter_mut().for_each(|(thread, _)| thread.detach());
        }
    }
}

/// The use of a replica's model beside its thread. It counts as a sample of the replica.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct Lease<M> {
    number: usize,
    model: Arc<M>,
    _load: LoadGuard,
}

#[cfg(feature = "server")]
impl<M> Lease<M> {
    /// The number of the replica.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The model.
    pub(crate) fn model(&self) -> &M {
        &self.model
    }
}

impl<M> Replicas<M> {
    /// Starts a thread for each copy of a model, given with the names of their devices.
    ///
    /// # Errors
    /// [`InferError::Setting`] for no copy, and as [`EngineThread::start`].
    pub(super) fn start(
        copies: Vec<(M, String)>,
        worker: fn(Arc<M>) -> WorkerModel,
        options: &EngineOptions,
    ) -> Result<Self, InferError> {
        let has_several = copies.len() > 1;
        let copy = |(number, (model, device)): (usize, (M, String))| {
            let model = Arc::new(model);
            let status = ReplicaStatus::new(has_several.then_some(number), device);
            Ok((EngineThread::start(worker(Arc::clone(&model)), options, status)?, model))
        };
        let copies = copies.into_iter().enumerate().map(copy).collect::<Result<Vec<_>, InferError>>()?;
        if copies.is_empty() {
            return Err(InferError::Setting { name: "--device", value: String::new(), problem: "names no device" });
        }
        Ok(Self { copies, choice: Mutex::new(()) })
    }

    /// The first copy.
    pub(super) fn model(&self) -> &Arc<M> {
        &self.copies[0].1
    }

    /// How each replica does.
    pub(super) fn list(&self) -> Vec<Replica> {
        let replica = |(thread, _): &(EngineThread, Arc<M>)| {
            let (status, state) = (thread.status(), thread.state());
            Replica { device: status.device.clone(), n_samples: status.load(), state }
        };
        self.copies.iter().map(replica).collect()
    }

    /// The model of the least loaded replica, for work beside the threads.
    #[cfg(feature = "server")]
    pub(super) fn lease(&self) -> Lease<M> {
        let placed = self.place(1).pop();
        // Without a thread the model itself still works.
        let (number, load) = placed.unwrap_or_else(|| (0, LoadGuard::new(self.copies[0].0.status())));
        Lease { number, model: Arc::clone(&self.copies[number].1), _load: load }
    }

    /// Submits a task that the model can do.
    ///
    /// # Errors
    /// [`InferError::Device`] when all threads have ended.
    pub(super) fn submit(&self, submission: Submission, listener: EventListener) -> Result<TaskHandle, InferError> {
        let Submission { rows, settings, order, reader, request, timeout } = submission;
        let now = Instant::now();
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        let cancelled = Arc::new(AtomicBool::new(false));
        let (listener, shared) = (Some(listener), Arc::clone(&cancelled));
        let task = SharedTask::new(TaskState { reader, deadline, queued: now, listener, cancelled: shared });
        let request = request.unwrap_or_else(RequestId::new);
        let placed = self.place(rows.len());
        if placed.is_empty() {
            return Err(gone());
        }
        let mut rows_of: Vec<Vec<JobRow>> = self.copies.iter().map(|_| Vec::new()).collect();
        for ((index, row), (number, load)) in rows.into_iter().enumerate().zip(placed) {
            rows_of[number].push(JobRow { index, row, load });
        }
        for ((thread, _), rows) in self.copies.iter().zip(rows_of).filter(|(_, rows)| !rows.is_empty()) {
            let indices: Vec<usize> = rows.iter().map(|row| row.index).collect();
            if !thread.send(Job { rows, settings, order: order.clone(), request, task: task.clone() }) {
                // It has ended since it was chosen.
                for index in indices {
                    task.tell(TaskEvent::Failed { index, error: gone(), partial: None });
                }
            }
        }
        drop_caught(order);
        Ok(TaskHandle { cancelled, deadline })
    }

    // A replica for each of `n` samples: the least loaded of those that work, and where none works of those that run. None
    // if all have ended.
    fn place(&self, n: usize) -> Vec<(usize, LoadGuard)> {
        let _turn = self.choice.lock().unwrap_or_else(PoisonError::into_inner);
        let states: Vec<ReplicaState> = self.copies.iter().map(|(thread, _)| thread.state()).collect();
        let status = |number: usize| self.copies[number].0.status();
        let of = |state| (0..states.len()).filter(|&number| states[number] == state).collect::<Vec<_>>();
        let mut candidates = of(ReplicaState::Working);
        if candidates.is_empty() {
            candidates = of(ReplicaState::Failing);
        }
        let least = || candidates.iter().copied().min_by_key(|&number| status(number).load());
        (0..n).map_while(|_| least().map(|number| (number, LoadGuard::new(status(number))))).collect()
    }
}

/// A copy of a model on each device.
///
/// # Errors
/// [`InferError::Device`] that names the device.
pub(super) fn copies<M>(
    devices: &[(Device, String)],
    on: impl Fn(&Device) -> M,
) -> Result<Vec<(M, String)>, InferError> {
    let copy = |(device, name): &(Device, String)| {
        // A backend panics if the device has no room.
        let model = catch(|| on(device)).map_err(|message| InferError::Device(format!("{name}: {message}")))?;
        Ok((model, name.clone()))
    };
    devices.iter().map(copy).collect()
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
