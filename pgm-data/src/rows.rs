//! Reading rows: all shards of a split, memory-mapped, as one sequence.

use std::path::PathBuf;

use crate::error::DataError;
use crate::shard::Shard;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Token ids, BOS first.
    pub tokens: Vec<u32>,
    /// Number of tokens before the padding.
    pub valid: usize,
}

/// The memory-mapped rows of one split.
#[derive(Debug)]
pub struct TokenRows {
    shards: Vec<Shard>,
    // Index of each shard's first row, then the number of all rows.
    starts: Vec<usize>,
    vocab_size: usize,
    folder: PathBuf,
}

impl TokenRows {
    pub(crate) fn new(shards: Vec<Shard>, vocab_size: usize, folder: PathBuf) -> Self {
        let mut starts = vec![0];
        for shard in &shards {
            starts.push(starts[starts.len() - 1] + shard.n_rows());
        }
        Self { shards, starts, vocab_size, folder }
    }

    /// Number of rows in all shards.
    #[allow(clippy::len_without_is_empty)] // a data folder has no empty split
    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// The row at `index`.
    ///
    /// # Errors
    /// [`DataError::Damaged`] for a token outside the vocabulary.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn row(&self, index: usize) -> Result<Row, DataError> {
        let shard = self.starts.partition_point(|&start| start <= index) - 1;
        let (tokens, valid) = self.shards[shard].row(index - self.starts[shard]);
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
            let problem = format!("row {index} holds token {token}, outside the vocabulary of {}", self.vocab_size);
            return Err(DataError::Damaged { path: self.folder.clone(), problem });
        }
        Ok(Row { tokens, valid })
    }
}
