//! The model that a run starts from: fine-tuning.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use pgm_data::DataFolder;
use pgm_model::model_folder::{self, GENERATION_FILE, WEIGHTS_FILE};
use pgm_model::{ModelConfig, Network};
use serde_json::{Value, json};

use super::model_card::CardWords;
use super::model_files::ModelFiles;
use super::optim::weight_norm;
use crate::TrainError;
use crate::config::TrainConfig;
use crate::eval::check_same_data;
use crate::files::fingerprint;
use crate::special_tokens::TokenizerFiles;

/// A model folder that a run starts from, see [`Fit::init`](super::Fit::init).
#[derive(Clone, Debug)]
pub struct InitModel {
    given: PathBuf,
    folder: PathBuf,
    config: ModelConfig,
    crc32: u32,
}

impl InitModel {
    /// Opens a model folder, or one of a training run; see [`model_folder::resolve`].
    ///
    /// # Errors
    /// Names the file that cannot be used, or what the run has.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let folder = model_folder::resolve(path)?;
        let config = model_folder::load_config(&folder)?;
        let weights = folder.join(WEIGHTS_FILE);
        let (_, crc32) = fingerprint(&weights).map_err(|error| TrainError::file("read", &weights, error))?;
        Ok(Self { given: path.to_path_buf(), folder, config, crc32 })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The configuration of the run's model: the model's, with the run's dropout, sets and length of rows.
    ///
    /// # Errors
    /// [`TrainError::Config`] with the first key of the run's configuration, or the first token of the data, that the model
    /// contradicts.
    pub(crate) fn model_config(&self, config: &TrainConfig, data: &DataFolder) -> Result<ModelConfig, TrainError> {
        let refuse = |problem: String| Err(TrainError::Config { origin: self.flag(), problem });
        if !config.objective.trains(&self.config) {
            return refuse(format!(
                "is {} model, which objective = \"{}\" does not train; leave objective out, or start from another model",
                match self.config {
                    ModelConfig::Partition(_) => "a partition",
                    ModelConfig::Masked(_) => "a masked",
                    ModelConfig::Autoregressive(_) => "an autoregressive",
                    ModelConfig::MaskGit(_) => "a MaskGIT",
                },
                config.objective.name()
            ));
        }
        if let Some((key, run, model)) = config.model.first_difference(&self.config) {
            return refuse(format!(
                "has model.{key} = {model}, the configuration says {run}; leave [model] out, or set the model's value"
            ));
        }
        check_same_data(&self.folder, "--init", &self.config, data)?;
        config.model.check_length(data.manifest())?;
        let mut found = self.config.clone();
        let backbone = found.backbone_mut();
        backbone.dropout = config.model.dropout;
        // Pictures of another grid are refused.
        if backbone.image.is_none() {
            backbone.length = config.model.length;
        }
        if let ModelConfig::Partition(partition) = &mut found {
            partition.sets = config.model.sets;
        }
        found.validate()?;
        Ok(found)
    }

    /// Sentences for the user: which folder the weights are from, and whether the rows have another length than the model's.
    pub(crate) fn notices(&self, config: &ModelConfig) -> Vec<String> {
        let (before, now) = (self.config.backbone().length, config.backbone().length);
        let length = (before != now)
            .then(|| format!("the rows have {now} tokens, {} was trained on rows of {before}", self.flag()));
        [format!("the weights are those of {}", self.folder.display())].into_iter().chain(length).collect()
    }

    /// The weights, in float32 whatever the file has.
    ///
    /// # Errors
    /// Names the tensor that cannot be used, or says that a weight is not finite.
    pub(crate) fn network(&self, config: &ModelConfig, device: &Device) -> Result<Network, TrainError> {
        let network = model_folder::load_weights(&self.folder.join(WEIGHTS_FILE), config, device)?;
        let norm = weight_norm(&network).try_into_scalar::<f32>();
        if norm.map_err(|error| TrainError::Device(error.to_string()))?.is_finite() {
            return Ok(network);
        }
        let problem =
            "has weights that are not finite: its run diverged or the file is damaged; take an earlier checkpoint";
        Err(TrainError::Config { origin: self.flag(), problem: problem.to_string() })
    }

    /// The files of the run's model folders: the sampler defaults are those of the model.
    ///
    /// # Errors
    /// [`TrainError::File`] when they cannot be read.
    pub(crate) fn files(
        &self,
        config: ModelConfig,
        tokenizer: Option<TokenizerFiles>,
    ) -> Result<ModelFiles, TrainError> {
        let files = ModelFiles::new(config, tokenizer);
        let path = self.folder.join(GENERATION_FILE);
        match std::fs::read(&path) {
            Ok(generation) => Ok(ModelFiles { generation, ..files }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(files),
            Err(error) => Err(TrainError::file("read", path, error)),
        }
    }

    /// What a run records of it.
    pub(crate) fn provenance(&self) -> Value {
        let mut found = json!({
            "model": self.given.display().to_string(),
            "folder": self.folder.display().to_string(),
            "weights_crc32": format!("{:08x}", self.crc32),
        });
        if let Some(step) = model_folder::trained_step(&self.folder) {
            found["step"] = step.into();
        }
        // A resumed run need not name the model again.
        let card = CardWords::of_folder(&self.folder);
        if card != CardWords::default() {
            found["card"] = json!(card);
        }
        found
    }

    /// Whether the run may be resumed with this model in place of the one that `recorded` names: the weights are the same.
    pub(crate) fn is_recorded(&self, recorded: &Value) -> bool {
        recorded["weights_crc32"] == self.provenance()["weights_crc32"]
    }

    /// The flag as it was given.
    pub(crate) fn flag(&self) -> String {
        format!("--init {}", self.given.display())
    }
}
