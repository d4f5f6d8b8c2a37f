//! A checkpoint file of either format, opened.

use burn::tensor::Device;
use safetensors::SafeTensors;

use super::metadata::{CheckpointMetadata, SpecialNames};
use super::tensors::{FileTensor, ModelTensors, Tensors, import_error};
use super::torch_checkpoint::{TorchCheckpoint, read_torch_checkpoint};
use super::torch_file::TorchFile;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::model_folder::{self, CONFIG_METADATA};
use crate::networks::Network;

/// Where the JSON header of a safetensors file begins, after its length.
const HEADER_START: usize = 8;
/// The tensors may be this many times as long as the file: tied weights share a storage, a hostile file shares more.
const MAX_SHARING: usize = 4;

/// Which weights of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointWeights {
    /// The exponential moving average.
    Ema,
    /// The weights of the optimiser's last step.
    Raw,
}

/// A published checkpoint, opened. Weights are read when a network is made of them.
#[derive(Clone, Debug)]
pub struct PublishedCheckpoint<'a> {
    pub(super) origin: String,
    pub(super) raw: Tensors<'a>,
    // Averages that contradict the state dict are an error only for those who want them.
    ema: Option<Result<Tensors<'a>, String>>,
    left_out: Vec<String>,
    pub(super) metadata: CheckpointMetadata,
}

impl<'a> PublishedCheckpoint<'a> {
    /// Opens a file of either format in memory; errors name it as `origin`.
    ///
    /// # Errors
    /// One sentence for each way in which a file can be truncated, damaged, hostile, or no checkpoint.
    pub fn parse(bytes: &'a [u8], origin: &str) -> Result<Self, ModelError> {
        // A safetensors file begins with a length, whose bytes may be those of any other format.
        let is_safetensors = bytes.get(HEADER_START) == Some(&b'{');
        let checkpoint = if TorchFile::has_signature(bytes) && !is_safetensors {
            Self::from_torch(bytes, origin)?
        } else if bytes.len() > HEADER_START && bytes[HEADER_START] != b'{' {
            return Err(import_error(origin, "it is neither a file of torch.save nor a safetensors file"));
        } else {
            Self::from_safetensors(bytes, origin)?
        };
        let all = checkpoint.raw.values().chain(checkpoint.ema.iter().flatten().flat_map(Tensors::values));
        let n_bytes = all.fold(0_usize, |sum, tensor| sum.saturating_add(tensor.n_bytes()));
        if n_bytes / MAX_SHARING > bytes.len() {
            let problem =
                format!("its tensors claim {n_bytes} bytes, the file has {}; it is no plain checkpoint", bytes.len());
            return Err(import_error(origin, problem));
        }
        Ok(checkpoint)
    }

    fn from_torch(bytes: &'a [u8], origin: &str) -> Result<Self, ModelError> {
        let file = TorchFile::parse(bytes).map_err(|cause| ModelError::Torch { origin: origin.to_string(), cause })?;
        let TorchCheckpoint { raw, ema, left_out, metadata } = read_torch_checkpoint(&file, origin)?;
        Ok(Self { origin: origin.to_string(), raw, ema, left_out, metadata })
    }

    fn from_safetensors(bytes: &'a [u8], origin: &str) -> Result<Self, ModelError> {
        let unreadable = |error: safetensors::SafeTensorError| ModelError::Weights {
            origin: origin.to_string(),
            problem: error.to_string(),
        };
        let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let named = file.tensors().into_iter().map(|(name, view)| (name, FileTensor::Safe(view))).collect();
        let ModelTensors { tensors, left_out } = ModelTensors::select(named, origin)?;
        let mut metadata = CheckpointMetadata::default();
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        if let Some(json) = header.metadata().as_ref().and_then(|metadata| metadata.get(CONFIG_METADATA)) {
            let config = serde_json::from_str(json);
            metadata.config = Some(config.map_err(|cause| ModelError::Json { origin: origin.to_string(), cause })?);
        }
        Ok(Self { origin: origin.to_string(), raw: tensors.into_iter().collect(), ema: None, left_out, metadata })
    }

    /// The averaged weights if the file has them, else the raw ones.
    pub fn default_weights(&self) -> CheckpointWeights {
        if self.ema.is_some() { CheckpointWeights::Ema } else { CheckpointWeights::Raw }
    }

    /// Names in the file's state dict that belong to no model of ours, such as those of a distillation's teacher.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The `tokenizer.json` inside the file, if a fast tokenizer was pickled with it.
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        self.metadata.tokenizer.as_deref()
    }

    /// The names of the file's special tokens.
    pub fn special_names(&self) -> &SpecialNames {
        &self.metadata.special
    }

    /// Sampling steps and top-p of the file's configuration.
    pub fn sampling(&self) -> (Option<usize>, Option<f64>) {
        (self.metadata.steps, self.metadata.top_p)
    }

    /// A network of that configuration with the file's weights.
    ///
    /// # Errors
    /// As [`model_folder::from_source`]; [`ModelError::Import`] when the file has no averaged weights.
    pub fn network(
        &self,
        weights: CheckpointWeights,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<Network, ModelError> {
        let tensors = match (weights, &self.ema) {
            (CheckpointWeights::Raw, _) => &self.raw,
            (CheckpointWeights::Ema, Some(Ok(ema))) => ema,
            (CheckpointWeights::Ema, Some(Err(problem))) => {
                return Err(self.error(format!("{problem}; --weights raw takes the others")));
            }
            (CheckpointWeights::Ema, None) => {
                return Err(self.error("it has no averaged weights (ema.shadow_params); take --weights raw"));
            }
        };
        model_folder::from_source(tensors, &self.origin, config, device)
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> ModelError {
        import_error(&self.origin, problem)
    }
}
