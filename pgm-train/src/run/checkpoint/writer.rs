//! Writing checkpoints and best models.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use pgm_model::Network;
use pgm_model::model_folder::{WEIGHTS_FILE, to_safetensors};
use serde_json::Value;

use super::disk::{DiskStep, NewFolder, Observe};
use super::read::checked;
use super::state::{
    AVERAGE, CheckpointState, MODEL, OPTIM, SCHEDULER, STATE, best_name, folder, list, list_best, step_name,
};
use crate::TrainError;
use crate::files::fingerprint_of;
use crate::run::model_card::{README_FILE, StoredWeights, edited_card};
use crate::run::model_files::ModelFiles;
use crate::run::parameters::parameter_ids;

type AnyError = Box<dyn std::error::Error>;

/// What a checkpoint is made of.
pub(crate) struct CheckpointParts<'a> {
    pub(crate) state: CheckpointState,
    /// The weights of the optimiser; absent where they are those of the model folder.
    pub(crate) model: Option<ModuleRecord>,
    /// The averaged weights; absent where they are those of the model folder, and without an average.
    pub(crate) average: Option<ModuleRecord>,
    pub(crate) optim: OptimizerRecord,
    pub(crate) scheduler: LrSchedulerRecord,
    /// What makes the checkpoint a model folder; absent for a codec.
    pub(crate) folder: Option<FolderParts<'a>>,
}

/// What a model folder is made of.
#[derive(Clone, Copy)]
pub(crate) struct FolderParts<'a> {
    pub(crate) network: &'a Network,
    pub(crate) files: &'a ModelFiles,
    /// `training.json`.
    pub(crate) training: &'a Value,
}

/// Writes the checkpoints of one run and removes old ones.
pub(crate) struct CheckpointWriter {
    out: PathBuf,
    keep: usize,
    // Steps whose checkpoints were written or read by this process.
    readable: BTreeSet<usize>,
}

impl CheckpointWriter {
    /// A writer for the run in `out` that keeps the newest `keep` checkpoints.
    pub(crate) fn new(out: &Path, keep: usize) -> Self {
        Self { out: out.to_path_buf(), keep, readable: BTreeSet::new() }
    }

    /// Writes a checkpoint, then removes those older than the newest `keep` that can be read.
    pub(crate) fn write(&mut self, parts: CheckpointParts) -> Result<(), TrainError> {
        self.write_observed(parts, &mut |_| ())
    }

    pub(super) fn write_observed(&mut self, parts: CheckpointParts, observe: Observe) -> Result<(), TrainError> {
        let (parent, step) = (folder(&self.out), parts.state.step);
        let name = step_name(step);
        let write = |observe: Observe| -> Result<(), AnyError> {
            let mut new = NewFolder::create(&parent, observe)?;
            self.fill(&mut new, parts, &parent.join(&name))?;
            new.rename(&name)
        };
        write(&mut *observe).map_err(|error| TrainError::file("write", parent.join(&name), error))?;
        self.readable.insert(step);
        self.remove_old(observe)
    }

    fn fill(&self, new: &mut NewFolder, parts: CheckpointParts, target: &Path) -> Result<(), AnyError> {
        let mut state = parts.state;
        let mut names = Vec::new();
        for (name, record) in [(MODEL, &parts.model), (AVERAGE, &parts.average)] {
            if let Some(record) = record {
                record.clone().save(new.path(name))?;
                names.push(name);
            }
        }
        parts.optim.save(new.path(OPTIM))?;
        parts.scheduler.save(new.path(SCHEDULER))?;
        names.extend([OPTIM, SCHEDULER]);
        if let Some(FolderParts { network, .. }) = parts.folder {
            if parts.model.is_none() {
                state.parameter_ids = parameter_ids(network);
            }
            let best = state.best.filter(|best| best.step == state.step);
            let best = best.map(|best| folder(&self.out).join(best_name(best.step)).join(WEIGHTS_FILE));
            // Not every file system has hard links.
            if best.is_none_or(|best| fs::hard_link(best, new.path(WEIGHTS_FILE)).is_err()) {
                fs::write(new.path(WEIGHTS_FILE), to_safetensors(network)?)?;
            }
            names.push(WEIGHTS_FILE);
        }
        for name in names {
            let fingerprint = new.sync(name, fingerprint_of)?;
            state.files.insert(name.to_string(), fingerprint);
        }
        new.write(STATE, &serde_json::to_vec_pretty(&state)?)?;
        if let Some(parts) = parts.folder {
            let weights = StoredWeights::read(parts.network.n_parameters(), &new.path(WEIGHTS_FILE))?;
            write_files(new, &parts, &weights, target)?;
        }
        Ok(())
    }

    // A damaged checkpoint does not count toward `keep`. It is removed once it is older than all kept ones.
    fn remove_old(&mut self, observe: Observe) -> Result<(), TrainError> {
        let mut n_readable = 0;
        for (step, path) in list(&self.out).into_iter().rev() {
            if n_readable == self.keep {
                observe(DiskStep::Remove(&path));
                fs::remove_dir_all(&path).map_err(|error| TrainError::file("remove", path, error))?;
                self.readable.remove(&step);
            } else if self.readable.contains(&step) || checked(&path).is_ok() {
                self.readable.insert(step);
                n_readable += 1;
            }
        }
        Ok(())
    }
}

// Writes all files but the weights. A card that a person has edited in the folder that is replaced comes along.
fn write_files(
    new: &mut NewFolder,
    parts: &FolderParts,
    weights: &StoredWeights,
    target: &Path,
) -> Result<(), AnyError> {
    for (name, bytes) in parts.files.without_weights(parts.training, weights) {
        let edited = if name == README_FILE { edited_card(target) } else { None };
        new.write(name, edited.as_deref().unwrap_or(&bytes))?;
    }
    Ok(())
}

/// Writes the best model of a run, then removes the one before.
///
/// # Errors
/// [`TrainError::File`] when it cannot be written.
pub(crate) fn write_best(out: &Path, step: usize, parts: FolderParts) -> Result<(), TrainError> {
    let (parent, name) = (folder(out), best_name(step));
    let write = || -> Result<(), AnyError> {
        let mut ignore = |_: DiskStep| ();
        let mut new = NewFolder::create(&parent, &mut ignore)?;
        let bytes = to_safetensors(parts.network)?;
        new.write(WEIGHTS_FILE, &bytes)?;
        let weights = StoredWeights::new(parts.network.n_parameters(), &bytes);
        write_files(&mut new, &parts, &weights, &parent.join(&name))?;
        new.rename(&name)
    };
    write().map_err(|error| TrainError::file("write", parent.join(&name), error))?;
    for (_, path) in list_best(out).into_iter().filter(|(other, _)| *other != step) {
        fs::remove_dir_all(&path).map_err(|error| TrainError::file("remove", path, error))?;
    }
    Ok(())
}
