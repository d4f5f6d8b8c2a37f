//! Which split a piece goes to when the validation text is cut off the end of the training text.

use super::piece::Piece;
use super::sources::Pieces;
use crate::error::DataError;
use crate::source::TextPiece;

/// Where a piece goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// The training rows.
    Train,
    /// The validation rows.
    Validation,
    /// Nowhere: the text is beyond the source's share of a mixture.
    Nowhere,
}

/// Divides the text of one source. All numbers are bytes of the source.
#[derive(Debug)]
pub(super) struct Route {
    /// Where the validation text starts.
    cut: u64,
    /// Where the share of a mixture ends, `u64::MAX` for all text.
    end: u64,
    /// Whether documents that stay whole elsewhere are cut too.
    cut_documents: bool,
    seen: u64,
    within: Option<Destination>,
    /// Whether a document stayed whole that could have been cut.
    pub(super) kept_whole: bool,
}

impl Route {
    pub(super) fn new(cut: u64, end: u64, cut_documents: bool) -> Self {
        Self { cut, end, cut_documents, seen: 0, within: None, kept_whole: false }
    }

    /// Gives the piece, or its parts, to `f`. The answer is whether more text is wanted. `pieces` has the text of a piece that
    /// is cut.
    pub(super) fn push(
        &mut self,
        mut piece: Piece,
        pieces: &dyn Pieces,
        f: &mut dyn FnMut(Destination, Piece) -> Result<(), DataError>,
    ) -> Result<bool, DataError> {
        let start = self.seen;
        self.seen += piece.source_bytes();
        let by_start = match start {
            _ if start >= self.end => Destination::Nowhere,
            _ if start >= self.cut => Destination::Validation,
            _ => Destination::Train,
        };
        if by_start != Destination::Nowhere && self.seen >= self.end {
            // The share of a mixture is exact, so its last document is cut.
            if self.seen > self.end {
                piece = split(piece, self.end - start, pieces)?.0;
            }
            piece.end_document();
        }
        if piece.divisible() || (self.cut_documents && by_start != Destination::Nowhere) {
            self.within = None;
            if start < self.cut && self.cut < start + piece.source_bytes() {
                let (before, after) = split(piece, self.cut - start, pieces)?;
                f(Destination::Train, before)?;
                f(Destination::Validation, after)?;
            } else {
                f(by_start, piece)?;
            }
        } else {
            let destination = self.within.unwrap_or(by_start);
            self.kept_whole |= destination == Destination::Train && self.seen > self.cut;
            self.within = (!piece.ends_document()).then_some(destination);
            f(destination, piece)?;
        }
        Ok(self.seen < self.end || self.within.is_some())
    }
}

fn split(piece: Piece, source_bytes: u64, pieces: &dyn Pieces) -> Result<(Piece, Piece), DataError> {
    let text = match piece {
        Piece::Text(text) => text,
        Piece::Encoded(piece) => pieces.text_of(&piece)?,
    };
    let (before, after) = split_piece(text, source_bytes);
    Ok((Piece::Text(before), Piece::Text(after)))
}

// Cuts a piece so that its first part stands for `source_bytes` bytes of the file and ends a document.
fn split_piece(piece: TextPiece, source_bytes: u64) -> (TextPiece, TextPiece) {
    let rest_bytes = piece.source_bytes - source_bytes;
    let share = |length: usize| (u128::from(source_bytes) * length as u128 / u128::from(piece.source_bytes)) as usize;
    if let Some(tokens) = &piece.tokens {
        let (before, after) = tokens.split_at(share(tokens.len()).min(tokens.len()));
        let (before, after) = (Some(before.to_vec()), Some(after.to_vec()));
        return (
            TextPiece { tokens: before, ends_document: true, source_bytes, ..piece.clone() },
            TextPiece { tokens: after, source_bytes: rest_bytes, ..piece },
        );
    }
    // With a detokenizer the text is shorter than its source; the cut is proportional.
    let at = share(piece.text.len());
    let at = (0..=at.min(piece.text.len())).rev().find(|&i| piece.text.is_char_boundary(i)).unwrap_or(0);
    let (before, after) = (piece.text[..at].to_string(), piece.text[at..].to_string());
    let before = TextPiece { text: before, ends_document: true, source_bytes, tokens: None, ..piece };
    let after = TextPiece { text: after, source_bytes: rest_bytes, tokens: None, ..piece };
    (before, after)
}
