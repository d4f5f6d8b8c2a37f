//! Rows of a template: where its text and its blanks stand.

use std::collections::HashSet;

use pgm_model::config::MAX_LENGTH;

use super::border::{GivenText, TextBorder};
use super::layout::{BlankLayout, RowLayout, TextRow};
use super::model::TextModel;
use super::template::Part;
use crate::InferError;
use crate::sample::{Border, SampleRequest};

/// A stretch of a row.
#[derive(Clone, Debug)]
pub(crate) enum RowPart {
    /// Text or a blank.
    Template(Part),
    /// Given tokens.
    #[cfg_attr(not(feature = "server"), allow(dead_code))] // a body of the server has them
    Tokens(Vec<u32>),
}

// A stretch of a row in tokens.
enum Piece {
    Given { tokens: GivenText, text: Option<String> },
    Blank(usize),
    Free,
}

impl Piece {
    // Positions that it takes; a blank of free length takes more.
    fn size(&self) -> usize {
        match self {
            Self::Given { tokens: GivenText { head, tokens, tail, .. }, .. } => {
                let replaced = tail.as_ref().filter(|tail| tail.replaces_given);
                let n_borders = head.iter().chain(replaced).map(TextBorder::len).sum::<usize>();
                tokens.len() + n_borders
            }
            Self::Blank(count) => *count,
            Self::Free => 0,
        }
    }
}

impl TextModel {
    /// A row that starts with BOS and the parts of a template; positions after them are open up to `length` tokens.
    ///
    /// Without `length` a template whose blanks all have a length is as long as its parts. Plain text is continued to the
    /// trained length, and blanks of free length fill the row up to it. Only with `length` is a row longer than that.
    ///
    /// # Errors
    /// [`InferError::Request`] when the parts do not fit into `length` or leave nothing to fill in.
    pub fn request(&self, parts: &[Part], length: Option<usize>, seed: u64) -> Result<SampleRequest, InferError> {
        Ok(self.row(parts, length, seed)?.request)
    }

    /// As [`request`](Self::request), with what is needed to read the sampled row as text.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn row(&self, parts: &[Part], length: Option<usize>, seed: u64) -> Result<TextRow, InferError> {
        self.row_within(self.config().backbone().length, parts, length, seed)
    }

    /// As [`row`](Self::row); `most` is the largest row without a `length`.
    pub(crate) fn row_within(
        &self,
        most: usize,
        parts: &[Part],
        length: Option<usize>,
        seed: u64,
    ) -> Result<TextRow, InferError> {
        // Blanks that cannot fit are refused before the text around them is tokenised.
        let n_blanks = parts.iter().filter(|part| part.least() > 0).count();
        let room = length.unwrap_or(most);
        if n_blanks > room {
            return Err(InferError::Request(format!("{n_blanks} blanks do not fit into a row of {room} tokens")));
        }
        let parts: Vec<RowPart> = parts.iter().cloned().map(RowPart::Template).collect();
        let pieces = self.pieces_of(&parts)?;
        let n_free = pieces.iter().filter(|piece| matches!(piece, Piece::Free)).count();
        let fixed = pieces.iter().map(Piece::size).fold(1_usize, usize::saturating_add);
        let has_blank = pieces.iter().any(|piece| matches!(piece, Piece::Blank(_)));
        let next = fixed.saturating_add(n_free);
        if length.is_none() && next > most {
            let message = format!(
                "the text and its blanks need {next} tokens with BOS; the model's rows have {most}, and a longer one must be \
                 asked for with --length"
            );
            return Err(InferError::Request(message));
        }
        let length = length.unwrap_or(if has_blank && n_free == 0 { fixed } else { most });
        if length > MAX_LENGTH {
            return Err(InferError::Request(format!("--length is {length}, a row has at most {MAX_LENGTH} tokens")));
        }
        if next > length {
            let message = format!("the text and its blanks need {next} tokens with BOS, but --length is {length}");
            return Err(InferError::Request(message));
        }
        if fixed == length && !has_blank {
            let message = format!("the text fills all {length} tokens; give a larger --length or a blank");
            return Err(InferError::Request(message));
        }
        Ok(self.place(&pieces, length, seed))
    }

    /// A row of parts that all have their length.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`], and [`InferError::Request`] for a row that is too long or has nothing to fill in.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    pub(crate) fn row_of_parts(&self, parts: &[RowPart], seed: u64) -> Result<TextRow, InferError> {
        let pieces = self.pieces_of(parts)?;
        let length = pieces.iter().map(Piece::size).fold(1_usize, usize::saturating_add);
        if length > MAX_LENGTH {
            return Err(InferError::Request(format!("a row of {length} tokens; it has at most {MAX_LENGTH}")));
        }
        if pieces.iter().all(|piece| matches!(piece, Piece::Given { .. })) {
            return Err(InferError::Request(format!("{length} given tokens leave nothing of {length} to write")));
        }
        Ok(self.place(&pieces, length, seed))
    }

    fn pieces_of(&self, parts: &[RowPart]) -> Result<Vec<Piece>, InferError> {
        // Text in several parts is one text to the tokenizer's borders.
        let is_blank = |part: Option<&RowPart>| {
            matches!(part, Some(RowPart::Template(Part::Free)))
                || matches!(part, Some(RowPart::Template(Part::Blank(n))) if *n > 0)
        };
        // A row without blanks is continued behind its end.
        let is_open = !parts.iter().any(|part| is_blank(Some(part)));
        let piece = |(index, part): (usize, &RowPart)| {
            let text = match part {
                RowPart::Template(Part::Blank(count)) => return Ok(Piece::Blank(*count)),
                RowPart::Template(Part::Free) => return Ok(Piece::Free),
                RowPart::Tokens(tokens) => {
                    let tokens = GivenText { tokens: tokens.clone(), ..GivenText::default() };
                    return Ok(Piece::Given { tokens, text: None });
                }
                RowPart::Template(Part::Text(text)) => text,
            };
            let Some(table) = self.token_bytes().filter(|_| !text.is_empty()) else {
                let tokens = GivenText { tokens: self.encode(text)?, ..GivenText::default() };
                return Ok(Piece::Given { tokens, text: Some(text.clone()) });
            };
            let is_behind = is_blank(index.checked_sub(1).and_then(|last| parts.get(last)));
            let is_last = index + 1 == parts.len();
            let is_before = is_blank(parts.get(index + 1)) || (is_last && is_open);
            let tokens = GivenText::new(text, (is_behind, is_before), table, &|text| self.encode_with_ends(text))?;
            Ok(Piece::Given { tokens, text: Some(text.clone()) })
        };
        parts.iter().enumerate().map(piece).collect()
    }

    // Puts the pieces into a row of `length` tokens.
    fn place(&self, pieces: &[Piece], length: usize, seed: u64) -> TextRow {
        let n_free = pieces.iter().filter(|piece| matches!(piece, Piece::Free)).count();
        let room = length - pieces.iter().map(Piece::size).fold(1_usize, usize::saturating_add);
        let mut place = Placement::new(self.config().backbone().bos_index as u32);
        let mut n_seen = 0;
        for piece in pieces {
            match piece {
                Piece::Given { tokens, text } => place.give(tokens, text.as_deref()),
                Piece::Blank(count) => place.open(*count),
                Piece::Free => {
                    n_seen += 1;
                    place.open(room / n_free + usize::from(n_seen <= room % n_free));
                }
            }
        }
        let rest = length - place.next;
        place.open(rest);
        place.finish(length, seed, self.token_bytes().is_some())
    }
}

