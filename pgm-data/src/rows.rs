//! Reading a prepared data folder: `data.json`, `tokenizer.json` and mapped shards.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::shard::{Layout, Shard};
use crate::tokenizer::{SpecialTokens, TextTokenizer};
use crate::{DataError, Detokenizer, Mode};

/// Name of the manifest in a data folder; it is what makes the folder finished.
pub const MANIFEST_FILE: &str = "data.json";
/// Name of the tokenizer in a data folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// What `data.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the folder's layout.
    pub version: u32,
    /// Tokens of a row.
    pub length: usize,
    /// How documents became rows.
    pub mode: Mode,
    /// Whether each packed row ends with EOS.
    pub row_eos: bool,
    /// What undid the spacing of the text, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detokenizer: Option<Detokenizer>,
    /// How many of the last documents are for validation, where that is how they were chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_documents: Option<u64>,
    /// Tokens of the vocabulary, the mask included.
    pub vocab_size: usize,
    /// Ids with a role.
    pub special: SpecialTokens,
    /// SHA-256 of `tokenizer.json`, in hexadecimal.
    pub tokenizer_sha256: String,
    /// The training rows.
    pub train: SplitManifest,
    /// The validation rows.
    pub validation: SplitManifest,
}

/// The counts and files of one split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitManifest {
    /// Documents read.
    pub documents: u64,
    /// Bytes of text that the tokens stand for, detokenised where a detokenizer was at work.
    pub text_bytes: u64,
    /// Tokens made of it, without BOS, EOS and padding.
    pub tokens: u64,
    /// Tokens that found no place: the packed rest at the end, or what padded rows cut off.
    pub dropped_tokens: u64,
    /// Rows.
    pub rows: u64,
    /// Files in order.
    pub shards: Vec<String>,
}

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For training.
    Train,
    /// Held out.
    Validation,
}

impl Split {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }
}

/// A finished data folder.
#[derive(Clone, Debug)]
pub struct DataFolder {
    path: PathBuf,
    manifest: Manifest,
    tokenizer: TextTokenizer,
}

impl DataFolder {
    /// Opens a folder that [`prepare`](crate::prepare()) made and checks its tokenizer.
    ///
    /// # Errors
    /// [`DataError::NotPrepared`] for a folder without a readable `data.json`, [`DataError::Damaged`] when
    /// `tokenizer.json` is not the one the data was made with.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let not_prepared = |problem: String| DataError::NotPrepared { path: path.to_path_buf(), problem };
        let json = std::fs::read(path.join(MANIFEST_FILE))
            .map_err(|error| not_prepared(format!("{MANIFEST_FILE}: {error}")))?;
        let manifest: Manifest =
            serde_json::from_slice(&json).map_err(|error| not_prepared(format!("{MANIFEST_FILE}: {error}")))?;
        if manifest.version != 1 {
            return Err(not_prepared(format!("{MANIFEST_FILE} has version {}, not 1", manifest.version)));
        }
        let tokenizer_path = path.join(TOKENIZER_FILE);
        let json = std::fs::read(&tokenizer_path).map_err(DataError::io("read", &tokenizer_path))?;
        if hex(&Sha256::digest(&json)) != manifest.tokenizer_sha256 {
            let problem = "it is not the tokenizer that this data was made with".to_string();
            return Err(DataError::Damaged { path: tokenizer_path, problem });
        }
        let origin = tokenizer_path.display().to_string();
        let tokenizer = TextTokenizer::with_special(json, &origin, manifest.special.clone(), manifest.vocab_size)?;
        Ok(Self { path: path.to_path_buf(), manifest, tokenizer })
    }

    /// What `data.json` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tokenizer the data was made with.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Maps the rows of a split, after checking every shard's header and checksum.
    ///
    /// # Errors
    /// [`DataError::Damaged`] naming the first shard that is not what was written.
    pub fn rows(&self, split: Split) -> Result<TokenRows, DataError> {
        let (counts, manifest) = match split {
            Split::Train => (&self.manifest.train, &self.manifest),
            Split::Validation => (&self.manifest.validation, &self.manifest),
        };
        let layout = Layout {
            width: token_width(manifest.vocab_size),
            length: manifest.length,
            padded: manifest.mode == Mode::Pad,
            tokenizer_hash: self.tokenizer.hash(),
        };
        let mut shards = Vec::with_capacity(counts.shards.len());
        let mut starts = vec![0];
        for name in &counts.shards {
            let shard = Shard::open(&self.path.join(name), layout)?;
            starts.push(starts[starts.len() - 1] + shard.n_rows());
            shards.push(shard);
        }
        let n_rows = starts[starts.len() - 1];
        if n_rows as u64 != counts.rows {
            let problem = format!("the {} shards hold {n_rows} rows, not {}", split.prefix(), counts.rows);
            return Err(DataError::Damaged { path: self.path.clone(), problem });
        }
        Ok(TokenRows { shards, starts, vocab_size: manifest.vocab_size, path: self.path.clone() })
    }
}

/// Bytes of a stored token: 2 where the vocabulary allows, else 4.
pub(crate) fn token_width(vocab_size: usize) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token ids, BOS first.
    pub tokens: Vec<u32>,
    /// How many of them count; the rest is padding.
    pub valid: usize,
}

/// The mapped rows of one split.
#[derive(Debug)]
pub struct TokenRows {
    shards: Vec<Shard>,
    starts: Vec<usize>,
    vocab_size: usize,
    path: PathBuf,
}

impl TokenRows {
    /// Rows in all shards.
    #[allow(clippy::len_without_is_empty)] // prepare writes no empty split
    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// The row at `index`.
    ///
    /// # Errors
    /// [`DataError::Damaged`] for a token outside the vocabulary.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Self::len).
    pub fn row(&self, index: usize) -> Result<Row, DataError> {
        let shard = self.starts.partition_point(|&start| start <= index) - 1;
        let (tokens, valid) = self.shards[shard].row(index - self.starts[shard]);
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
            let problem = format!("row {index} holds token {token}, outside the vocabulary of {}", self.vocab_size);
            return Err(DataError::Damaged { path: self.path.clone(), problem });
        }
        Ok(Row { tokens, valid })
    }
}
