//! A model that serves requests from its own thread.
//!
//! Requests that arrive together share network evaluations, whatever their lengths, steps and settings; they join and leave
//! between steps, and each one's tokens are the same as alone. What a caller holds never computes: it hands a [`Task`] over
//! and receives [`Event`]s, by a callback, an iterator or (feature `tokio`) a stream. Whoever stops listening cancels at the
//! next step.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use pgm_model::{Network, WeightType};

use crate::order::{Order, OrderKind};
use crate::sampler::{Change, Request, Running, Sampled, Settings, StepView, advance};
use crate::template::{self, Part};
use crate::text::ModelBytes;
use crate::{InferError, Route, TextModel, causal};

/// How an engine runs.
#[derive(Clone)]
pub struct Options {
    /// What the weights are held in.
    pub weights: WeightType,
    /// Rows that share an evaluation.
    pub max_batch: usize,
    /// Told of each step on the engine's thread, for whoever measures.
    pub watch: Option<Watch>,
}

/// See [`Options::watch`].
pub type Watch = Arc<dyn Fn(&Tick) + Send + Sync>;

/// One step of the engine.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// Rows that took part.
    pub n_rows: usize,
    /// Rows that wait for a seat.
    pub n_waiting: usize,
    /// Tokens that were decoded.
    pub n_decoded: usize,
    /// How long it took.
    pub duration: Duration,
    /// Whether the device failed.
    pub failed: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { weights: WeightType::F32, max_batch: 16, watch: None }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { weights, max_batch, .. } = self;
        f.debug_struct("Options").field("weights", weights).field("max_batch", max_batch).finish_non_exhaustive()
    }
}

/// What is given of a text.
#[derive(Clone, Debug)]
pub enum Text {
    /// Its beginning; the rest of the row is to be written.
    Prompt(String),
    /// Text with blanks anywhere, as [`template::parse`] reads it; the number is the length of a `___` blank.
    Template(String, usize),
    /// The same in parts.
    Parts(Vec<Part>),
    /// Positions and tokens of a row of `length` tokens, BOS at position 0 among them if there is to be one.
    Tokens {
        /// Positions and tokens.
        given: Vec<(usize, u32)>,
        /// Tokens of the row.
        length: usize,
    },
}

/// Makes the order of one row of its open positions; see [`Running::with_order`].
pub type StartOrder = Arc<dyn Fn(&[usize], &mut dyn rand::Rng) -> Box<dyn Order> + Send + Sync>;

/// What is asked for.
#[derive(Clone)]
pub struct Task {
    /// What is given.
    pub text: Text,
    /// Tokens of the row, BOS included [default: the template's, else the model's].
    pub length: Option<usize>,
    /// Steps, schedule, order and draw.
    pub settings: Settings,
    /// An order of one's own, instead of that of the settings.
    pub order: Option<StartOrder>,
    /// Samples; sample i uses `seed + i`.
    pub n: usize,
    /// Seed of the first sample.
    pub seed: u64,
    /// Texts at which the first blank ends (for a prompt: the continuation); it is cut before the first of them, and what
    /// is open behind stays open.
    pub stop: Vec<String>,
    /// Whether an EOS in the first blank ends it as a stop string does.
    pub ends_at_eos: bool,
    /// How long it may take from now on, the queue included.
    pub timeout: Option<Duration>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("text", &self.text)
            .field("settings", &self.settings)
            .field("n", &self.n)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl Task {
    /// One sample of a text in 128 steps.
    pub fn new(text: Text) -> Self {
        let settings = Settings { steps: 128, ..Settings::default() };
        Self {
            text,
            length: None,
            settings,
            order: None,
            n: 1,
            seed: 0,
            stop: Vec::new(),
            ends_at_eos: false,
            timeout: None,
        }
    }
}

/// Why a sample ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Every position is decoded.
    Complete,
    /// The text up to a stop string is decoded.
    Stop(String),
    /// The text up to an EOS is decoded.
    Eos,
    /// Nobody listened any more.
    Cancelled,
    /// The time was over.
    Timeout,
}

/// A sample, whole or as far as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Which of the task's samples.
    pub index: usize,
    /// Its seed.
    pub seed: u64,
    /// The text, given parts included; up to the stop string, if one ended it. Open positions of a partial answer are
    /// left out.
    pub text: String,
    /// What was written into each blank, in the order of the text.
    pub blanks: Vec<Blank>,
    /// Tokens, the order in which they came, their log-probabilities.
    pub sampled: Sampled,
    /// Steps that were taken.
    pub steps: usize,
    /// Why it ended.
    pub finish: Finish,
    /// From handing over to the first step.
    pub queued: Duration,
    /// From the first step to the end.
    pub duration: Duration,
}

