//! A sample in an engine: its row, and the task that it belongs to.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::reader::TaskReader;
use super::status::LoadGuard;
use super::task::{EventListener, Finish, RequestId, TaskEvent, TaskOutput};
use crate::InferError;
use crate::sample::{RowChange, SampleRow};
use crate::text::reader::{BlankEnd, RowText};
use crate::unwind::{catch, drop_caught};

/// What the samples of a task share.
pub(super) struct TaskState {
    pub(super) reader: TaskReader,
    pub(super) deadline: Option<Instant>,
    pub(super) queued: Instant,
    pub(super) listener: Option<EventListener>,
    pub(super) cancelled: Arc<AtomicBool>,
}

impl Drop for TaskState {
    fn drop(&mut self) {
        drop_caught(self.listener.take());
    }
}

/// A [`TaskState`] in several samples, which may run on several replicas.
#[derive(Clone)]
pub(super) struct SharedTask(Arc<Mutex<TaskState>>);

impl SharedTask {
    pub(super) fn new(state: TaskState) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, TaskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes an event to the listener. A listener that breaks or panics cancels the task.
    pub(super) fn tell(&self, event: TaskEvent) {
        let mut task = self.lock();
        if task.cancelled.load(Ordering::Relaxed) && matches!(event, TaskEvent::Step { .. }) {
            return;
        }
        let Some(listener) = &mut task.listener else { return };
        if !matches!(catch(|| listener(event)), Ok(ControlFlow::Continue(()))) {
            task.cancelled.store(true, Ordering::Relaxed);
        }
    }

    // Why the task's samples must end.
    fn must_end(&self, now: Instant) -> Option<Finish> {
        let task = self.lock();
        if task.cancelled.load(Ordering::Relaxed) {
            Some(Finish::Cancelled)
        } else {
            task.deadline.is_some_and(|deadline| deadline <= now).then_some(Finish::Timeout)
        }
    }
}

/// A sample that waits or is in the batch.
pub(super) struct Sample {
    pub(super) task: SharedTask,
    pub(super) request: RequestId,
    pub(super) index: usize,
    pub(super) seed: u64,
    pub(super) row: SampleRow,
    pub(super) load: LoadGuard,
    pub(super) started: Option<Instant>,
}

impl Sample {
    /// Why the sample must end: it was cancelled or is late.
    pub(super) fn must_end(&self, now: Instant) -> Option<Finish> {
        self.task.must_end(now)
    }

    /// Tells the result of a step; `mask` is the token of open positions. Gives the sample back if it needs another.
    pub(super) fn stepped(self, mask: usize, result: Result<RowChange, InferError>) -> Option<Self> {
        let change = match result {
            Ok(change) => change,
            Err(error) => {
                self.fail(mask, error);
                return None;
            }
        };
        let decodes = !change.decoded.is_empty();
        let (index, step, n_steps) = (self.index, self.row.step(), self.row.n_steps());
        self.task.tell(TaskEvent::Step { index, step, n_steps, change });
        let finish = if self.row.is_done() {
            Some(Finish::Complete)
        } else if decodes {
            let tokens = || self.row.sampled(mask).tokens;
            self.task.lock().reader.ended(tokens).map(finish_of)
        } else {
            None
        };
        match finish {
            Some(finish) => {
                self.finish(mask, finish);
                None
            }
            None => Some(self),
        }
    }

    /// Ends the sample and tells its text.
    pub(super) fn finish(self, mask: usize, finish: Finish) {
        let Self { task, index, seed, row, started, load, .. } = self;
        let sampled = row.sampled(mask);
        let is_finished = !matches!(finish, Finish::Cancelled | Finish::Timeout);
        let (text, queued) = {
            let task = task.lock();
            (task.reader.read(&sampled.tokens, is_finished), task.queued)
        };
        let now = Instant::now();
        let event = match text {
            Ok(RowText { text, blanks, ended }) => TaskEvent::Done(Box::new(TaskOutput {
                index,
                seed,
                text,
                blanks,
                sampled,
                steps: row.step(),
                finish: ended.map_or(finish, finish_of),
                queued: started.unwrap_or(now) - queued,
                duration: started.map_or(Duration::ZERO, |started| now - started),
            })),
            Err(error) => TaskEvent::Failed { index, error, partial: Some(sampled) },
        };
        // Who hears the event finds the replica free.
        drop(load);
        task.tell(event);
    }

    /// Ends the sample with an error.
    pub(super) fn fail(self, mask: usize, error: InferError) {
        let Self { task, index, row, load, .. } = self;
        let partial = Some(row.sampled(mask));
        drop(load);
        task.tell(TaskEvent::Failed { index, error, partial });
    }
}

fn finish_of(end: BlankEnd) -> Finish {
    match end {
        BlankEnd::Stop(stop) => Finish::Stop(stop),
        BlankEnd::Eos => Finish::Eos,
    }
}
