use std::fs;
use std::path::{Path, PathBuf};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::module::Module;
use burn::tensor::Device;
use pgm_model::model_folder::{CONFIG_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TRAINING_FILE, WEIGHTS_FILE};
use pgm_model::{BackboneConfig, MaskedConfig, ModelConfig, Network};
use serde_json::{Value, json};

use super::disk::DiskStep;
use super::state::{AVERAGE, MODEL, OPTIM, SCHEDULER, STATE, best_name, folder, step_name};
use super::{CheckpointParts, CheckpointState, CheckpointWriter, FolderParts, PendingLoss, list, newest, write_best};
use crate::config::OptimSection;
use crate::files::fingerprint;
use crate::run::best::BestValidation;
use crate::run::identity::DataIdentity;
use crate::run::model_card::{README_FILE, StoredWeights};
use crate::run::model_files::ModelFiles;
use crate::run::optim::AdamW;
use crate::run::parameters::{parameter_ids, with_parameter_ids};
use crate::run::train_model::TrainModel;
use crate::special_tokens::TokenizerFiles;

/// A tiny model and what its checkpoints are made of.
struct Case {
    network: Network,
    files: ModelFiles,
    training: Value,
}

impl Case {
    fn new() -> Self {
        let config = ModelConfig::Masked(MaskedConfig { backbone: BackboneConfig::new(7, 4, 1, 3), n_blocks: 1 });
        let network = Network::new(&config, &Device::flex()).with_noise(0.3, 1);
        let tokenizer = TokenizerFiles { json: b"{}".to_vec(), config: b"{}".to_vec() };
        Self { network, files: ModelFiles::new(config, Some(tokenizer)), training: json!({ "step": 1 }) }
    }

    fn folder(&self) -> FolderParts<'_> {
        FolderParts { network: &self.network, files: &self.files, training: &self.training }
    }

    /// A checkpoint of a run with an average, or of one without.
    fn parts(&self, step: usize, has_average: bool) -> CheckpointParts<'_> {
        let data =
            DataIdentity { data: ("hash".to_string(), 5), data_identity: Some("abc".to_string()), special: Vec::new() };
        let model = has_average.then(|| TrainModel::new(self.network.clone(), 6).into_record());
        CheckpointParts {
            state: CheckpointState::new(step, 1.0, PendingLoss::default(), json!({}), data),
            model,
            optim: AdamW::from_config(&OptimSection::default()).to_record(),
            scheduler: LrSchedulerRecord::new().with_scalar("next", 1_usize),
            average: None,
            folder: Some(self.folder()),
        }
    }
}

fn steps(out: &Path) -> Vec<usize> {
    list(out).into_iter().map(|(step, _)| step).collect()
}

fn card_of(folder: &Path) -> String {
    fs::read_to_string(folder.join(README_FILE)).unwrap()
}

fn newest_step(out: &Path) -> usize {
    newest(out, &Device::flex()).unwrap().0.unwrap().state.step
}

fn checkpoint(out: &Path, step: usize) -> PathBuf {
    folder(out).join(step_name(step))
}

