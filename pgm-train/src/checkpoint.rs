//! Checkpoints of a run: `OUT/checkpoints/step-NNNNNNNN/` with model, average, optimiser, schedule and `state.json`.
//!
//! A checkpoint is written beside and renamed; `state.json` holds size and CRC-32 of its files, so a damaged one is
//! recognised and the one before is used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use serde::{Deserialize, Serialize};

use crate::TrainError;

const MODEL: &str = "model.bpk";
const AVERAGE: &str = "average.bpk";
const OPTIM: &str = "optim.bpk";
const SCHEDULER: &str = "scheduler.bpk";
const STATE: &str = "state.json";

/// The loss since the last report, to be continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PendingLoss {
    pub(crate) loss_sum: f32,
    pub(crate) steps: usize,
}

/// What is not a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CheckpointState {
    pub(crate) step: usize,
    pub(crate) seconds: f64,
    pub(crate) pending: PendingLoss,
    /// The run's settings.
    pub(crate) config: serde_json::Value,
    /// SHA-256 of the data's tokenizer, and its number of training rows.
    pub(crate) data: (String, u64),
    files: BTreeMap<String, (u64, u32)>,
}

impl CheckpointState {
    pub(crate) fn new(
        step: usize,
        seconds: f64,
        pending: PendingLoss,
        config: serde_json::Value,
        data: (String, u64),
    ) -> Self {
        Self { step, seconds, pending, config, data, files: BTreeMap::new() }
    }
}

/// The records of a checkpoint.
pub(crate) struct CheckpointRecords {
    pub(crate) model: ModuleRecord,
    pub(crate) average: Option<ModuleRecord>,
    pub(crate) optim: OptimizerRecord,
    pub(crate) scheduler: LrSchedulerRecord,
}

pub(crate) fn folder(out: &Path) -> PathBuf {
    out.join("checkpoints")
}

/// Writes a checkpoint and removes all but the newest `keep`.
pub(crate) fn write(
    out: &Path,
    mut state: CheckpointState,
    records: CheckpointRecords,
    keep: usize,
) -> Result<(), TrainError> {
    let parent = folder(out);
    let refused = |error: &dyn ToString| TrainError::file("write", &parent, error.to_string());
    std::fs::create_dir_all(&parent).map_err(|error| refused(&error))?;
    // What a killed run left half written.
    for entry in std::fs::read_dir(&parent).map_err(|error| refused(&error))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(".writing-") {
            std::fs::remove_dir_all(entry.path()).map_err(|error| refused(&error))?;
        }
    }
    let temporary =
        tempfile::Builder::new().prefix(".writing-").tempdir_in(&parent).map_err(|error| refused(&error))?;
    let path = |name: &str| temporary.path().join(name);
    records.model.save(path(MODEL)).map_err(|error| refused(&error))?;
    if let Some(average) = records.average {
        average.save(path(AVERAGE)).map_err(|error| refused(&error))?;
    }
    records.optim.save(path(OPTIM)).map_err(|error| refused(&error))?;
    records.scheduler.save(path(SCHEDULER)).map_err(|error| refused(&error))?;
    for name in [MODEL, AVERAGE, OPTIM, SCHEDULER] {
        let path = path(name);
        if path.exists() {
            let (size, crc) = fingerprint(&path).map_err(|error| refused(&error))?;
            std::fs::File::open(&path).and_then(|file| file.sync_all()).map_err(|error| refused(&error))?;
            state.files.insert(name.to_string(), (size, crc));
        }
    }
    let json = serde_json::to_vec_pretty(&state).expect("a state always serialises");
    std::fs::write(path(STATE), json).map_err(|error| refused(&error))?;
    let target = parent.join(format!("step-{:08}", state.step));
    if target.exists() {
        // The same step again after a resume: the new one replaces it.
        std::fs::remove_dir_all(&target).map_err(|error| refused(&error))?;
    }
    std::fs::rename(temporary.path(), &target).map_err(|error| refused(&error))?;
    let _ = temporary.keep();
    let mut all = list(out);
    all.truncate(all.len().saturating_sub(keep));
    for (_, old) in all {
        std::fs::remove_dir_all(&old).map_err(|error| TrainError::file("write", old, error))?;
    }
    Ok(())
}

/// Size and CRC-32 of a file.
pub(crate) fn fingerprint(path: &Path) -> std::io::Result<(u64, u32)> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((size, hasher.finalize()));
        }
        size += n as u64;
        hasher.update(&buffer[..n]);
    }
}

/// Checkpoints by step, oldest first.
pub(crate) fn list(out: &Path) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder(out)) else { return Vec::new() };
    let mut found: Vec<(usize, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// The newest checkpoint that is whole, with a sentence about each newer one that is not; nothing when there is none.
pub(crate) fn newest(out: &Path) -> Result<(Option<(CheckpointState, CheckpointRecords)>, Vec<String>), TrainError> {
    let mut damaged = Vec::new();
    for (_, path) in list(out).into_iter().rev() {
        match read(&path) {
            Ok(found) => return Ok((Some(found), damaged)),
            Err(problem) => damaged.push(format!("{} is damaged ({problem}) and is left out", path.display())),
        }
    }
    match damaged.first() {
        Some(problem) => Err(TrainError::NoCheckpoint { path: folder(out), problem: problem.clone() }),
        None => Ok((None, damaged)),
    }
}

fn read(folder: &Path) -> Result<(CheckpointState, CheckpointRecords), String> {
    let json = std::fs::read(folder.join(STATE)).map_err(|error| format!("{STATE}: {error}"))?;
    let state: CheckpointState = serde_json::from_slice(&json).map_err(|error| format!("{STATE}: {error}"))?;
    for (name, &(size, crc)) in &state.files {
        let found = fingerprint(&folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if found != (size, crc) {
            return Err(format!("{name} is not what was written"));
        }
    }
    let path = |name: &str| folder.join(name);
    let failed = |name: &'static str| move |error: burn::store::RecordError| format!("{name}: {error}");
    let average = match state.files.contains_key(AVERAGE) {
        true => Some(ModuleRecord::load(path(AVERAGE)).map_err(failed(AVERAGE))?),
        false => None,
    };
    let records = CheckpointRecords {
        model: ModuleRecord::load(path(MODEL)).map_err(failed(MODEL))?,
        average,
        optim: OptimizerRecord::load(path(OPTIM)).map_err(failed(OPTIM))?,
        scheduler: LrSchedulerRecord::load(path(SCHEDULER)).map_err(failed(SCHEDULER))?,
    };
    Ok((state, records))
}
