//! What the tokens of a row read as: the whole text, the text of each blank, and where a blank ends early.

use std::ops::Range;

use super::Finish;
use crate::sampler::SampleRequest;
use crate::{InferError, TextModel};

/// A stretch that was open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilledBlank {
    /// Its positions.
    pub positions: Range<usize>,
    /// What was written there as it reads in the text, up to what ended it.
    pub text: String,
}

/// How the rows of a task are read.
pub(super) struct Reading {
    blanks: Vec<Range<usize>>,
    stop: Vec<String>,
    ends_at_eos: bool,
}

/// A row as text.
pub(super) struct Read {
    pub text: String,
    pub blanks: Vec<FilledBlank>,
    /// Why the first blank that ends before its last position does.
    pub ended: Option<Finish>,
}

impl Reading {
    /// Of rows like that one.
    pub(super) fn new(request: &SampleRequest, stop: Vec<String>, ends_at_eos: bool) -> Self {
        let mut given: Vec<usize> = request.given.iter().map(|(position, _)| *position).collect();
        given.sort_unstable();
        given.push(request.length);
        let mut next = 0;
        let mut blanks = Vec::new();
        for position in given {
            if next < position {
                blanks.push(next..position);
            }
            next = position + 1;
        }
        Self { blanks, stop, ends_at_eos }
    }

    /// Why the first blank that ends early does, once every blank is decoded up to where it ends.
    pub(super) fn ended(&self, model: &TextModel, tokens: impl FnOnce() -> Vec<u32>) -> Option<Finish> {
        if self.stop.is_empty() && !self.ends_at_eos {
            return None;
        }
        let tokens = &tokens();
        let mask = model.config().backbone().mask_index as u32;
        let mut why = None;
        for index in 0..self.blanks.len() {
            match self.cut(model, tokens, index) {
                Some((_, finish)) => why = why.or(Some(finish)),
                None if tokens[self.blanks[index].clone()].contains(&mask) => return None,
                None => {}
            }
        }
        why
    }

    // A blank's text and why it ends there, if it ends before its last position. Only what is decoded without a gap from
    // its start is looked at.
    fn cut(&self, model: &TextModel, tokens: &[u32], index: usize) -> Option<(String, Finish)> {
        let backbone = model.config().backbone();
        let written = &tokens[self.blanks[index].clone()];
        let until = |written: &[u32], token: usize| written.iter().position(|&other| other as usize == token);
        let written = &written[..until(written, backbone.mask_index).unwrap_or(written.len())];
        let eos = if self.ends_at_eos { until(written, backbone.eos_index) } else { None };
        if self.stop.is_empty() && eos.is_none() {
            return None;
        }
        let mut text =
            behind(model, self.before(model, tokens, index), &written[..eos.unwrap_or(written.len())]).ok()?;
        let found = self.stop.iter().filter_map(|stop| text.find(stop.as_str()).map(|at| (at, stop)));
        match found.min_by_key(|(at, _)| *at) {
            Some((at, stop)) => {
                text.truncate(at);
                Some((text, Finish::Stop(stop.clone())))
            }
            None => eos.map(|_| (text, Finish::Eos)),
        }
    }

    // The given tokens between a blank and the one before it. BOS is no text, even where the tokenizer does not know it
    // for a special token.
    fn before<'a>(&self, model: &TextModel, tokens: &'a [u32], index: usize) -> &'a [u32] {
        let start = index.checked_sub(1).map_or(first(model, tokens), |last| self.blanks[last].end);
        let end = self.blanks.get(index).map_or(tokens.len(), |blank| blank.start);
        &tokens[start.min(end)..end]
    }

    /// The text of a row; what is open is left out. Unless it is `whole`, a blank may end early only where it was cut.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`].
    pub(super) fn read(&self, model: &TextModel, tokens: &[u32], whole: bool) -> Result<Read, InferError> {
        let mask = model.config().backbone().mask_index as u32;
        let written = |tokens: &[u32]| -> Vec<u32> { tokens.iter().copied().filter(|&token| token != mask).collect() };
        let (mut text, mut last, mut blanks, mut ended) = (String::new(), Vec::new(), Vec::new(), None);
        for (index, positions) in self.blanks.iter().enumerate() {
            let (before, now) = (self.before(model, tokens, index), written(&tokens[positions.clone()]));
            text += &behind(model, &last, before)?;
            let cut = if whole { self.cut(model, tokens, index) } else { None };
            let of_blank = match cut {
                Some((of_blank, why)) => {
                    ended = ended.or(Some(why));
                    of_blank
                }
                None => behind(model, before, &now)?,
            };
            text += &of_blank;
            blanks.push(FilledBlank { positions: positions.clone(), text: of_blank });
            last = now;
        }
        if ended.is_none() {
            // In one piece: a character may begin in one stretch and end in the next.
            text = model.decode(&written(&tokens[first(model, tokens)..]))?;
        } else {
            text += &behind(model, &last, self.before(model, tokens, self.blanks.len()))?;
        }
        Ok(Read { text, blanks, ended })
    }
}

// Where text begins.
fn first(model: &TextModel, tokens: &[u32]) -> usize {
    usize::from(tokens.first().is_some_and(|&token| token as usize == model.config().backbone().bos_index))
}

// Tokens as they read behind others.
fn behind(model: &TextModel, before: &[u32], tokens: &[u32]) -> Result<String, InferError> {
    model.decode_after(&[before, tokens].concat(), before.len())
}