fn damage(out: &Path, step: usize) {
    let path = checkpoint(out, step).join(OPTIM);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn older_checkpoints_are_removed_only_after_the_new_one_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    let (out, case) = (folder.path(), Case::new());
    let mut writer = CheckpointWriter::new(out, 1);
    writer.write(case.parts(1, true)).unwrap();
    let mut steps = Vec::new();
    writer
        .write_observed(case.parts(2, true), &mut |step| {
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
    let records = [MODEL, OPTIM, SCHEDULER, WEIGHTS_FILE, STATE];
    let generation = "generation_config.json";
    let model = [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, generation, TRAINING_FILE, README_FILE, CONFIG_FILE];
    let rest = ["folder", "rename", "parent", "remove step-00000001"];
    assert_eq!(steps, [&records[..], &model, &rest].concat());
}

#[test]
#[cfg(target_os = "linux")]
fn files_are_synced_through_handles_that_may_write() {
    use std::os::fd::AsRawFd;
    let folder = tempfile::tempdir().unwrap();
    let mut n_synced = 0;
    CheckpointWriter::new(folder.path(), 1)
        .write_observed(Case::new().parts(1, true), &mut |step| {
            if let DiskStep::SyncFile(name, file) = step {
                let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap();
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
                // The last two bits are the access mode: 0 reads, 1 writes, 2 does both.
                assert_ne!(u32::from_str_radix(flags, 8).unwrap() & 3, 0, "{name} was opened for reading only");
                n_synced += 1;
            }
        })
        .unwrap();
    assert_eq!(n_synced, 11);
}

#[test]
fn only_readable_checkpoints_count_as_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (out, case) = (folder.path(), Case::new());
    let mut writer = CheckpointWriter::new(out, 2);
    for step in [3, 6, 9] {
        writer.write(case.parts(step, true)).unwrap();
    }
    assert_eq!(steps(out), [6, 9]);
    damage(out, 9);
    // A new process resumes from step 6 and is stopped at step 7.
    assert_eq!(newest_step(out), 6);
    let mut writer = CheckpointWriter::new(out, 1);
    writer.write(case.parts(7, true)).unwrap();
    assert_eq!(steps(out), [7, 9], "the damaged one does not take the place of a readable one");
    assert_eq!(newest_step(out), 7);
    writer.write(case.parts(9, true)).unwrap();
    assert_eq!(steps(out), [9]);
    assert_eq!(newest_step(out), 9);
}

#[test]
fn without_an_average_the_weights_are_stored_once_and_come_back_with_their_ids() {
    let folder = tempfile::tempdir().unwrap();
    let (out, case) = (folder.path(), Case::new());
    CheckpointWriter::new(out, 1).write(case.parts(4, false)).unwrap();
    assert!(!checkpoint(out, 4).join(MODEL).exists());
    let found = newest(out, &Device::flex()).unwrap().0.unwrap();
    assert!(found.records.average.is_none());
    let fresh = TrainModel::new(Network::new(&case.files.config, &Device::flex()), 6);
    let loaded = fresh.load_record(found.records.model);
    assert_eq!(parameter_ids(&loaded.network), parameter_ids(&case.network));
    let bytes = |network: &Network| pgm_model::model_folder::to_safetensors(network).unwrap();
    assert_eq!(bytes(&loaded.network), bytes(&case.network));
}

#[test]
fn the_best_model_outlives_the_rotation_and_shares_its_weights_with_the_checkpoint_of_its_step() {
    let folder_of_run = tempfile::tempdir().unwrap();
    let (out, case) = (folder_of_run.path(), Case::new());
    let best = |step| folder(out).join(best_name(step));
    let mut writer = CheckpointWriter::new(out, 1);
    for step in [2, 4] {
        write_best(out, step, case.folder()).unwrap();
        assert!(best(step).join(CONFIG_FILE).exists());
        let mut parts = case.parts(step, true);
        parts.state = parts.state.with_best(Some(BestValidation { step, val_nelbo: 1.0, since: 0 }));
        writer.write(parts).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let inode = |folder: PathBuf| fs::metadata(folder.join(WEIGHTS_FILE)).unwrap().ino();
            assert_eq!(inode(best(step)), inode(checkpoint(out, step)));
        }
    }
    assert!(!best(2).exists(), "only the newest best is kept");
    writer.write(case.parts(6, true)).unwrap();
    assert_eq!(steps(out), [6]);
    assert!(best(4).join(WEIGHTS_FILE).exists());
    // The same step again.
    let card = |step| card_of(&best(step));
    let (written, hash) = (card(4), StoredWeights::read(0, &best(4).join(WEIGHTS_FILE)).unwrap().sha256);
    assert!(written.contains(&format!("SHA-256 `{hash}`")) && written == card_of(&checkpoint(out, 6)), "{written}");
    fs::write(best(4).join(README_FILE), "mine").unwrap();
    write_best(out, 4, case.folder()).unwrap();
    assert!(best(4).join(WEIGHTS_FILE).exists());
    assert_eq!(card(4), "mine");
}

#[test]
fn a_checkpoint_of_an_earlier_version_is_read() {
    let folder_of_run = tempfile::tempdir().unwrap();
    let (out, case) = (folder_of_run.path(), Case::new());
    CheckpointWriter::new(out, 1).write(case.parts(4, true)).unwrap();
    // It had the average as a record, and none of the model folder's files.
    let folder = checkpoint(out, 4);
    for name in
        [WEIGHTS_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, "generation_config.json", TRAINING_FILE, CONFIG_FILE]
    {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let moved = Network::new(&case.files.config, &Device::flex()).with_noise(0.2, 7);
    let average = with_parameter_ids(moved, &parameter_ids(&case.network)).unwrap();
    TrainModel::new(average.clone(), 6).into_record().save(folder.join(AVERAGE)).unwrap();
    let mut state: Value = serde_json::from_slice(&fs::read(folder.join(STATE)).unwrap()).unwrap();
    let files = state["files"].as_object_mut().unwrap();
    files.remove(WEIGHTS_FILE);
    files.insert(AVERAGE.to_string(), json!(fingerprint(&folder.join(AVERAGE)).unwrap()));
    fs::write(folder.join(STATE), state.to_string()).unwrap();

    let found = newest(out, &Device::flex()).unwrap().0.unwrap();
    let model = TrainModel::new(case.network.clone(), 6);
    let read = found.records.average.unwrap().apply(model).unwrap();
    let bytes = |network: &Network| pgm_model::model_folder::to_safetensors(network).unwrap();
    assert_eq!(bytes(&read.network), bytes(&average));
    assert_eq!(parameter_ids(&read.network), parameter_ids(&case.network));
}
