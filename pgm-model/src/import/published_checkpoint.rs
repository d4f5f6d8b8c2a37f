//! A checkpoint file of either format, opened.

use std::collections::BTreeSet;

use burn::tensor::Device;
use safetensors::SafeTensors;

use super::causal::{WithIdentityModulation, is_unconditional};
use super::configuration::{read_config_json, read_special_names};
use super::metadata::{CheckpointMetadata, SpecialNames};
use super::tensors::{FileTensor, ModelTensors, Tensors, complete_tied, import_error};
use super::torch_checkpoint::{Averages, TorchCheckpoint, averages_beside, read_torch_checkpoint, read_torch_tensors};
use super::torch_file::TorchFile;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::model_folder::{CONFIG_METADATA, TOKENIZER_METADATA, from_finite_source, refuse_substitute};
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
    ema: Option<Averages<'a>>,
    left_out: Vec<String>,
    /// The one of two tied tensors that the file leaves out.
    tied: Option<&'static str>,
    pub(super) metadata: CheckpointMetadata,
}

impl<'a> PublishedCheckpoint<'a> {
    /// Opens a file of either format in memory; errors name it as `origin`.
    ///
    /// # Errors
    /// One sentence for each way in which a file can be truncated, damaged, hostile, or no checkpoint.
    pub fn parse(bytes: &'a [u8], origin: &str) -> Result<Self, ModelError> {
        Self::parse_shards(&[(bytes, origin)], origin, None)
    }

