//! The cells of a picture in a row of tokens.

use serde::{Deserialize, Serialize};

/// Where the cells of a picture stand in a row: from position `start`, line by line, the `channels` tokens of a cell side by
/// side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenGrid {
    /// Position of the first cell; tokens before it (BOS) are no part of the picture.
    pub start: usize,
    /// Lines of cells.
    pub rows: usize,
    /// Cells of a line.
    pub columns: usize,
    /// Tokens of a cell: 1 for codes, 3 where the tokens are the channels of pixels.
    pub channels: usize,
}

impl TokenGrid {
    /// Cells in all.
    pub fn n_cells(&self) -> usize {
        self.rows * self.columns
    }

    /// Tokens in all.
    pub fn n_tokens(&self) -> usize {
        self.n_cells().saturating_mul(self.channels)
    }

    /// The position of a cell's first token; both indices from 0.
    pub fn position(&self, row: usize, column: usize) -> usize {
        self.start + (row * self.columns + column) * self.channels
    }

    /// The number of a position's token in the grid, from 0; none outside the grid.
    pub fn index(&self, position: usize) -> Option<usize> {
        position.checked_sub(self.start).filter(|&index| index < self.n_tokens())
    }
}