/// A stretch that was open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blank {
    /// Its positions.
    pub positions: Range<usize>,
    /// What was written there as it reads in the text; of the first blank what comes before a stop string.
    pub text: String,
}

/// What a listener hears.
#[derive(Debug)]
pub enum Event {
    /// A sample has done a step.
    Step {
        /// Which of the task's samples.
        index: usize,
        /// Steps done.
        step: usize,
        /// Steps in all; an order that sets its own pace may need fewer.
        n_steps: usize,
        /// What was decoded and what was opened again.
        change: Change,
    },
    /// A sample has ended.
    Done(Box<Answer>),
    /// A sample cannot be made or went wrong.
    Failed {
        /// Which of the task's samples.
        index: usize,
        /// Why.
        error: InferError,
        /// What there was of it.
        partial: Option<Sampled>,
    },
}

/// Cancels a task; dropping it does nothing.
#[derive(Clone, Debug)]
pub struct Ticket(Arc<AtomicBool>);

impl Ticket {
    /// The task ends before its next step, as [`Finish::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Hears the events of a task on the engine's thread; `Break` cancels the task.
pub type Listener = Box<dyn FnMut(Event) -> ControlFlow<()> + Send>;

/// A model on its own thread. Dropping it ends the thread after the step it is in and returns all memory; tasks that are
/// not done are [`Finish::Cancelled`].
#[derive(Debug)]
pub struct Engine {
    sender: Option<Sender<Job>>,
    worker: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
    model: Arc<TextModel>,
}

struct Job {
    requests: Vec<Request>,
    settings: Settings,
    order: Option<StartOrder>,
    shared: Shared,
}

impl Engine {
    /// Opens a model folder.
    ///
    /// # Errors
    /// As [`TextModel::load`] and [`TextModel::with_weights`].
    pub fn open(folder: &Path, device: &Device, options: &Options) -> Result<Self, InferError> {
        Self::new(TextModel::load(folder, device)?, options)
    }

    /// An engine of a model's bytes; `watch` as in [`TextModel::from_bytes`].
    ///
    /// # Errors
    /// As [`TextModel::from_bytes`] and [`Engine::new`].
    pub fn from_bytes(
        files: &ModelBytes<'_>,
        device: &Device,
        options: &Options,
        watch: &dyn Fn(f64),
    ) -> Result<Self, InferError> {
        Self::new(TextModel::from_bytes(files, device, watch)?, options)
    }

    /// An engine for a model.
    ///
    /// # Errors
    /// [`InferError::Setting`] for a batch of nothing, [`InferError::Model`] when the weights cannot have that type.
    pub fn new(model: TextModel, options: &Options) -> Result<Self, InferError> {
        if options.max_batch == 0 {
            return Err(InferError::Setting { name: "--max-batch", value: "0".into(), problem: "must be at least 1" });
        }
        let model = Arc::new(model.with_weights(options.weights)?);
        let (sender, jobs) = channel();
        let (of_worker, options) = (Arc::clone(&model), options.clone());
        let closing = Arc::new(AtomicBool::new(false));
        let closes = Arc::clone(&closing);
        let worker = std::thread::Builder::new()
            .name("pgm-engine".into())
            .spawn(move || Worker::new(&of_worker, options, &closes).run(&jobs))
            .map_err(|error| InferError::Device(format!("no thread for the engine: {error}")))?;
        Ok(Self { sender: Some(sender), worker: Some(worker), closing, model })
    }

    /// The model: its configuration, its sampler defaults, tokens of a text and a text of tokens, without waiting for
    /// anything that is being computed.
    pub fn model(&self) -> &TextModel {
        &self.model
    }

