//! Sizes and variants of the networks: the contents of `config.json`.

mod images;
mod sets;

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
pub use images::{ImageConfig, MAX_CLASSES};
pub use sets::Sets;

/// The largest number of tokens in a row. A larger number is a mistake or an attack.
pub const MAX_LENGTH: usize = 1 << 24;

/// Sizes, vocabulary and special tokens, which all networks have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneConfig {
    /// Number of tokens in the vocabulary, the mask included.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Attention heads; `hidden_size / n_heads` must be even, for the rotary halves.
    pub n_heads: usize,
    /// Positions of a training row. Longer sequences are possible: the position tables grow on demand.
    pub length: usize,
    /// Width of the conditioning vector; `hidden_size` in a class-conditional model.
    #[serde(default = "default_cond_dim")]
    pub cond_dim: usize,
    /// Width of the feed-forward layer in multiples of `hidden_size`.
    #[serde(default = "default_mlp_ratio")]
    pub mlp_ratio: usize,
    /// Dropout probability on both branches of every block, in training only.
    #[serde(default)]
    pub dropout: f64,
    /// Id of the mask token, whose logit is -inf before the softmax.
    pub mask_index: usize,
    /// Id of the token at position 0.
    pub bos_index: usize,
    /// Id of the token between documents.
    pub eos_index: usize,
    /// Id of the padding token, if the tokenizer has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_index: Option<usize>,
    /// Classes and grid of a model of image codes; absent in a model of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageConfig>,
}

fn default_cond_dim() -> usize {
    128
}

fn default_mlp_ratio() -> usize {
    4
}

impl BackboneConfig {
    /// The published defaults for a vocabulary whose last id is the mask and whose second to last is BOS and EOS.
    pub fn new(vocab_size: usize, hidden_size: usize, n_heads: usize, length: usize) -> Self {
        Self {
            vocab_size,
            hidden_size,
            n_heads,
            length,
            cond_dim: default_cond_dim(),
            mlp_ratio: default_mlp_ratio(),
            dropout: 0.0,
            mask_index: vocab_size.saturating_sub(1),
            bos_index: vocab_size.saturating_sub(2),
            eos_index: vocab_size.saturating_sub(2),
            pad_index: None,
            image: None,
        }
    }

    /// The sizes of a Partition Transformer of image codes. The codes come first in the vocabulary, then the mask, then BOS,
    /// which stands before the codes of each image.
    pub fn for_codes(n_codes: usize, hidden_size: usize, n_heads: usize, image: ImageConfig) -> Self {
        let bos = n_codes + 1;
        Self {
            cond_dim: hidden_size,
            mask_index: n_codes,
            bos_index: bos,
            eos_index: bos,
            image: Some(image.clone()),
            ..Self::new(n_codes + 2, hidden_size, n_heads, 1 + image.n_cells())
        }
    }

    /// The sizes of a MaskGIT of image codes. The codes come first in the vocabulary, then the mask.
    pub fn for_mask_git(n_codes: usize, hidden_size: usize, n_heads: usize, image: ImageConfig) -> Self {
        let length = image.n_cells();
        Self { vocab_size: n_codes + 1, length, ..Self::for_codes(n_codes, hidden_size, n_heads, image) }
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.n_heads
    }

    // Without BOS and EOS, their ids are the first beyond the vocabulary.
    fn validate(&self, lacks_bos_and_eos: bool) -> Result<(), ModelError> {
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("n_heads", self.n_heads),
            ("length", self.length),
            ("cond_dim", self.cond_dim),
            ("mlp_ratio", self.mlp_ratio),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(invalid(key, value, "must be at least 1"));
            }
        }
        if self.length > MAX_LENGTH {
            return Err(invalid("length", self.length, format!("must be at most {MAX_LENGTH}")));
        }
        let twice = self.n_heads.saturating_mul(2);
        if !self.hidden_size.is_multiple_of(twice) {
            let problem = format!("must be a multiple of 2 * n_heads = {twice}");
            return Err(invalid("hidden_size", self.hidden_size, problem));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(invalid("dropout", self.dropout, "must be at least 0 and below 1"));
        }
        let special = [
            ("mask_index", Some(self.mask_index)),
            ("bos_index", Some(self.bos_index)),
            ("eos_index", Some(self.eos_index)),
            ("pad_index", self.pad_index),
        ];
        for (key, index) in special {
            if lacks_bos_and_eos && ["bos_index", "eos_index"].contains(&key) {
                if index != Some(self.vocab_size) {
                    let problem = format!("must be vocab_size = {}: MaskGIT has no such token", self.vocab_size);
                    return Err(invalid(key, index.unwrap_or_default(), problem));
                }
                continue;
            }
            if let Some(index) = index.filter(|&index| index >= self.vocab_size) {
                return Err(invalid(key, index, format!("is outside the vocabulary of {} tokens", self.vocab_size)));
            }
        }
        if self.mask_index == self.bos_index || self.mask_index == self.eos_index {
            return Err(invalid("mask_index", self.mask_index, "must differ from bos_index and eos_index"));
        }
        Ok(())
    }
}

