//! Where the given texts and the blanks of a row stand.

use std::ops::Range;

use crate::sample::SampleRequest;

/// A row of a template: what to sample, and how its tokens read.
///
/// A token at a border of a blank may hold given characters, see [`AllowedTokens`](crate::sample::AllowedTokens). They are
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
    /// The given texts: before the first blank, between two, and behind the last. None if the text is read from the tokens.
    pub texts: Option<Vec<String>>,
    /// Borders that take the position of a given token.
    pub n_replaced: usize,
}

/// A blank, and the given characters that its first and last token hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlankLayout {
    pub positions: Range<usize>,
    pub starts_with: String,
    pub ends_with: String,
}

impl BlankLayout {
    /// The blank's own text: what its tokens read as, without the given characters. `is_whole` says whether its last token
    /// is among them.
    pub fn own_text<'a>(&self, text: &'a str, is_whole: bool) -> &'a str {
        // At the start of a text a tokenizer may leave the space out.
        let start = self.starts_with.as_str();
        let text = [start, start.trim_start()].iter().find_map(|start| text.strip_prefix(start)).unwrap_or(text);
        if is_whole { text.strip_suffix(self.ends_with.as_str()).unwrap_or(text) } else { text }
    }
}

impl RowLayout {
    /// The layout of a row whose blanks are its stretches of open positions.
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
        Self { blanks, ..Self::default() }
    }
}
