//! The text of a row by positions: what a stream tells once, and then by its changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Serialize;

use super::canvas::Canvas;
use super::model::TextModel;
use crate::sample::RowChange;

// A token's text depends on few tokens around it: those of its character, and whether any is before it.
/// Positions before a changed one whose text may change: the beginning of its character.
const BEFORE: usize = 4;
/// Positions behind a changed one whose text may change.
const AFTER: usize = 8;
/// Tokens before them that are decoded, too.
const CONTEXT: usize = 24;

/// A stretch of a row before the first step.
#[derive(Debug, Serialize)]
pub struct Stretch {
    kind: StretchKind,
    start: usize,
    // Tokens.
    n: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum StretchKind {
    Given,
    Open,
}

/// The text that each position adds to the text of those before it, as far as they are decoded without a gap.
#[derive(Debug)]
pub struct CellTexts {
    texts: Vec<String>,
    // Given stretches whose text was told as that of their first position.
    whole: Vec<Range<usize>>,
}

impl CellTexts {
    /// The texts of a row.
    pub fn new(canvas: &Canvas, model: &TextModel) -> Self {
        let mut cells = Self { texts: vec![String::new(); canvas.length()], whole: Vec::new() };
        let mut position = 0;
        while position < canvas.length() {
            if canvas.is_open(position) {
                position += 1;
                continue;
            }
            let (start, tokens) = canvas.around(position, 0, canvas.length());
            cells.whole.push(start..start + tokens.len());
            for text in model.pieces(&tokens) {
                cells.texts[position] = text;
                position += 1;
            }
        }
        cells
    }

    /// The text of a position, empty for an open one.
    pub fn text(&self, position: usize) -> &str {
        &self.texts[position]
    }

    /// The row in stretches that are open or not.
    pub fn stretches(&self, canvas: &Canvas) -> Vec<Stretch> {
        let positions: Vec<usize> = (0..canvas.length()).collect();
        let stretch = |run: &[usize]| {
            let is_open = canvas.is_open(run[0]);
            Stretch {
                kind: if is_open { StretchKind::Open } else { StretchKind::Given },
                start: run[0],
                n: run.len(),
                text: (!is_open).then(|| run.iter().map(|&position| self.text(position)).collect()),
            }
        };
        positions.chunk_by(|a, b| canvas.is_open(*a) == canvas.is_open(*b)).map(stretch).collect()
    }

    /// Follows a step that `canvas` has applied already. Returns the positions whose text has changed, and their text,
    /// without those that were opened again.
    pub fn apply(&mut self, change: &RowChange, canvas: &Canvas, model: &TextModel) -> BTreeMap<usize, String> {
        let length = canvas.length();
        let decoded = change.decoded.iter().map(|(position, _)| *position);
        let near = decoded.chain(change.forgotten.iter().copied());
        let near = near.flat_map(|position| position.saturating_sub(BEFORE)..(position + AFTER + 1).min(length));
        let near: BTreeSet<usize> = near.collect();
        let mut changed = BTreeMap::new();
        let near: Vec<usize> = near.into_iter().collect();
        for run in near.chunk_by(|a, b| *b == a + 1 && canvas.is_open(*a) == canvas.is_open(*b)) {
            let (first, n) = (run[0], run.len());
            if canvas.is_open(first) {
                run.iter().for_each(|&position| self.texts[position].clear());
                continue;
            }
            let (start, tokens) = canvas.around(first, CONTEXT, n - 1 + BEFORE);
            let pieces = model.pieces(&tokens).into_iter().skip(first - start);
            for (&position, text) in run.iter().zip(pieces) {
                if text != self.texts[position] {
                    self.texts[position].clone_from(&text);
                    changed.insert(position, text);
                }
            }
        }
        self.whole =
            std::mem::take(&mut self.whole).into_iter().filter_map(|run| self.divided(run, &mut changed)).collect();
        changed
    }

    // Tells the positions of a whole stretch by themselves up to the last changed one, and the rest as that of the next
    // position. Returns the rest that is still told as a whole.
    fn divided(&self, run: Range<usize>, changed: &mut BTreeMap<usize, String>) -> Option<Range<usize>> {
        let Some((&last, _)) = changed.range(run.clone()).next_back() else { return Some(run) };
        for position in run.start..=last {
            changed.entry(position).or_insert_with(|| self.texts[position].clone());
        }
        let rest = last + 1..run.end;
        if rest.is_empty() {
            return None;
        }
        changed.insert(rest.start, self.texts[rest.clone()].concat());
        Some(rest)
    }
}
