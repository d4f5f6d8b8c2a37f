//! A model folder as a thing that writes text: the network, its configuration and its tokenizer.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use pgm_model::config::MAX_LENGTH;
use pgm_model::model_folder::{self, GENERATION_FILE, TOKENIZER_FILE};
use pgm_model::{ModelConfig, Network, WeightDtype};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use crate::causal::CausalDenoiser;
use crate::denoiser::{Denoiser, FullDenoiser, HeadPositions, MaskedDenoiser, PartitionDenoiser};
use crate::sampler::{SampleOutput, SampleRequest, SampleSettings, StepView, sample};
use crate::template::Part;
use crate::{DrawSettings, InferError};

/// Sampler defaults of a model folder, `generation_config.json`. What is absent has the field's usual default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Divides the logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Keeps the k most probable tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Keeps the smallest set of tokens that holds this probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
}

impl GenerationConfig {
    /// The draw these defaults describe.
    pub fn draw(&self) -> DrawSettings {
        let usual = DrawSettings::default();
        DrawSettings {
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k: self.top_k.unwrap_or(usual.top_k),
            top_p: self.top_p.unwrap_or(usual.top_p),
        }
    }
}

/// By which route a partition model is sampled; the baselines have only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SamplingPath {
    /// Only clean tokens are processed.
    #[default]
    Clean,
    /// The training path over the full length.
    Full,
}

/// The contents of a model folder's files, for a program that carries its model inside.
#[derive(Clone, Copy, Debug)]
pub struct ModelBytes<'a> {
    /// `config.json`.
    pub config: &'a [u8],
    /// `model.safetensors`.
    pub weights: &'a [u8],
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `generation_config.json`, if there is one.
    pub generation: Option<&'a [u8]>,
}

/// A network with its tokenizer.
#[derive(Debug)]
pub struct TextModel {
    config: ModelConfig,
    network: Network,
    n_parameters: usize,
    tokenizer: Tokenizer,
    generation: GenerationConfig,
    device: Device,
}

