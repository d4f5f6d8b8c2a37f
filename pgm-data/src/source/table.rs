//! CSV and TSV: one document per record.

use std::borrow::Cow;

use super::input_file::InputFile;
use super::open::{OpenedText, read_error};
use super::records::{FieldValue, RecordSink};
use crate::error::DataError;

/// Reads the text in `column` of each record. The first record is the header.
pub(super) fn read(
    file: &InputFile,
    opened: OpenedText,
    delimiter: u8,
    column: &str,
    sink: &mut RecordSink,
) -> Result<(), DataError> {
    let malformed = |problem: String| DataError::Malformed { path: file.path().to_path_buf(), problem };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(opened.reader);
    let header = match reader.byte_headers() {
        Ok(header) => header.clone(),
        Err(error) => return Err(failed(file, error)),
    };
    let names: Vec<String> = header.iter().map(|name| String::from_utf8_lossy(name).trim().to_string()).collect();
    let Some(index) = names.iter().position(|name| name == column) else {
        return Err(malformed(format!(
            "has no column {column:?}, its columns are {}; name one with --column",
            names.join(", ")
        )));
    };
    let mut record = csv::ByteRecord::new();
    loop {
        let line = reader.position().line();
        let place = move || format!("line {line}");
        match reader.read_byte_record(&mut record) {
            Ok(false) => return Ok(()),
            Ok(true) => match std::str::from_utf8(&record[index]) {
                Ok(text) => sink.push(vec![FieldValue::Text(Cow::Borrowed(text))], &place)?,
                Err(_) => sink.bad(&place(), "is not UTF-8; give its encoding with --encoding")?,
            },
            Err(error) => match error.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    let problem =
                        format!("has {len} values under {expected_len} column names; check its quotation marks");
                    sink.bad(&place(), &problem)?;
                }
                _ => return Err(failed(file, error)),
            },
        }
    }
}

fn failed(file: &InputFile, error: csv::Error) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => read_error(file, error),
        kind => {
            let problem = format!("is not readable as a table ({kind:?})");
            DataError::Malformed { path: file.path().to_path_buf(), problem }
        }
    }
}
