//! Plain text, cut into pieces at white space.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use rayon::prelude::*;

use super::piece::TextPiece;
use crate::detokenize::Detokenizer;
use crate::error::DataError;

/// The unit of buffers: a piece without a detokenizer has at most twice this many bytes.
pub(super) const PIECE: usize = 256 * 1024;

/// Reads a file in pieces.
pub(super) fn read(path: &Path, f: &mut dyn FnMut(TextPiece) -> Result<(), DataError>) -> Result<(), DataError> {
    let mut file = File::open(path).map_err(DataError::io("read", path))?;
    let mut buffer = Vec::with_capacity(2 * PIECE);
    let mut offset = 0_u64;
    loop {
        let wanted = (2 * PIECE - buffer.len()) as u64;
        let read = (&mut file).take(wanted).read_to_end(&mut buffer).map_err(DataError::io("read", path))?;
        let at_end = (read as u64) < wanted;
        let text = match std::str::from_utf8(&buffer) {
            Ok(text) => text,
            // The buffer ends within a character, which the next round completes.
            Err(error) if error.error_len().is_none() && !at_end => {
                std::str::from_utf8(&buffer[..error.valid_up_to()]).expect("valid up to there")
            }
            Err(error) => {
                let offset = offset + error.valid_up_to() as u64;
                return Err(DataError::NotUtf8 { path: path.to_path_buf(), offset });
            }
        };
        if at_end {
            let source_bytes = text.len() as u64;
            return f(TextPiece { text: text.to_string(), ends_document: true, divisible: true, source_bytes });
        }
        let cut = cut_point(text);
        let source_bytes = cut as u64;
        f(TextPiece { text: text[..cut].to_string(), ends_document: false, divisible: true, source_bytes })?;
        buffer.drain(..cut);
        offset += cut as u64;
    }
}

/// Reads a file in pieces, with a detokenizer applied to each line. A whole line must fit into memory.
pub(super) fn read_detokenized(
    path: &Path,
    detokenizer: Detokenizer,
    f: &mut dyn FnMut(TextPiece) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut file = BufReader::new(File::open(path).map_err(DataError::io("read", path))?);
    let (mut text, mut source_bytes, mut offset) = (String::new(), 0_u64, 0_u64);
    loop {
        let (mut lines, mut n_bytes) = (Vec::new(), 0);
        while n_bytes < 2 * PIECE {
            let mut line = Vec::new();
            let read = file.read_until(b'\n', &mut line).map_err(DataError::io("read", path))?;
            if read == 0 {
                break;
            }
            let line = String::from_utf8(line).map_err(|error| DataError::NotUtf8 {
                path: path.to_path_buf(),
                offset: offset + error.utf8_error().valid_up_to() as u64,
            })?;
            lines.push(line);
            n_bytes += read;
            offset += read as u64;
        }
        let whole: Vec<Cow<str>> = lines.par_iter().map(|line| detokenizer.apply(line)).collect();
        text.extend(whole);
        source_bytes += n_bytes as u64;
        if n_bytes < 2 * PIECE {
            return f(TextPiece { text, ends_document: true, divisible: true, source_bytes });
        }
        let rest = text.split_off(cut_point(&text));
        // The file's bytes are divided in proportion to the text, which is exact enough for a split by bytes.
        let all = (text.len() + rest.len()).max(1);
        let rest_bytes = (u128::from(source_bytes) * rest.len() as u128 / all as u128) as u64;
        f(TextPiece { text, ends_document: false, divisible: true, source_bytes: source_bytes - rest_bytes })?;
        (text, source_bytes) = (rest, rest_bytes);
    }
}

// Where to cut: before the last white space that follows another character. Tokenizers that split before white space,
// such as GPT-2's and BERT's, give the same tokens for the two parts as for the whole text.
fn cut_point(text: &str) -> usize {
    let mut later_is_space = None;
    for (index, character) in text.char_indices().rev() {
        match later_is_space {
            Some(cut) if !character.is_whitespace() => return cut,
            _ => later_is_space = character.is_whitespace().then_some(index),
        }
    }
    text.len()
}