fn invalid(key: &'static str, value: impl ToString, problem: impl Into<String>) -> ModelError {
    ModelError::Config { key, value: value.to_string(), problem: problem.into() }
}

/// What the GroupSwap's queries are made of (`pre_query_mode` in the public code).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Queries {
    /// A learned vector, the same at every position.
    #[serde(rename = "learn")]
    Learn,
    /// A learned vector plus sinusoidal positions.
    #[default]
    #[serde(rename = "learn+freqs")]
    LearnFreqs,
    /// As `learn+freqs`, plus the mean of the other group's encoder output.
    #[serde(rename = "learn+freqs+mean")]
    LearnFreqsMean,
    /// As `learn+freqs`, plus the log-sum-exp of the other group's encoder output.
    #[serde(rename = "learn+freqs+logsumexp")]
    LearnFreqsLogSumExp,
}

/// How the GroupSwap's queries are projected (`query_process_mode` in the public code).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Projection {
    /// One linear layer.
    #[default]
    Linear,
    /// Linear to four times the width, SiLU, linear.
    Mlp4,
}

/// The Partition Transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionConfig {
    /// Sizes, vocabulary, special tokens.
    pub backbone: BackboneConfig,
    /// Self-attention blocks before the GroupSwap.
    pub encoder_blocks: usize,
    /// Cross-attention blocks after it.
    pub decoder_blocks: usize,
    /// What the GroupSwap's queries are made of.
    #[serde(default)]
    pub queries: Queries,
    /// How they are projected.
    #[serde(default)]
    pub projection: Projection,
    /// How clean tokens are encoded: all together, or in ordered sets.
    #[serde(default, skip_serializing_if = "Sets::is_one")]
    pub sets: Sets,
}

/// The masked baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskedConfig {
    /// Sizes, vocabulary, special tokens.
    pub backbone: BackboneConfig,
    /// Self-attention blocks.
    pub n_blocks: usize,
}

/// The autoregressive baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoregressiveConfig {
    /// Sizes, vocabulary, special tokens.
    pub backbone: BackboneConfig,
    /// Causal self-attention blocks.
    pub n_blocks: usize,
}

/// The MaskGIT baseline of image codes. Its vocabulary is the codes and the mask; it has no BOS and no EOS, so their ids are
/// the first that the vocabulary does not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskGitConfig {
    /// Sizes, vocabulary, special tokens, classes.
    pub backbone: BackboneConfig,
    /// Self-attention blocks.
    pub n_blocks: usize,
}

/// Any of the networks, as `config.json` names it in `model_type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename_all = "lowercase")]
pub enum ModelConfig {
    /// [`PartitionTransformer`](crate::PartitionTransformer).
    Partition(PartitionConfig),
    /// [`MaskedTransformer`](crate::MaskedTransformer).
    Masked(MaskedConfig),
    /// [`AutoregressiveTransformer`](crate::AutoregressiveTransformer).
    Autoregressive(AutoregressiveConfig),
    /// [`MaskGit`](crate::MaskGit).
    MaskGit(MaskGitConfig),
}

impl ModelConfig {
    /// Sizes, vocabulary and special tokens.
    pub fn backbone(&self) -> &BackboneConfig {
        match self {
            Self::Partition(config) => &config.backbone,
            Self::Masked(config) => &config.backbone,
            Self::Autoregressive(config) => &config.backbone,
            Self::MaskGit(config) => &config.backbone,
        }
    }

    /// As [`backbone`](Self::backbone), mutable.
    pub fn backbone_mut(&mut self) -> &mut BackboneConfig {
        match self {
            Self::Partition(config) => &mut config.backbone,
            Self::Masked(config) => &mut config.backbone,
            Self::Autoregressive(config) => &mut config.backbone,
            Self::MaskGit(config) => &mut config.backbone,
        }
    }

