//! A piece on its way to the rows, and its tokens.

use crate::error::DataError;
use crate::source::{PiecePlace, TextPiece};
use crate::special_tokens::SpecialNames;
use crate::tokenizer::TextTokenizer;

/// Bytes of a chunk that are checked for characters that the tokenizer drops.
const SAMPLE_BYTES: usize = 4096;

/// A piece of the inputs.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// As it was read.
    Text(TextPiece),
    /// As another process tokenized it.
    Encoded(EncodedPiece),
}

impl Piece {
    pub(super) fn source_bytes(&self) -> u64 {
        match self {
            Self::Text(piece) => piece.source_bytes,
            Self::Encoded(piece) => piece.source_bytes,
        }
    }

    pub(super) fn ends_document(&self) -> bool {
        match self {
            Self::Text(piece) => piece.ends_document,
            Self::Encoded(piece) => piece.ends_document,
        }
    }

    pub(super) fn divisible(&self) -> bool {
        match self {
            Self::Text(piece) => piece.divisible,
            Self::Encoded(piece) => piece.divisible,
        }
    }

    /// Makes it the last piece of its document.
    pub(super) fn end_document(&mut self) {
        match self {
            Self::Text(piece) => piece.ends_document = true,
            Self::Encoded(piece) => piece.ends_document = true,
        }
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Text(piece) => piece.text.len() + piece.tokens.as_ref().map_or(0, |tokens| 4 * tokens.len()),
            Self::Encoded(piece) => 4 * piece.tokens.len(),
        }
    }

    /// Its text, if it is there.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(piece) => Some(&piece.text).filter(|text| !text.is_empty()).map(String::as_str),
            Self::Encoded(_) => None,
        }
    }

    /// Its tokens. `continues` says whether it continues the document of the piece before.
    pub(super) fn encode(
        self,
        tokenizer: &TextTokenizer,
        continues: bool,
        names: &[String],
    ) -> Result<EncodedPiece, DataError> {
        match self {
            Self::Text(piece) => EncodedPiece::new(tokenizer, &piece, continues, names),
            Self::Encoded(piece) => Ok(piece),
        }
    }
}

/// The tokens of a piece and what is counted about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EncodedPiece {
    pub(super) tokens: Vec<u32>,
    pub(super) ends_document: bool,
    pub(super) divisible: bool,
    /// Whether it was tokenized as the continuation of a document.
    pub(super) continues: bool,
    /// Bytes of the file's text that it stands for.
    pub(super) source_bytes: u64,
    /// Bytes of text, after the detokenizer.
    pub(super) text_bytes: u64,
    /// Tokens for unknown text.
    pub(super) unknown: u64,
    /// How often the names of special tokens are in the text, in the order of [`marker_names`].
    pub(super) markers: [u64; 4],
    /// Characters of a sample that are in no token.
    pub(super) lost: u64,
    /// Characters of the sample.
    pub(super) sampled: u64,
    /// Where its text is, if another process read it.
    pub(super) place: Option<PiecePlace>,
}

impl EncodedPiece {
    pub(super) fn new(
        tokenizer: &TextTokenizer,
        piece: &TextPiece,
        continues: bool,
        names: &[String],
    ) -> Result<Self, DataError> {
        let special = tokenizer.special();
        let mut markers = [0; 4];
        let tokens = if let Some(ids) = &piece.tokens {
            let vocab_size = tokenizer.vocab_size();
            if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
                let problem = format!("the token id {id} is outside the tokenizer's vocabulary of {vocab_size}");
                return Err(DataError::Option(format!("{problem}; give the --tokenizer that made the ids")));
            }
            // BOS and EOS are put between documents anyway.
            let ids = ids.strip_prefix(&[special.bos]).unwrap_or(ids);
            ids.strip_suffix(&[special.eos]).unwrap_or(ids).to_vec()
        } else {
            for (name, count) in names.iter().zip(&mut markers).filter(|(name, _)| !name.is_empty()) {
                *count = piece.text.matches(name.as_str()).count() as u64;
            }
            if continues { tokenizer.encode_continued(&piece.text)? } else { tokenizer.encode(&piece.text)? }
        };
        if tokens.contains(&special.mask) {
            let token = tokenizer.special_names().mask.unwrap_or_else(|| format!("with the id {}", special.mask));
            return Err(DataError::MaskInText { token });
        }
        let unknown =
            tokenizer.unknown_id().map_or(0, |unknown| tokens.iter().filter(|&&token| token == unknown).count() as u64);
        Ok(Self {
            tokens,
            ends_document: piece.ends_document,
            divisible: piece.divisible,
            continues,
            source_bytes: piece.source_bytes,
            text_bytes: piece.text.len() as u64,
            unknown,
            markers,
            lost: 0,
            sampled: 0,
            place: None,
        })
    }
}

/// Characters at the start of a text that are in no token, and all characters there.
pub(super) fn sample(tokenizer: &TextTokenizer, text: &str) -> (u64, u64) {
    let end = (0..=text.len().min(SAMPLE_BYTES)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    tokenizer.lost_characters(&text[..end])
}

/// Names of BOS, EOS, padding and mask to look for in the text, where they would be tokenised as ordinary characters. A
/// token without such a name, or whose name comes earlier in the list, has an empty string.
pub(super) fn marker_names(tokenizer: &TextTokenizer) -> Vec<String> {
    let SpecialNames { bos, eos, pad, mask } = tokenizer.special_names();
    let mut names: Vec<String> = Vec::new();
    for name in [bos, eos, pad, mask] {
        let name = name.filter(|name| !names.contains(name) && tokenizer.is_special(name));
        names.push(name.unwrap_or_default());
    }
    names
}
