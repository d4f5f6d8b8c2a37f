//! A model folder that writes text: the network, its configuration and its tokenizer.

use std::ops::ControlFlow;
#[cfg(feature = "files")]
use std::path::Path;
use std::sync::{Arc, OnceLock};

use burn::module::Module;
use burn::tensor::Device;
use pgm_model::model_folder::{self, GENERATION_FILE, TOKENIZER_FILE};
use pgm_model::{ModelConfig, Network, WeightDtype};
use tokenizers::{PostProcessorWrapper, Tokenizer};

use super::generation::GenerationConfig;
use super::pieces::pieces;
use super::special_tokens::SpecialTokens;
use super::token_bytes::TokenBytes;
#[cfg(feature = "server")]
use super::token_bytes::byte_token;
use super::token_names::{self, TokenNames};
use crate::InferError;
use crate::denoise::{NetworkHandle, SamplingPath};
use crate::sample::{Denoiser, SampleOutput, SampleRequest, SampleSettings, StepView};
use crate::unwind::catch;

/// The contents of a model folder's files, for a program that embeds its model.
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

/// A network with its tokenizer. Clones share both.
#[derive(Clone, Debug)]
pub struct TextModel {
    config: ModelConfig,
    network: Network,
    n_parameters: usize,
    tokenizer: Arc<Tokenizer>,
    token_bytes: Option<Arc<TokenBytes>>,
    // Made when they are first needed.
    token_names: Arc<OnceLock<TokenNames>>,
    with_special: Arc<OnceLock<Tokenizer>>,
    special_tokens: Arc<SpecialTokens>,
    generation: GenerationConfig,
    device: Device,
}

impl TextModel {
    /// Opens a model folder, or one of a training run; see [`model_folder::resolve`]. Nothing is recorded for gradients, also on
    /// a device with autodiff.
    ///
    /// # Errors
    /// Says which file cannot be used, which models a run has, and if the tokenizer belongs to another model.
    #[cfg(feature = "files")]
    pub fn load(folder: &Path, device: &Device) -> Result<Self, InferError> {
        Self::load_with_progress(folder, device, &|_| ())
    }

    /// As [`load`](Self::load); `watch` is called repeatedly with the share of the weights that is read, from 0 to 1.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[cfg(feature = "files")]
    pub fn load_with_progress(folder: &Path, device: &Device, watch: &dyn Fn(f64)) -> Result<Self, InferError> {
        let folder = &model_folder::resolve(folder)?;
        let device = &device.clone().without_autodiff();
        if model_folder::load_config(folder)?.image().is_some() {
            let message = format!("{} is a model of pictures, and a model of text is needed", folder.display());
            return Err(InferError::Request(message));
        }
        let (config, network) = model_folder::load_with_progress(folder, device, watch)?;
        let path = folder.join(TOKENIZER_FILE);
        let unreadable = |problem: String| InferError::File { path: path.clone(), problem };
        let json = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
        let tokenizer = Tokenizer::from_bytes(json).map_err(|error| unreadable(error.to_string()))?;
        let generation = GenerationConfig::read(&folder.join(GENERATION_FILE))?;
        let model = Self::new(config, network, tokenizer, generation, device, &path.display().to_string())?;
        Ok(Self { special_tokens: Arc::new(SpecialTokens::read(folder)), ..model })
    }