    /// Opens a checkpoint whose tensors are in one or several files, each with the name for its errors; `origin` is the name
    /// of them all. `config` is the `config.json` beside them and its name.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_shards(
        shards: &[(&'a [u8], &str)],
        origin: &str,
        config: Option<(&[u8], &str)>,
    ) -> Result<Self, ModelError> {
        let beside = config.map(|(json, origin)| read_config_json(json, origin)).transpose()?;
        let mut checkpoint = match shards {
            [(bytes, origin)] if is_torch(bytes, origin)? => Self::from_torch(bytes, origin)?,
            shards => Self::from_tensors(shards, origin)?,
        };
        checkpoint.metadata = checkpoint.metadata.or(beside.unwrap_or_default());
        let ema = checkpoint.ema.iter().flat_map(|ema| &ema.tensors).flat_map(Tensors::values);
        let n_bytes =
            checkpoint.raw.values().chain(ema).fold(0_usize, |sum, tensor| sum.saturating_add(tensor.n_bytes()));
        let n_available: usize = shards.iter().map(|(bytes, _)| bytes.len()).sum();
        if n_bytes / MAX_SHARING > n_available {
            let problem =
                format!("its tensors claim {n_bytes} bytes, the file has {n_available}; it is no plain checkpoint");
            return Err(import_error(origin, problem));
        }
        checkpoint.complete_tied()?;
        Ok(checkpoint)
    }

    fn complete_tied(&mut self) -> Result<(), ModelError> {
        self.tied = complete_tied(&mut self.raw);
        if let Some(Averages { tensors: Ok(tensors), .. }) = &mut self.ema {
            complete_tied(tensors);
        }
        match self.tied {
            Some(missing) if self.metadata.is_tied == Some(false) => Err(self.error(format!(
                "tensor {missing} is missing, and tie_word_embeddings = false in its configuration; the file is incomplete, \
                 download it again"
            ))),
            _ => Ok(()),
        }
    }

    fn from_torch(bytes: &'a [u8], origin: &str) -> Result<Self, ModelError> {
        let file = TorchFile::parse(bytes).map_err(|cause| ModelError::Torch { origin: origin.to_string(), cause })?;
        let TorchCheckpoint { raw, ema, left_out, metadata } = read_torch_checkpoint(&file, origin)?;
        Ok(Self { origin: origin.to_string(), raw, ema, left_out, tied: None, metadata })
    }

    // Files that hold nothing but tensors.
    fn from_tensors(shards: &[(&'a [u8], &str)], origin: &str) -> Result<Self, ModelError> {
        let (mut named, mut metadata) = (Vec::new(), CheckpointMetadata::default());
        for &(bytes, origin) in shards {
            if is_torch(bytes, origin)? {
                let file =
                    TorchFile::parse(bytes).map_err(|cause| ModelError::Torch { origin: origin.to_string(), cause })?;
                named.extend(read_torch_tensors(&file, origin)?);
            } else {
                named.extend(read_safetensors(bytes, origin, &mut metadata)?);
            }
        }
        let ModelTensors { tensors, ema, left_out } = ModelTensors::select(named, origin)?;
        let ema = ema.map(|ema| averages_beside(ema, &tensors));
        let raw = tensors.into_iter().collect();
        Ok(Self { origin: origin.to_string(), raw, ema, left_out, tied: None, metadata })
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

    /// Where the averaged weights are in the file, if it has them.
    pub fn ema_place(&self) -> Option<&str> {
        self.ema.as_ref().map(|ema| ema.place.as_str())
    }

    /// The name of the head's or the embedding's tensor if the file leaves it out because the two are tied. It has been
    /// taken from the other.
    pub fn tied(&self) -> Option<&'static str> {
        self.tied
    }

    /// The `tokenizer_config.json` inside the file: what [`to_published_with_tokenizer`] kept, or the names of the special
    /// tokens that were pickled.
    ///
    /// [`to_published_with_tokenizer`]: crate::model_folder::to_published_with_tokenizer
    pub fn tokenizer_config_json(&self) -> Option<Vec<u8>> {
        let names = &self.metadata.special;
        self.metadata.tokenizer_config.clone().or_else(|| (!names.is_empty()).then(|| names.to_json()))
    }

    /// Takes names of special tokens from a `tokenizer_config.json` (or a `special_tokens_map.json`) beside the file. Names
    /// that the file has itself stay.
    pub fn add_special_names(&mut self, tokenizer_config: &[u8]) {
        let (own, beside) = (std::mem::take(&mut self.metadata.special), read_special_names(tokenizer_config));
        self.metadata.special = own.or(beside);
    }

    /// A network of that configuration with the file's weights.
    ///
    /// # Errors
    /// As [`model_folder::from_source`](crate::model_folder::from_source), [`ModelError::NotFinite`] when a weight is NaN or
    /// infinite, and [`ModelError::Import`] when the file has no averaged weights.
    pub fn network(
        &self,
        weights: CheckpointWeights,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<Network, ModelError> {
        let tensors = match (weights, self.ema.as_ref().map(|ema| &ema.tensors)) {
            (CheckpointWeights::Raw, _) => &self.raw,
            (CheckpointWeights::Ema, Some(Ok(ema))) => ema,
            (CheckpointWeights::Ema, Some(Err(problem))) => {
                return Err(self.error(format!("{problem}; --weights raw takes the others")));
            }
            (CheckpointWeights::Ema, None) => {
                return Err(self.error("it has no averaged weights (ema.shadow_params); take --weights raw"));
            }
        };
        match config {
            ModelConfig::Autoregressive(config_of) if is_unconditional(&self.raw) => {
                let source = WithIdentityModulation::new(tensors, config_of);
                from_finite_source(&source, &self.origin, config, device)
            }
            _ => from_finite_source(tensors, &self.origin, config, device),
        }
    }

    /// Rows and columns of a tensor.
    pub(super) fn matrix(&self, name: &str) -> Result<(usize, usize), ModelError> {
        match self.raw.get(name).map(FileTensor::shape) {
            Some(&[rows, columns]) => Ok((rows, columns)),
            Some(shape) => Err(self.error(format!("tensor {name} has shape {shape:?}, it should have two dimensions"))),
            None => Err(ModelError::MissingTensor { origin: self.origin.clone(), count: 1, first: name.to_string() }),
        }
    }

    /// Distinct block numbers. A gap between them is found when the tensors are loaded.
    pub(super) fn n_blocks(&self, prefix: &str) -> usize {
        let number = |name: &'_ String| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
        self.raw.keys().filter_map(number).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> ModelError {
        import_error(&self.origin, problem)
    }
}

// Whether a file is one of `torch.save`; the other format is safetensors.
fn is_torch(bytes: &[u8], origin: &str) -> Result<bool, ModelError> {
    refuse_substitute(bytes, origin)?;
    // A safetensors file begins with a length, whose bytes may be those of any other format.
    let is_safetensors = bytes.get(HEADER_START) == Some(&b'{');
    if TorchFile::has_signature(bytes) && !is_safetensors {
        return Ok(true);
    }
    if bytes.len() > HEADER_START && !is_safetensors {
        return Err(import_error(origin, "it is neither a file of torch.save nor a safetensors file"));
    }
    Ok(false)
}

/// The tensors of a safetensors file; what its metadata says is added to `metadata`.
fn read_safetensors<'a>(
    bytes: &'a [u8],
    origin: &str,
    metadata: &mut CheckpointMetadata,
) -> Result<Vec<(String, FileTensor<'a>)>, ModelError> {
    let unreadable = |error: safetensors::SafeTensorError| ModelError::Weights {
        origin: origin.to_string(),
        problem: error.to_string(),
    };
    let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
    let mut named: Vec<_> = file.tensors().into_iter().map(|(name, view)| (name, FileTensor::Safe(view))).collect();
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
    let Some(header) = header.metadata() else { return Ok(named) };
    if let Some(json) = header.get(CONFIG_METADATA) {
        let config = serde_json::from_str(json);
        metadata.config = Some(config.map_err(|cause| ModelError::Json { origin: origin.to_string(), cause })?);
    }
    if let Some(json) = header.get(TOKENIZER_METADATA) {
        metadata.special = read_special_names(json.as_bytes());
        metadata.tokenizer_config = Some(json.clone().into_bytes());
    }
    // Of tensors that share their memory, `safetensors.torch.save_model` stores one and notes the names of the others.
    for (name, stored) in header.iter().filter(|(name, _)| file.tensor(name).is_err()) {
        if let Ok(view) = file.tensor(stored) {
            named.push((name.clone(), FileTensor::Safe(view)));
        }
    }
    Ok(named)
}
