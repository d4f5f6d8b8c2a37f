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
    /// Rows that share a network evaluation, at most; of each replica.
    pub max_batch: usize,
    /// Bytes for what is kept of rows between evaluations, see [`Refresh`](crate::sample::Refresh); of each replica.
    pub cache_bytes: usize,
    /// Threads of the CPU that compute for each replica and for nothing else [default: those of the process, for all].
    pub threads: Option<usize>,
    /// How long after a step that failed on the device an idle replica tries a step of its own.
    pub probe_after: Duration,
    /// Called after each step on the thread of the replica, for measurements.
    pub watch: Option<StepObserver>,
}

/// See [`EngineOptions::watch`].
pub type StepObserver = Arc<dyn Fn(&StepMetrics) + Send + Sync>;

/// One step of the engine.
#[derive(Clone, Copy, Debug)]
pub struct StepMetrics {
    /// The number of the replica, if the engine has several.
    pub replica: Option<usize>,
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
    pub(super) fn idle(replica: Option<usize>) -> Self {
        let duration = Duration::ZERO;
        Self { replica, n_rows: 0, n_waiting: 0, n_decoded: 0, cache_bytes: 0, duration, failed: false }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            weights: WeightDtype::F32,
            max_batch: 16,
            cache_bytes: DEFAULT_CACHE_BYTES,
            threads: None,
            probe_after: Duration::from_secs(60),
            watch: None,
        }
    }
}

impl std::fmt::Debug for EngineOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { weights, max_batch, .. } = self;
        f.debug_struct("EngineOptions").field("weights", weights).field("max_batch", max_batch).finish_non_exhaustive()
    }
}
