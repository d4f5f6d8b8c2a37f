//! How an engine runs, and what it reports of its steps.

use std::sync::Arc;
use std::time::Duration;

use pgm_model::WeightDtype;

use crate::denoise::DEFAULT_CACHE_BYTES;

/// How an engine runs.
#[derive(Clone)]
pub struct EngineOptions {
    /// The dtype of the weights.
    pub weights: WeightDtype,
    /// Rows that share a network evaluation, at most.
    pub max_batch: usize,
    /// Bytes for what is kept of rows between evaluations, see [`Refresh`](crate::sample::Refresh).
    pub cache_bytes: usize,
    /// Called after each step on the engine's thread, for measurements.
    pub watch: Option<StepObserver>,
}

/// See [`EngineOptions::watch`].
pub type StepObserver = Arc<dyn Fn(&StepMetrics) + Send + Sync>;

/// One step of the engine.
#[derive(Clone, Copy, Debug)]
pub struct StepMetrics {
    /// Rows of the batch; 0 if every waiting sample has ended.
    pub n_rows: usize,
    /// Samples that wait for a place in the batch.
    pub n_waiting: usize,
    /// Decoded tokens.
    pub n_decoded: usize,
    /// Bytes that are kept of rows between evaluations.
    pub cache_bytes: usize,
    /// Duration of the step.
    pub duration: Duration,
    /// Whether the device failed.
    pub failed: bool,
}

impl StepMetrics {
    // A step without rows, and what is left when there is no work.
    pub(super) fn idle() -> Self {
        let duration = Duration::ZERO;
        Self { n_rows: 0, n_waiting: 0, n_decoded: 0, cache_bytes: 0, duration, failed: false }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { weights: WeightDtype::F32, max_batch: 16, cache_bytes: DEFAULT_CACHE_BYTES, watch: None }
    }
}

impl std::fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { weights, max_batch, .. } = self;
        f.debug_struct("EngineOptions").field("weights", weights).field("max_batch", max_batch).finish_non_exhaustive()
    }
}
