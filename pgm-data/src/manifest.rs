//! `data.json`: the settings, counts and files of a data folder.

use serde::{Deserialize, Serialize};

use crate::detokenize::Detokenizer;
use crate::special_tokens::{SpecialNames, SpecialTokens};

/// Name of the manifest in a data folder. It is written last, so a folder with a manifest is complete.
pub const MANIFEST_FILE: &str = "data.json";
/// Name of the tokenizer in a data folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of the file with the names of the special tokens. Only folders whose tokenizer has such a file have it.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// The version of the folder's layout that this crate reads and writes.
pub(crate) const VERSION: u32 = 1;

/// How documents become rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Documents are concatenated with EOS between them and cut into rows. Each row starts with BOS.
    #[default]
    Pack,
    /// One document per row between BOS and EOS, truncated or padded to the row length.
    Pad,
}

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training rows.
    Train,
    /// Held-out rows.
    Validation,
}

impl Split {
    /// The name in messages and the start of the shards' file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }
}

/// The content of `data.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the folder's layout.
    pub version: u32,
    /// Tokens per row.
    pub length: usize,
    /// How documents became rows.
    pub mode: Mode,
    /// Whether each packed row ends with EOS.
    pub row_eos: bool,
    /// The detokenizer that was applied to the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detokenizer: Option<Detokenizer>,
    /// How many of the last documents were held out, for [`Validation::Documents`](crate::Validation::Documents).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_documents: Option<u64>,
    /// Size of the vocabulary, mask token included.
    pub vocab_size: usize,
    /// Ids of the special tokens.
    pub special: SpecialTokens,
    /// Names of the special tokens. Folders of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub special_names: Option<SpecialNames>,
    /// SHA-256 of `tokenizer.json`, in hexadecimal.
    pub tokenizer_sha256: String,
    /// Records that were left out because their text is null.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_nulls: u64,
    /// Records that were left out because they could not be read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_bad: u64,
    /// The training rows.
    pub train: SplitManifest,
    /// The validation rows.
    pub validation: SplitManifest,
}

impl Manifest {
    /// The counts and files of one split.
    pub fn split(&self, split: Split) -> &SplitManifest {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }
}

/// The counts and files of one split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitManifest {
    /// Documents read.
    pub documents: u64,
    /// Bytes of text that were tokenized, counted after the detokenizer.
    pub text_bytes: u64,
    /// Tokens of that text, without BOS, EOS and padding.
    pub tokens: u64,
    /// Tokens that are in no row: an incomplete last row in packed data, truncated documents in padded data.
    pub dropped_tokens: u64,
    /// Tokens that stand for text which the tokenizer does not know.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown_tokens: u64,
    /// Number of rows.
    pub rows: u64,
    /// File names of the shards, in order.
    pub shards: Vec<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A hash as the manifest has it: lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
