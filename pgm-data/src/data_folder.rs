//! Opening a prepared data folder: `data.json`, `tokenizer.json` and shards.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::DataError;
use crate::manifest::{MANIFEST_FILE, Manifest, Mode, Split, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, VERSION, hex};
use crate::rows::TokenRows;
use crate::shard::{Layout, Shard, ShardHeader, token_width};
use crate::tokenizer::TextTokenizer;

/// A complete data folder.
#[derive(Clone, Debug)]
pub struct DataFolder {
    path: PathBuf,
    manifest: Manifest,
    tokenizer: TextTokenizer,
}

impl DataFolder {
    /// Opens a folder that [`prepare`](crate::prepare()) wrote, and checks its tokenizer.
    ///
    /// # Errors
    /// [`DataError::NotPrepared`] for a folder without a readable `data.json`, [`DataError::Damaged`] when
    /// `tokenizer.json` is not the one that the data was prepared with.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let not_prepared = |problem: String| DataError::NotPrepared { path: path.to_path_buf(), problem };
        let json = std::fs::read(path.join(MANIFEST_FILE))
            .map_err(|error| not_prepared(format!("{MANIFEST_FILE}: {error}")))?;
        let manifest: Manifest =
            serde_json::from_slice(&json).map_err(|error| not_prepared(format!("{MANIFEST_FILE}: {error}")))?;
        if manifest.version != VERSION {
            return Err(not_prepared(format!("{MANIFEST_FILE} has version {}, not {VERSION}", manifest.version)));
        }
        let tokenizer_path = path.join(TOKENIZER_FILE);
        let json = std::fs::read(&tokenizer_path).map_err(DataError::io("read", &tokenizer_path))?;
        if hex(&Sha256::digest(&json)) != manifest.tokenizer_sha256 {
            let problem = "it is not the tokenizer that this data was prepared with".to_string();
            return Err(DataError::Damaged { path: tokenizer_path, problem });
        }
        let origin = tokenizer_path.display().to_string();
        let tokenizer = TextTokenizer::with_special(json, &origin, manifest.special.clone(), manifest.vocab_size)?;
        let config_path = path.join(TOKENIZER_CONFIG_FILE);
        let config = match std::fs::read(&config_path) {
            Ok(config) => Some(config),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(DataError::io("read", config_path)(error)),
        };
        let tokenizer = tokenizer.with_config(config);
        Ok(Self { path: path.to_path_buf(), manifest, tokenizer })
    }

    /// The content of `data.json`.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tokenizer that the data was prepared with.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// A fingerprint of the content: SHA-256, in hexadecimal.
    ///
    /// It covers the settings and counts of the manifest, and the name, size and stored checksum of every shard. Two corpora have
    /// different identities, even with equal row counts and one tokenizer. The same text prepared again has the same
    /// identity, and so has a copied or moved folder.
    ///
    /// It is cheap: only the 64-byte header of each shard is read. [`rows`](Self::rows) checks that the tokens fit
    /// the stored checksum.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Damaged`] naming the first shard without a valid header.
    pub fn identity(&self) -> Result<String, DataError> {
        let mut hasher = Sha256::new();
        // Serialised again, so that white space in the file does not matter.
        // Names and counts that earlier versions did not write would give the same content another identity.
        let mut content = self.manifest.clone();
        content.special_names = None;
        (content.skipped_nulls, content.skipped_bad) = (0, 0);
        (content.train.unknown_tokens, content.validation.unknown_tokens) = (0, 0);
        hasher.update(serde_json::to_vec(&content).expect("a manifest always serialises"));
        for split in [Split::Train, Split::Validation] {
            for name in &self.manifest.split(split).shards {
                let header = ShardHeader::read(&self.path.join(name), self.layout())?;
                hasher.update((name.len() as u64).to_le_bytes());
                hasher.update(name);
                hasher.update(header.file_bytes.to_le_bytes());
                hasher.update(header.checksum.to_le_bytes());
            }
        }
        Ok(hex(&hasher.finalize()))
    }

    /// Maps the rows of a split, after a check of every shard's header and checksum.
    ///
    /// # Errors
    /// [`DataError::Damaged`] naming the first shard that is not as it was written.
    pub fn rows(&self, split: Split) -> Result<TokenRows, DataError> {
        let counts = self.manifest.split(split);
        let shards: Result<Vec<Shard>, DataError> =
            counts.shards.iter().map(|name| Shard::open(&self.path.join(name), self.layout())).collect();
        let rows = TokenRows::new(shards?, self.manifest.vocab_size, self.path.clone());
        if rows.len() as u64 != counts.rows {
            let problem = format!("the {} shards hold {} rows, not {}", split.name(), rows.len(), counts.rows);
            return Err(DataError::Damaged { path: self.path.clone(), problem });
        }
        Ok(rows)
    }

    fn layout(&self) -> Layout {
        Layout {
            width: token_width(self.manifest.vocab_size),
            length: self.manifest.length,
            padded: self.manifest.mode == Mode::Pad,
            tokenizer_hash: self.tokenizer.hash(),
        }
    }
}
