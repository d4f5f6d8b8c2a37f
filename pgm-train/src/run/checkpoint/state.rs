//! `state.json`, and the names in the folder of checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgm_model::model_folder::{BEST_PREFIX, CHECKPOINTS_FOLDER, MODEL_FOLDER, ROUND_PREFIX, STEP_PREFIX, numbered};
use serde::{Deserialize, Serialize};

use crate::run::best::BestValidation;
use crate::run::history::{self, Line};
use crate::run::identity::DataIdentity;

pub(super) const MODEL: &str = "model.bpk";
pub(super) const AVERAGE: &str = "average.bpk";
pub(super) const OPTIM: &str = "optim.bpk";
pub(super) const SCHEDULER: &str = "scheduler.bpk";
pub(super) const STATE: &str = "state.json";

/// Loss summed since the last line of history; a resumed run adds to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PendingLoss {
    pub(crate) loss_sum: f32,
    pub(crate) steps: usize,
}

/// `state.json`: everything but the records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CheckpointState {
    pub(crate) step: usize,
    pub(crate) seconds: f64,
    pub(crate) pending: PendingLoss,
    /// The lowest validation so far; absent in checkpoints of earlier versions and of distillations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) best: Option<BestValidation>,
    /// The run's settings.
    pub(crate) config: serde_json::Value,
    #[serde(flatten)]
    pub(crate) data: DataIdentity,
    /// Ids of the parameters, by which the optimiser knows them, in their order; stored where `model.bpk` is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parameter_ids: Vec<u64>,
    pub(super) files: BTreeMap<String, (u64, u32)>,
}

impl CheckpointState {
    pub(crate) fn new(
        step: usize,
        seconds: f64,
        pending: PendingLoss,
        config: serde_json::Value,
        data: DataIdentity,
    ) -> Self {
        let (parameter_ids, files) = (Vec::new(), BTreeMap::new());
        Self { step, seconds, pending, best: None, config, data, parameter_ids, files }
    }

    pub(crate) fn with_best(self, best: Option<BestValidation>) -> Self {
        Self { best, ..self }
    }
}

pub(super) fn folder(out: &Path) -> PathBuf {
    out.join(CHECKPOINTS_FOLDER)
}

pub(super) fn step_name(step: usize) -> String {
    format!("{STEP_PREFIX}{step:08}")
}

pub(super) fn best_name(step: usize) -> String {
    format!("{BEST_PREFIX}{step:08}")
}

/// Checkpoints by step, oldest first.
pub(crate) fn list(out: &Path) -> Vec<(usize, PathBuf)> {
    numbered(&folder(out), STEP_PREFIX)
}

/// Best models by step: one, or two after a crash.
pub(super) fn list_best(out: &Path) -> Vec<(usize, PathBuf)> {
    numbered(&folder(out), BEST_PREFIX)
}

/// Whether a folder holds the work of a run: a checkpoint, a model, figures of training, or a round of a distillation.
pub(crate) fn started(out: &Path) -> bool {
    let has_figures = || {
        let lines = history::read(out).unwrap_or_default();
        lines.iter().any(|line| matches!(line, Line::Train(_)))
    };
    !list(out).is_empty() || out.join(MODEL_FOLDER).exists() || !numbered(out, ROUND_PREFIX).is_empty() || has_figures()
}
