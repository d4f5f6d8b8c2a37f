//! A model that serves requests from its own thread.
//!
//! Requests that arrive together share network evaluations, whatever their lengths, steps and settings; they join and leave
//! between steps, and each one's tokens are the same as alone. What a caller holds never computes: it hands a [`Task`] over
//! and receives [`TaskEvent`]s, by a callback, an iterator or (feature `tokio`) a stream. Whoever stops listening cancels at the
//! next step.

mod reading;
mod worker;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use pgm_model::{Network, WeightDtype};

pub use reading::FilledBlank;
use reading::Reading;
use worker::{Shared, Worker};

use crate::causal::only_order;
use crate::order::Order;
use crate::sampler::{RowChange, SampleRequest, SampleSettings, SampledRow};
use crate::template::{self, Part};
use crate::text::ModelBytes;
use crate::{InferError, SamplingPath, TextModel};

/// Samples of a task.
const MAX_SAMPLES: usize = 1 << 16;

/// How an engine runs.
#[derive(Clone)]
pub struct EngineOptions {
    /// What the weights are held in.
    pub weights: WeightDtype,
    /// Rows that share an evaluation.
    pub max_batch: usize,
    /// Told of each step on the engine's thread, for whoever measures.
    pub watch: Option<StepObserver>,
}

/// See [`EngineOptions::watch`].
pub type StepObserver = Arc<dyn Fn(&StepMetrics) + Send + Sync>;

/// One step of the engine.
#[derive(Clone, Copy, Debug)]
pub struct StepMetrics {
    /// Rows that took part; none where those who waited have left.
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

impl Default for EngineOptions {
    fn default() -> Self {
        Self { weights: WeightDtype::F32, max_batch: 16, watch: None }
    }
}

impl std::fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { weights, max_batch, .. } = self;
        f.debug_struct("EngineOptions").field("weights", weights).field("max_batch", max_batch).finish_non_exhaustive()
    }
}