    /// A model from the contents of a folder's files; `watch` is called repeatedly with the share of the weights that is
    /// read, from 0 to 1.
    ///
    /// # Errors
    /// Says which file cannot be used, and if it is a model of pictures or the tokenizer belongs to another model.
    pub fn from_bytes(files: &ModelBytes<'_>, device: &Device, watch: &dyn Fn(f64)) -> Result<Self, InferError> {
        let device = &device.clone().without_autodiff();
        let (config, network) = model_folder::load_bytes(files.config, files.weights, device, watch)?;
        if config.image().is_some() {
            return Err(InferError::Request("this is a model of pictures, and a model of text is needed".into()));
        }
        let unreadable = |name: &str, problem: String| InferError::File { path: name.into(), problem };
        let tokenizer =
            Tokenizer::from_bytes(files.tokenizer).map_err(|error| unreadable(TOKENIZER_FILE, error.to_string()))?;
        let generation = match files.generation {
            Some(json) => {
                serde_json::from_slice(json).map_err(|error| unreadable(GENERATION_FILE, error.to_string()))?
            }
            None => GenerationConfig::default(),
        };
        Self::new(config, network, tokenizer, generation, device, TOKENIZER_FILE)
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
        // It adds special tokens, which are never asked for, and may trim the places of tokens in the text.
        tokenizer.with_post_processor(None::<PostProcessorWrapper>);
        let backbone = config.backbone();
        let token_bytes = TokenBytes::new(&tokenizer, &[backbone.bos_index, backbone.eos_index, backbone.mask_index]);
        let (tokenizer, token_bytes) = (Arc::new(tokenizer), token_bytes.map(Arc::new));
        let (n_parameters, network) = (network.n_parameters(), network.folded());
        let (token_names, with_special, special_tokens) = Default::default();
        let device = device.clone();
        Ok(Self {
            config,
            network,
            n_parameters,
            tokenizer,
            token_bytes,
            token_names,
            with_special,
            special_tokens,
            generation,
            device,
        })
    }

    /// The model with its weights in another dtype, see [`Network::with_weight_dtype`].
    ///
    /// # Errors
    /// [`InferError::Model`] when the device or the model cannot do it.
    pub fn with_weight_dtype(self, weights: WeightDtype) -> Result<Self, InferError> {
        Ok(Self { network: self.network.with_weight_dtype(weights)?, ..self })
    }

    /// The model on another device of the same kind; on its own device a clone.
    pub fn on_device(&self, device: &Device) -> Self {
        Self { network: self.network.clone().to_device(device), device: device.clone(), ..self.clone() }
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The network, [folded](Network::folded) for inference.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Trainable parameters of the stored network.
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
        caught("encode", || Ok(self.tokenizer.encode_fast(text, false)?.get_ids().to_vec()))
    }

