//! The engine's thread: seats, steps, and telling what happened.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::reading::{Read, Reading};
use super::{EngineOptions, EventListener, Finish, Job, StepMetrics, TaskEvent, TaskOutput};
use crate::denoiser::Denoiser;
use crate::error::said_by;
use crate::sampler::{RowChange, SampleRow, advance};
use crate::{InferError, SamplingPath, TextModel};

/// What the samples of a task share.
pub(super) struct Shared {
    pub reading: Reading,
    pub deadline: Option<Instant>,
    pub queued: Instant,
    pub listener: Option<EventListener>,
    pub cancelled: Arc<AtomicBool>,
}

impl Shared {
    // Why a sample cannot go on.
    fn ended(&self, now: Instant) -> Option<Finish> {
        if self.cancelled.load(Ordering::Relaxed) {
            Some(Finish::Cancelled)
        } else {
            self.deadline.is_some_and(|deadline| deadline <= now).then_some(Finish::Timeout)
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let_go(self.listener.take());
    }
}

// What is foreign may panic as it goes.
fn let_go<T>(foreign: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(foreign)));
}

// A sample in work or waiting for it.
struct Seat {
    shared: Arc<Mutex<Shared>>,
    index: usize,
    seed: u64,
    row: SampleRow,
    started: Option<Instant>,
}

pub(super) struct Worker<'a> {
    model: &'a TextModel,
    options: EngineOptions,
    waiting: VecDeque<Seat>,
    seats: Vec<Seat>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(model: &'a TextModel, options: EngineOptions) -> Self {
        Self { model, options, waiting: VecDeque::new(), seats: Vec::new() }
    }

    // Until nobody can hand anything over any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            // One for as long as there is work: what it keeps of the rows goes when they are done.
            let denoiser = self.model.denoiser(SamplingPath::Clean);
            self.admit(job, denoiser.as_ref());
            while !(self.waiting.is_empty() && self.seats.is_empty()) {
                loop {
                    match jobs.try_recv() {
                        Ok(job) => self.admit(job, denoiser.as_ref()),
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => {
                            let left = self.seats.drain(..).chain(self.waiting.drain(..));
                            left.for_each(|seat| finish(self.model, seat, Finish::Cancelled));
                            return;
                        }
                    }
                }
                self.sort_out();
                self.step(denoiser.as_ref());
            }
        }
    }

    fn admit(&mut self, job: Job, denoiser: &dyn Denoiser) {
        let Job { requests, settings, order, shared } = job;
        let shared = Arc::new(Mutex::new(shared));
        for (index, request) in requests.iter().enumerate() {
            let row = guarded(|| match &order {
                Some(start) => SampleRow::with_order(request, &settings, |open, rng| start(open, rng)),
                None => denoiser.row(request, &settings),
            });
            let shared = Arc::clone(&shared);
            match row {
                Ok(row) => self.waiting.push_back(Seat { shared, index, seed: request.seed, row, started: None }),
                Err(error) => tell(&shared, TaskEvent::Failed { index, error, partial: None }),
            }
        }
        let_go(order);
    }

    // Those who are cancelled or late leave; those who wait take the free seats.
    fn sort_out(&mut self) {
        let now = Instant::now();
        let why = |seat: &Seat| lock(&seat.shared).ended(now);
        let leaves = |seat: &mut Seat| why(seat).is_some();
        let mut gone: Vec<Seat> = self.seats.extract_if(.., leaves).collect();
        // Most steps find nobody late, and a long queue is not moved for that.
        if self.waiting.iter().any(|seat| why(seat).is_some()) {
            let (late, stay): (Vec<Seat>, Vec<Seat>) = self.waiting.drain(..).partition(|seat| why(seat).is_some());
            self.waiting = stay.into();
            gone.extend(late);
        }
        for seat in gone {
            let finish_ = why(&seat).unwrap_or(Finish::Cancelled);
            finish(self.model, seat, finish_);
        }
        while self.seats.len() < self.options.max_batch {
            let Some(mut seat) = self.waiting.pop_front() else { break };
            seat.started = Some(now);
            self.seats.push(seat);
        }
    }

    fn step(&mut self, denoiser: &dyn Denoiser) {
        let (model, began, n_rows) = (self.model, Instant::now(), self.seats.len());
        if n_rows == 0 {
            // All who waited have left.
            return self.watched(&StepMetrics {
                n_rows,
                n_waiting: 0,
                n_decoded: 0,
                duration: Duration::ZERO,
                failed: false,
            });
        }
        let mut rows: Vec<&mut SampleRow> = self.seats.iter_mut().map(|seat| &mut seat.row).collect();
        let result = guarded(|| advance(denoiser, &mut rows));
        let changes = result.as_ref().map_or(&[][..], |advanced| &advanced.changes);
        let n_decoded = changes.iter().flatten().map(|change| change.decoded.len()).sum();
        let (n_waiting, failed) = (self.waiting.len(), result.is_err());
        self.watched(&StepMetrics { n_rows, n_waiting, n_decoded, duration: began.elapsed(), failed });
        let mask_index = model.config().backbone().mask_index;
        match result {
            Ok(advanced) => {
                let mut changes = advanced.changes.into_iter();
                let mut stay = Vec::new();
                for seat in self.seats.drain(..) {
                    let Some(change) = changes.next() else { break };
                    stay.extend(told(model, seat, change));
                }
                self.seats = stay;
            }
            Err(error) => {
                // Whose fault it was cannot be said; each is told.
                let problem = error.to_string();
                for seat in self.seats.drain(..) {
                    let partial = Some(seat.row.sampled(mask_index));
                    let error = InferError::Device(problem.clone());
                    tell(&seat.shared, TaskEvent::Failed { index: seat.index, error, partial });
                }
            }
        }
    }

    fn watched(&self, tick: &StepMetrics) {
        if let Some(watch) = &self.options.watch {
            let _ = catch_unwind(AssertUnwindSafe(|| watch(tick)));
        }
    }
}

