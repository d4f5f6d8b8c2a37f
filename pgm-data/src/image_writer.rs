//! Writes a data folder of pictures, row by row.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::DataError;
use crate::files;
use crate::image_info::{ImageInfo, ImageKind};
use crate::manifest::{IMAGE_VERSION, MANIFEST_FILE, Manifest, Mode, Split, SplitManifest};
use crate::shard::{Content, Layout, ShardWriter, token_width};

/// Bytes of a shard.
const SHARD_BYTES: usize = 128 << 20;

/// Writes rows to a temporary folder beside the target. [`finish`](Self::finish) gives it its name, so a writer that is
/// dropped leaves nothing.
///
/// To keep derived folders aligned (pixels and their codes), callers push the same rows in the same order.
pub struct ImageFolderWriter {
    folder: TempDir,
    out: PathBuf,
    info: ImageInfo,
    layout: Layout,
    train: SplitShards,
    validation: SplitShards,
    skipped: u64,
    row: Vec<u32>,
}

#[derive(Default)]
struct SplitShards {
    shard: Option<ShardWriter>,
    counts: SplitManifest,
}

impl ImageFolderWriter {
    /// Begins a folder at `out`.
    ///
    /// # Errors
    /// [`DataError::Exists`]; [`DataError::Option`] for facts that contradict each other; [`DataError::Io`].
    pub fn create(out: &Path, info: ImageInfo) -> Result<Self, DataError> {
        if out.exists() {
            return Err(DataError::Exists { path: out.to_path_buf() });
        }
        info.check().map_err(DataError::Option)?;
        let folder = files::folder_beside(out)?;
        let (layout, out) = (image_layout(&info), out.to_path_buf());
        let (train, validation) = (SplitShards::default(), SplitShards::default());
        Ok(Self { folder, out, info, layout, train, validation, skipped: 0, row: Vec::new() })
    }

    /// What the rows are.
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// Adds a picture: `height x width x channels` values. In a folder of pixels as tokens they become levels.
    ///
    /// # Errors
    /// [`DataError::Option`] for a picture of another size, a label without a class name, or a folder of codes;
    /// [`DataError::Io`].
    pub fn push_pixels(&mut self, split: Split, pixels: &[u8], label: Option<u32>) -> Result<(), DataError> {
        let expected = self.info.pixels.map_or(0, |shape| shape.len());
        if self.info.kind == ImageKind::Codes || pixels.len() != expected {
            return Err(DataError::Option(format!(
                "a picture of {} values does not fit a folder of {:?} with {expected} values",
                pixels.len(),
                self.info.kind
            )));
        }
        let label = self.label(label)?;
        if self.info.kind == ImageKind::Pixels {
            return self.write(split, |shard, _| shard.push_pixels(pixels, label));
        }
        self.row.clear();
        self.row.push(self.info.special().bos);
        self.row.extend(pixels.iter().map(|&value| self.info.level_of(value)));
        self.write(split, |shard, row| shard.push_tokens(row, label))
    }

    /// Adds the tokens of a picture, without BOS: codes, or levels.
    ///
    /// # Errors
    /// [`DataError::Option`] for another number of tokens than the grid has, a token outside the codebook, a label without
    /// a class name, or a folder of pixels; [`DataError::Io`].
    pub fn push_tokens(&mut self, split: Split, tokens: &[u32], label: Option<u32>) -> Result<(), DataError> {
        let expected = self.info.grid.map_or(0, |[rows, columns]| rows * columns);
        if self.info.kind == ImageKind::Pixels || tokens.len() != expected {
            let found = tokens.len();
            return Err(DataError::Option(format!("a row of {found} tokens does not fit a grid of {expected}")));
        }
        let n_values = self.info.n_values();
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= n_values) {
            return Err(DataError::Option(format!("the code {token} is outside the codebook of {n_values}")));
        }
        let label = self.label(label)?;
        self.row.clear();
        self.row.push(self.info.special().bos);
        self.row.extend_from_slice(tokens);
        self.write(split, |shard, row| shard.push_tokens(row, label))
    }

    /// Counts pictures that were left out because they could not be read.
    pub fn skip(&mut self, n_pictures: u64) {
        self.skipped += n_pictures;
    }

    /// Writes `data.json` and gives the folder its name.
    ///
    /// # Errors
    /// [`DataError::NoPictures`] for a split without rows; [`DataError::Io`].
    pub fn finish(mut self) -> Result<Manifest, DataError> {
        for (split, name) in [(&mut self.train, "training"), (&mut self.validation, "validation")] {
            split.close()?;
            if split.counts.rows == 0 {
                return Err(DataError::NoPictures { split: name });
            }
        }
        let manifest = Manifest {
            version: IMAGE_VERSION,
            length: self.info.row_length(),
            mode: Mode::Pack,
            row_eos: false,
            detokenizer: None,
            val_documents: None,
            vocab_size: self.info.vocab_size(),
            special: self.info.special(),
            special_names: None,
            tokenizer_sha256: String::new(),
            image: Some(self.info),
            skipped_nulls: 0,
            skipped_bad: self.skipped,
            train: self.train.counts,
            validation: self.validation.counts,
        };
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest always serialises");
        files::write_file(&self.folder.path().join(MANIFEST_FILE), &json)?;
        files::publish_folder(self.folder, &self.out)?;
        Ok(manifest)
    }

    // The stored label: 0 in data without labels.
    fn label(&self, label: Option<u32>) -> Result<u32, DataError> {
        match label {
            Some(label) if self.info.is_labelled() && label as usize >= self.info.class_names.len() => {
                let n_classes = self.info.class_names.len();
                Err(DataError::Option(format!("the label {label} has no name among the {n_classes} classes")))
            }
            None if self.info.is_labelled() => {
                Err(DataError::Option("a picture without a label is among labelled ones".to_string()))
            }
            label => Ok(label.unwrap_or(0)),
        }
    }

    fn write(
        &mut self,
        split: Split,
        push: impl FnOnce(&mut ShardWriter, &[u32]) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let shards = match split {
            Split::Train => &mut self.train,
            Split::Validation => &mut self.validation,
        };
        let shard = match &mut shards.shard {
            Some(shard) => shard,
            None => {
                let name = format!("{}-{:05}.rows", split.name(), shards.counts.shards.len());
                let shard = ShardWriter::create(self.folder.path().join(&name), self.layout)?;
                shards.counts.shards.push(name);
                shards.shard.insert(shard)
            }
        };
        push(shard, &self.row)?;
        shards.counts.documents += 1;
        if self.info.kind != ImageKind::Pixels {
            shards.counts.tokens += self.layout.length as u64 - 1;
        }
        if shard.n_rows() as usize * self.layout.length * self.layout.width >= SHARD_BYTES {
            shards.close()?;
        }
        Ok(())
    }
}

impl SplitShards {
    fn close(&mut self) -> Result<(), DataError> {
        if let Some(shard) = self.shard.take() {
            self.counts.rows += shard.finish()?;
        }
        Ok(())
    }
}

/// The layout of a folder of pictures.
pub(crate) fn image_layout(info: &ImageInfo) -> Layout {
    Layout {
        width: if info.kind == ImageKind::Pixels { 1 } else { token_width(info.vocab_size()) },
        length: info.row_length(),
        padded: false,
        content: Content::Pictures { labelled: info.is_labelled() },
        meaning: info.hash(),
    }
}
