//! Reading checkpoints.

use std::fs;
use std::path::{Path, PathBuf};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::tensor::Device;
use pgm_model::model_folder::{self, WEIGHTS_FILE};

use super::average::{StoredAverage, with_parameter_ids};
use super::state::{AVERAGE, CheckpointState, MODEL, OPTIM, SCHEDULER, STATE, folder, list};
use crate::TrainError;
use crate::files::fingerprint;
use crate::run::train_model::TrainModel;

/// A checkpoint.
pub(crate) struct Checkpoint {
    pub(crate) folder: PathBuf,
    pub(crate) state: CheckpointState,
    pub(crate) records: CheckpointRecords,
}

/// The records of a checkpoint.
pub(crate) struct CheckpointRecords {
    pub(crate) model: ModuleRecord,
    /// Absent for a run without an average.
    pub(crate) average: Option<StoredAverage>,
    pub(crate) optim: OptimizerRecord,
    pub(crate) scheduler: LrSchedulerRecord,
}

/// The newest readable checkpoint, and a sentence about each newer one that is damaged; `None` when there is no
/// checkpoint at all. Weights are read on `device`.
///
/// # Errors
/// [`TrainError::NoCheckpoint`] when there are checkpoints and all are damaged.
pub(crate) fn newest(out: &Path, device: &Device) -> Result<(Option<Checkpoint>, Vec<String>), TrainError> {
    let mut damaged = Vec::new();
    for (_, path) in list(out).into_iter().rev() {
        match read(&path, device) {
            Ok(found) => return Ok((Some(found), damaged)),
            Err(problem) => damaged.push(format!("{} is damaged ({problem}) and is not used", path.display())),
        }
    }
    match damaged.first() {
        Some(problem) => Err(TrainError::NoCheckpoint { path: folder(out), problem: problem.clone() }),
        None => Ok((None, damaged)),
    }
}

/// The state of a checkpoint whose files are what was written.
pub(super) fn checked(folder: &Path) -> Result<CheckpointState, String> {
    let json = fs::read(folder.join(STATE)).map_err(|error| format!("{STATE}: {error}"))?;
    let state: CheckpointState = serde_json::from_slice(&json).map_err(|error| format!("{STATE}: {error}"))?;
    for (name, &(size, crc)) in &state.files {
        let found = fingerprint(&folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if found != (size, crc) {
            return Err(format!("{name} is not what was written"));
        }
    }
    Ok(state)
}

fn read(folder: &Path, device: &Device) -> Result<Checkpoint, String> {
    let state = checked(folder)?;
    let path = |name: &str| folder.join(name);
    let failed = |name: &'static str| move |error: burn::store::RecordError| format!("{name}: {error}");
    let has = |name: &str| state.files.contains_key(name);
    let model = match has(MODEL) {
        true => ModuleRecord::load(path(MODEL)).map_err(failed(MODEL))?,
        false => model_record(folder, &state, device)?,
    };
    let average = match (has(AVERAGE), has(MODEL) && has(WEIGHTS_FILE)) {
        (true, _) => Some(StoredAverage::Record(ModuleRecord::load(path(AVERAGE)).map_err(failed(AVERAGE))?)),
        (false, true) => Some(StoredAverage::Folder(folder.to_path_buf())),
        (false, false) => None,
    };
    let records = CheckpointRecords {
        model,
        average,
        optim: OptimizerRecord::load(path(OPTIM)).map_err(failed(OPTIM))?,
        scheduler: LrSchedulerRecord::load(path(SCHEDULER)).map_err(failed(SCHEDULER))?,
    };
    Ok(Checkpoint { folder: folder.to_path_buf(), state, records })
}

// The record of a checkpoint without an average, whose weights are those of its model folder.
fn model_record(folder: &Path, state: &CheckpointState, device: &Device) -> Result<ModuleRecord, String> {
    let (config, network) = model_folder::load(folder, device).map_err(|error| error.to_string())?;
    let network = with_parameter_ids(network, &state.parameter_ids)
        .ok_or_else(|| format!("{STATE} does not name the parameters of {WEIGHTS_FILE}"))?;
    Ok(TrainModel::new(network, config.backbone().mask_index).into_record())
}
