//! A row of tokens as it fills, for a terminal, a page or a window to show.

use serde::Serialize;

use super::model::TextModel;
use crate::sample::RowChange;

/// A stretch of the text, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Segment {
    /// Given from the start.
    Given {
        /// Its text.
        text: String,
    },
    /// Decoded by an earlier step.
    Decoded {
        /// Its text.
        text: String,
    },
    /// Decoded by the last step.
    New {
        /// Its text.
        text: String,
    },
    /// Still open.
    Open {
        /// Tokens.
        n: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Open,
    Given(u32),
    Decoded(u32),
    New(u32),
}

impl Cell {
    fn token(self) -> Option<u32> {
        match self {
            Self::Open => None,
            Self::Given(token) | Self::Decoded(token) | Self::New(token) => Some(token),
        }
    }

    fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// The tokens of a row, and which of them the last step decoded.
#[derive(Clone, Debug)]
pub struct Canvas {
    cells: Vec<Cell>,
}

impl Canvas {
    /// A row of `length` tokens, of which some are given as positions and tokens; positions beyond the row are ignored.
    pub fn new(given: &[(usize, u32)], length: usize) -> Self {
        let mut cells = vec![Cell::Open; length];
        for &(position, token) in given.iter().filter(|(position, _)| *position < length) {
            cells[position] = Cell::Given(token);
        }
        Self { cells }
    }

    /// Applies the change of a step.
    pub fn apply(&mut self, change: &RowChange) {
        for cell in &mut self.cells {
            if let Cell::New(token) = *cell {
                *cell = Cell::Decoded(token);
            }
        }
        for &position in &change.forgotten {
            self.cells[position] = Cell::Open;
        }
        for &(position, token) in &change.decoded {
            self.cells[position] = Cell::New(token);
        }
    }

    /// The tokens at `positions` up to the first that is open.
    pub fn prefix(&self, positions: std::ops::Range<usize>) -> Vec<u32> {
        self.cells[positions].iter().map_while(|cell| cell.token()).collect()
    }

    /// Tokens of the row.
    pub(crate) fn length(&self) -> usize {
        self.cells.len()
    }

    /// Whether a position is open.
    pub(crate) fn is_open(&self, position: usize) -> bool {
        self.cells[position] == Cell::Open
    }

    /// The tokens around `position`, which is not open, without a gap: at most `before` before it and `after` behind it;
    /// and the position of the first.
    pub(crate) fn around(&self, position: usize, before: usize, after: usize) -> (usize, Vec<u32>) {
        let n = self.cells[..position].iter().rev().take(before).take_while(|cell| **cell != Cell::Open).count();
        let start = position - n;
        let end = position.saturating_add(after).saturating_add(1).min(self.cells.len());
        (start, self.prefix(start..end))
    }

    /// The text in stretches. Special tokens have no text; a stretch of special tokens alone is left out.
    pub fn segments(&self, model: &TextModel) -> Vec<Segment> {
        let mut segments = Vec::new();
        for run in self.cells.chunk_by(|a, b| (*a == Cell::Open) == (*b == Cell::Open)) {
            let tokens: Vec<u32> = run.iter().filter_map(|cell| cell.token()).collect();
            if tokens.is_empty() {
                segments.push(Segment::Open { n: run.len() });
                continue;
            }
            let mut start = 0;
            for stretch in run.chunk_by(|a, b| a.is_like(*b)) {
                let end = start + stretch.len();
                let text = model.decode_after(&tokens[..end], start).unwrap_or_default();
                start = end;
                match stretch[0] {
                    _ if text.is_empty() => {}
                    Cell::Given(_) => segments.push(Segment::Given { text }),
                    Cell::New(_) => segments.push(Segment::New { text }),
                    Cell::Decoded(_) | Cell::Open => segments.push(Segment::Decoded { text }),
                }
            }
        }
        segments
    }
}
