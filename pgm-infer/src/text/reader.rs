//! The text of a row: as a whole, of each blank, and where a blank ends early.

use std::ops::Range;

use super::layout::{BlankLayout, RowLayout, TextRow};
use super::model::TextModel;
use crate::InferError;
use crate::sample::SampledRow;

/// A stretch of open positions and the text written into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilledBlank {
    /// Its positions.
    pub positions: Range<usize>,
    /// Its text, up to the stop string or EOS that ended it.
    pub text: String,
    /// Characters of the given text before it that its first tokens hold. They are not in `text`.
    pub n_given_chars: usize,
}

/// Why a blank ends before its last position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BlankEnd {
    /// At this stop string.
    Stop(String),
    /// At an EOS.
    Eos,
}

/// Reads rows that have their blanks at the same positions.
pub(crate) struct RowReader {
    layout: RowLayout,
    stop: Vec<String>,
    ends_at_eos: bool,
}

/// A row as text.
pub(crate) struct RowText {
    pub text: String,
    pub blanks: Vec<FilledBlank>,
    /// Why the first blank that ends early does.
    #[cfg_attr(not(all(feature = "files", feature = "threads")), allow(dead_code))] // the engine tells it
    pub ended: Option<BlankEnd>,
}

impl RowReader {
    /// A reader of rows of this layout.
    pub(crate) fn new(layout: RowLayout, stop: Vec<String>, ends_at_eos: bool) -> Self {
        Self { layout, stop, ends_at_eos }
    }

    /// Why the row's first blank that ends early does, if every blank is decoded up to its end.
    #[cfg_attr(not(all(feature = "files", feature = "threads")), allow(dead_code))]
    pub(crate) fn ended(&self, model: &TextModel, tokens: impl FnOnce() -> Vec<u32>) -> Option<BlankEnd> {
        if self.stop.is_empty() && !self.ends_at_eos {
            return None;
        }
        let tokens = &tokens();
        let mask = model.config().backbone().mask_index as u32;
        let mut why = None;
        for index in 0..self.layout.blanks.len() {
            match self.early_end(model, tokens, index) {
                Some((_, end)) => why = why.or(Some(end)),
                None if tokens[self.layout.blanks[index].positions.clone()].contains(&mask) => return None,
                None => {}
            }
        }
        why
    }

    // A blank's text and why it ends there, if it ends early. Only tokens that are decoded without a gap from the blank's
    // start count.
    fn early_end(&self, model: &TextModel, tokens: &[u32], index: usize) -> Option<(BlankText, BlankEnd)> {
        let backbone = model.config().backbone();
        let blank = &self.layout.blanks[index];
        let written = &tokens[blank.positions.clone()];
        let until = |written: &[u32], token: usize| written.iter().position(|&other| other as usize == token);
        let written = &written[..until(written, backbone.mask_index).unwrap_or(written.len())];
        let eos = if self.ends_at_eos { until(written, backbone.eos_index) } else { None };
        if self.stop.is_empty() && eos.is_none() {
            return None;
        }
        let written = &written[..eos.unwrap_or(written.len())];
        let text = text_after(model, self.before(model, tokens, index), written).ok()?;
        let mut text = BlankText::new(blank, &text, written.len() == blank.positions.len());
        let found = self.stop.iter().filter_map(|stop| text.own.find(stop.as_str()).map(|at| (at, stop)));
        match found.min_by_key(|(at, _)| *at) {
            Some((at, stop)) => {
                text.own.truncate(at);
                Some((text, BlankEnd::Stop(stop.clone())))
            }
            None => eos.map(|_| (text, BlankEnd::Eos)),
        }
    }