// Tells what a step did; gives the seat back if it is not done.
fn told(model: &TextModel, seat: Seat, change: Result<RowChange, InferError>) -> Option<Seat> {
    let mask_index = model.config().backbone().mask_index;
    let index = seat.index;
    match change {
        Ok(change) => {
            let decodes = !change.decoded.is_empty();
            let (step, n_steps) = (seat.row.step(), seat.row.n_steps());
            tell(&seat.shared, TaskEvent::Step { index, step, n_steps, change });
            if seat.row.is_done() {
                finish(model, seat, Finish::Complete);
                return None;
            }
            let tokens = || seat.row.sampled(mask_index).tokens;
            let why = if decodes { lock(&seat.shared).reading.ended(model, tokens) } else { None };
            if let Some(why) = why {
                finish(model, seat, why);
                return None;
            }
            Some(seat)
        }
        Err(error) => {
            let partial = Some(seat.row.sampled(mask_index));
            tell(&seat.shared, TaskEvent::Failed { index, error, partial });
            None
        }
    }
}

// A backend panics where its device is lost.
fn guarded<T>(work: impl FnOnce() -> Result<T, InferError>) -> Result<T, InferError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(InferError::Device(said_by(&*panic).into())))
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

// A listener that panics has left.
fn tell(shared: &Mutex<Shared>, event: TaskEvent) {
    let mut shared = lock(shared);
    if shared.cancelled.load(Ordering::Relaxed) && matches!(event, TaskEvent::Step { .. }) {
        return;
    }
    let Some(listener) = &mut shared.listener else { return };
    let heard = catch_unwind(AssertUnwindSafe(|| listener(event)));
    if !matches!(heard, Ok(ControlFlow::Continue(()))) {
        shared.cancelled.store(true, Ordering::Relaxed);
    }
}

// A sample that goes no further.
fn finish(model: &TextModel, seat: Seat, finish: Finish) {
    let Seat { shared, index, seed, row, started } = seat;
    let sampled = row.sampled(model.config().backbone().mask_index);
    let whole = !matches!(finish, Finish::Cancelled | Finish::Timeout);
    let (read, queued) = {
        let shared = lock(&shared);
        (shared.reading.read(model, &sampled.tokens, whole), shared.queued)
    };
    let now = Instant::now();
    let event = match read {
        Ok(Read { text, blanks, ended }) => TaskEvent::Done(Box::new(TaskOutput {
            index,
            seed,
            text,
            blanks,
            sampled,
            steps: row.step(),
            finish: ended.unwrap_or(finish),
            queued: started.unwrap_or(now) - queued,
            duration: started.map_or(Duration::ZERO, |started| now - started),
        })),
        Err(error) => TaskEvent::Failed { index, error, partial: Some(sampled) },
    };
    tell(&shared, event);
}
