//! What readers produce.

use crate::error::DataError;

/// Receives the pieces of documents.
pub(super) type PieceSink<'a> = dyn FnMut(TextPiece) -> Result<(), DataError> + 'a;

/// A part of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextPiece {
    /// The text.
    pub text: String,
    /// The token ids of a pre-tokenised document. The text is empty then.
    pub tokens: Option<Vec<u32>>,
    /// Whether this is the document's last piece.
    pub ends_document: bool,
    /// Whether a validation split may cut it. Plain text can be cut anywhere, other documents stay whole where they can.
    pub divisible: bool,
    /// Bytes of the file's text that it stands for. They differ from its own bytes with a detokenizer, at removed
    /// separators, and for token ids, which count four bytes each.
    pub source_bytes: u64,
}