    // The given tokens between a blank and the one before it. BOS is no text, even if the tokenizer does not list it as a
    // special token.
    fn before<'a>(&self, model: &TextModel, tokens: &'a [u32], index: usize) -> &'a [u32] {
        let blanks = &self.layout.blanks;
        let start = index.checked_sub(1).map_or(first(model, tokens), |last| blanks[last].positions.end);
        let end = blanks.get(index).map_or(tokens.len(), |blank| blank.positions.start);
        &tokens[start.min(end)..end]
    }

    /// The text of a row without its open positions. Blanks end early only in a row that is `finished`.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`].
    pub(crate) fn read(&self, model: &TextModel, tokens: &[u32], finished: bool) -> Result<RowText, InferError> {
        let mask = model.config().backbone().mask_index as u32;
        let written = |tokens: &[u32]| -> Vec<u32> { tokens.iter().copied().filter(|&token| token != mask).collect() };
        // In one piece if nothing but the tokens is known, because a character may begin in one stretch and end in the next.
        let texts = &self.layout.texts;
        let is_one_piece = texts.iter().any(Option::is_none) && texts.iter().flatten().all(String::is_empty);
        let (mut text, mut last, mut blanks, mut ended) = (String::new(), Vec::new(), Vec::new(), None);
        for (index, blank) in self.layout.blanks.iter().enumerate() {
            let (mut before, now) = (self.before(model, tokens, index), written(&tokens[blank.positions.clone()]));
            match self.layout.text(index) {
                Some(given) => text += given,
                // The blank's text has the character that its first token ends.
                None => text += text_after(model, &last, before)?.trim_end_matches(char::REPLACEMENT_CHARACTER),
            }
            if before.is_empty() && blank.starts_with.is_empty() {
                // The text between the blanks is in the tokens of the blank before.
                before = &last;
            }
            let end = if finished { self.early_end(model, tokens, index) } else { None };
            let of_blank = match end {
                Some((of_blank, why)) => {
                    ended = ended.or(Some(why));
                    of_blank
                }
                None => {
                    let is_whole = tokens[blank.positions.clone()].last().is_some_and(|&token| token != mask);
                    BlankText::new(blank, &text_after(model, before, &now)?, is_whole)
                }
            };
            text += &of_blank.own;
            let (positions, n_given_chars) = (blank.positions.clone(), of_blank.n_given_chars);
            blanks.push(FilledBlank { positions, text: of_blank.own, n_given_chars });
            last = now;
        }
        match self.layout.text(self.layout.blanks.len()) {
            _ if is_one_piece && ended.is_none() => {
                text = model.decode(&written(&tokens[first(model, tokens)..]))?;
            }
            Some(given) => text += given,
            None => text += &text_after(model, &last, self.before(model, tokens, self.layout.blanks.len()))?,
        }
        Ok(RowText { text, blanks, ended })
    }
}

// The own text of a blank.
struct BlankText {
    own: String,
    // Characters of the given text that its tokens hold before it.
    n_given_chars: usize,
}

impl BlankText {
    fn new(blank: &BlankLayout, text: &str, is_whole: bool) -> Self {
        let n_given_chars = text[..blank.n_given_bytes(text)].chars().count();
        Self { own: blank.own_text(text, is_whole).to_string(), n_given_chars }
    }
}

/// A sampled row as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilledRow {
    /// All of it, open positions left out. The given texts are those of the template, byte for byte.
    pub text: String,
    /// Its blanks.
    pub blanks: Vec<FilledBlank>,
}

impl TextRow {
    /// The text of a sampled row, open positions left out. The given texts are those of the template, byte for byte.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`] when the tokenizer refuses an id.
    pub fn read(&self, model: &TextModel, row: &SampledRow) -> Result<String, InferError> {
        Ok(self.read_blanks(model, row)?.text)
    }

    /// As [`read`](Self::read), with the text of each blank.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_blanks(&self, model: &TextModel, row: &SampledRow) -> Result<FilledRow, InferError> {
        let reader = RowReader::new(self.layout.clone(), Vec::new(), false);
        let RowText { text, blanks, .. } = reader.read(model, &row.tokens, row.complete)?;
        Ok(FilledRow { text, blanks })
    }
}

// The index of the first token after BOS.
fn first(model: &TextModel, tokens: &[u32]) -> usize {
    usize::from(tokens.first().is_some_and(|&token| token as usize == model.config().backbone().bos_index))
}

// The text that tokens add to the text of those before them.
fn text_after(model: &TextModel, before: &[u32], tokens: &[u32]) -> Result<String, InferError> {
    model.decode_after(&[before, tokens].concat(), before.len())
}
