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
    /// Sampling steps.
    pub(super) steps: Option<usize>,
    pub(super) top_p: Option<f64>,
    /// Contents of `tokenizer.json`.
    pub(super) tokenizer: Option<Vec<u8>>,
    pub(super) special: SpecialNames,
}
