//! Where the given texts and the blanks of a row stand.

use std::ops::Range;

use crate::sample::SampleRequest;

/// A row of a template: what to sample, and how its tokens read.
///
/// A token at a border of a blank may hold given characters, see [`Border`](crate::sample::Border). They are
/// a part of the given text, not of the blank's.
#[derive(Clone, Debug)]
pub struct TextRow {
    /// What to sample.
    pub request: SampleRequest,
    pub(crate) layout: RowLayout,
}

impl TextRow {
    /// The tokens of the given texts, BOS left out. Tokens that a border replaces count.
    pub fn n_given(&self) -> usize {
        self.request.given.len() - 1 + self.layout.n_replaced
    }

    /// Tokens at borders that stand for a given token: they are drawn, but no part of a blank's length.
    pub fn n_replaced(&self) -> usize {
        self.layout.n_replaced
    }
}

/// The blanks of a row, and the texts between them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowLayout {
    pub blanks: Vec<BlankLayout>,
    /// The given texts: before the first blank, between two, and behind the last. None for a text that is read from its tokens.
    pub texts: Vec<Option<String>>,
    /// Borders that take the position of a given token.
    pub n_replaced: usize,
}

/// A blank, and the given characters that its first and last tokens hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlankLayout {
    pub positions: Range<usize>,
    pub starts_with: String,
    pub ends_with: String,
    /// Tokens at its start and at its end that stand for a given token.
    pub n_replaced: [usize; 2],
}

impl BlankLayout {
    /// The blank's own text: what its tokens read as, without the given characters. `is_whole` says whether its last token
    /// is among them.
    pub fn own_text<'a>(&self, text: &'a str, is_whole: bool) -> &'a str {
        let text = &text[self.n_given_bytes(text)..];
        if is_whole { text.strip_suffix(self.ends_with.as_str()).unwrap_or(text) } else { text }
    }

    /// Bytes of given characters that the blank's text, or the beginning of it, starts with.
    pub fn n_given_bytes(&self, text: &str) -> usize {
        // At the start of a text a tokenizer may leave the space out.
        let start = self.starts_with.as_str();
        let starts = [start, start.trim_start()];
        let whole = starts.iter().find(|start| text.starts_with(**start)).map(|start| start.len());
        // The tokens so far hold a part of the given characters, perhaps with an incomplete character.
        let is_part = |start: &&str| start.starts_with(text.trim_end_matches(char::REPLACEMENT_CHARACTER));
        whole.unwrap_or_else(|| if starts.iter().any(is_part) { text.len() } else { 0 })
    }
}

impl RowLayout {
    /// The layout of a row whose blanks are its stretches of open positions.
    #[cfg_attr(not(all(feature = "files", feature = "threads")), allow(dead_code))] // the engine has them
    pub fn of_request(request: &SampleRequest) -> Self {
        let mut given: Vec<usize> = request.given.iter().map(|(position, _)| *position).collect();
        given.sort_unstable();
        given.push(request.length);
        let mut next = 0;
        let mut blanks = Vec::new();
        for position in given {
            if next < position {
                blanks.push(BlankLayout { positions: next..position, ..BlankLayout::default() });
            }
            next = position + 1;
        }
        let texts = vec![None; blanks.len() + 1];
        Self { blanks, texts, n_replaced: 0 }
    }

    /// The given text before a blank (behind the last, for their number), if it is known other than by its tokens.
    pub fn text(&self, index: usize) -> Option<&str> {
        self.texts.get(index)?.as_deref()
    }
}
