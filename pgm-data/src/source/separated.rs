//! Documents in plain text: lines, paragraphs, or text between separators.

use std::borrow::Cow;

use super::input_file::InputFile;
use super::open::OpenedText;
use super::options::Documents;
use super::piece::{PieceSink, TextPiece};
use super::plain_text::{Lines, PIECE, cut_point};
use super::records::push_pieces;
use crate::detokenize::Detokenizer;
use crate::error::DataError;

/// Reads the documents of a file. A detokenizer is applied to each line first. Empty documents are left out.
pub(super) fn read(
    file: &InputFile,
    opened: OpenedText,
    documents: &Documents,
    detokenizer: Option<Detokenizer>,
    f: &mut PieceSink,
) -> Result<(), DataError> {
    let mut lines = Lines::new(file, opened);
    let mut cutter = DocumentCutter::new(documents);
    loop {
        let (block, n_bytes) = lines.next_block()?;
        for line in &block {
            match detokenizer {
                Some(detokenizer) => cutter.push(&detokenizer.apply(line), f)?,
                None => cutter.push(line, f)?,
            }
        }
        if n_bytes < 2 * PIECE {
            return cutter.finish(f);
        }
    }
}

/// Cuts a text that comes in parts into documents.
struct DocumentCutter<'a> {
    documents: &'a Documents,
    text: String,
    // How far the text was searched for a border.
    searched: usize,
    // Bytes that were left out and are in no piece yet.
    removed: u64,
    in_document: bool,
}

impl<'a> DocumentCutter<'a> {
    fn new(documents: &'a Documents) -> Self {
        Self { documents, text: String::new(), searched: 0, removed: 0, in_document: false }
    }

    fn push(&mut self, mut line: &str, f: &mut PieceSink) -> Result<(), DataError> {
        while !line.is_empty() {
            let end = (PIECE.min(line.len())..).find(|&at| line.is_char_boundary(at)).unwrap_or(line.len());
            let (part, rest) = line.split_at(end);
            line = rest;
            self.text.push_str(part);
            while let Some((start, end)) = self.border() {
                self.end_document(start, end, f)?;
            }
            if self.text.len() > 2 * PIECE {
                self.push_piece(f)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, f: &mut PieceSink) -> Result<(), DataError> {
        let end = self.text.len();
        self.end_document(end, end, f)
    }

    // Start and end of the next border. Line breaks beside it are removed later.
    fn border(&mut self) -> Option<(usize, usize)> {
        let found = match self.documents {
            Documents::File => None,
            Documents::Line => {
                self.text[self.searched..].find('\n').map(|at| (self.searched + at, self.searched + at + 1))
            }
            Documents::BlankLine => self.blank_line(),
            Documents::Separator(separator) => self.text[self.searched..]
                .find(separator.as_str())
                .map(|at| (self.searched + at, self.searched + at + separator.len())),
        };
        if found.is_none() {
            let kept = match self.documents {
                Documents::Separator(separator) => separator.len(),
                Documents::BlankLine => self.text.len() - self.text.trim_end().len() + 1,
                Documents::File | Documents::Line => 0,
            };
            let mut searched = self.text.len().saturating_sub(kept).max(self.searched);
            while !self.text.is_char_boundary(searched) {
                searched -= 1;
            }
            self.searched = searched;
        }
        found
    }

    // A line break, and a line of white space or nothing with its line break.
    fn blank_line(&self) -> Option<(usize, usize)> {
        let mut from = self.searched;
        while let Some(at) = self.text[from..].find('\n') {
            let start = from + at;
            let rest = &self.text[start + 1..];
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len();
            if rest[blank..].starts_with('\n') {
                return Some((start, start + 1 + blank + 1));
            }
            from = start + 1;
        }
        None
    }

    // Gives the text up to `start` as the end of a document and continues at `end`.
    fn end_document(&mut self, start: usize, end: usize, f: &mut PieceSink) -> Result<(), DataError> {
        let mut text = self.text[..start].trim_end_matches(['\n', '\r']);
        if !self.in_document {
            text = self.without_start(text);
        }
        if self.in_document || !text.trim().is_empty() {
            push_pieces(Cow::Borrowed(text), self.removed + end as u64, f)?;
            self.removed = 0;
        } else {
            self.removed += end as u64;
        }
        self.text.drain(..end);
        self.searched = 0;
        self.in_document = false;
        Ok(())
    }

    // Gives what can be in no border.
    fn push_piece(&mut self, f: &mut PieceSink) -> Result<(), DataError> {
        let kept = if let Documents::Separator(separator) = self.documents { separator.len() } else { 0 };
        let mut end = self.text.len() - kept.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let cut = cut_point(&self.text[..end]);
        let mut text = &self.text[..cut];
        if !self.in_document {
            text = self.without_start(text);
        }
        if cut == end || text.is_empty() {
            // One word without an end, or white space only: more text is needed, or memory holds it.
            let all_space = text.is_empty();
            if all_space || self.text.len() < 4 * PIECE {
                return Ok(());
            }
        }
        let source_bytes = self.removed + cut as u64;
        f(TextPiece { text: text.to_string(), source_bytes, ..TextPiece::default() })?;
        self.removed = 0;
        self.text.drain(..cut);
        self.searched = self.searched.saturating_sub(cut);
        self.in_document = true;
        Ok(())
    }

    // A document starts after line breaks, and after white lines where blank lines separate.
    fn without_start<'t>(&self, text: &'t str) -> &'t str {
        let mut text = text.trim_start_matches(['\n', '\r']);
        while matches!(self.documents, Documents::BlankLine)
            && let Some((line, rest)) = text.split_once('\n')
            && line.trim().is_empty()
        {
            text = rest;
        }
        text
    }
}
