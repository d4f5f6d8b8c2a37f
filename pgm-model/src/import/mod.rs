//! Published checkpoints: PyTorch files and safetensors, read as data.
//!
//! A [`Checkpoint`] is a view of a file: the raw weights and, where there are any, the averaged ones, under their
//! published names; what the file's pickled configuration says; the tokenizer that lies in it. Sizes come from the
//! tensors, the rest from flags, the file or the published defaults, in this order, and [`Checkpoint::resolve`] says
//! what it took from where. Weights go through [`model_folder::from_source`], so one table knows the names.
//!
//! `reader.rs` finds the parts of a PyTorch file, `resolve.rs` makes the configuration. [`torch`] reads the container, [`pickle`] the program inside it; nothing is executed.

mod machine;
pub mod pickle;
mod reader;
mod resolve;
pub mod torch;
mod zip;

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::config::{ModelConfig, Queries};
use crate::model_folder::{self, CONFIG_METADATA, StoredTensor, TensorSource};
use crate::{ModelError, Network};
use reader::Reader;
use torch::{Element, StridedTensor, TorchFile, shortened};

/// Every published checkpoint has it, so its name tells what the others begin with.
const EMBEDDING: &str = "vocab_embed.embedding";
/// Where the JSON header of a safetensors file starts, behind its length.
const HEADER_START: usize = 8;
/// The weights may be this many times as long as the file: tied weights share a storage, a hostile file shares more.
const MAX_SHARING: usize = 4;

/// The weights of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// The exponential moving average.
    Ema,
    /// Those that the optimiser left.
    Raw,
}

/// What a caller knows better than the file: flags.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Attention heads.
    pub n_heads: Option<usize>,
    /// Positions of a training row.
    pub length: Option<usize>,
    /// What the GroupSwap's queries are made of.
    pub queries: Option<Queries>,
    /// Id of the mask token.
    pub mask_index: Option<usize>,
    /// Id of the token at position 0.
    pub bos_index: Option<usize>,
    /// Id of the token between documents.
    pub eos_index: Option<usize>,
}

/// Ids of the special tokens, from the tokenizer that belongs to the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// The mask token, which GPT-2's tokenizer lacks.
    pub mask: Option<usize>,
    /// The first token.
    pub bos: Option<usize>,
    /// The token between documents.
    pub eos: Option<usize>,
    /// The padding.
    pub pad: Option<usize>,
}

/// The names of the special tokens in the file's tokenizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialNames {
    /// The mask token.
    pub mask: Option<String>,
    /// The first token: BOS, or else CLS.
    pub bos: Option<String>,
    /// The token between documents: EOS, or else SEP.
    pub eos: Option<String>,
    /// The padding.
    pub pad: Option<String>,
}

/// One value of the configuration and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What, by its name in `config.json`.
    pub key: &'static str,
    /// The value.
    pub value: String,
    /// Where it came from.
    pub source: String,
}

/// What the file says beside its weights.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// A configuration of ours, in a file of ours.
    config: Option<ModelConfig>,
    n_heads: Option<usize>,
    length: Option<usize>,
    dropout: Option<f64>,
    queries: Option<String>,
    steps: Option<usize>,
    top_p: Option<f64>,
    tokenizer: Option<Vec<u8>>,
    special: SpecialNames,
}

#[derive(Clone, Debug)]
enum Stored<'a> {
    Torch(StridedTensor<'a>),
    Safe(TensorView<'a>),
}

impl Stored<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Self::Torch(tensor) => tensor.shape(),
            Self::Safe(view) => view.shape(),
        }
    }

    fn n_bytes(&self) -> usize {
        match self {
            Self::Torch(tensor) => tensor.n_bytes(),
            Self::Safe(view) => view.data().len(),
        }
    }
}

type Tensors<'a> = BTreeMap<String, Stored<'a>>;

impl TensorSource for Tensors<'_> {
    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }

    fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        Some(match self.get(name)? {
            Stored::Safe(view) => view.clone().into(),
            Stored::Torch(tensor) => StoredTensor {
                dtype: dtype(tensor.element()),
                shape: tensor.shape().to_vec(),
                bytes: tensor.to_bytes(),
            },
        })
    }
}

fn dtype(element: Element) -> Dtype {
    match element {
        Element::F64 => Dtype::F64,
        Element::F32 => Dtype::F32,
        Element::F16 => Dtype::F16,
        Element::BF16 => Dtype::BF16,
        Element::I64 => Dtype::I64,
        Element::I32 => Dtype::I32,
        Element::I16 => Dtype::I16,
        Element::I8 => Dtype::I8,
        Element::U8 => Dtype::U8,
        Element::Bool => Dtype::BOOL,
    }
}

/// A published checkpoint, opened. Weights are read when a network is made of them.
#[derive(Clone, Debug)]
pub struct Checkpoint<'a> {
    origin: String,
    raw: Tensors<'a>,
    // Averages that contradict the state dict stop only those who ask for them.
    ema: Option<Result<Tensors<'a>, String>>,
    left_out: Vec<String>,
    facts: Facts,
}