    /// Hands a task over; `listener` hears of it on the engine's thread and should be quick.
    ///
    /// # Errors
    /// What cannot be done is said here, before anything is computed.
    pub fn submit(&self, task: Task, listener: Listener) -> Result<Ticket, InferError> {
        task.settings.validate()?;
        if task.n == 0 {
            return Err(InferError::Setting { name: "-n", value: "0".into(), problem: "must be at least 1" });
        }
        if task.stop.iter().any(String::is_empty) {
            return Err(InferError::Request("a stop string must not be empty".into()));
        }
        let request = |seed: u64| match &task.text {
            Text::Prompt(prompt) if prompt.is_empty() => self.model.request(&[], task.length, seed),
            Text::Prompt(prompt) => self.model.request(&[Part::Text(prompt.clone())], task.length, seed),
            Text::Template(text, blank) => self.model.request(&template::parse(text, *blank)?, task.length, seed),
            Text::Parts(parts) => self.model.request(parts, task.length, seed),
            Text::Tokens { given, length } => self.of_tokens(given, *length, seed),
        };
        let first = request(task.seed)?;
        // Whether sampling takes the request, too.
        Running::new(&first, &task.settings)?;
        if matches!(self.model.network(), Network::Autoregressive(_)) {
            causal::check(&first)?;
            if task.order.is_some() || task.settings.order != OrderKind::Uniform {
                let message = "an autoregressive model writes from left to right and in no other order";
                return Err(InferError::Request(message.into()));
            }
        }
        let numbers = 0..task.n as u64;
        let requests = numbers.map(|index| Request { seed: task.seed.wrapping_add(index), ..first.clone() }).collect();
        let now = Instant::now();
        let cancelled = Arc::new(AtomicBool::new(false));
        let shared = Shared {
            blanks: blanks(&first),
            stop: task.stop,
            ends_at_eos: task.ends_at_eos,
            deadline: task.timeout.and_then(|timeout| now.checked_add(timeout)),
            queued: now,
            listener,
            cancelled: Arc::clone(&cancelled),
        };
        let job = Job { requests, settings: task.settings, order: task.order, shared };
        let gone = || InferError::Device("the engine's thread has ended".into());
        self.sender.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        Ok(Ticket(cancelled))
    }

    fn of_tokens(&self, given: &[(usize, u32)], length: usize, seed: u64) -> Result<Request, InferError> {
        let backbone = self.model.config().backbone();
        if let Some((position, token)) = given.iter().find(|(_, token)| *token as usize >= backbone.vocab_size) {
            let n = backbone.vocab_size;
            return Err(InferError::Request(format!("token {token} at position {position}: the model has {n} tokens")));
        }
        if length > pgm_model::config::MAX_LENGTH {
            let most = pgm_model::config::MAX_LENGTH;
            return Err(InferError::Request(format!("a row of {length} tokens; it has at most {most}")));
        }
        if given.len() >= length {
            return Err(InferError::Request(format!(
                "{} given tokens leave nothing of {length} to write",
                given.len()
            )));
        }
        Ok(Request { length, given: given.to_vec(), seed })
    }

    /// Hands a task over; its events come as an iterator, which ends with the last sample. Dropping it cancels.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn events(&self, task: Task) -> Result<Events, InferError> {
        let (sender, events) = channel();
        let ticket = self.submit(task, Box::new(move |event| sent(sender.send(event).is_ok())))?;
        Ok(Events { events, ticket })
    }

    /// As [`events`](Self::events), as a stream for asynchronous code.
    ///
    /// # Errors
    /// As [`Self::submit`].
    #[cfg(feature = "tokio")]
    pub fn stream(&self, task: Task) -> Result<EventStream, InferError> {
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let ticket = self.submit(task, Box::new(move |event| sent(sender.send(event).is_ok())))?;
        Ok(EventStream { events, ticket })
    }

