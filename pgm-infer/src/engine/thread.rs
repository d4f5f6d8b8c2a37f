//! The thread that runs a replica of an engine's model.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, ThreadId};

use super::options::EngineOptions;
use super::queue::{Job, SampleQueue};
use super::status::{ReplicaState, ReplicaStatus};
use super::worker::{Worker, WorkerModel};
use crate::InferError;

/// A replica's thread. Dropping it ends the thread after the current step; tasks that are not done end as cancelled.
#[derive(Debug)]
pub(super) struct EngineThread {
    status: Arc<ReplicaStatus>,
    sender: Option<Sender<Job>>,
    worker: Option<JoinHandle<()>>,
    // The thread that tells the events: of a replica with threads of its own one of these.
    teller: Arc<OnceLock<ThreadId>>,
}

impl EngineThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`InferError::Setting`] for an empty batch or no threads, [`InferError::Device`] when the system has no thread left.
    pub(super) fn start(
        model: WorkerModel,
        options: &EngineOptions,
        status: Arc<ReplicaStatus>,
    ) -> Result<Self, InferError> {
        for (name, value) in [("--max-batch", Some(options.max_batch)), ("threads", options.threads)] {
            if value == Some(0) {
                return Err(InferError::Setting { name, value: "0".into(), problem: "must be at least 1" });
            }
        }
        let failed = |error: String| InferError::Device(format!("cannot start the engine's thread: {error}"));
        // Everything that the worker calls, Burn's loops too, then shares the threads of this pool.
        let pool = options.threads.map(|n| {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(n).thread_name(|index| format!("pgm-engine-{index}"));
            pool.build().map_err(|error| failed(error.to_string()))
        });
        let pool = pool.transpose()?;
        let (sender, jobs) = channel();
        let (options, queue, of_worker) = (options.clone(), SampleQueue::new(jobs), Arc::clone(&status));
        let teller = Arc::new(OnceLock::new());
        let own = Arc::clone(&teller);
        let run = move || {
            let run = || {
                let _ = own.set(std::thread::current().id());
                Worker::new(&model, options, queue, of_worker).run();
            };
            match pool {
                Some(pool) => pool.install(run),
                None => run(),
            }
        };
        let worker = std::thread::Builder::new().name("pgm-engine".into()).spawn(run);
        let worker = worker.map_err(|error| failed(error.to_string()))?;
        Ok(Self { status, sender: Some(sender), worker: Some(worker), teller })
    }

    /// The samples and the health of the replica.
    pub(super) fn status(&self) -> &Arc<ReplicaStatus> {
        &self.status
    }

    /// Whether the replica works.
    pub(super) fn state(&self) -> ReplicaState {
        match self.worker.as_ref().is_some_and(|worker| !worker.is_finished()) {
            false => ReplicaState::Ended,
            true if self.status.is_failing() => ReplicaState::Failing,
            true => ReplicaState::Working,
        }
    }

    /// Hands samples over; false when the thread has ended.
    pub(super) fn send(&self, job: Job) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.send(job).is_ok())
    }

    /// Whether the current thread is the one that calls this replica's listeners.
    pub(super) fn is_current(&self) -> bool {
        self.teller.get() == Some(&std::thread::current().id())
    }

    /// Lets the thread end by itself.
    pub(super) fn detach(&mut self) {
        self.worker = None;
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
