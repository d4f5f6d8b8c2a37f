//! A row of tokens as it fills, for a terminal, a page or a window to show.

use serde::Serialize;

use super::layout::{BlankLayout, RowLayout, TextRow};
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
    layout: RowLayout,
}

impl Canvas {
    /// A row of `length` tokens, of which some are given as positions and tokens; positions beyond the row are ignored.
    pub fn new(given: &[(usize, u32)], length: usize) -> Self {
        let mut cells = vec![Cell::Open; length];
        for &(position, token) in given.iter().filter(|(position, _)| *position < length) {
            cells[position] = Cell::Given(token);
        }
        Self { cells, layout: RowLayout::default() }
    }

    /// The canvas of a row of a template: it shows the given texts as they were given.
    pub fn of_row(row: &TextRow) -> Self {
        Self { layout: row.layout.clone(), ..Self::new(&row.request.given, row.request.length) }
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
    pub fn length(&self) -> usize {
        self.cells.len()
    }

    /// Whether a position is open.
    pub fn is_open(&self, position: usize) -> bool {
        self.cells[position] == Cell::Open
    }

    /// The tokens around `position`, which is not open, without a gap: at most `before` before it and `after` behind it;
    /// and the position of the first.
    pub fn around(&self, position: usize, before: usize, after: usize) -> (usize, Vec<u32>) {
        let n = self.cells[..position].iter().rev().take(before).take_while(|cell| **cell != Cell::Open).count();
        let start = position - n;
        let end = position.saturating_add(after).saturating_add(1).min(self.cells.len());
        (start, self.prefix(start..end))
    }

    /// The text in stretches. Special tokens have no text; a stretch of special tokens alone is left out.
    pub fn segments(&self, model: &TextModel) -> Vec<Segment> {
        self.stretches(model, Cell::is_like).into_iter().map(|(_, segment)| segment).collect()
    }

    /// As [`segments`](Self::segments), with a segment of its own for each decoded token, or for the few that make a character
    /// together; and the position of a segment's last token, if it has one.
    pub(super) fn pieces(&self, model: &TextModel) -> Vec<(Option<usize>, Segment)> {
        self.stretches(model, |a, b| matches!((a, b), (Cell::Given(_), Cell::Given(_))))
    }

    fn stretches(&self, model: &TextModel, join: fn(Cell, Cell) -> bool) -> Vec<(Option<usize>, Segment)> {
        let mut stretches = Vec::new();
        if self.layout.texts.iter().all(Option::is_none) {
            let all = BlankLayout { positions: 0..self.cells.len(), ..BlankLayout::default() };
            self.add_cells(&mut stretches, model, &all, join);
            return stretches;
        }
        let mut next = 0;
        for index in 0..=self.layout.blanks.len() {
            let blank = self.layout.blanks.get(index);
            let given = next..blank.map_or(self.cells.len(), |blank| blank.positions.start);
            match self.layout.text(index) {
                Some("") => {}
                Some(text) => stretches.push((None, Segment::Given { text: text.to_string() })),
                None => {
                    let given = BlankLayout { positions: given, ..BlankLayout::default() };
                    self.add_cells(&mut stretches, model, &given, join);
                }
            }
            if let Some(blank) = blank {
                self.add_cells(&mut stretches, model, blank, join);
                next = blank.positions.end;
            }
        }
        stretches
    }

    // Adds the cells of a blank, without the given characters that its tokens hold. Neighbours that `join` are one stretch.
    fn add_cells(
        &self,
        stretches: &mut Vec<(Option<usize>, Segment)>,
        model: &TextModel,
        blank: &BlankLayout,
        join: fn(Cell, Cell) -> bool,
    ) {
        let (first, last) = (blank.positions.start, blank.positions.end);
        let mut position = first;
        for run in self.cells[first..last].chunk_by(|a, b| (*a == Cell::Open) == (*b == Cell::Open)) {
            let (start, end) = (position, position + run.len());
            position = end;
            if run[0] == Cell::Open {
                stretches.push((Some(end - 1), Segment::Open { n: run.len() }));
                continue;
            }
            // What a token reads as depends on the tokens before it.
            let is_at_start = start == first;
            let before =
                if is_at_start { self.known_before(first, !blank.starts_with.is_empty()) } else { first..first };
            let mut tokens: Vec<u32> = self.cells[before].iter().filter_map(|cell| cell.token()).collect();
            let n_before = tokens.len();
            tokens.extend(run.iter().filter_map(|cell| cell.token()));
            let text = model.decode_after(&tokens, n_before).unwrap_or_default();
            let mut skipped = if start == first { blank.n_given_bytes(&text) } else { 0 };
            let own = &text[skipped..];
            let mut n_left =
                if end == last { own.strip_suffix(blank.ends_with.as_str()).unwrap_or(own) } else { own }.len();
            let (mut from, mut until) = (n_before, n_before);
            for stretch in run.chunk_by(|a, b| join(*a, *b)) {
                until += stretch.len();
                let text = model.decode_after(&tokens[..until], from).unwrap_or_default();
                // Where tokens stand alone, the next ones may end the character.
                let alone = !join(stretch[0], stretch[0]);
                if alone && text.ends_with(char::REPLACEMENT_CHARACTER) && until < tokens.len() {
                    continue;
                }
                from = until;
                let cut = skipped.min(text.len());
                skipped -= cut;
                let text = text.get(cut..).unwrap_or_default();
                let text = text.get(..n_left.min(text.len())).unwrap_or_default().to_string();
                n_left -= text.len();
                let at = Some(start + until - n_before - 1);
                match stretch[0] {
                    _ if text.is_empty() => {}
                    Cell::Given(_) => stretches.push((at, Segment::Given { text })),
                    Cell::New(_) => stretches.push((at, Segment::New { text })),
                    Cell::Decoded(_) | Cell::Open => stretches.push((at, Segment::Decoded { text })),
                }
            }
        }
    }

    // The known tokens directly before a position; only given ones where given characters follow.
    fn known_before(&self, position: usize, are_given: bool) -> std::ops::Range<usize> {
        let counts = |cell: &&Cell| if are_given { matches!(cell, Cell::Given(_)) } else { **cell != Cell::Open };
        let n = self.cells[..position].iter().rev().take_while(counts).count();
        position - n..position
    }
}
