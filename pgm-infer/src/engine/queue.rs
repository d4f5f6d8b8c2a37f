//! Samples that wait for a place in the batch, in the order in which they were submitted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use super::sample::{Sample, SharedTask, TaskState};
use super::task::{OrderFactory, TaskEvent};
use crate::InferError;
use crate::sample::{Denoiser, SampleRequest, SampleRow, SampleSettings};
use crate::unwind::{catch, drop_caught};

/// A submitted task.
pub(super) struct Job {
    pub(super) requests: Vec<SampleRequest>,
    pub(super) settings: SampleSettings,
    pub(super) order: Option<OrderFactory>,
    pub(super) state: TaskState,
}

/// The waiting samples, and where further tasks come from.
pub(super) struct SampleQueue {
    jobs: Receiver<Job>,
    waiting: VecDeque<Sample>,
}

impl SampleQueue {
    pub(super) fn new(jobs: Receiver<Job>) -> Self {
        Self { jobs, waiting: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Blocks for the next task; none once the engine is dropped.
    pub(super) fn next_job(&self) -> Option<Job> {
        self.jobs.recv().ok()
    }

    /// Adds the samples of a task. Samples that cannot be started fail.
    pub(super) fn add(&mut self, job: Job, denoiser: &dyn Denoiser) {
        let Job { requests, settings, order, state } = job;
        let task = SharedTask::new(state);
        for (index, request) in requests.iter().enumerate() {
            let start = || match &order {
                Some(order) => {
                    let order = Arc::clone(order);
                    SampleRow::with_order(request, &settings, move |start| order(start))
                }
                None => denoiser.row(request, &settings),
            };
            let task = task.clone();
            match catch(start).unwrap_or_else(|message| Err(InferError::Device(message))) {
                Ok(row) => self.waiting.push_back(Sample { task, index, seed: request.seed, row, started: None }),
                Err(error) => task.tell(TaskEvent::Failed { index, error, partial: None }),
            }
        }
        drop_caught(order);
    }

    /// Adds the tasks that were submitted in the meantime, without blocking. False once the engine is dropped.
    pub(super) fn add_submitted(&mut self, denoiser: &dyn Denoiser) -> bool {
        loop {
            match self.jobs.try_recv() {
                Ok(job) => self.add(job, denoiser),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Removes the samples that were cancelled or are late.
    pub(super) fn remove_ended(&mut self, now: Instant) -> Vec<Sample> {
        let ends = |sample: &Sample| sample.must_end(now).is_some();
        // Most steps find none, and then a long queue is not moved.
        if !self.waiting.iter().any(ends) {
            return Vec::new();
        }
        let (ended, waiting): (Vec<Sample>, Vec<Sample>) = self.waiting.drain(..).partition(ends);
        self.waiting = waiting.into();
        ended
    }

    /// The sample that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Sample> {
        self.waiting.pop_front()
    }
}
