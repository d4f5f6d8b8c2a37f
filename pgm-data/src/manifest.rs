//! `data.json`: the settings, counts and files of a data folder.

use serde::{Deserialize, Serialize};

use crate::detokenize::Detokenizer;
use crate::image_info::ImageInfo;
use crate::special_tokens::{SpecialNames, SpecialTokens};

/// Name of the manifest in a data folder. It is written last, so a folder with a manifest is complete.
pub const MANIFEST_FILE: &str = "data.json";
/// Name of the tokenizer in a data folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of the file with the names of the special tokens. Only folders whose tokenizer has such a file have it.
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// The version of a folder of text.
pub(crate) const VERSION: u32 = 1;
/// The version of a folder of pictures.
pub(crate) const IMAGE_VERSION: u32 = 2;

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
    /// Version of the folder's layout: 1 for text, 2 for pictures.
    pub version: u32,
    /// Tokens per row, BOS included; values per row in a folder of pixels.
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
    /// SHA-256 of `tokenizer.json`, in hexadecimal. Pictures have no tokenizer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tokenizer_sha256: String,
    /// What the rows are, in a folder of pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageInfo>,
    /// Records that were left out because their text is null.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_nulls: u64,
    /// Records or pictures that were left out because they could not be read.
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
    /// Documents read; in a folder of pictures, the rows.
    pub documents: u64,
    /// Bytes of text that were tokenized, counted after the detokenizer. 0 for pictures.
    pub text_bytes: u64,
    /// Tokens of that text or of the pictures, without BOS, EOS and padding.
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