    /// The masked baseline with as many blocks as this model has in all: MDLM's network for text, MaskGIT's for image codes.
    pub fn masked_baseline(&self) -> Self {
        let masked = |backbone: &BackboneConfig, n_blocks: usize| match &backbone.image {
            None => Self::Masked(MaskedConfig { backbone: backbone.clone(), n_blocks }),
            Some(image) => {
                let image = ImageConfig { registers: image.registers.min(1), ..image.clone() };
                let sizes =
                    BackboneConfig::for_mask_git(backbone.mask_index, backbone.hidden_size, backbone.n_heads, image);
                let (mlp_ratio, dropout) = (backbone.mlp_ratio, backbone.dropout);
                Self::MaskGit(MaskGitConfig { backbone: BackboneConfig { mlp_ratio, dropout, ..sizes }, n_blocks })
            }
        };
        match self {
            Self::Partition(config) => masked(&config.backbone, config.encoder_blocks + config.decoder_blocks),
            Self::Autoregressive(config) => masked(&config.backbone, config.n_blocks),
            Self::Masked(_) | Self::MaskGit(_) => self.clone(),
        }
    }

    /// How clean tokens are encoded; one set in all but partition models.
    pub fn sets(&self) -> Sets {
        match self {
            Self::Partition(config) => config.sets,
            _ => Sets::One,
        }
    }

    /// Classes and grid of a model of image codes; `None` for a model of text.
    pub fn image(&self) -> Option<&ImageConfig> {
        self.backbone().image.as_ref()
    }

    /// Checks the values that the types allow and no model can have.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the first such key.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.backbone().validate(matches!(self, Self::MaskGit(_)))?;
        let blocks = match self {
            Self::Partition(config) if config.encoder_blocks == 0 => ("encoder_blocks", 0),
            Self::Partition(config) => ("decoder_blocks", config.decoder_blocks),
            Self::Masked(config) => ("n_blocks", config.n_blocks),
            Self::Autoregressive(config) => ("n_blocks", config.n_blocks),
            Self::MaskGit(config) => ("n_blocks", config.n_blocks),
        };
        if blocks.1 == 0 {
            return Err(invalid(blocks.0, 0, "must be at least 1"));
        }
        self.validate_image()
    }

    fn validate_image(&self) -> Result<(), ModelError> {
        let Some(image) = self.image() else {
            return match self {
                Self::MaskGit(_) => Err(invalid("image", "absent", "must be given: MaskGIT is a model of image codes")),
                _ => Ok(()),
            };
        };
        match self {
            Self::Partition(config) => {
                if ![0, 2].contains(&image.registers) {
                    return Err(invalid("image.registers", image.registers, "must be 0, or 2: one for each group"));
                }
                image.validate(&config.backbone, 1)
            }
            Self::MaskGit(config) => image.validate(&config.backbone, 0),
            Self::Masked(_) | Self::Autoregressive(_) => {
                Err(invalid("image", "present", "belongs to partition and maskgit models only; leave it out"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_the_same_after_json_and_unknown_keys_are_named() {
        let config = ModelConfig::Partition(PartitionConfig {
            backbone: BackboneConfig::new(61, 32, 4, 24),
            encoder_blocks: 2,
            decoder_blocks: 1,
            queries: Queries::LearnFreqsMean,
            projection: Projection::Mlp4,
            sets: Default::default(),
        });
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ModelConfig>(&json).unwrap(), config);
        let broken = json.replace("encoder_blocks", "encoder_block");
        let message = serde_json::from_str::<ModelConfig>(&broken).unwrap_err().to_string();
        assert!(message.contains("encoder_block"), "{message}");
    }

    #[test]
    fn impossible_sizes_are_named() {
        let cases: [(fn(&mut BackboneConfig), &str); 5] = [
            (|c| c.n_heads = 0, "n_heads"),
            (|c| c.n_heads = 5, "hidden_size"),
            (|c| c.dropout = 1.0, "dropout"),
            (|c| c.mask_index = 61, "mask_index"),
            (|c| c.bos_index = c.mask_index, "mask_index"),
        ];
        for (break_it, key) in cases {
            let mut backbone = BackboneConfig::new(61, 32, 4, 24);
            break_it(&mut backbone);
            let message =
                ModelConfig::Masked(MaskedConfig { backbone, n_blocks: 1 }).validate().unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
