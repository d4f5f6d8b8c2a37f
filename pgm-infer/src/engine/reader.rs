//! What a finished row is read as.

use std::sync::Arc;

use crate::InferError;
use crate::text::TextModel;
use crate::text::reader::{BlankEnd, RowReader, RowText};

/// Reads the rows of a task.
pub(super) enum TaskReader {
    /// As text.
    Text(Arc<TextModel>, RowReader),
    /// Not at all: the tokens of a picture are decoded elsewhere.
    Picture,
}

impl TaskReader {
    /// Why the row may end before all its positions are decoded.
    pub(super) fn ended(&self, tokens: impl FnOnce() -> Vec<u32>) -> Option<BlankEnd> {
        match self {
            Self::Text(model, reader) => reader.ended(model, tokens),
            Self::Picture => None,
        }
    }

    /// The row's text; empty for a picture.
    ///
    /// # Errors
    /// [`InferError::Tokenizer`].
    pub(super) fn read(&self, tokens: &[u32], finished: bool) -> Result<RowText, InferError> {
        match self {
            Self::Text(model, reader) => reader.read(model, tokens, finished),
            Self::Picture => Ok(RowText { text: String::new(), blanks: Vec::new(), ended: None }),
        }
    }
}
