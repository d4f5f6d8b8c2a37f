//! The model folders of a run: its final model, its best one, and its checkpoints.

use std::path::{Path, PathBuf};

use pgm_infer::{GenerationConfig, OrderKind};
use pgm_model::model_folder::{
    self, CONFIG_FILE, GENERATION_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TRAINING_FILE, WEIGHTS_FILE,
};
use pgm_model::{ModelConfig, Network};
use serde_json::Value;

use super::model_card::{CardSubject, ModelCard, README_FILE, StoredWeights, model_card, write_card};
use crate::TrainError;
use crate::special_tokens::TokenizerFiles;

/// Sampling steps of new models.
const TEXT_STEPS: usize = 128;
const IMAGE_STEPS: usize = 32;

/// What the model folders of a run have in common.
#[derive(Clone, Debug)]
pub(crate) struct ModelFiles {
    pub(crate) config: ModelConfig,
    /// A model of pictures has none.
    pub(crate) tokenizer: Option<TokenizerFiles>,
    /// `generation_config.json`.
    pub(crate) generation: Vec<u8>,
    /// What is in `README.md`.
    pub(crate) card: ModelCard,
}

impl ModelFiles {
    /// The files of a model that was not trained before, with the usual sampler defaults.
    pub(crate) fn new(config: ModelConfig, tokenizer: Option<TokenizerFiles>) -> Self {
        let steps = if config.image().is_some() { IMAGE_STEPS } else { TEXT_STEPS };
        let card = ModelCard::default();
        Self { config, tokenizer, generation: Vec::new(), card }.sampled(steps, 1.0, None)
    }

    /// The same files with other sampler defaults.
    pub(crate) fn sampled(self, steps: usize, temperature: f64, order: Option<OrderKind>) -> Self {
        let (steps, temperature) = (Some(steps), Some(temperature));
        let defaults = GenerationConfig { steps, temperature, top_k: Some(0), top_p: Some(1.0), order };
        Self { generation: to_json(&defaults), ..self }
    }

    /// Takes over what a checkpoint's folder has of the model that its run started from.
    ///
    /// # Errors
    /// [`TrainError::File`] when a file cannot be read.
    pub(crate) fn take_over(&mut self, checkpoint: &Path) -> Result<(), TrainError> {
        let read = |name: &str| match std::fs::read(checkpoint.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TrainError::file("read", checkpoint.join(name), error)),
        };
        if let Some(generation) = read(GENERATION_FILE)? {
            self.generation = generation;
        }
        if let (Some(tokenizer), Some(config)) = (&mut self.tokenizer, read(TOKENIZER_CONFIG_FILE)?) {
            tokenizer.config = config;
        }
        Ok(())
    }

    /// The same files with a card of this run.
    pub(crate) fn with_card(self, card: ModelCard) -> Self {
        Self { card, ..self }
    }

    /// All files but the weights. The configuration is the last: a folder that has it is complete.
    pub(crate) fn without_weights(&self, training: &Value, weights: &StoredWeights) -> Vec<(&'static str, Vec<u8>)> {
        let tokenizer = self.tokenizer.iter().flat_map(|tokenizer| {
            [(TOKENIZER_FILE, tokenizer.json.clone()), (TOKENIZER_CONFIG_FILE, tokenizer.config.clone())]
        });
        let json = self.tokenizer.as_ref().map(|tokenizer| &tokenizer.json[..]);
        let subject = CardSubject { config: &self.config, tokenizer: json, training, weights };
        let rest = [
            (GENERATION_FILE, self.generation.clone()),
            (TRAINING_FILE, to_json(training)),
            (README_FILE, model_card(&self.card, &subject)),
            (CONFIG_FILE, to_json(&self.config)),
        ];
        tokenizer.chain(rest).collect()
    }

    /// Writes a model folder, each file under a temporary name first. Returns the path of a card that a person has edited,
    /// which stays as it is.
    ///
    /// # Errors
    /// [`TrainError::File`] or [`TrainError::Model`] when a file cannot be written.
    pub(crate) fn save(
        &self,
        folder: &Path,
        network: &Network,
        training: &Value,
    ) -> Result<Option<PathBuf>, TrainError> {
        std::fs::create_dir_all(folder).map_err(|error| TrainError::file("write", folder, error))?;
        // The weights before the record of their step, so that no record is ahead of its weights.
        let bytes = model_folder::to_safetensors(network)?;
        model_folder::write_file(&folder.join(WEIGHTS_FILE), &bytes)?;
        let mut kept = None;
        for (name, bytes) in self.without_weights(training, &StoredWeights::new(network.n_parameters(), &bytes)) {
            match name {
                README_FILE => kept = write_card(folder, &bytes)?,
                _ => model_folder::write_file(&folder.join(name), &bytes)?,
            }
        }
        Ok(kept)
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("JSON values always serialise")
}
