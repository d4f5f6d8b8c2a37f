//! JSONL and Parquet: one document per line or row.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use arrow_array::cast::AsArray;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rayon::prelude::*;
use serde_json::Value;

use super::piece::TextPiece;
use crate::detokenize::Detokenizer;
use crate::error::DataError;

/// Reads the text in `field` of each line. Empty lines are skipped.
pub(super) fn read_json_lines(
    path: &Path,
    field: &str,
    detokenizer: Option<Detokenizer>,
    f: &mut dyn FnMut(TextPiece) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let malformed = |line: usize, problem: String| DataError::Malformed {
        path: path.to_path_buf(),
        problem: format!("line {line}: {problem}"),
    };
    let file = File::open(path).map_err(DataError::io("read", path))?;
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(DataError::io("read", path))?;
        if line.trim().is_empty() {
            continue;
        }
        let value: Value =
            serde_json::from_str(&line).map_err(|error| malformed(index + 1, format!("is not JSON ({error})")))?;
        let Some(text) = value.get(field).and_then(Value::as_str) else {
            return Err(malformed(index + 1, format!("has no text field {field:?}; name it with --field")));
        };
        f(TextPiece::document(detokenized(text, detokenizer), text.len()))?;
    }
    Ok(())
}

fn detokenized(text: &str, detokenizer: Option<Detokenizer>) -> String {
    detokenizer.map_or(Cow::Borrowed(text), |detokenizer| detokenizer.apply(text)).into_owned()
}

/// Reads the text in `column` of each row. Nulls are skipped.
pub(super) fn read_parquet(
    path: &Path,
    column: &str,
    detokenizer: Option<Detokenizer>,
    f: &mut dyn FnMut(TextPiece) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let malformed = |problem: String| DataError::Malformed { path: path.to_path_buf(), problem };
    let unreadable = |error: String| malformed(format!("is not a readable Parquet file ({error})"));
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(error.to_string()))?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let Some(index) = names.iter().position(|name| name == column) else {
        return Err(malformed(format!(
            "has no column {column:?}, its columns are {}; name one with --column",
            names.join(", ")
        )));
    };
    let mask = ProjectionMask::roots(builder.parquet_schema(), [index]);
    let reader = builder.with_projection(mask).with_batch_size(256).build();
    for batch in reader.map_err(|error| unreadable(error.to_string()))? {
        let batch = batch.map_err(|error| unreadable(error.to_string()))?;
        let array = batch.column(0);
        let texts: Vec<&str> = if let Some(strings) = array.as_string_opt::<i32>() {
            strings.iter().flatten().collect()
        } else if let Some(strings) = array.as_string_opt::<i64>() {
            strings.iter().flatten().collect()
        } else if let Some(strings) = array.as_string_view_opt() {
            strings.iter().flatten().collect()
        } else {
            return Err(malformed(format!("column {column:?} has the type {}, not text", array.data_type())));
        };
        let documents: Vec<TextPiece> =
            texts.into_par_iter().map(|text| TextPiece::document(detokenized(text, detokenizer), text.len())).collect();
        documents.into_iter().try_for_each(&mut *f)?;
    }
    Ok(())
}
