//! Samples that wait for a place in the batch: those of a request in the order in which they were submitted, the requests in
//! the order of their turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::sample::{Sample, SharedTask};
use super::seats::{Demand, share};
use super::status::LoadGuard;
use super::task::{OrderFactory, RequestId, TaskEvent};
use crate::InferError;
use crate::sample::{Denoiser, SampleRequest, SampleRow, SampleSettings};
use crate::unwind::{catch, drop_caught};

/// The samples of a submitted task that one replica draws.
pub(super) struct Job {
    pub(super) rows: Vec<JobRow>,
    pub(super) settings: SampleSettings,
    pub(super) order: Option<OrderFactory>,
    pub(super) request: RequestId,
    pub(super) task: SharedTask,
}

/// A sample of a [`Job`].
pub(super) struct JobRow {
    /// Its index among the samples of the task.
    pub(super) index: usize,
    pub(super) row: SampleRequest,
    pub(super) load: LoadGuard,
}

/// What comes out of the wait for a task.
pub(super) enum NextJob {
    Job(Job),
    /// None came in time.
    Late,
    /// The engine was dropped.
    Gone,
}

// The waiting samples of a request. It also stands here while all of its samples run.
struct Waiting {
    request: RequestId,
    samples: VecDeque<Sample>,
    // Whether it had a row in the last step.
    held: bool,
}

/// The waiting samples, and where further tasks come from.
pub(super) struct SampleQueue {
    jobs: Receiver<Job>,
    // The request whose turn is next comes first: of those without a row the one that has been without for longest.
    requests: VecDeque<Waiting>,
}

impl SampleQueue {
    pub(super) fn new(jobs: Receiver<Job>) -> Self {
        Self { jobs, requests: VecDeque::new() }
    }

    /// The number of waiting samples.
    pub(super) fn len(&self) -> usize {
        self.requests.iter().map(|waiting| waiting.samples.len()).sum()
    }

    /// Blocks for the next task, at most for `patience`.
    pub(super) fn next_job(&self, patience: Option<Duration>) -> NextJob {
        let Some(patience) = patience else {
            return self.jobs.recv().map_or(NextJob::Gone, NextJob::Job);
        };
        match self.jobs.recv_timeout(patience) {
            Ok(job) => NextJob::Job(job),
            Err(RecvTimeoutError::Timeout) => NextJob::Late,
            Err(RecvTimeoutError::Disconnected) => NextJob::Gone,
        }
    }

    /// Adds the samples of a task. Samples that cannot be started fail.
    pub(super) fn add(&mut self, job: Job, denoiser: &dyn Denoiser) {
        let Job { rows, settings, order, request, task } = job;
        let mut samples = VecDeque::with_capacity(rows.len());
        for JobRow { index, row, load } in rows {
            let start = || match &order {
                Some(order) => {
                    let order = Arc::clone(order);
                    SampleRow::with_order(&row, &settings, move |start| order(start))
                }
                None => denoiser.row(&row, &settings),
            };
            let task = task.clone();
            match catch(start).unwrap_or_else(|message| Err(InferError::Device(message))) {
                Ok(started) => {
                    let (seed, row) = (row.seed, started);
                    samples.push_back(Sample { task, request, index, seed, row, load, started: None });
                }
                Err(error) => {
                    drop(load);
                    task.tell(TaskEvent::Failed { index, error, partial: None });
                }
            }
        }
        drop_caught(order);
        match self.requests.iter_mut().find(|waiting| waiting.request == request) {
            Some(waiting) => waiting.samples.append(&mut samples),
            None => self.requests.push_back(Waiting { request, samples, held: false }),
        }
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
        let mut removed = Vec::new();
        for waiting in &mut self.requests {
            // Most steps find none, and then a long queue is not moved.
            if waiting.samples.iter().any(ends) {
                let (ended, others): (Vec<Sample>, Vec<Sample>) = waiting.samples.drain(..).partition(ends);
                removed.extend(ended);
                waiting.samples = others.into();
            }
        }
        removed
    }

    /// Shares the rows of the next step between the requests, see [`share`]: samples of a request with too many rows wait
    /// again, the last one first, and waiting ones take the free rows. A request that got a row has its next turn last.
    pub(super) fn fill(&mut self, batch: &mut Vec<Sample>, max_batch: usize, fixed_rows: f64) {
        let running = |request: RequestId, batch: &[Sample]| batch.iter().filter(|s| s.request == request).count();
        self.requests.retain(|waiting| !waiting.samples.is_empty() || running(waiting.request, batch) > 0);
        let (lost, mut others): (VecDeque<Waiting>, _) = std::mem::take(&mut self.requests)
            .into_iter()
            .partition(|waiting| waiting.held && running(waiting.request, batch) == 0);
        others.extend(lost);
        self.requests = others;
        let demands: Vec<Demand> = self
            .requests
            .iter()
            .map(|waiting| Demand { running: running(waiting.request, batch), waiting: waiting.samples.len() })
            .collect();
        let rows = share(&demands, max_batch, fixed_rows);
        for ((waiting, demand), &rows) in self.requests.iter_mut().zip(&demands).zip(&rows) {
            for _ in rows..demand.running {
                if let Some(last) = batch.iter().rposition(|sample| sample.request == waiting.request) {
                    waiting.samples.push_front(batch.remove(last));
                }
            }
        }
        let mut served = VecDeque::new();
        for (index, mut waiting) in std::mem::take(&mut self.requests).into_iter().enumerate() {
            let new = rows[index].saturating_sub(demands[index].running);
            waiting.held = rows[index] > 0;
            batch.extend(waiting.samples.drain(..new));
            (if new > 0 { &mut served } else { &mut self.requests }).push_back(waiting);
        }
        self.requests.append(&mut served);
    }

    /// Removes all waiting samples.
    pub(super) fn drain(&mut self) -> Vec<Sample> {
        self.requests.drain(..).flat_map(|waiting| waiting.samples).collect()
    }
}
