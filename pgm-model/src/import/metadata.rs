//! Settings and tokenizer in a checkpoint file.

use crate::config::ModelConfig;

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

impl SpecialNames {
    /// Whether no name is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These names, and where one is missing the other's.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            mask: self.mask.or(other.mask),
            bos: self.bos.or(other.bos),
            eos: self.eos.or(other.eos),
            pad: self.pad.or(other.pad),
        }
    }

    /// The names as the contents of a `tokenizer_config.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let names =
            [("mask_token", &self.mask), ("bos_token", &self.bos), ("eos_token", &self.eos), ("pad_token", &self.pad)];
        let known = names.into_iter().filter_map(|(key, name)| Some((key.to_string(), name.clone()?.into())));
        serde_json::to_vec_pretty(&serde_json::Value::Object(known.collect())).expect("names always serialise")
    }
}

/// Settings and tokenizer of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct CheckpointMetadata {
    /// The whole configuration, in a file that this crate wrote.
    pub(super) config: Option<ModelConfig>,
    pub(super) n_heads: Option<usize>,
    pub(super) length: Option<usize>,
    pub(super) dropout: Option<f64>,
    /// The GroupSwap's `pre_query_mode`.
    pub(super) queries: Option<String>,
    /// Whether it is autoregressive, with the key that says so.
    pub(super) causal: Option<(String, bool)>,
    /// Whether the head is tied to the embedding.
    pub(super) is_tied: Option<bool>,
    pub(super) mask_index: Option<usize>,
    pub(super) bos_index: Option<usize>,
    pub(super) eos_index: Option<usize>,
    /// Sampling steps.
    pub(super) steps: Option<usize>,
    pub(super) top_p: Option<f64>,
    /// Contents of `tokenizer.json`.
    pub(super) tokenizer: Option<Vec<u8>>,
    /// Contents of `tokenizer_config.json`.
    pub(super) tokenizer_config: Option<Vec<u8>>,
    pub(super) special: SpecialNames,
}

impl CheckpointMetadata {
    /// These settings, and where one is missing the other's.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            config: self.config.or(other.config),
            n_heads: self.n_heads.or(other.n_heads),
            length: self.length.or(other.length),
            dropout: self.dropout.or(other.dropout),
            queries: self.queries.or(other.queries),
            causal: self.causal.or(other.causal),
            is_tied: self.is_tied.or(other.is_tied),
            mask_index: self.mask_index.or(other.mask_index),
            bos_index: self.bos_index.or(other.bos_index),
            eos_index: self.eos_index.or(other.eos_index),
            steps: self.steps.or(other.steps),
            top_p: self.top_p.or(other.top_p),
            tokenizer: self.tokenizer.or(other.tokenizer),
            tokenizer_config: self.tokenizer_config.or(other.tokenizer_config),
            special: self.special.or(other.special),
        }
    }
}
