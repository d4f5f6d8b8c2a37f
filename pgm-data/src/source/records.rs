//! What all readers of records share: the counts of what is left out, and documents cut into pieces.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::piece::{PieceSink, TextPiece};
use super::plain_text::{PIECE, cut_point};
use crate::detokenize::Detokenizer;
use crate::error::DataError;

/// How many bad records are named.
const N_NAMED: usize = 10;
/// Longer documents come in pieces of this many bytes.
const LONG: usize = 2 * PIECE;
/// The size of these pieces. Smaller than in plain text, because the memory of a long record is in use beside them.
const LONG_PIECE: usize = 32 * 1024;

/// Counts of the records that were left out while reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedRecords {
    /// Records whose text is null.
    pub nulls: u64,
    /// Records that could not be read.
    pub bad: u64,
    /// The place and problem of the first bad records.
    pub named: Vec<String>,
    pub(super) skip_bad: bool,
    watch: SkipWatch,
}

/// The counts of [`SkippedRecords`] while a reader has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SkipWatch(Arc<[AtomicU64; 2]>);

impl SkipWatch {
    /// Nulls and bad records since the last call.
    pub(crate) fn take(&self) -> (u64, u64) {
        (self.0[0].swap(0, Ordering::Relaxed), self.0[1].swap(0, Ordering::Relaxed))
    }
}

// Who watches is no part of the counts.
impl PartialEq for SkipWatch {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for SkipWatch {}

impl SkippedRecords {
    pub(crate) fn new(skip_bad: bool) -> Self {
        Self { skip_bad, ..Self::default() }
    }

    /// Says what is counted while a reader has the counts.
    pub(crate) fn watch(&self) -> SkipWatch {
        self.watch.clone()
    }

    /// Adds what another process counted.
    pub(crate) fn add(&mut self, nulls: u64, bad: u64) {
        self.nulls += nulls;
        self.bad += bad;
    }

    /// Adds places of bad records that another process named.
    pub(crate) fn name(&mut self, named: &[String]) {
        for name in named {
            if self.named.len() < N_NAMED && !self.named.contains(name) {
                self.named.push(name.clone());
            }
        }
    }

    fn null(&mut self) {
        self.nulls += 1;
        self.watch.0[0].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a bad record, which is an error unless bad records are skipped.
    pub(super) fn bad(&mut self, path: &Path, problem: String) -> Result<(), DataError> {
        if !self.skip_bad {
            return Err(DataError::Malformed { path: path.to_path_buf(), problem });
        }
        self.bad += 1;
        self.watch.0[1].fetch_add(1, Ordering::Relaxed);
        if self.named.len() < N_NAMED {
            self.named.push(format!("{}: {problem}", path.display()));
        }
        Ok(())
    }
}

/// The content of a record's field.
#[derive(Debug, PartialEq)]
pub(super) enum FieldValue<'a> {
    Null,
    Text(Cow<'a, str>),
    Ids(Vec<u32>),
}

/// Where the documents of one file go.
pub(super) struct RecordSink<'a> {
    pub(super) path: &'a Path,
    /// What else a message about a bad record says.
    pub(super) hint: &'static str,
    pub(super) detokenizer: Option<Detokenizer>,
    pub(super) skipped: &'a mut SkippedRecords,
    pub(super) pieces: &'a mut PieceSink<'a>,
}

impl RecordSink<'_> {
    /// The values of numbered rows. A detokenizer works on them in parallel.
    #[cfg_attr(not(feature = "columns"), allow(dead_code))]
    pub(super) fn push_rows(&mut self, rows: Vec<(u64, Vec<FieldValue>)>) -> Result<(), DataError> {
        let detokenizer = self.detokenizer;
        let rows: Vec<_> = if detokenizer.is_some() {
            rows.into_par_iter().map(|(row, values)| (row, sized(values, detokenizer))).collect()
        } else {
            rows.into_iter().map(|(row, values)| (row, sized(values, None))).collect()
        };
        rows.into_iter().try_for_each(|(row, values)| self.push_sized(values, &|| format!("row {row}")))
    }

    /// The values of one record, which are documents. `place` names the record in messages.
    pub(super) fn push(&mut self, values: Vec<FieldValue>, place: &dyn Fn() -> String) -> Result<(), DataError> {
        self.push_sized(sized(values, self.detokenizer), place)
    }

    fn push_sized(&mut self, values: Vec<SizedValue>, place: &dyn Fn() -> String) -> Result<(), DataError> {
        if values.iter().any(|value| matches!(&value.value, FieldValue::Text(text) if text.contains('\0'))) {
            return self.bad(&place(), "has a NUL character in its text");
        }
        for SizedValue { value, source_bytes } in values {
            match value {
                FieldValue::Null => self.skipped.null(),
                FieldValue::Text(text) => push_pieces(text, source_bytes, self.pieces)?,
                FieldValue::Ids(ids) => (self.pieces)(TextPiece {
                    source_bytes,
                    tokens: Some(ids),
                    ends_document: true,
                    ..TextPiece::default()
                })?,
            }
        }
        Ok(())
    }

    /// A text that is too long to be copied.
    pub(super) fn push_long(&mut self, text: &str, place: &dyn Fn() -> String) -> Result<(), DataError> {
        self.push(vec![FieldValue::Text(Cow::Borrowed(text))], place)
    }

    /// A record that cannot be read.
    pub(super) fn bad(&mut self, place: &str, problem: &str) -> Result<(), DataError> {
        self.skipped.bad(self.path, format!("{place}: {problem}{}", self.hint))
    }
}

/// A value after the detokenizer, with the bytes that it stands for.
struct SizedValue<'a> {
    value: FieldValue<'a>,
    source_bytes: u64,
}

fn sized(values: Vec<FieldValue>, detokenizer: Option<Detokenizer>) -> Vec<SizedValue> {
    let sized = |value| match (value, detokenizer) {
        (FieldValue::Text(text), Some(detokenizer)) => {
            let source_bytes = text.len() as u64;
            let text = Cow::Owned(detokenizer.apply(&text).into_owned());
            SizedValue { value: FieldValue::Text(text), source_bytes }
        }
        (FieldValue::Text(text), None) => SizedValue { source_bytes: text.len() as u64, value: FieldValue::Text(text) },
        (FieldValue::Ids(ids), _) => SizedValue { source_bytes: 4 * ids.len() as u64, value: FieldValue::Ids(ids) },
        (FieldValue::Null, _) => SizedValue { value: FieldValue::Null, source_bytes: 0 },
    };
    values.into_iter().map(sized).collect()
}

/// Gives a document to `f`, in several pieces if it is long.
pub(super) fn push_pieces(text: Cow<str>, mut source_bytes: u64, f: &mut PieceSink) -> Result<(), DataError> {
    if text.len() <= LONG {
        return f(TextPiece { text: text.into_owned(), ends_document: true, source_bytes, ..TextPiece::default() });
    }
    let mut rest = &*text;
    while rest.len() > 2 * LONG_PIECE {
        let end = (LONG_PIECE..).find(|&at| rest.is_char_boundary(at)).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(cut_point(&rest[..end]));
        let piece_bytes = (u128::from(source_bytes) * piece.len() as u128 / rest.len() as u128) as u64;
        source_bytes -= piece_bytes;
        f(TextPiece { text: piece.to_string(), source_bytes: piece_bytes, ..TextPiece::default() })?;
        rest = after;
    }
    f(TextPiece { text: rest.to_string(), ends_document: true, source_bytes, ..TextPiece::default() })
}