/// What is given of a text.
#[derive(Clone, Debug)]
pub enum TaskInput {
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

/// Makes the order of one row of its open positions; see [`SampleRow::with_order`](crate::sampler::Running::with_order).
pub type OrderFactory = Arc<dyn Fn(&[usize], &mut dyn rand::Rng) -> Box<dyn Order> + Send + Sync>;

/// What is asked for.
#[derive(Clone)]
pub struct Task {
    /// What is given.
    pub text: TaskInput,
    /// Tokens of the row, BOS included [default: the template's, else the model's]. A row longer than the model was trained
    /// on must be asked for here.
    pub length: Option<usize>,
    /// Steps, schedule, order and draw.
    pub settings: SampleSettings,
    /// An order of one's own, instead of that of the settings.
    pub order: Option<OrderFactory>,
    /// Samples; sample i uses `seed + i`.
    pub n: usize,
    /// Seed of the first sample.
    pub seed: u64,
    /// Texts at which a blank ends (for a prompt: the continuation); it is cut before the first of them. A sample whose
    /// blanks have all ended goes no further, and what is open behind a cut stays open.
    pub stop: Vec<String>,
    /// Whether an EOS in a blank ends it as a stop string does.
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
    pub fn new(text: TaskInput) -> Self {
        let settings = SampleSettings { steps: 128, ..SampleSettings::default() };
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
    /// Every blank is decoded up to where it ends, the first that ends early at this stop string.
    Stop(String),
    /// The same, at an EOS.
    Eos,
    /// Nobody listened any more.
    Cancelled,
    /// The time was over.
    Timeout,
}

/// A sample, whole or as far as it came.
#[derive(Clone, Debug)]
pub struct TaskOutput {
    /// Which of the task's samples.
    pub index: usize,
    /// Its seed.
    pub seed: u64,
    /// The text, given parts included, each blank up to what ended it. Open positions of a partial answer are left out.
    pub text: String,
    /// What was written into each blank, in the order of the text.
    pub blanks: Vec<FilledBlank>,
    /// Tokens, the order in which they came, their log-probabilities.
    pub sampled: SampledRow,
    /// Steps that were taken.
    pub steps: usize,
    /// Why it ended.
    pub finish: Finish,
    /// From handing over to the first step.
    pub queued: Duration,
    /// From the first step to the end.
    pub duration: Duration,
}

/// What a listener hears.
#[derive(Debug)]
pub enum TaskEvent {
    /// A sample has done a step.
    Step {
        /// Which of the task's samples.
        index: usize,
        /// Steps done.
        step: usize,
        /// Steps in all; an order that sets its own pace may need fewer.
        n_steps: usize,
        /// What was decoded and what was opened again.
        change: RowChange,
    },
    /// A sample has ended.
    Done(Box<TaskOutput>),
    /// A sample cannot be made or went wrong.
    Failed {
        /// Which of the task's samples.
        index: usize,
        /// Why.
        error: InferError,
        /// What there was of it.
        partial: Option<SampledRow>,
    },
}

/// A task of which samples failed: why the first did, and what there was all the same.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct TaskFailure {
    /// Why the first of them failed, or why the task was refused.
    pub error: Box<InferError>,
    /// What there was of that sample.
    pub partial: Option<Box<SampledRow>>,
    /// The samples that did not fail.
    pub answers: Vec<TaskOutput>,
}

impl From<TaskFailure> for InferError {
    fn from(failure: TaskFailure) -> Self {
        *failure.error
    }
}

impl From<InferError> for TaskFailure {
    fn from(error: InferError) -> Self {
        Self { error: Box::new(error), partial: None, answers: Vec::new() }
    }
}

/// Cancels a task; dropping it does nothing.
#[derive(Clone, Debug)]
pub struct TaskHandle(Arc<AtomicBool>);

impl TaskHandle {
    /// The task ends before its next step, as [`Finish::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Hears the events of a task on the engine's thread; `Break` cancels the task, and so does a panic.
pub type EventListener = Box<dyn FnMut(TaskEvent) -> ControlFlow<()> + Send>;

/// A model on its own thread. Dropping it ends the thread after the step it is in and returns all memory; tasks that are
/// not done are [`Finish::Cancelled`].
#[derive(Debug)]
pub struct Engine {
    sender: Option<Sender<Job>>,
    worker: Option<JoinHandle<()>>,
    model: Arc<TextModel>,
}

struct Job {
    requests: Vec<SampleRequest>,
    settings: SampleSettings,
    order: Option<OrderFactory>,
    shared: Shared,
}

impl Engine {
    /// Opens a model folder.
    ///
    /// # Errors
    /// As [`TextModel::load`] and [`TextModel::with_weight_dtype`].
    pub fn open(folder: &Path, device: &Device, options: &EngineOptions) -> Result<Self, InferError> {
        Self::new(TextModel::load(folder, device)?, options)
    }

    /// An engine of a model's bytes; `watch` as in [`TextModel::from_bytes`].
    ///
    /// # Errors
    /// As [`TextModel::from_bytes`] and [`Engine::new`].
    pub fn from_bytes(
        files: &ModelBytes<'_>,
        device: &Device,
        options: &EngineOptions,
        watch: &dyn Fn(f64),
    ) -> Result<Self, InferError> {
        Self::new(TextModel::from_bytes(files, device, watch)?, options)
    }

