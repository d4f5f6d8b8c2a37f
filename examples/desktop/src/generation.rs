//! One generation: its task, the text as it fills, and its figures for the status line.

use std::time::{Duration, Instant};

use pgm_infer::engine::TaskHandle;
use pgm_infer::text::canvas::Canvas;

use crate::settings::AppSettings;

/// The phase of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationPhase {
    /// It decodes tokens.
    Running,
    /// All blanks are filled.
    Complete,
    /// It was cancelled.
    Cancelled,
    /// It failed.
    Failed,
}

/// A generation. It is kept after its end for the status line.
#[derive(Debug)]
pub struct Generation {
    /// Identifies its events. 0 once its events are ignored.
    pub id: u64,
    /// The engine's task.
    pub handle: TaskHandle,
    /// The row as it fills.
    pub canvas: Canvas,
    /// Whether the canvas has changed since it was last shown.
    pub changed: bool,
    /// The text with its blanks.
    pub template: String,
    /// The settings at the start.
    pub settings: AppSettings,
    /// Start time.
    pub started: Instant,
    /// Duration; absent while it runs.
    pub duration: Option<Duration>,
    /// The seed.
    pub seed: u64,
    /// The phase.
    pub phase: GenerationPhase,
    /// Sampling steps done.
    pub step: usize,
    /// Sampling steps in all.
    pub n_steps: usize,
    /// Tokens decoded so far. A token that is decoded again after remasking counts again.
    pub n_tokens: usize,
}

impl Generation {
    /// Seconds since the start, or from start to end.
    pub fn seconds(&self) -> f64 {
        self.duration.unwrap_or_else(|| self.started.elapsed()).as_secs_f64()
    }

    /// Tokens per second; absent before the first token.
    pub fn speed(&self) -> Option<f64> {
        let seconds = self.seconds();
        (self.n_tokens > 0 && seconds > 0.0).then(|| self.n_tokens as f64 / seconds)
    }
}
