//! A GPT-2 folder as a judge: `config.json`, `model.safetensors`, `tokenizer.json`.

use std::path::Path;

use burn::tensor::Device;
use pgm_model::model_folder::TOKENIZER_FILE;
use tokenizers::Tokenizer;

use super::config::Gpt2Config;
use super::network::Gpt2;
use crate::TrainError;
use crate::judge::batches::{ragged_features, ragged_nll};
use crate::judge::language_model::{Judge, Pooling};

/// A [`Gpt2`] with its tokenizer.
#[derive(Debug)]
pub struct Gpt2Judge {
    config: Gpt2Config,
    model: Gpt2,
    tokenizer: Tokenizer,
    eos: u32,
    device: Device,
}

impl Gpt2Judge {
    /// Opens a folder as Hugging Face publishes it. The model may have any size.
    ///
    /// # Errors
    /// As [`Gpt2::load`]. Also when `tokenizer.json` cannot be read, has ids outside the model's vocabulary, or lacks an
    /// end-of-text token.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, TrainError> {
        let path = folder.join(TOKENIZER_FILE);
        let json = std::fs::read(&path).map_err(|error| TrainError::file("read", &path, error))?;
        let (config, model) = Gpt2::load(folder, device)?;
        let fail = |problem: String| TrainError::judge(path.display(), problem);
        let mut tokenizer = Tokenizer::from_bytes(json)
            .map_err(|error| fail(format!("is not a Hugging Face tokenizer.json ({error})")))?;
        let _ = tokenizer.with_truncation(None);
        tokenizer.with_padding(None);
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if largest as usize >= config.vocab_size {
            let n = config.vocab_size;
            return Err(fail(format!(
                "has token {largest}, but the model knows {n}; is it another model's tokenizer?"
            )));
        }
        let known = config.eos_token_id.filter(|&eos| (eos as usize) < config.vocab_size);
        let eos = known
            .or_else(|| tokenizer.token_to_id("<|endoftext|>"))
            .ok_or_else(|| fail("has no <|endoftext|>; set eos_token_id in config.json".into()))?;
        Ok(Self { config, model, tokenizer, eos, device: device.clone() })
    }

    /// The model's configuration.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }
}

impl Judge for Gpt2Judge {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| TrainError::judge(TOKENIZER_FILE, format!("cannot encode a text: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn eos(&self) -> u32 {
        self.eos
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_length(&self) -> usize {
        self.config.n_positions
    }

    fn token_nll(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f64>>, TrainError> {
        ragged_nll(rows, &self.device, |tokens| self.model.negative_log_likelihood(tokens))
    }

    fn features(&self, rows: &[&[u32]], pooling: Pooling) -> Result<Vec<Vec<f32>>, TrainError> {
        ragged_features(rows, &self.device, pooling, |tokens| self.model.hidden(tokens))
    }

    fn network(&self) -> String {
        format!("GPT-2, {} blocks, width {}", self.config.n_layer, self.config.n_embd)
    }
}
