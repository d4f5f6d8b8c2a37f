//! The engine's thread: seats, steps, and telling what happened.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgm_model::Network;

use super::reading::{Read, Reading};
use super::{Answer, Event, Finish, Job, Listener, Options, Tick};
use crate::sampler::{Change, Request, Running, Sampled, Settings, StepView, advance};
use crate::{InferError, Route, TextModel};

/// What the samples of a task share.
pub(super) struct Shared {
    pub reading: Reading,
    pub deadline: Option<Instant>,
    pub queued: Instant,
    pub listener: Listener,
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

// A sample in work or waiting for it.
struct Seat {
    shared: Arc<Mutex<Shared>>,
    index: usize,
    seed: u64,
    row: Running,
    started: Option<Instant>,
}

pub(super) struct Worker<'a> {
    model: &'a TextModel,
    options: Options,
    // Set before the last sender goes, for tasks that do not stop between steps to look at the queue.
    closing: &'a AtomicBool,
    waiting: VecDeque<Seat>,
    seats: Vec<Seat>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(model: &'a TextModel, options: Options, closing: &'a AtomicBool) -> Self {
        Self { model, options, closing, waiting: VecDeque::new(), seats: Vec::new() }
    }

    // Until nobody can hand anything over any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            if self.waiting.is_empty() && self.seats.is_empty() {
                let Ok(job) = jobs.recv() else { return };
                self.admit(job);
            }
            loop {
                match jobs.try_recv() {
                    Ok(job) => self.admit(job),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        let left = self.seats.drain(..).chain(self.waiting.drain(..));
                        left.for_each(|seat| finish(self.model, seat, Finish::Cancelled));
                        return;
                    }
                }
            }
            self.sort_out();
            self.step();
        }
    }

    fn admit(&mut self, job: Job) {
        let Job { requests, settings, order, shared } = job;
        let shared = Arc::new(Mutex::new(shared));
        if matches!(self.model.network(), Network::Autoregressive(_)) {
            return self.left_to_right(&requests, &settings, &shared);
        }
        for (index, request) in requests.iter().enumerate() {
            let row = match &order {
                Some(start) => Running::with_order(request, &settings, |open, rng| start(open, rng)),
                None => Running::new(request, &settings),
            };
            let shared = Arc::clone(&shared);
            match row {
                Ok(row) => self.waiting.push_back(Seat { shared, index, seed: request.seed, row, started: None }),
                Err(error) => tell(&shared, Event::Failed { index, error, partial: None }),
            }
        }
    }

    // Those who are cancelled or late leave; those who wait take the free seats.
    fn sort_out(&mut self) {
        let now = Instant::now();
        let why = |seat: &Seat| lock(&seat.shared).ended(now);
        let leaves = |seat: &mut Seat| why(seat).is_some();
        let mut gone: Vec<Seat> = self.seats.extract_if(.., leaves).collect();
        let (stay, late): (VecDeque<Seat>, Vec<Seat>) = {
            let (late, stay): (Vec<Seat>, Vec<Seat>) = self.waiting.drain(..).partition(|seat| why(seat).is_some());
            (stay.into(), late)
        };
        self.waiting = stay;
        gone.extend(late);
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

    fn step(&mut self) {
        if self.seats.is_empty() {
            return;
        }
        let (model, began, n_rows) = (self.model, Instant::now(), self.seats.len());
        let mut rows: Vec<&mut Running> = self.seats.iter_mut().map(|seat| &mut seat.row).collect();
        // A backend panics where its device is lost.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let denoiser = model.denoiser(Route::Clean)?;
            advance(denoiser.as_ref(), &mut rows)
        }));
        let result = result.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            Err(InferError::Device(text.to_string()))
        });
        if let Some(watch) = &self.options.watch {
            let changes = result.as_ref().map_or(&[][..], |advanced| &advanced.changes);
            let n_decoded = changes.iter().flatten().map(|change| change.decoded.len()).sum();
            let (n_waiting, failed) = (self.waiting.len(), result.is_err());
            watch(&Tick { n_rows, n_waiting, n_decoded, duration: began.elapsed(), failed });
        }
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
                    tell(&seat.shared, Event::Failed { index: seat.index, error, partial });
                }
            }
        }
    }
}

