//! Opening a prepared data folder: `data.json`, shards and, for text, `tokenizer.json`.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::DataError;
use crate::image_info::{ImageInfo, ImageKind};
use crate::image_writer::image_layout;
use crate::manifest::{
    IMAGE_VERSION, MANIFEST_FILE, Manifest, Mode, Split, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, VERSION, hex,
};
use crate::prepare::has_parts;
use crate::rows::{PixelRows, TokenRows};
use crate::shard::{Content, Layout, Shard, ShardHeader, token_width};
use crate::tokenizer::TextTokenizer;

/// A complete data folder.
#[derive(Clone, Debug)]
pub struct DataFolder {
    path: PathBuf,
    manifest: Manifest,
    // Text has one, pictures have none.
    tokenizer: Option<TextTokenizer>,
}

impl DataFolder {
    /// Opens a folder that [`prepare`](crate::prepare()) or [`ImageFolderWriter`](crate::ImageFolderWriter) wrote, and
    /// checks its tokenizer, or what its pictures are.
    ///
    /// # Errors
    /// [`DataError::NotPrepared`] for a folder without a readable `data.json`, [`DataError::Damaged`] when
    /// `tokenizer.json` is not the one that the data was prepared with, or `data.json` contradicts itself.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let not_prepared = |problem: String| DataError::NotPrepared { path: path.to_path_buf(), problem };
        let json = std::fs::read(path.join(MANIFEST_FILE)).map_err(|error| match has_parts(path) {
            true => not_prepared("its parts are not merged; run pgm-data merge".to_string()),
            false => not_prepared(format!("{MANIFEST_FILE}: {error}")),
        })?;
        let manifest: Manifest =
            serde_json::from_slice(&json).map_err(|error| not_prepared(format!("{MANIFEST_FILE}: {error}")))?;
        let version = if manifest.image.is_some() { IMAGE_VERSION } else { VERSION };
        if manifest.version != version {
            return Err(not_prepared(format!("{MANIFEST_FILE} has version {}, not {version}", manifest.version)));
        }
        if let Some(image) = &manifest.image {
            let problem = image.check().err().or_else(|| {
                let facts = (manifest.length, manifest.vocab_size, &manifest.special, manifest.mode);
                let expected = (image.row_length(), image.vocab_size(), &image.special(), Mode::Pack);
                (facts != expected).then(|| "its length or vocabulary does not fit its image".to_string())
            });
            if let Some(problem) = problem {
                return Err(DataError::Damaged { path: path.join(MANIFEST_FILE), problem });
            }
            return Ok(Self { path: path.to_path_buf(), manifest, tokenizer: None });
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
        let tokenizer = Some(tokenizer.with_config(config));
        Ok(Self { path: path.to_path_buf(), manifest, tokenizer })
    }

    /// The content of `data.json`.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tokenizer that the data was prepared with.
    ///
    /// # Errors
    /// [`DataError::NoTokenizer`] for a folder of pictures.
    pub fn tokenizer(&self) -> Result<&TextTokenizer, DataError> {
        self.tokenizer.as_ref().ok_or_else(|| DataError::NoTokenizer { path: self.path.clone() })
    }

    /// What the pictures are. A folder of text has none.
    pub fn image(&self) -> Option<&ImageInfo> {
        self.manifest.image.as_ref()
    }

    /// The names of the classes, in the order of their labels. Data without labels has none.
    pub fn class_names(&self) -> &[String] {
        self.image().map_or(&[], |image| &image.class_names)
    }

    /// A fingerprint of the content: SHA-256, in hexadecimal.
    ///
    /// It covers the settings and counts of the manifest, and the name, size and stored checksum of every shard: tokens,
    /// pixels, labels and the names of classes. Two corpora have different identities, even with equal row counts and one
    /// tokenizer. The same text prepared again has the same identity, and so has a copied or moved folder.
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

    /// Maps the rows of a split as tokens, after a check of every shard's header and checksum.
    ///
    /// # Errors
    /// [`DataError::PixelsOnly`] for a folder of pixels; [`DataError::Damaged`] naming the first shard that is not as it was
    /// written.
    pub fn rows(&self, split: Split) -> Result<TokenRows, DataError> {
        self.token_rows(split, false)
    }

    /// As [`rows`](Self::rows), where another process of this machine has just checked the checksums.
    ///
    /// # Errors
    /// As [`rows`](Self::rows), checksums aside.
    pub fn rows_checked_before(&self, split: Split) -> Result<TokenRows, DataError> {
        self.token_rows(split, true)
    }

    fn token_rows(&self, split: Split, is_checked: bool) -> Result<TokenRows, DataError> {
        if self.image().is_some_and(|image| image.kind == ImageKind::Pixels) {
            return Err(DataError::PixelsOnly { path: self.path.clone() });
        }
        let (vocab_size, n_classes) = (self.manifest.vocab_size, self.class_names().len());
        Ok(TokenRows::new(self.shards(split, is_checked)?, vocab_size, n_classes, self.path.clone()))
    }

    /// Maps the rows of a split as pictures: of a folder of pixels, or of pixels as tokens.
    ///
    /// # Errors
    /// [`DataError::NoPixels`] for a folder of text or codes; otherwise as [`rows`](Self::rows).
    pub fn pixels(&self, split: Split) -> Result<PixelRows, DataError> {
        let found = match self.image() {
            Some(image) if image.kind != ImageKind::Codes => {
                return Ok(PixelRows::new(self.shards(split, false)?, image.clone(), self.path.clone()));
            }
            Some(_) => "codes",
            None => "text",
        };
        Err(DataError::NoPixels { path: self.path.clone(), found })
    }

    fn shards(&self, split: Split, is_checked: bool) -> Result<Vec<Shard>, DataError> {
        let counts = self.manifest.split(split);
        let open = |name: &String| Shard::open(&self.path.join(name), self.layout(), is_checked);
        let shards: Vec<Shard> = counts.shards.iter().map(open).collect::<Result<_, _>>()?;
        let n_rows: usize = shards.iter().map(Shard::n_rows).sum();
        if n_rows as u64 != counts.rows {
            let problem = format!("the {} shards hold {n_rows} rows, not {}", split.name(), counts.rows);
            return Err(DataError::Damaged { path: self.path.clone(), problem });
        }
        Ok(shards)
    }

    fn layout(&self) -> Layout {
        if let Some(image) = self.image() {
            return image_layout(image);
        }
        Layout {
            width: token_width(self.manifest.vocab_size),
            length: self.manifest.length,
            padded: self.manifest.mode == Mode::Pad,
            content: Content::Text,
            meaning: self.tokenizer.as_ref().map_or([0; 32], TextTokenizer::hash),
        }
    }
}
