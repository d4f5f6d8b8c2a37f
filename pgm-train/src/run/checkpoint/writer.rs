//! Checkpoints of a run: `OUT/checkpoints/step-NNNNNNNN/` with model, average, optimiser, schedule and `state.json`.
//!
//! A checkpoint is written under a temporary name, synced and renamed; only then are older ones removed. `state.json`
//! holds size and CRC-32 of the other files, so a damaged checkpoint is recognised and the one before is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use serde::{Deserialize, Serialize};

use super::identity::DataIdentity;
use crate::TrainError;
use crate::files::{fingerprint, fingerprint_of, open_for_sync, sync_folder};

const MODEL: &str = "model.bpk";
const AVERAGE: &str = "average.bpk";
const OPTIM: &str = "optim.bpk";
const SCHEDULER: &str = "scheduler.bpk";
const STATE: &str = "state.json";
/// Prefix of what is being written or replaced; a killed run may leave such folders.
const TEMPORARY: &str = ".writing-";

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
    /// The run's settings.
    pub(crate) config: serde_json::Value,
    #[serde(flatten)]
    pub(crate) data: DataIdentity,
    files: BTreeMap<String, (u64, u32)>,
}

impl CheckpointState {
    pub(crate) fn new(
        step: usize,
        seconds: f64,
        pending: PendingLoss,
        config: serde_json::Value,
        data: DataIdentity,
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

/// What is done to the disk while a checkpoint is written, in order. Tests check the order.
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) enum DiskStep<'a> {
    /// A file of the new checkpoint is synced through this handle.
    SyncFile(&'a str, &'a File),
    /// The entries of a folder are synced.
    SyncFolder(&'a Path),
    /// The new checkpoint gets its name.
    Rename,
    /// An older checkpoint is removed.
    Remove(&'a Path),
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
    pub(crate) fn write(&mut self, state: CheckpointState, records: CheckpointRecords) -> Result<(), TrainError> {
        self.write_observed(state, records, &mut |_| ())
    }

    fn write_observed(
        &mut self,
        mut state: CheckpointState,
        records: CheckpointRecords,
        observe: &mut dyn FnMut(DiskStep),
    ) -> Result<(), TrainError> {
        let parent = folder(&self.out);
        let step = state.step;
        let target = parent.join(name(step));
        let write = || -> Result<(), Box<dyn std::error::Error>> {
            fs::create_dir_all(&parent)?;
            remove_temporary(&parent)?;
            let temporary = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&parent)?;
            let path = |name: &str| temporary.path().join(name);
            let mut names = vec![MODEL, OPTIM, SCHEDULER];
            records.model.save(path(MODEL))?;
            records.optim.save(path(OPTIM))?;
            records.scheduler.save(path(SCHEDULER))?;
            if let Some(average) = records.average {
                average.save(path(AVERAGE))?;
                names.push(AVERAGE);
            }
            for name in names {
                let mut file = open_for_sync(&path(name))?;
                state.files.insert(name.to_string(), fingerprint_of(&mut file)?);
                file.sync_all()?;
                observe(DiskStep::SyncFile(name, &file));
            }
            let mut file = File::create(path(STATE))?;
            file.write_all(&serde_json::to_vec_pretty(&state)?)?;
            file.sync_all()?;
            observe(DiskStep::SyncFile(STATE, &file));
            drop(file);
            sync_folder(temporary.path())?;
            observe(DiskStep::SyncFolder(temporary.path()));
            // The same step again, after a resume from an earlier one: the old checkpoint makes room first.
            let old = target.exists().then(|| parent.join(format!("{TEMPORARY}old-{}", name(step))));
            if let Some(old) = &old {
                fs::rename(&target, old)?;
            }
            fs::rename(temporary.path(), &target)?;
            observe(DiskStep::Rename);
            let _ = temporary.keep();
            sync_folder(&parent)?;
            observe(DiskStep::SyncFolder(&parent));
            if let Some(old) = old {
                observe(DiskStep::Remove(&old));
                fs::remove_dir_all(old)?;
            }
            Ok(())
        };
        write().map_err(|error| TrainError::file("write", &target, error))?;
        self.readable.insert(step);
        self.remove_old(observe)
    }

    // A damaged checkpoint does not count toward `keep`. It is removed once it is older than all kept ones.
    fn remove_old(&mut self, observe: &mut dyn FnMut(DiskStep)) -> Result<(), TrainError> {
        let mut n_readable = 0;
        for (step, path) in list(&self.out).into_iter().rev() {
            if n_readable == self.keep {
                observe(DiskStep::Remove(&path));
                fs::remove_dir_all(&path).map_err(|error| TrainError::file("remove", path, error))?;
                self.readable.remove(&step);
            } else if self.readable.contains(&step) || read(&path).is_ok() {
                self.readable.insert(step);
                n_readable += 1;
            }
        }
        Ok(())
    }
}

// Folders that a killed run has left.
fn remove_temporary(parent: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn folder(out: &Path) -> PathBuf {
    out.join("checkpoints")
}

fn name(step: usize) -> String {
    format!("step-{step:08}")
}

/// Checkpoints by step, oldest first.
pub(crate) fn list(out: &Path) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder(out)) else { return Vec::new() };
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

/// The newest readable checkpoint, and a sentence about each newer one that is damaged; `None` when there is no
/// checkpoint at all.
///
/// # Errors
/// [`TrainError::NoCheckpoint`] when there are checkpoints and all are damaged.
pub(crate) fn newest(out: &Path) -> Result<(Option<(CheckpointState, CheckpointRecords)>, Vec<String>), TrainError> {
    let mut damaged = Vec::new();
    for (_, path) in list(out).into_iter().rev() {
        match read(&path) {
            Ok(found) => return Ok((Some(found), damaged)),
            Err(problem) => damaged.push(format!("{} is damaged ({problem}) and is not used", path.display())),
        }
    }
    match damaged.first() {
        Some(problem) => Err(TrainError::NoCheckpoint { path: folder(out), problem: problem.clone() }),
        None => Ok((None, damaged)),
    }
}

fn read(folder: &Path) -> Result<(CheckpointState, CheckpointRecords), String> {
    let json = fs::read(folder.join(STATE)).map_err(|error| format!("{STATE}: {error}"))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OptimSection;
    use crate::run::optim::AdamW;
    use burn::module::Module;
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    fn records() -> CheckpointRecords {
        let record = || LinearConfig::new(3, 2).init(&Device::flex()).into_record();
        CheckpointRecords {
            model: record(),
            average: Some(record()),
            optim: AdamW::from_config(&OptimSection::default()).to_record(),
            scheduler: LrSchedulerRecord::new().with_scalar("next", 1_usize),
        }
    }

    fn state(step: usize) -> CheckpointState {
        let data =
            DataIdentity { data: ("hash".to_string(), 5), data_identity: Some("abc".to_string()), special: Vec::new() };
        CheckpointState::new(step, 1.0, PendingLoss::default(), serde_json::json!({}), data)
    }

    fn steps(out: &Path) -> Vec<usize> {
        list(out).into_iter().map(|(step, _)| step).collect()
    }

    fn damage(out: &Path, step: usize) {
        let path = folder(out).join(name(step)).join(OPTIM);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn older_checkpoints_are_removed_only_after_the_new_one_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let mut writer = CheckpointWriter::new(out, 1);
        writer.write(state(1), records()).unwrap();
        let mut steps = Vec::new();
        writer
            .write_observed(state(2), records(), &mut |step| {
                steps.push(match step {
                    DiskStep::SyncFile(name, _) => name.to_string(),
                    DiskStep::SyncFolder(path) => {
                        if path.ends_with("checkpoints") {
                            "parent".to_string()
                        } else {
                            "folder".to_string()
                        }
                    }
                    DiskStep::Rename => "rename".to_string(),
                    DiskStep::Remove(path) => {
                        assert!(path.exists(), "it is there until the new one is safe");
                        format!("remove {}", path.file_name().unwrap().display())
                    }
                });
            })
            .unwrap();
        let expected = [MODEL, OPTIM, SCHEDULER, AVERAGE, STATE, "folder", "rename", "parent", "remove step-00000001"];
        assert_eq!(steps, expected);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn files_are_synced_through_handles_that_may_write() {
        use std::os::fd::AsRawFd;
        let folder = tempfile::tempdir().unwrap();
        let mut n_synced = 0;
        CheckpointWriter::new(folder.path(), 1)
            .write_observed(state(1), records(), &mut |step| {
                if let DiskStep::SyncFile(name, file) = step {
                    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap();
                    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
                    // The last two bits are the access mode: 0 reads, 1 writes, 2 does both.
                    assert_ne!(u32::from_str_radix(flags, 8).unwrap() & 3, 0, "{name} was opened for reading only");
                    n_synced += 1;
                }
            })
            .unwrap();
        assert_eq!(n_synced, 5);
    }

    #[test]
    fn only_readable_checkpoints_count_as_kept() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let mut writer = CheckpointWriter::new(out, 2);
        for step in [3, 6, 9] {
            writer.write(state(step), records()).unwrap();
        }
        assert_eq!(steps(out), [6, 9]);
        damage(out, 9);
        // A new process resumes from step 6 and is stopped at step 7.
        assert_eq!(newest(out).unwrap().0.unwrap().0.step, 6);
        let mut writer = CheckpointWriter::new(out, 1);
        writer.write(state(7), records()).unwrap();
        assert_eq!(steps(out), [7, 9], "the damaged one does not take the place of a readable one");
        assert_eq!(newest(out).unwrap().0.unwrap().0.step, 7);
        writer.write(state(9), records()).unwrap();
        assert_eq!(steps(out), [9]);
        assert_eq!(newest(out).unwrap().0.unwrap().0.step, 9);
    }
}
