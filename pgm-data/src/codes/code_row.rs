//! The codes of one picture.

use crate::error::DataError;
use crate::pictures::picture::RawLabel;

/// The codes of one picture.
pub(super) struct CodeRow {
    /// Where it is, for messages.
    pub(super) place: String,
    /// As stored, so perhaps after BOS.
    pub(super) codes: Vec<i64>,
    pub(super) label: Option<RawLabel>,
}

/// Takes rows in order.
pub(super) type CodeSink<'a> = dyn FnMut(CodeRow) -> Result<(), DataError> + 'a;