    /// An engine for a model.
    ///
    /// # Errors
    /// [`InferError::Setting`] for a batch of nothing, [`InferError::Model`] when the weights cannot have that type.
    pub fn new(model: TextModel, options: &EngineOptions) -> Result<Self, InferError> {
        if options.max_batch == 0 {
            return Err(InferError::Setting { name: "--max-batch", value: "0".into(), problem: "must be at least 1" });
        }
        let model = Arc::new(model.with_weight_dtype(options.weights)?);
        let (sender, jobs) = channel();
        let (of_worker, options) = (Arc::clone(&model), options.clone());
        let worker = std::thread::Builder::new()
            .name("pgm-engine".into())
            .spawn(move || Worker::new(&of_worker, options).run(&jobs))
            .map_err(|error| InferError::Device(format!("no thread for the engine: {error}")))?;
        Ok(Self { sender: Some(sender), worker: Some(worker), model })
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
    pub fn submit(&self, task: Task, listener: EventListener) -> Result<TaskHandle, InferError> {
        task.settings.validate()?;
        if task.n == 0 || task.n > MAX_SAMPLES {
            let problem = "must be at least 1 and at most 65536";
            return Err(InferError::Setting { name: "-n", value: task.n.to_string(), problem });
        }
        if task.stop.iter().any(String::is_empty) {
            return Err(InferError::Request("a stop string must not be empty".into()));
        }
        let request = |seed: u64| match &task.text {
            TaskInput::Prompt(prompt) if prompt.is_empty() => self.model.request(&[], task.length, seed),
            TaskInput::Prompt(prompt) => self.model.request(&[Part::Text(prompt.clone())], task.length, seed),
            TaskInput::Template(text, blank) => self.model.request(&template::parse(text, *blank)?, task.length, seed),
            TaskInput::Parts(parts) => self.model.request(parts, task.length, seed),
            TaskInput::Tokens { given, length } => self.of_tokens(given, *length, seed),
        };
        let first = request(task.seed)?;
        // Whether sampling takes the request, too.
        self.model.denoiser(SamplingPath::Clean).row(&first, &task.settings)?;
        if task.order.is_some() && matches!(self.model.network(), Network::Autoregressive(_)) {
            return Err(only_order());
        }
        let numbers = 0..task.n as u64;
        let requests =
            numbers.map(|index| SampleRequest { seed: task.seed.wrapping_add(index), ..first.clone() }).collect();
        let now = Instant::now();
        let cancelled = Arc::new(AtomicBool::new(false));
        let shared = Shared {
            reading: Reading::new(&first, task.stop, task.ends_at_eos),
            deadline: task.timeout.and_then(|timeout| now.checked_add(timeout)),
            queued: now,
            listener: Some(listener),
            cancelled: Arc::clone(&cancelled),
        };
        let job = Job { requests, settings: task.settings, order: task.order, shared };
        self.sender.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        Ok(TaskHandle(cancelled))
    }

    fn of_tokens(&self, given: &[(usize, u32)], length: usize, seed: u64) -> Result<SampleRequest, InferError> {
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
        Ok(SampleRequest { length, given: given.to_vec(), seed })
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
    /// As [`Self::submit`], and what went wrong with a sample; the others are in the [`TaskFailure`]. A device that fails ends the
    /// task.
    pub fn generate(
        &self,
        task: Task,
        observe: &mut dyn FnMut(&TaskEvent) -> ControlFlow<()>,
    ) -> Result<Vec<TaskOutput>, TaskFailure> {
        let n = task.n;
        let (mut answers, mut failed) = (Vec::new(), None);
        let (sender, receiver) = channel();
        let ticket = self.submit(task, Box::new(move |event| sent(sender.send(event).is_ok())))?;
        for event in receiver {
            let lost = matches!(&event, TaskEvent::Failed { error: InferError::Device(_), .. });
            if observe(&event).is_break() || lost {
                ticket.cancel();
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
}

fn gone() -> InferError {
    InferError::Device("the engine's thread has ended".into())
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.sender = None;
        // A listener that holds the engine lets go of it on the worker itself, which then ends by itself.
        if let Some(worker) = self.worker.take().filter(|worker| worker.thread().id() != std::thread::current().id()) {
            let _ = worker.join();
        }
    }
}

/// Events of a task as they come. Dropping it cancels the task.
#[derive(Debug)]
pub struct Events {
    events: Receiver<TaskEvent>,
    ticket: TaskHandle,
}

impl Iterator for Events {
    type Item = TaskEvent;

    fn next(&mut self) -> Option<TaskEvent> {
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
    events: tokio::sync::mpsc::UnboundedReceiver<TaskEvent>,
    ticket: TaskHandle,
}

#[cfg(feature = "tokio")]
impl futures_core::Stream for EventStream {
    type Item = TaskEvent;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<TaskEvent>> {
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
