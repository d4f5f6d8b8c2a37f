//! Plain text, cut into pieces at white space.

use std::borrow::Cow;
use std::io::{BufRead, Read};

use rayon::prelude::*;

use super::input_file::InputFile;
use super::open::{OpenedText, read_error};
use super::piece::{PieceSink, TextPiece};
use crate::detokenize::Detokenizer;
use crate::error::DataError;

/// The unit of buffers: a piece without a detokenizer has at most twice this many bytes.
pub(super) const PIECE: usize = 256 * 1024;

/// Reads a file in pieces. The whole file is one document.
pub(super) fn read(file: &InputFile, opened: OpenedText, f: &mut PieceSink) -> Result<(), DataError> {
    let OpenedText { mut reader, mark_bytes, before } = opened;
    let mut buffer = Vec::with_capacity(2 * PIECE);
    let mut offset = before + mark_bytes;
    loop {
        let wanted = (2 * PIECE - buffer.len()) as u64;
        let read = (&mut reader).take(wanted).read_to_end(&mut buffer).map_err(|error| read_error(file, error))?;
        let at_end = (read as u64) < wanted;
        let text = checked(file, &buffer, offset, at_end)?;
        if at_end {
            let source_bytes = text.len() as u64;
            let text = text.to_string();
            return f(TextPiece { text, ends_document: true, divisible: true, source_bytes, tokens: None });
        }
        let cut = cut_point(text);
        let source_bytes = cut as u64;
        let text = text[..cut].to_string();
        f(TextPiece { text, ends_document: false, divisible: true, source_bytes, tokens: None })?;
        buffer.drain(..cut);
        offset += cut as u64;
    }
}

/// Reads a file in pieces, with a detokenizer applied to each line. A whole line must fit into memory.
pub(super) fn read_detokenized(
    file: &InputFile,
    opened: OpenedText,
    detokenizer: Detokenizer,
    f: &mut PieceSink,
) -> Result<(), DataError> {
    let mut lines = Lines::new(file, opened);
    let (mut text, mut source_bytes) = (String::new(), 0_u64);
    loop {
        let (lines, n_bytes) = lines.next_block()?;
        let whole: Vec<Cow<str>> = lines.par_iter().map(|line| detokenizer.apply(line)).collect();
        text.extend(whole);
        source_bytes += n_bytes as u64;
        if n_bytes < 2 * PIECE {
            return f(TextPiece { text, ends_document: true, divisible: true, source_bytes, tokens: None });
        }
        let rest = text.split_off(cut_point(&text));
        // The file's bytes are divided in proportion to the text, which is exact enough for a split by bytes.
        let all = (text.len() + rest.len()).max(1);
        let rest_bytes = (u128::from(source_bytes) * rest.len() as u128 / all as u128) as u64;
        let piece_bytes = source_bytes - rest_bytes;
        f(TextPiece { text, ends_document: false, divisible: true, source_bytes: piece_bytes, tokens: None })?;
        (text, source_bytes) = (rest, rest_bytes);
    }
}

/// Reads whole lines.
pub(super) struct Lines<'a> {
    file: &'a InputFile,
    reader: Box<dyn BufRead>,
    offset: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(file: &'a InputFile, opened: OpenedText) -> Self {
        Self { file, reader: opened.reader, offset: opened.before + opened.mark_bytes }
    }

    /// Lines of together two pieces' bytes or more, with their number of bytes. Fewer bytes mean the end of the file.
    pub(super) fn next_block(&mut self) -> Result<(Vec<String>, usize), DataError> {
        let (mut lines, mut n_bytes) = (Vec::new(), 0);
        while n_bytes < 2 * PIECE {
            let mut line = Vec::new();
            let read = self.reader.read_until(b'\n', &mut line).map_err(|error| read_error(self.file, error))?;
            if read == 0 {
                break;
            }
            checked(self.file, &line, self.offset, true)?;
            lines.push(String::from_utf8(line).expect("checked above"));
            n_bytes += read;
            self.offset += read as u64;
        }
        Ok((lines, n_bytes))
    }
}

// The bytes as text without NUL. Unless they are the file's last, they may end within a character.
fn checked<'b>(file: &InputFile, bytes: &'b [u8], offset: u64, at_end: bool) -> Result<&'b str, DataError> {
    let path = || file.path().to_path_buf();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && !at_end => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to there")
        }
        Err(error) => return Err(DataError::NotUtf8 { path: path(), offset: offset + error.valid_up_to() as u64 }),
    };
    match text.find('\0') {
        None => Ok(text),
        Some(at) => {
            let problem = format!("is not text: it has a NUL byte at byte {}", offset + at as u64);
            Err(DataError::Malformed { path: path(), problem })
        }
    }
}

// Where to cut: before the last white space that follows another character. Tokenizers that split before white space,
// such as GPT-2's and BERT's, give the same tokens for the two parts as for the whole text.
pub(super) fn cut_point(text: &str) -> usize {
    let mut later_is_space = None;
    for (index, character) in text.char_indices().rev() {
        match later_is_space {
            Some(cut) if !character.is_whitespace() => return cut,
            _ => later_is_space = character.is_whitespace().then_some(index),
        }
    }
    text.len()
}
