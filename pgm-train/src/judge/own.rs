//! An autoregressive model of this project as a judge.

use std::path::Path;

use burn::tensor::Device;
use pgm_model::model_folder::{self, TOKENIZER_FILE};
use pgm_model::{AutoregressiveTransformer, ModelConfig, Network};
use tokenizers::Tokenizer;

use super::batches::{ragged_features, ragged_nll};
use super::language_model::{Judge, Pooling};
use crate::TrainError;
use crate::token_nll::token_nll;

/// The model of a folder that `pgm-train fit` wrote, with its tokenizer.
#[derive(Debug)]
pub struct OwnJudge {
    model: AutoregressiveTransformer,
    tokenizer: Tokenizer,
    eos: u32,
    vocab_size: usize,
    length: usize,
    mask_index: usize,
    network: String,
    device: Device,
}

impl OwnJudge {
    /// Opens a model folder, or one of a training run; see [`model_folder::resolve`].
    ///
    /// # Errors
    /// Names the file that cannot be used. Also when the model is not autoregressive.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, TrainError> {
        let folder = &model_folder::resolve(folder)?;
        let (config, network) = model_folder::load(folder, device)?;
        let Network::Autoregressive(model) = network else {
            let problem = "is not autoregressive; only such a model or a GPT-2 gives every token a probability";
            return Err(TrainError::judge(folder.display(), problem));
        };
        let path = folder.join(TOKENIZER_FILE);
        let json = std::fs::read(&path).map_err(|error| TrainError::file("read", &path, error))?;
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| {
            TrainError::judge(path.display(), format!("is not a Hugging Face tokenizer.json ({error})"))
        })?;
        let _ = tokenizer.with_truncation(None);
        tokenizer.with_padding(None);
        pgm_infer::text::check_tokenizer(&tokenizer, &config, &path.display().to_string())?;
        let backbone = config.backbone();
        let n_blocks = match &config {
            ModelConfig::Autoregressive(config) => config.n_blocks,
            _ => 0,
        };
        Ok(Self {
            model,
            tokenizer,
            eos: backbone.eos_index as u32,
            vocab_size: backbone.vocab_size,
            length: backbone.length,
            mask_index: backbone.mask_index,
            network: format!("autoregressive, {n_blocks} blocks, width {}", backbone.hidden_size),
            device: device.clone(),
        })
    }
}

impl Judge for OwnJudge {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let fail = |error: tokenizers::Error| TrainError::judge("the judge's tokenizer", error.to_string());
        Ok(self.tokenizer.encode_fast(text, false).map_err(fail)?.get_ids().to_vec())
    }

    fn eos(&self) -> u32 {
        self.eos
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max_length(&self) -> usize {
        self.length
    }

    fn token_nll(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f64>>, TrainError> {
        ragged_nll(rows, &self.device, |tokens| {
            let n_predicted = tokens.dims()[1] - 1;
            let hidden = self.model.hidden(tokens.clone().narrow(1, 0, n_predicted)); // [B, L - 1, H]
            let targets = tokens.narrow(1, 1, n_predicted);
            token_nll(|hidden| self.model.logits(hidden), hidden, targets, self.mask_index)
        })
    }

    fn features(&self, rows: &[&[u32]], pooling: Pooling) -> Result<Vec<Vec<f32>>, TrainError> {
        ragged_features(rows, &self.device, pooling, |tokens| self.model.hidden(tokens))
    }

    fn network(&self) -> String {
        self.network.clone()
    }
}
