//! The model folders of a run: its final model, its best one, and its checkpoints.

use std::path::Path;

use pgm_model::model_folder::{
    self, CONFIG_FILE, GENERATION_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TRAINING_FILE, WEIGHTS_FILE,
};
use pgm_model::{ModelConfig, Network};
use serde_json::{Value, json};

use crate::TrainError;
use crate::special_tokens::TokenizerFiles;

/// What the model folders of a run have in common.
#[derive(Clone, Debug)]
pub(crate) struct ModelFiles {
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer: TokenizerFiles,
    /// `generation_config.json`.
    pub(crate) generation: Vec<u8>,
}

impl ModelFiles {
    /// The files of a model that was not trained before, with the usual sampler defaults.
    pub(crate) fn new(config: ModelConfig, tokenizer: TokenizerFiles) -> Self {
        let defaults = json!({ "steps": 128, "temperature": 1.0, "top_k": 0, "top_p": 1.0 });
        Self { config, tokenizer, generation: to_json(&defaults) }
    }

    /// All files but the weights. The configuration is the last: a folder that has it is complete.
    pub(crate) fn without_weights(&self, training: &Value) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            (TOKENIZER_FILE, self.tokenizer.json.clone()),
            (TOKENIZER_CONFIG_FILE, self.tokenizer.config.clone()),
            (GENERATION_FILE, self.generation.clone()),
            (TRAINING_FILE, to_json(training)),
            (CONFIG_FILE, to_json(&self.config)),
        ]
    }

    /// Writes a model folder, each file under a temporary name first.
    ///
    /// # Errors
    /// [`TrainError::File`] or [`TrainError::Model`] when a file cannot be written.
    pub(crate) fn save(&self, folder: &Path, network: &Network, training: &Value) -> Result<(), TrainError> {
        std::fs::create_dir_all(folder).map_err(|error| TrainError::file("write", folder, error))?;
        // The weights before the record of their step, so that no record is ahead of its weights.
        model_folder::write_file(&folder.join(WEIGHTS_FILE), &model_folder::to_safetensors(network)?)?;
        for (name, bytes) in self.without_weights(training) {
            model_folder::write_file(&folder.join(name), &bytes)?;
        }
        Ok(())
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("JSON values always serialise")
}
