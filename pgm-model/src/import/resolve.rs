//! The configuration of a checkpoint: sizes from its tensors, the rest from the first source that has it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::causal::{COND_DIM, is_unconditional};
use super::picker::{DEFAULT, FILE, FLAG, Picker, ResolvedSetting, TENSORS, TOKENIZER};
use super::published_checkpoint::PublishedCheckpoint;
use super::tensors::EMBEDDING;
use super::torch_file::shortened;
use crate::config::{
    AutoregressiveConfig, BackboneConfig, MaskedConfig, ModelConfig, PartitionConfig, Projection, Queries, Sets,
};
use crate::error::ModelError;
use crate::presets;

/// Settings that the caller gives; they win over those of the file.
#[derive(Clone, Debug, Default)]
pub struct ImportOverrides {
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

/// Sizes that the tensors tell.
struct Sizes {
    vocab_size: usize,
    hidden_size: usize,
    cond_dim: usize,
    mlp_ratio: usize,
    /// Blocks of the encoder, or of a baseline.
    n_blocks: usize,
    /// `None` for a baseline.
    n_decoder_blocks: Option<usize>,
}

impl Sizes {
    fn note(&self, picker: &mut Picker) {
        picker.note("vocab_size", self.vocab_size, TENSORS);
        picker.note("hidden_size", self.hidden_size, TENSORS);
        picker.note("cond_dim", self.cond_dim, TENSORS);
        picker.note("mlp_ratio", self.mlp_ratio, TENSORS);
        match self.n_decoder_blocks {
            Some(n_decoder_blocks) => {
                picker.note("encoder_blocks", self.n_blocks, TENSORS);
                picker.note("decoder_blocks", n_decoder_blocks, TENSORS);
            }
            None => picker.note("n_blocks", self.n_blocks, TENSORS),
        }
    }
}

impl PublishedCheckpoint<'_> {
    /// The configuration, and where each of its values came from. Sizes come from the tensors. The rest comes from
    /// `overrides`, the file, the `tokenizer` or the published defaults, whichever has it first.
    ///
    /// # Errors
    /// [`ModelError::Import`] when a size or setting can be found nowhere or is unknown, [`ModelError::MissingTensor`] when
    /// a tensor that tells a size is missing, [`ModelError::Config`] when the values contradict each other.
    pub fn resolve(
        &self,
        overrides: &ImportOverrides,
        tokenizer: &SpecialIds,
    ) -> Result<(ModelConfig, Vec<ResolvedSetting>), ModelError> {
        let mut picker = Picker::new(&self.origin);
        if self.is_mask_git() {
            let config = self.mask_git([overrides.n_heads, overrides.length], &mut picker)?;
            config.validate()?;
            return Ok((config, picker.settings));
        }
        let sizes = self.sizes()?;
        sizes.note(&mut picker);
        let backbone = self.backbone(&sizes, &mut picker, overrides, tokenizer)?;
        let config = match (sizes.n_decoder_blocks, self.is_autoregressive(&sizes, &mut picker)?) {
            (Some(decoder_blocks), _) => ModelConfig::Partition(PartitionConfig {
                backbone,
                encoder_blocks: sizes.n_blocks,
                decoder_blocks,
                queries: self.queries(&mut picker, overrides)?,
                projection: self.projection(&mut picker),
                sets: self.sets(&mut picker),
            }),
            (None, true) => ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks: sizes.n_blocks }),
            (None, false) => ModelConfig::Masked(MaskedConfig { backbone, n_blocks: sizes.n_blocks }),
        };
        config.validate()?;
        Ok((config, picker.settings))
    }

    // The tensors of the baselines have the same names, but published autoregressive models have no adaLN.
    fn is_autoregressive(&self, sizes: &Sizes, picker: &mut Picker) -> Result<bool, ModelError> {
        let is_partition = sizes.n_decoder_blocks.is_some();
        let is_unconditional = is_unconditional(&self.raw);
        let causal = self.metadata.causal.as_ref();
        let (name, source) = match (&self.metadata.config, causal) {
            (Some(ModelConfig::Autoregressive(_)), _) if !is_partition => ("autoregressive", FILE.to_string()),
            (None, Some((setting, true))) if is_partition => {
                let problem =
                    format!("its configuration has {setting}, but its tensors are those of a partition model");
                return Err(self.error(problem));
            }
            (None, Some((setting, true))) => ("autoregressive", format!("{setting} in {FILE}")),
            (None, Some((setting, false))) if is_unconditional => {
                let problem = format!(
                    "its configuration has {setting}, but its blocks have no adaLN_modulation, which only autoregressive \
                     models lack; it is a masked model of another architecture"
                );
                return Err(self.error(problem));
            }
            _ if is_partition => ("partition", TENSORS.to_string()),
            (None, _) if is_unconditional => ("autoregressive", format!("{TENSORS}, which have no adaLN_modulation")),
            _ => ("masked", TENSORS.to_string()),
        };
        picker.note("model_type", name, &source);
        Ok(name == "autoregressive")
    }

    fn sizes(&self) -> Result<Sizes, ModelError> {
        let (vocab_size, hidden_size) = self.matrix(EMBEDDING)?;
        let cond_dim = match is_unconditional(&self.raw) {
            true => COND_DIM,
            // A class's vector is as wide as the network.
            false if self.has_classes() => hidden_size,
            false => self.matrix("sigma_map.mlp.0.weight")?.0,
        };
        let is_baseline = !self.raw.keys().any(|name| name.starts_with("encoder.blocks."));
        let blocks = if is_baseline { "blocks." } else { "encoder.blocks." };
        let (mlp_width, _) = self.matrix(&format!("{blocks}0.mlp.0.weight"))?;
        if hidden_size == 0 || !mlp_width.is_multiple_of(hidden_size) {
            let problem =
                format!("the feed-forward layer's {mlp_width} units are no multiple of the width {hidden_size}");
            return Err(self.error(problem));
        }
        Ok(Sizes {
            vocab_size,
            hidden_size,
            cond_dim,
            mlp_ratio: mlp_width / hidden_size,
            n_blocks: self.n_blocks(blocks),
            n_decoder_blocks: (!is_baseline).then(|| self.n_blocks("decoder.layers.")),
        })
    }

    fn backbone(
        &self,
        sizes: &Sizes,
        picker: &mut Picker,
        overrides: &ImportOverrides,
        tokenizer: &SpecialIds,
    ) -> Result<BackboneConfig, ModelError> {
        let &Sizes { vocab_size, hidden_size, cond_dim, mlp_ratio, .. } = sizes;
        let metadata = &self.metadata;
        // The configuration in a file that this crate wrote.
        let ours = metadata.config.as_ref().map(ModelConfig::backbone);
        let published = PublishedDefaults::of(vocab_size);
        let has_classes = self.has_classes();
        let n_heads = picker.pick(
            "n_heads",
            [
                (overrides.n_heads, FLAG),
                (metadata.n_heads.or(ours.map(|ours| ours.n_heads)), FILE),
                (hidden_size.is_multiple_of(64).then_some(hidden_size / 64), "the published head width, 64"),
            ],
            "give --heads",
        )?;
        if n_heads > hidden_size {
            return Err(self.error(format!("{n_heads} heads are more than the width of {hidden_size}; give --heads")));
        }
        let length = picker.pick(
            "length",
            [
                (overrides.length, FLAG),
                (metadata.length.or(ours.map(|ours| ours.length)), FILE),
                (published.as_ref().map(|published| published.length), DEFAULT),
            ],
            "give --length",
        )?;
        let dropout = picker.pick(
            "dropout",
            [(metadata.dropout.or(ours.map(|ours| ours.dropout)), FILE), (Some(0.1), DEFAULT)],
            "",
        )?;
        let usual = BackboneConfig::new(vocab_size, hidden_size, n_heads, length);
        // Codes come first in the vocabulary of an image model, then the mask, then BOS.
        let [bos_of_images, mask_of_images] = [1, 2].map(|from_end| vocab_size.saturating_sub(from_end));
        let usual = match has_classes {
            true => BackboneConfig {
                mask_index: mask_of_images,
                bos_index: bos_of_images,
                eos_index: bos_of_images,
                ..usual
            },
            false => usual,
        };
        let [mask, bos, eos] =
            published.as_ref().map_or([usual.mask_index, usual.bos_index, usual.eos_index], |published| published.ids);
        let candidates = |flag: Option<usize>, file: Option<usize>, tokenizer: Option<usize>, default: usize| {
            [(flag, FLAG), (file, FILE), (tokenizer, TOKENIZER), (Some(default), DEFAULT)]
        };
        let mask_index = picker.pick(
            "mask_index",
            candidates(
                overrides.mask_index,
                metadata.mask_index.or(ours.map(|ours| ours.mask_index)),
                tokenizer.mask,
                mask,
            ),
            "give --mask-id",
        )?;
        let bos_index = picker.pick(
            "bos_index",
            candidates(overrides.bos_index, metadata.bos_index.or(ours.map(|ours| ours.bos_index)), tokenizer.bos, bos),
            "give --bos",
        )?;
        let eos_index = picker.pick(
            "eos_index",
            candidates(overrides.eos_index, metadata.eos_index.or(ours.map(|ours| ours.eos_index)), tokenizer.eos, eos),
            "give --eos",
        )?;
        let pad_index = picker.pick_if_any(
            "pad_index",
            [
                (ours.and_then(|ours| ours.pad_index), FILE),
                // MDLM's code adds a padding token to GPT-2's tokenizer, and its id is the mask's in the model.
                (tokenizer.pad.filter(|&pad| pad != mask_index && ours.is_none()), TOKENIZER),
                (published.and_then(|published| published.pad).filter(|_| ours.is_none()), DEFAULT),
            ],
        );
        let image = has_classes.then(|| self.image(length, picker)).transpose()?;
        Ok(BackboneConfig { cond_dim, mlp_ratio, dropout, mask_index, bos_index, eos_index, pad_index, image, ..usual })
    }

    fn queries(&self, picker: &mut Picker, overrides: &ImportOverrides) -> Result<Queries, ModelError> {
        let of_file = match (&self.metadata.queries, &self.metadata.config) {
            (Some(name), _) => Some(by_name::<Queries>(name).ok_or_else(|| {
                let name = shortened(name);
                self.error(format!("its configuration has pre_query_mode {name}, which is unknown; give --queries"))
            })),
            (None, Some(ModelConfig::Partition(config))) => Some(Ok(config.queries)),
            _ => None,
        };
        let (queries, source) = match (overrides.queries, of_file) {
            (Some(queries), _) => (queries, FLAG),
            (None, Some(queries)) => (queries?, FILE),
            (None, None) => (Queries::default(), DEFAULT),
        };
        picker.note("queries", name_of(&queries), source);
        Ok(queries)
    }

    // Only files that this crate wrote have some.
    fn sets(&self, picker: &mut Picker) -> Sets {
        match &self.metadata.config {
            Some(ModelConfig::Partition(config)) => {
                picker.note("sets", config.sets, FILE);
                config.sets
            }
            _ => Sets::default(),
        }
    }

    fn projection(&self, picker: &mut Picker) -> Projection {
        let has_mlp = self.raw.contains_key("decoder.group_swap.query_processor.0.weight");
        let projection = if has_mlp { Projection::Mlp4 } else { Projection::Linear };
        picker.note("projection", name_of(&projection), TENSORS);
        projection
    }
}

/// What the published models with a vocabulary of that size have in common.
struct PublishedDefaults {
    length: usize,
    /// Mask, BOS, EOS.
    ids: [usize; 3],
    pad: Option<usize>,
}

impl PublishedDefaults {
    fn of(vocab_size: usize) -> Option<Self> {
        let presets = [presets::owt_6_6(), presets::lm1b_6_6(), presets::imagenet_12_12()];
        let known = presets.iter().map(ModelConfig::backbone).find(|known| known.vocab_size == vocab_size)?;
        Some(Self {
            length: known.length,
            ids: [known.mask_index, known.bos_index, known.eos_index],
            pad: known.pad_index,
        })
    }
}

fn name_of(variant: &impl Serialize) -> String {
    serde_json::to_value(variant).ok().and_then(|name| name.as_str().map(str::to_string)).unwrap_or_default()
}

fn by_name<T: DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(name.to_string())).ok()
}