impl TextModel {
    /// Opens a model folder.
    ///
    /// # Errors
    /// Says which file cannot be used, and when the tokenizer is another model's.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, InferError> {
        Self::load_with_progress(folder, device, &|_| ())
    }

    /// As [`load`](Self::load); `watch` is told again and again what share of the weights is read, from 0 to 1.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_progress(folder: &Path, device: &Device, watch: &dyn Fn(f64)) -> Result<Self, InferError> {
        let (config, network) = model_folder::load_with_progress(folder, device, watch)?;
        let path = folder.join(TOKENIZER_FILE);
        let unreadable = |problem: String| InferError::File { path: path.clone(), problem };
        let json = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
        let tokenizer = Tokenizer::from_bytes(json).map_err(|error| unreadable(error.to_string()))?;
        let generation_path = folder.join(GENERATION_FILE);
        let generation = match std::fs::read(&generation_path) {
            Ok(json) => serde_json::from_slice(&json)
                .map_err(|error| InferError::File { path: generation_path, problem: error.to_string() })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => GenerationConfig::default(),
            Err(error) => return Err(InferError::File { path: generation_path, problem: error.to_string() }),
        };
        Self::new(config, network, tokenizer, generation, device, &path.display().to_string())
    }

    /// A model of the contents of a folder's files; `watch` as in [`load_with_progress`](Self::load_with_progress).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_bytes(files: &ModelBytes<'_>, device: &Device, watch: &dyn Fn(f64)) -> Result<Self, InferError> {
        let (config, network) = model_folder::load_bytes(files.config, files.weights, device, watch)?;
        let unreadable = |name: &str, problem: String| InferError::File { path: name.into(), problem };
        let tokenizer = Tokenizer::from_bytes(files.tokenizer)
            .map_err(|error| unreadable("the tokenizer's bytes", error.to_string()))?;
        let generation = match files.generation {
            Some(json) => serde_json::from_slice(json)
                .map_err(|error| unreadable("the sampler defaults' bytes", error.to_string()))?,
            None => GenerationConfig::default(),
        };
        Self::new(config, network, tokenizer, generation, device, "the tokenizer")
    }

    /// Puts the parts together; `origin` names the tokenizer in errors.
    ///
    /// # Errors
    /// [`InferError::WrongTokenizer`] when the tokenizer has ids that the model lacks.
    pub fn new(
        config: ModelConfig,
        network: Network,
        mut tokenizer: Tokenizer,
        generation: GenerationConfig,
        device: &Device,
        origin: &str,
    ) -> Result<Self, InferError> {
        check_tokenizer(&tokenizer, &config, origin)?;
        // Names of special tokens in a prompt are text like any other, as they were in training.
        tokenizer.set_encode_special_tokens(true);
        let _ = tokenizer.with_truncation(None);
        tokenizer.with_padding(None);
        let n_parameters = network.n_parameters();
        Ok(Self { config, network: network.folded(), n_parameters, tokenizer, generation, device: device.clone() })
    }

    /// The model with its weights in another type, see [`Network::with_weight_dtype`].
    ///
    /// # Errors
    /// [`InferError::Model`] when the device or the model cannot do it.
    pub fn with_weight_dtype(self, weights: WeightDtype) -> Result<Self, InferError> {
        Ok(Self { network: self.network.with_weight_dtype(weights)?, ..self })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The network, [folded](Network::folded) for inference.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Trainable numbers of the network as it is stored.
    pub fn n_parameters(&self) -> usize {
        self.n_parameters
    }

    /// Sampler defaults of the folder.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// Token ids of a text, without special tokens.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`] when the tokenizer refuses it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, InferError> {
        let failed = |error: tokenizers::Error| InferError::Tokenizer { action: "encode", problem: error.to_string() };
        Ok(self.tokenizer.encode_fast(text, false).map_err(failed)?.get_ids().to_vec())
    }

    /// The text of token ids, special tokens left out.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`] when the tokenizer refuses an id.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, InferError> {
        let failed = |error: tokenizers::Error| InferError::Tokenizer { action: "decode", problem: error.to_string() };
        self.tokenizer.decode(tokens, true).map_err(failed)
    }

    /// The text of `tokens[from..]` as it reads behind those before: with its space, and whole where a character is made
    /// of several tokens.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`] when the tokenizer refuses an id.
    pub fn decode_after(&self, tokens: &[u32], from: usize) -> Result<String, InferError> {
        let (whole, before) = (self.decode(tokens)?, self.decode(&tokens[..from])?);
        // What ends within a character shows a replacement character in its place.
        match whole.strip_prefix(before.trim_end_matches(char::REPLACEMENT_CHARACTER)) {
            Some(rest) => Ok(rest.to_string()),
            None => self.decode(&tokens[from..]),
        }
    }

    /// The text of token ids, special tokens by their names.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`] when the tokenizer refuses an id.
    pub fn decode_with_special(&self, tokens: &[u32]) -> Result<String, InferError> {
        let failed = |error: tokenizers::Error| InferError::Tokenizer { action: "decode", problem: error.to_string() };
        self.tokenizer.decode(tokens, false).map_err(failed)
    }

    /// A row that starts with BOS and the parts of a template, and is open behind them up to `length`.
    ///
    /// Without `length` a template with blanks of given length only is as long as its parts; plain text is continued to the
    /// trained length, and blanks of free length fill the row up to there. Only with `length` is a row longer than that.
    ///
    /// # Errors
    /// [`InferError::Request`] when the parts do not fit into `length` or leave nothing to fill in.
    pub fn request(&self, parts: &[Part], length: Option<usize>, seed: u64) -> Result<SampleRequest, InferError> {
        self.request_within(self.config.backbone().length, parts, length, seed)
    }

    /// As [`request`](Self::request), with the most tokens that a row may have without a `length`.
    pub(crate) fn request_within(
        &self,
        most: usize,
        parts: &[Part],
        length: Option<usize>,
        seed: u64,
    ) -> Result<SampleRequest, InferError> {
        let texts = parts.iter().map(|part| match part {
            Part::Text(text) => self.encode(text),
            Part::Blank(_) | Part::Free => Ok(Vec::new()),
        });
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let n_free = parts.iter().filter(|part| matches!(part, Part::Free)).count();
        let size = |(part, text): (&Part, &Vec<u32>)| match part {
            Part::Blank(count) => *count,
            _ => text.len(),
        };
        let fixed = parts.iter().zip(&texts).map(size).fold(1_usize, usize::saturating_add);
        let has_blank = parts.iter().any(|part| matches!(part, Part::Blank(_)));
        let next = fixed.saturating_add(n_free);
        if length.is_none() && next > most {
            let message = format!(
                "the text and its blanks need {next} tokens with BOS; the model's rows have {most}, and a longer one must be \
                 asked for with --length"
            );
            return Err(InferError::Request(message));
        }
        let length = length.unwrap_or(if has_blank && n_free == 0 { fixed } else { most });
        if length > MAX_LENGTH {
            return Err(InferError::Request(format!("--length is {length}, a row has at most {MAX_LENGTH} tokens")));
        }
        if next > length {
            let message = format!("the text and its blanks need {next} tokens with BOS, but --length is {length}");
            return Err(InferError::Request(message));
        }
        let room = length - fixed;
        let (mut given, mut next) = (vec![(0, self.config.backbone().bos_index as u32)], 1_usize);
        let mut n_seen = 0;
        for (part, text) in parts.iter().zip(&texts) {
            given.extend(text.iter().enumerate().map(|(index, &token)| (next + index, token)));
            next += match part {
                Part::Text(_) => text.len(),
                Part::Blank(count) => *count,
                Part::Free => {
                    n_seen += 1;
                    room / n_free + usize::from(n_seen <= room % n_free)
                }
            };
        }
        if given.len() == length {
            let message = format!("the text fills all {length} tokens; give a larger --length or a blank");
            return Err(InferError::Request(message));
        }
        Ok(SampleRequest { length, given, seed })
    }

    /// Samples requests together; see [`sample`].
    ///
    /// # Errors
    /// As [`sample`].
    pub fn generate(
        &self,
        requests: &[SampleRequest],
        settings: &SampleSettings,
        route: SamplingPath,
        observe: &mut dyn FnMut(&StepView) -> ControlFlow<()>,
    ) -> Result<SampleOutput, InferError> {
        self.source().generate(requests, settings, route, observe)
    }

    /// What gives the logits of a step, for a loop of one's own around [`advance`](crate::sampler::advance). Only partition
    /// models have two routes.
    pub fn denoiser(&self, route: SamplingPath) -> Box<dyn Denoiser + '_> {
        self.source().denoiser(route)
    }

    fn source(&self) -> NetworkHandle<'_> {
        NetworkHandle { network: &self.network, config: &self.config, device: &self.device }
    }
}