    /// Token ids of a text in which the names of special tokens stand for these tokens, as in a chat template's output.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, InferError> {
        let tokenizer = self.with_special.get_or_init(|| {
            let mut tokenizer = Tokenizer::clone(&self.tokenizer);
            tokenizer.set_encode_special_tokens(false);
            tokenizer
        });
        caught("encode", || Ok(tokenizer.encode_fast(text, false)?.get_ids().to_vec()))
    }

    /// As [`encode`](Self::encode), with the byte at which the text of each token ends.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub(crate) fn encode_with_ends(&self, text: &str) -> Result<(Vec<u32>, Vec<usize>), InferError> {
        caught("encode", || {
            let encoding = self.tokenizer.encode(text, false)?;
            let ends = encoding.get_offsets().iter().map(|(_, end)| *end).collect();
            Ok((encoding.get_ids().to_vec(), ends))
        })
    }

    /// Whether given text comes back byte for byte in the text of a row. Tokenizers of whole words write their own spaces.
    pub fn keeps_text(&self) -> bool {
        self.token_bytes.is_some()
    }

    // Whether a token is a byte such as `<0x0A>`: an invalid byte behind it makes replacement characters of both.
    #[cfg(feature = "server")]
    pub(crate) fn is_byte_token(&self, token: u32) -> bool {
        self.tokenizer.id_to_token(token).is_some_and(|token| byte_token(&token).is_some())
    }

    // The bytes of each token, if the tokens are stretches of text.
    pub(super) fn token_bytes(&self) -> Option<&TokenBytes> {
        self.token_bytes.as_deref()
    }

    /// What `tokenizer_config.json` and `chat_template.jinja` of the folder say.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special_tokens
    }

    /// The name of a token, which no other token has: its text, `bytes:\xe2` for bytes that are no text, and the
    /// vocabulary's entry for special tokens.
    pub fn token_name(&self, token: u32) -> String {
        let n_tokens = self.config.backbone().vocab_size as u32;
        let names = self.token_names.get_or_init(|| TokenNames::new(n_tokens, &|token| self.plain_name(token)));
        names.renamed(token).map_or_else(|| self.plain_name(token), str::to_string)
    }

    // May be the name of several tokens.
    fn plain_name(&self, token: u32) -> String {
        let bytes = self.token_bytes.as_ref().and_then(|table| table.get(token));
        token_names::plain(bytes, || self.tokenizer.id_to_token(token), token)
    }

    /// The bytes of a token's text; none for special tokens, and for tokenizers whose tokens are whole words.
    pub fn bytes_of_token(&self, token: u32) -> Option<&[u8]> {
        self.token_bytes.as_ref()?.get(token)
    }

    /// The text of token ids, special tokens left out.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`] when the tokenizer refuses an id.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, InferError> {
        caught("decode", || self.tokenizer.decode(tokens, true))
    }

    /// The text that `tokens[from..]` add to the text of the tokens before them: with their space, and with the character
    /// that they end. It decodes all tokens; see [`pieces`](Self::pieces) for each token of a long sequence.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`] when the tokenizer refuses an id.
    pub fn decode_after(&self, tokens: &[u32], from: usize) -> Result<String, InferError> {
        let (whole, before) = (self.decode(tokens)?, self.decode(&tokens[..from])?);
        // An unfinished character shows as up to three replacement characters. The text may also have some of its own.
        let heads = std::iter::successors(Some(before.as_str()), |head| head.strip_suffix(char::REPLACEMENT_CHARACTER));
        match heads.map(|head| whole.strip_prefix(head)).find(Option::is_some).flatten() {
            Some(rest) => Ok(rest.to_string()),
            None => self.decode(&tokens[from..]),
        }
    }

    /// The text that each token adds to the text of those before it, in time linear in their number. Special tokens and
    /// ids that the tokenizer refuses add nothing. A character that several tokens make together is the text of the last.
    pub fn pieces(&self, tokens: &[u32]) -> Vec<String> {
        pieces(tokens, |tokens| self.decode(tokens).unwrap_or_default())
    }

    /// The text of token ids, special tokens by their names.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`] when the tokenizer refuses an id.
    pub fn decode_with_special(&self, tokens: &[u32]) -> Result<String, InferError> {
        caught("decode", || self.tokenizer.decode(tokens, false))
    }

    /// Samples requests together; see [`sample`](crate::sample::sample).
    ///
    /// # Errors
    /// As [`sample`](crate::sample::sample).
    pub fn generate(
        &self,
        requests: &[SampleRequest],
        settings: &SampleSettings,
        path: SamplingPath,
        observe: &mut dyn FnMut(&StepView) -> ControlFlow<()>,
    ) -> Result<SampleOutput, InferError> {
        self.handle().generate(requests, settings, path, observe)
    }

    /// The network's denoiser, for a custom loop around [`advance`](crate::sample::advance). Only partition models have two
    /// paths.
    pub fn denoiser(&self, path: SamplingPath) -> Box<dyn Denoiser + '_> {
        self.handle().denoiser(path)
    }

    /// The network with its configuration and its device.
    pub fn handle(&self) -> NetworkHandle<'_> {
        NetworkHandle { network: &self.network, config: &self.config, device: &self.device }
    }
}

// Runs the tokenizer, whose errors and panics become errors of this crate.
fn caught<T>(action: &'static str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, InferError> {
    let result = catch(work).and_then(|result| result.map_err(|error| error.to_string()));
    result.map_err(|problem| InferError::Tokenizer { action, problem })
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