// Tells what a step did; gives the seat back if it is not done.
fn told(model: &TextModel, seat: Seat, change: Result<Change, InferError>) -> Option<Seat> {
    let mask_index = model.config().backbone().mask_index;
    let index = seat.index;
    match change {
        Ok(change) => {
            let decodes = !change.decoded.is_empty();
            let (step, n_steps) = (seat.row.step(), seat.row.n_steps());
            tell(&seat.shared, Event::Step { index, step, n_steps, change });
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
            tell(&seat.shared, Event::Failed { index, error, partial });
            None
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

// A listener that panics has left.
fn tell(shared: &Mutex<Shared>, event: Event) {
    let mut shared = lock(shared);
    if shared.cancelled.load(Ordering::Relaxed) && matches!(event, Event::Step { .. }) {
        return;
    }
    let heard = catch_unwind(AssertUnwindSafe(|| (shared.listener)(event)));
    if !matches!(heard, Ok(ControlFlow::Continue(()))) {
        shared.cancelled.store(true, Ordering::Relaxed);
    }
}

fn finish(model: &TextModel, seat: Seat, finish: Finish) {
    let Seat { shared, index, seed, row, started } = seat;
    let sampled = row.sampled(model.config().backbone().mask_index);
    end(model, &shared, Ending { index, seed, sampled, steps: row.step(), started }, finish);
}

// A sample that goes no further.
struct Ending {
    index: usize,
    seed: u64,
    sampled: Sampled,
    steps: usize,
    started: Option<Instant>,
}

fn end(model: &TextModel, shared: &Mutex<Shared>, ending: Ending, finish: Finish) {
    let Ending { index, seed, sampled, steps, started } = ending;
    let whole = !matches!(finish, Finish::Cancelled | Finish::Timeout);
    let (read, queued) = {
        let shared = lock(shared);
        (shared.reading.read(model, &sampled.tokens, whole), shared.queued)
    };
    let now = Instant::now();
    let event = match read {
        Ok(Read { text, blanks, ended }) => Event::Done(Box::new(Answer {
            index,
            seed,
            text,
            blanks,
            sampled,
            steps,
            finish: ended.unwrap_or(finish),
            queued: started.unwrap_or(now) - queued,
            duration: started.map_or(Duration::ZERO, |started| now - started),
        })),
        Err(error) => Event::Failed { index, error, partial: Some(sampled) },
    };
    tell(shared, event);
}

impl Worker<'_> {
    // An autoregressive model takes one task at a time: its cache belongs to rows that stand at one position.
    fn left_to_right(&self, requests: &[Request], settings: &Settings, shared: &Mutex<Shared>) {
        let (model, started) = (self.model, Instant::now());
        let mut last = started;
        let mut why = lock(shared).ended(started);
        let mut steps = 0;
        let mut observe = |view: &StepView| {
            steps = view.step;
            let n_decoded = view.changes.iter().map(|change| change.decoded.len()).sum();
            if let Some(watch) = &self.options.watch {
                let duration = last.elapsed();
                watch(&Tick { n_rows: requests.len(), n_waiting: 0, n_decoded, duration, failed: false });
            }
            last = Instant::now();
            for (index, change) in view.changes.iter().enumerate().filter(|(_, change)| !change.decoded.is_empty()) {
                let change = change.clone();
                tell(shared, Event::Step { index, step: view.step, n_steps: view.n_steps, change });
            }
            let closing = self.closing.load(Ordering::Relaxed).then_some(Finish::Cancelled);
            why = closing.or_else(|| lock(shared).ended(Instant::now()));
            if why.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let result = catch_unwind(AssertUnwindSafe(|| model.generate(requests, settings, Route::Clean, &mut observe)));
        let error = match result {
            Ok(Ok(outcome)) => {
                for (index, (request, sampled)) in requests.iter().zip(outcome.rows).enumerate() {
                    let why = why.clone().filter(|_| !sampled.complete).unwrap_or(Finish::Complete);
                    let ending = Ending { index, seed: request.seed, sampled, steps, started: Some(started) };
                    end(model, shared, ending, why);
                }
                return;
            }
            Ok(Err(error)) => error,
            Err(_) => InferError::Device("the backend panicked".to_string()),
        };
        let others = error.to_string();
        tell(shared, Event::Failed { index: 0, error, partial: None });
        for index in 1..requests.len() {
            tell(shared, Event::Failed { index, error: InferError::Request(others.clone()), partial: None });
        }
    }
}
