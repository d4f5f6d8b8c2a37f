//! Keys and values of sequences that an autoregressive network has processed.

use crate::layers::KeyValues;

/// Keys and values of several rows in every block, so that only new tokens are computed.
///
/// Rows may differ in length. They are aligned at their ends; the padding in front of the shorter ones is hidden.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    // Empty until the first tokens are appended.
    pub(super) blocks: Vec<KeyValues>,
    pub(super) lengths: Vec<usize>,
}

impl Cache {
    /// A cache of empty rows.
    pub fn new(n_rows: usize) -> Self {
        Self { blocks: Vec::new(), lengths: vec![0; n_rows] }
    }

    /// The number of tokens in each row.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The number of tokens in the longest row.
    pub(super) fn width(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// The rows of these indices, in this order; an index may occur more than once.
    ///
    /// # Panics
    /// When an index is out of range.
    #[must_use]
    pub fn rows(&self, rows: &[usize]) -> Self {
        let selected = Self { blocks: Vec::new(), lengths: rows.iter().map(|&row| self.lengths[row]).collect() };
        let width = selected.width();
        if width == 0 {
            return selected;
        }
        let blocks = self.blocks.iter().map(|block| block.select_rows(rows, width)).collect();
        Self { blocks, ..selected }
    }

    /// The rows of all `parts` in one cache.
    #[must_use]
    pub fn concat(parts: &[Self]) -> Self {
        let all = Self { blocks: Vec::new(), lengths: parts.iter().flat_map(|part| part.lengths.clone()).collect() };
        let width = all.width();
        let parts: Vec<&Self> = parts.iter().filter(|part| !part.lengths.is_empty()).collect();
        let n_blocks = parts.iter().map(|part| part.blocks.len()).max().unwrap_or(0);
        let block = |index: usize| {
            let parts = parts.iter().map(|part| (part.blocks.get(index), part.lengths.len()));
            KeyValues::concat(&parts.collect::<Vec<_>>(), width)
        };
        Self { blocks: (0..n_blocks).map(block).collect(), ..all }
    }
}