/// Whether a tokenizer can belong to a model; `origin` names it in the error.
///
/// # Errors
/// [`InferError::WrongTokenizer`] when it has ids that the model lacks, or lacks more ids than the mask's.
pub fn check_tokenizer(tokenizer: &Tokenizer, config: &ModelConfig, origin: &str) -> Result<(), InferError> {
    let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0) as usize;
    let vocab_size = config.backbone().vocab_size;
    // The mask may be the one id that the tokenizer does not know.
    if largest >= vocab_size || largest + 2 < vocab_size {
        return Err(InferError::WrongTokenizer { origin: origin.to_string(), largest, vocab_size });
    }
    Ok(())
}

/// A network with what sampling needs to know of it.
#[derive(Clone, Copy, Debug)]
pub struct NetworkHandle<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its configuration.
    pub config: &'a ModelConfig,
    /// Where it lives.
    pub device: &'a Device,
}

impl<'a> NetworkHandle<'a> {
    /// What gives the logits of a step.
    pub fn denoiser(&self, route: SamplingPath) -> Box<dyn Denoiser + 'a> {
        let Self { network, config, device } = *self;
        let mask_index = config.backbone().mask_index;
        match (network, route) {
            (Network::Autoregressive(model), _) => Box::new(CausalDenoiser::new(model, device, mask_index)),
            (Network::Masked(model), _) => {
                Box::new(MaskedDenoiser { model, device, mask_index, head_at: HeadPositions::Decoded })
            }
            (Network::Partition(model), SamplingPath::Clean) => {
                Box::new(PartitionDenoiser { model, device, mask_index })
            }
            (Network::Partition(model), SamplingPath::Full) => Box::new(FullDenoiser { model, device, mask_index }),
        }
    }

    /// Samples requests together; see [`sample`].
    ///
    /// # Errors
    /// As [`sample`].
    pub fn generate(
        &self,
        requests: &[SampleRequest],
        settings: &SampleSettings,
        route: SamplingPath,
        observe: &mut dyn FnMut(&StepView) -> ControlFlow<()>,
    ) -> Result<SampleOutput, InferError> {
        sample(self.denoiser(route).as_ref(), requests, settings, observe)
    }
}