impl<'a> Checkpoint<'a> {
    /// Opens a file of either form, which lies in memory or is mapped; `origin` names it in errors.
    ///
    /// # Errors
    /// One sentence for each way in which a file can be truncated, damaged, hostile, or no checkpoint.
    pub fn parse(bytes: &'a [u8], origin: &str) -> Result<Self, ModelError> {
        // A safetensors file begins with a length, whose bytes may look like the beginning of anything.
        let is_safetensors = bytes.get(HEADER_START) == Some(&b'{');
        let opened = if TorchFile::looks_like_one(bytes) && !is_safetensors {
            let file =
                TorchFile::parse(bytes).map_err(|cause| ModelError::Torch { origin: origin.to_string(), cause })?;
            Reader::new(&file, origin).read()?
        } else if bytes.len() > HEADER_START && bytes[HEADER_START] != b'{' {
            return Err(import_error(origin, "it is neither a file of torch.save nor a safetensors file"));
        } else {
            from_safetensors(bytes, origin)?
        };
        let asked = opened.raw.values().chain(opened.ema.iter().flatten().flat_map(Tensors::values));
        let asked = asked.fold(0_usize, |sum, tensor| sum.saturating_add(tensor.n_bytes()));
        if asked / MAX_SHARING > bytes.len() {
            let problem =
                format!("its tensors claim {asked} bytes, the file has {}; it is no plain checkpoint", bytes.len());
            return Err(import_error(origin, problem));
        }
        Ok(opened)
    }

    /// The weights to take when nobody says which: the averaged ones where the file has them.
    pub fn default_weights(&self) -> Weights {
        if self.ema.is_some() { Weights::Ema } else { Weights::Raw }
    }

    /// Names in the file's state dict that belong to no model of ours, such as those of a distillation's teacher.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The `tokenizer.json` inside the file, if a fast tokenizer was pickled with it.
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        self.facts.tokenizer.as_deref()
    }

    /// The names of the file's special tokens.
    pub fn special_names(&self) -> &SpecialNames {
        &self.facts.special
    }

    /// Sampling steps and nucleus of the file's configuration.
    pub fn sampling(&self) -> (Option<usize>, Option<f64>) {
        (self.facts.steps, self.facts.top_p)
    }

    /// A network of that configuration with the file's weights.
    ///
    /// # Errors
    /// As [`model_folder::from_source`]; [`ModelError::Import`] when the file has no averaged weights.
    pub fn network(&self, weights: Weights, config: &ModelConfig, device: &Device) -> Result<Network, ModelError> {
        let tensors = match (weights, &self.ema) {
            (Weights::Raw, _) => &self.raw,
            (Weights::Ema, Some(Ok(ema))) => ema,
            (Weights::Ema, Some(Err(problem))) => {
                return Err(self.error(format!("{problem}; --weights raw takes the others")));
            }
            (Weights::Ema, None) => {
                return Err(self.error("it has no averaged weights (ema.shadow_params); take --weights raw"));
            }
        };
        model_folder::from_source(tensors, &self.origin, config, device)
    }

    fn error(&self, problem: impl Into<String>) -> ModelError {
        import_error(&self.origin, problem)
    }
}

fn import_error(origin: &str, problem: impl Into<String>) -> ModelError {
    ModelError::Import { origin: origin.to_string(), problem: problem.into() }
}

fn from_safetensors<'a>(bytes: &'a [u8], origin: &str) -> Result<Checkpoint<'a>, ModelError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| ModelError::Weights { origin: origin.to_string(), problem: error.to_string() })?;
    let named = file.tensors().into_iter().map(|(name, view)| (name, Stored::Safe(view))).collect();
    let (named, left_out) = strip_prefix(named, origin)?;
    let mut facts = Facts::default();
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| ModelError::Weights { origin: origin.to_string(), problem: error.to_string() })?;
    if let Some(json) = header.metadata().as_ref().and_then(|metadata| metadata.get(CONFIG_METADATA)) {
        let config = serde_json::from_str(json);
        facts.config = Some(config.map_err(|cause| ModelError::Json { origin: origin.to_string(), cause })?);
    }
    Ok(Checkpoint { origin: origin.to_string(), raw: named.into_iter().collect(), ema: None, left_out, facts })
}

/// The tensors whose names begin as the embedding's does, without that beginning and in their order; and the names of
/// the others.
fn strip_prefix<'a>(
    named: Vec<(String, Stored<'a>)>,
    origin: &str,
) -> Result<(Vec<(String, Stored<'a>)>, Vec<String>), ModelError> {
    let prefixes = named.iter().filter_map(|(name, _)| {
        let prefix = name.strip_suffix(EMBEDDING)?;
        (prefix.is_empty() || prefix.ends_with('.')).then_some(prefix)
    });
    // A distillation's file may hold its teacher too.
    let rank = |prefix: &&str| (!prefix.starts_with("backbone."), prefix.len());
    let Some(prefix) = prefixes.min_by_key(rank).map(str::to_string) else {
        let problem = format!(
            "none of its {} tensors is called {EMBEDDING}; it is no published checkpoint of a text model",
            named.len()
        );
        return Err(import_error(origin, problem));
    };
    let (mut kept, mut left_out, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (name, tensor) in named {
        match name.strip_prefix(&prefix) {
            Some(rest) if !seen.insert(rest.to_string()) => {
                return Err(import_error(origin, format!("it holds tensor {} twice", shortened(&name))));
            }
            Some(rest) => kept.push((rest.to_string(), tensor)),
            None => left_out.push(name),
        }
    }
    if seen.iter().any(|name| name.starts_with("cls_embed.")) {
        return Err(import_error(origin, "it is a class-conditional image model, which this version does not have"));
    }
    Ok((kept, left_out))
}
