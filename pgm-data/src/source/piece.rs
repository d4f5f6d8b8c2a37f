//! What readers produce.

/// A part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPiece {
    /// The text.
    pub text: String,
    /// Whether this is the document's last piece.
    pub ends_document: bool,
    /// Whether a validation split may cut it. Plain text can be cut anywhere, other documents stay whole.
    pub divisible: bool,
    /// Bytes of the file's text that it stands for. They differ from its own bytes only with a detokenizer.
    pub source_bytes: u64,
}

impl TextPiece {
    /// A whole document of JSONL or Parquet.
    pub(super) fn document(text: String, source_bytes: usize) -> Self {
        Self { text, ends_document: true, divisible: false, source_bytes: source_bytes as u64 }
    }
}