    /// Waits for all samples of a task. `observe` sees each event before the end and can stop it.
    ///
    /// # Errors
    /// As [`Self::submit`], and what went wrong with a sample.
    pub fn generate(
        &self,
        task: Task,
        observe: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Vec<Answer>, InferError> {
        let mut answers = Vec::new();
        let (sender, receiver) = channel();
        let ticket = self.submit(task, Box::new(move |event| sent(sender.send(event).is_ok())))?;
        for event in receiver {
            if observe(&event).is_break() {
                ticket.cancel();
            }
            match event {
                Event::Done(answer) => answers.push(*answer),
                Event::Failed { error, .. } => return Err(error),
                Event::Step { .. } => {}
            }
        }
        answers.sort_by_key(|answer| answer.index);
        Ok(answers)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.sender = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// Events of a task as they come. Dropping it cancels the task.
#[derive(Debug)]
pub struct Events {
    events: Receiver<Event>,
    ticket: Ticket,
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.events.recv().ok()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.ticket.cancel();
    }
}

/// Events of a task as they come. Dropping it cancels the task.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub struct EventStream {
    events: tokio::sync::mpsc::UnboundedReceiver<Event>,
    ticket: Ticket,
}

#[cfg(feature = "tokio")]
impl futures_core::Stream for EventStream {
    type Item = Event;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Event>> {
        self.events.poll_recv(context)
    }
}

#[cfg(feature = "tokio")]
impl Drop for EventStream {
    fn drop(&mut self) {
        self.ticket.cancel();
    }
}

fn sent(ok: bool) -> ControlFlow<()> {
    if ok { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

// What the samples of a task share.
struct Shared {
    blanks: Vec<Range<usize>>,
    stop: Vec<String>,
    ends_at_eos: bool,
    deadline: Option<Instant>,
    queued: Instant,
    listener: Listener,
    cancelled: Arc<AtomicBool>,
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

struct Worker<'a> {
    model: &'a TextModel,
    options: Options,
    // Set before the last sender goes, for tasks that do not stop between steps to look at the queue.
    closing: &'a AtomicBool,
    waiting: VecDeque<Seat>,
    seats: Vec<Seat>,
}

impl<'a> Worker<'a> {
    fn new(model: &'a TextModel, options: Options, closing: &'a AtomicBool) -> Self {
        Self { model, options, closing, waiting: VecDeque::new(), seats: Vec::new() }
    }

    // Until nobody can hand anything over any more.
    fn run(mut self, jobs: &Receiver<Job>) {
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
            if decodes && let Some(why) = stopped(model, &seat, mask_index) {
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

// The stretches that are not given.
fn blanks(request: &Request) -> Vec<Range<usize>> {
    let mut given: Vec<usize> = request.given.iter().map(|(position, _)| *position).collect();
    given.sort_unstable();
    given.push(request.length);
    let mut next = 0;
    let mut blanks = Vec::new();
    for position in given {
        if next < position {
            blanks.push(next..position);
        }
        next = position + 1;
    }
    blanks
}

// The first blank's text and why it ends there, if it ends before its last position. Only what is decoded without a gap
// from its start is looked at.
fn cut(model: &TextModel, tokens: &[u32], shared: &Shared) -> Option<(String, Finish)> {
    let backbone = model.config().backbone();
    let Range { start, end } = shared.blanks.first()?.clone();
    let is = |index: usize| move |&token: &u32| token as usize == index;
    let end = tokens[start..end].iter().position(is(backbone.mask_index)).map_or(end, |at| start + at);
    let eos = shared.ends_at_eos.then(|| tokens[start..end].iter().position(is(backbone.eos_index))).flatten();
    let end = eos.map_or(end, |at| start + at);
    if shared.stop.is_empty() && eos.is_none() {
        return None;
    }
    let mut text = model.decode_after(&tokens[..end], start).ok()?;
    let found = shared.stop.iter().filter_map(|stop| text.find(stop.as_str()).map(|at| (at, stop)));
    match found.min_by_key(|(at, _)| *at) {
        Some((at, stop)) => {
            text.truncate(at);
            Some((text, Finish::Stop(stop.clone())))
        }
        None => eos.map(|_| (text, Finish::Eos)),
    }
}

fn stopped(model: &TextModel, seat: &Seat, mask_index: usize) -> Option<Finish> {
    let shared = lock(&seat.shared);
    if shared.stop.is_empty() && !shared.ends_at_eos {
        return None;
    }
    cut(model, &seat.row.sampled(mask_index).tokens, &shared).map(|(_, why)| why)
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

// The whole text, that of each blank, and why it ended.
fn texts(
    model: &TextModel,
    tokens: &[u32],
    shared: &Shared,
    finish: Finish,
) -> Result<(String, Vec<Blank>, Finish), InferError> {
    let mask = model.config().backbone().mask_index as u32;
    let written = |tokens: &[u32]| -> Vec<u32> { tokens.iter().copied().filter(|&token| token != mask).collect() };
    // BOS is no text, even where the tokenizer does not know it for a special token.
    let is_bos = tokens.first().is_some_and(|&token| token as usize == model.config().backbone().bos_index);
    let beginning = usize::from(is_bos);
    let mut blanks = Vec::new();
    // A blank reads behind what is given before it.
    let mut context = beginning;
    for positions in &shared.blanks {
        let before = written(&tokens[context.min(positions.start)..positions.start]);
        let mut both = before.clone();
        both.extend(written(&tokens[positions.clone()]));
        let text = model.decode_after(&both, before.len())?;
        context = positions.end;
        blanks.push(Blank { positions: positions.clone(), text });
    }
    let cut = match finish {
        Finish::Complete | Finish::Stop(_) | Finish::Eos => cut(model, tokens, shared),
        Finish::Cancelled | Finish::Timeout => None,
    };
    match (cut, blanks.first_mut()) {
        (Some((text, why)), Some(first)) => {
            let given = &tokens[beginning.min(first.positions.start)..first.positions.start];
            let whole = model.decode(given)? + &text;
            first.text = text;
            Ok((whole, blanks, why))
        }
        _ => Ok((model.decode(&written(&tokens[beginning..]))?, blanks, finish)),
    }
}

fn end(model: &TextModel, shared: &Mutex<Shared>, ending: Ending, finish: Finish) {
    let Ending { index, seed, sampled, steps, started } = ending;
    let (found, queued) = {
        let shared = lock(shared);
        (texts(model, &sampled.tokens, &shared, finish), shared.queued)
    };
    let now = Instant::now();
    let event = match found {
        Ok((text, blanks, finish)) => Event::Done(Box::new(Answer {
            index,
            seed,
            text,
            blanks,
            sampled,
            steps,
            finish,
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