// A row while its pieces are placed.
struct Placement {
    given: Vec<(usize, u32)>,
    borders: Vec<Border>,
    next: usize,
    blanks: Vec<BlankLayout>,
    // Of each stretch of given text; none if some of it is given as tokens.
    texts: Vec<Option<String>>,
    n_replaced: usize,
    // Where the next blank begins, the given characters that its first tokens hold, and the given tokens that they stand for.
    starts: Option<(usize, String, usize)>,
}

impl Placement {
    fn new(bos: u32) -> Self {
        Self {
            given: vec![(0, bos)],
            borders: Vec::new(),
            next: 1,
            blanks: Vec::new(),
            texts: vec![Some(String::new())],
            n_replaced: 0,
            starts: None,
        }
    }

    fn open(&mut self, count: usize) {
        let (start, starts_with, n_replaced) = self.starts.take().unwrap_or((self.next, String::new(), 0));
        let end = self.next + count;
        self.next = end;
        if start == end {
            return;
        }
        let follows = self.texts.len() == self.blanks.len() && starts_with.is_empty();
        match self.blanks.last_mut().filter(|_| follows) {
            Some(blank) => blank.positions.end = end,
            None => {
                self.texts.resize(self.blanks.len() + 1, Some(String::new()));
                let ends_with = String::new();
                self.blanks.push(BlankLayout {
                    positions: start..end,
                    starts_with,
                    ends_with,
                    n_replaced: [n_replaced, 0],
                });
            }
        }
    }

    fn give(&mut self, given: &GivenText, text: Option<&str>) {
        if text.is_some_and(str::is_empty) {
            return;
        }
        self.texts.resize(self.blanks.len() + 1, Some(String::new()));
        if let Some(last) = self.texts.last_mut() {
            *last = last.take().zip(text).map(|(last, text)| last + text);
        }
        if let Some(head) = &given.head {
            let positions = self.next..self.next + head.len();
            let next = positions.start.checked_sub(1);
            self.next = positions.end;
            self.n_replaced += head.len();
            self.borders.push(head.at(positions.rev(), next));
            if let Some(blank) = self.blanks.last_mut() {
                blank.positions.end = self.next;
                blank.ends_with.clone_from(&head.required);
                blank.n_replaced[1] = head.len();
            }
        }
        self.given.extend((self.next..).zip(given.tokens.iter().copied()));
        self.next += given.tokens.len();
        if let Some(tail) = &given.tail {
            let positions = self.next..self.next + tail.len();
            let n_replaced = if tail.replaces_given { tail.len() } else { 0 };
            self.starts = Some((self.next, tail.required.clone(), n_replaced));
            self.next += n_replaced;
            self.n_replaced += n_replaced;
            self.borders.push(tail.at(positions, given.ends_in_word.then_some(self.next)));
        } else if given.ends_in_word {
            self.borders.push(Border { parts: Vec::new(), next: Some(self.next) });
        }
    }

    fn finish(self, length: usize, seed: u64, reads_texts: bool) -> TextRow {
        let Self { given, mut borders, blanks, mut texts, n_replaced, .. } = self;
        // A blank of one token may have no position of its own beside a border.
        let of_borders = borders.iter().flat_map(|border| &border.parts).map(|part| part.position);
        let taken: HashSet<usize> = given.iter().map(|(position, _)| *position).chain(of_borders).collect();
        for border in &mut borders {
            border.next = border.next.filter(|next| *next < length && !taken.contains(next));
        }
        texts.resize(blanks.len() + 1, Some(String::new()));
        if !reads_texts {
            texts.fill(None);
        }
        TextRow {
            request: SampleRequest { length, given, seed, borders, ..SampleRequest::default() },
            layout: RowLayout { blanks, texts, n_replaced },
        }
    }
}
