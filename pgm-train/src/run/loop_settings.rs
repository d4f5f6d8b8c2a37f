//! How long a run is, and what happens at which step.

use crate::config::RunConfig;

/// How long a run is, and what happens at which step.
#[derive(Clone, Debug)]
pub(crate) struct LoopSettings {
    pub(crate) steps: usize,
    pub(crate) accumulate: usize,
    pub(crate) log_every: usize,
    pub(crate) validate_every: usize,
    pub(crate) checkpoint_every: usize,
    pub(crate) checkpoint_keep: usize,
    pub(crate) clip: f64,
    pub(crate) ema: f64,
    /// Updates of the average before the first step.
    pub(crate) ema_updates: usize,
    /// Whether the model of the lowest validation is kept.
    pub(crate) keeps_best: bool,
    /// Validations without a new lowest one after which the loop ends; 0 never ends it early.
    pub(crate) patience: usize,
}

impl LoopSettings {
    /// The loop of `steps` steps of a configuration.
    pub(crate) fn new(steps: usize, run: &RunConfig) -> Self {
        Self {
            steps,
            accumulate: run.accumulate,
            log_every: run.log_every,
            validate_every: run.validate_every,
            checkpoint_every: run.checkpoint_every,
            checkpoint_keep: run.checkpoint_keep,
            clip: run.optim.clip,
            ema: run.optim.ema,
            ema_updates: 0,
            keeps_best: false,
            patience: 0,
        }
    }
}
