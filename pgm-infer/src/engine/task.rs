//! What a caller hands to an engine, and what comes back.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::InferError;
use crate::sample::order::{Order, OrderStart};
use crate::sample::{RowChange, SampleSettings, SampledRow};
use crate::text::template::Part;
use crate::text::{FilledBlank, TextRow};

/// The given part of a text.
#[derive(Clone, Debug)]
pub enum TaskInput {
    /// Its beginning; the rest of the row is open.
    Prompt(String),
    /// Text with blanks anywhere, see [`template::parse`](crate::text::template::parse); the number is the length of a `___`
    /// blank.
    Template(String, usize),
    /// A template in parts.
    Parts(Vec<Part>),
    /// A row of the engine's model, see [`TextModel::row`](crate::TextModel::row). The seed is the task's.
    Row(TextRow),
    /// Positions and tokens of a row of `length` tokens. BOS is added nowhere; it is usually given at position 0.
    Tokens {
        /// Positions and tokens.
        given: Vec<(usize, u32)>,
        /// Tokens of the row.
        length: usize,
    },
}

/// Makes the order of one row; see [`SampleRow::with_order`](crate::sample::SampleRow::with_order).
pub type OrderFactory = Arc<dyn Fn(OrderStart<'_>) -> Box<dyn Order> + Send + Sync>;

/// Who asks: requests share the rows of a step in turn, whatever their numbers of tasks and samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// A new one.
    #[allow(clippy::new_without_default)] // two of them differ
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Samples to write.
#[derive(Clone)]
pub struct Task {
    /// The given part of the text.
    pub text: TaskInput,
    /// Tokens of the row, BOS included [default: the template's, else the model's]. Only with a length here is a row longer
    /// than the rows the model was trained on.
    pub length: Option<usize>,
    /// Steps, schedule, order and draw.
    pub settings: SampleSettings,
    /// A custom order instead of that of the settings.
    pub order: Option<OrderFactory>,
    /// Number of samples; sample i has the seed `seed + i`.
    pub n: usize,
    /// Seed of the first sample.
    pub seed: u64,
    /// Stop strings. A blank (for a prompt: the continuation) ends before the first of them. A sample ends when all its
    /// blanks have ended; positions after the end of a blank may then be open.
    pub stop: Vec<String>,
    /// Whether an EOS ends a blank, as a stop string does.
    pub ends_at_eos: bool,
    /// The request that the task is part of [default: one of its own].
    pub request: Option<RequestId>,
    /// Time from now to the end of the task, waiting included. See [`TaskHandle::deadline`] for a caller that passes the
    /// events on.
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
    /// One sample of a text with the settings' defaults. [`Engine::task`](super::Engine::task) has those of a model.
    pub fn new(text: TaskInput) -> Self {
        Self {
            text,
            length: None,
            settings: SampleSettings::default(),
            order: None,
            n: 1,
            seed: 0,
            stop: Vec::new(),
            ends_at_eos: false,
            request: None,
            timeout: None,
        }
    }
}

/// Why a sample ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Every position is decoded.
    Complete,
    /// Every blank has ended, the first that ended early at this stop string.
    Stop(String),
    /// Every blank has ended, the first that ended early at an EOS.
    Eos,
    /// The task was cancelled.
    Cancelled,
    /// The task's time is over.
    Timeout,
}

/// A sample, complete or as far as it came.
#[derive(Clone, Debug)]
pub struct TaskOutput {
    /// Its index among the samples of the task.
    pub index: usize,
    /// Its seed.
    pub seed: u64,
    /// The text, given parts included, each blank up to its end. Open positions are left out. Empty for a picture.
    pub text: String,
    /// The text of each blank, in the order of the text.
    pub blanks: Vec<FilledBlank>,
    /// Tokens, the order in which they came, their log-probabilities.
    pub sampled: SampledRow,
    /// Steps done.
    pub steps: usize,
    /// Why it ended.
    pub finish: Finish,
    /// Time from submission to the first step.
    pub queued: Duration,
    /// Time from the first step to the end.
    pub duration: Duration,
}

/// An event of a task.
#[derive(Debug)]
pub enum TaskEvent {
    /// A sample has done a step.
    Step {
        /// Its index among the samples of the task.
        index: usize,
        /// Steps done.
        step: usize,
        /// Steps in all, see [`SampleRow::n_steps`](crate::sample::SampleRow::n_steps).
        n_steps: usize,
        /// Positions that were decoded or opened again.
        change: RowChange,
    },
    /// A sample has ended.
    Done(Box<TaskOutput>),
    /// A sample failed.
    Failed {
        /// Its index among the samples of the task.
        index: usize,
        /// Why.
        error: InferError,
        /// The row as far as it came.
        partial: Option<SampledRow>,
    },
}

/// A task with failed samples.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct TaskFailure {
    /// Why the first of them failed, or why the task was refused.
    pub error: Box<InferError>,
    /// The first failed row as far as it came.
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

/// A submitted task. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct TaskHandle {
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) deadline: Option<Instant>,
}

impl TaskHandle {
    /// The task ends before its next step, as [`Finish::Cancelled`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// When the task's [`timeout`](Task::timeout) is over. The engine ends its samples then; a caller that passes events on
    /// to a slow reader should stop then, too.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// Receives the events of a task on the engine's thread, so it must not block. `Break` cancels the task, and so does a
/// panic. The engine drops it when the last sample has ended.
pub type EventListener = Box<dyn FnMut(TaskEvent) -> ControlFlow<()> + Send>;
