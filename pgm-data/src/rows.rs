//! Reading rows: all shards of a split, memory-mapped, as one sequence.

use std::path::PathBuf;

use crate::error::DataError;
use crate::image_info::{ImageInfo, ImageKind};
use crate::shard::Shard;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token ids, BOS first.
    pub tokens: Vec<u32>,
    /// Number of tokens before the padding.
    pub valid: usize,
    /// The class, in labelled data.
    pub label: Option<u32>,
}

/// The shards of a split.
#[derive(Debug)]
struct Shards {
    shards: Vec<Shard>,
    // Index of each shard's first row, then the number of all rows.
    starts: Vec<usize>,
    folder: PathBuf,
}

impl Shards {
    fn new(shards: Vec<Shard>, folder: PathBuf) -> Self {
        let mut starts = vec![0];
        for shard in &shards {
            starts.push(starts[starts.len() - 1] + shard.n_rows());
        }
        Self { shards, starts, folder }
    }

    fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    // The shard of a row, and the row's index in it.
    fn at(&self, index: usize) -> (&Shard, usize) {
        let shard = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.shards[shard], index - self.starts[shard])
    }

    fn label(&self, index: usize, n_classes: usize) -> Result<Option<u32>, DataError> {
        let (shard, row) = self.at(index);
        match shard.label(row) {
            Some(label) if label as usize >= n_classes => {
                Err(self.damaged(format!("row {index} has the label {label}, and there are {n_classes} classes")))
            }
            label => Ok(label),
        }
    }

    fn damaged(&self, problem: String) -> DataError {
        DataError::Damaged { path: self.folder.clone(), problem }
    }
}

/// The memory-mapped rows of one split, as tokens.
#[derive(Debug)]
pub struct TokenRows {
    shards: Shards,
    vocab_size: usize,
    n_classes: usize,
}

impl TokenRows {
    pub(crate) fn new(shards: Vec<Shard>, vocab_size: usize, n_classes: usize, folder: PathBuf) -> Self {
        Self { shards: Shards::new(shards, folder), vocab_size, n_classes }
    }

    /// Number of rows in all shards.
    #[allow(clippy::len_without_is_empty)] // a data folder has no empty split
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// The row at `index`.
    ///
    /// # Errors
    /// [`DataError::Damaged`] for a token outside the vocabulary, or a label without a class name.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn row(&self, index: usize) -> Result<Row, DataError> {
        let (shard, row) = self.shards.at(index);
        let (tokens, valid) = shard.row(row);
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
            let problem = format!("row {index} holds token {token}, outside the vocabulary of {}", self.vocab_size);
            return Err(self.shards.damaged(problem));
        }
        Ok(Row { tokens, valid, label: self.label(index)? })
    }

    /// The class of a row, in labelled data, without its tokens.
    ///
    /// # Errors
    /// [`DataError::Damaged`] for a label without a class name.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn label(&self, index: usize) -> Result<Option<u32>, DataError> {
        self.shards.label(index, self.n_classes)
    }
}

/// The memory-mapped rows of one split, as pictures.
#[derive(Debug)]
pub struct PixelRows {
    shards: Shards,
    info: ImageInfo,
}

impl PixelRows {
    // `info` is of pixels, or of pixels as tokens.
    pub(crate) fn new(shards: Vec<Shard>, info: ImageInfo, folder: PathBuf) -> Self {
        Self { shards: Shards::new(shards, folder), info }
    }

    /// Number of rows in all shards.
    #[allow(clippy::len_without_is_empty)] // a data folder has no empty split
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// What the rows are.
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// The picture at `index`: `height x width x channels` values of [`PixelShape`](crate::PixelShape), channels side by
    /// side. Levels are spread over 0 to 255.
    ///
    /// # Errors
    /// [`DataError::Damaged`] for a token that is no level.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn pixels(&self, index: usize) -> Result<Vec<u8>, DataError> {
        let (shard, row) = self.shards.at(index);
        if self.info.kind == ImageKind::Pixels {
            return Ok(shard.bytes(row).to_vec());
        }
        let levels = self.info.n_values() as u32;
        let value = |level: &u32| match *level {
            level if level < levels => Ok(self.info.value_of(level)),
            level => {
                Err(self.shards.damaged(format!("row {index} holds the token {level}, and there are {levels} levels")))
            }
        };
        shard.row(row).0[1..].iter().map(value).collect()
    }

    /// The class of a row, in labelled data.
    ///
    /// # Errors
    /// [`DataError::Damaged`] for a label without a class name.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn label(&self, index: usize) -> Result<Option<u32>, DataError> {
        self.shards.label(index, self.info.class_names.len())
    }
}
