//! Codes in Arrow files, as the Hugging Face library writes them.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt16Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Schema};
use serde_json::Value;

use super::code_row::{CodeRow, CodeSink};
use crate::error::DataError;
use crate::pictures::classes::Survey;
use crate::pictures::columns::{class_names, features, label_of};
use crate::pictures::picture::{Poll, RawLabel, malformed};

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

fn not_arrow(path: &Path, error: &dyn std::fmt::Display) -> DataError {
    malformed(path, format!("is not a readable Arrow file ({error})"))
}

fn open_arrow(path: &Path) -> Result<(Schema, Batches), DataError> {
    let mut reader = BufReader::new(File::open(path).map_err(DataError::io("read", path))?);
    let mut magic = [0; 6];
    let is_file = reader.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
    reader.rewind().map_err(DataError::io("read", path))?;
    if is_file {
        let batches = arrow_ipc::reader::FileReader::try_new(reader, None).map_err(|error| not_arrow(path, &error))?;
        Ok((batches.schema().as_ref().clone(), Box::new(batches)))
    } else {
        let batches =
            arrow_ipc::reader::StreamReader::try_new(reader, None).map_err(|error| not_arrow(path, &error))?;
        Ok((batches.schema().as_ref().clone(), Box::new(batches)))
    }
}

// Names of classes from the schema, or from the data set's description beside the file.
fn names_of(path: &Path, schema: &Schema) -> Option<Vec<String>> {
    class_names(&features(schema)["label"]).or_else(|| {
        let json = std::fs::read(path.with_file_name("dataset_info.json")).ok()?;
        class_names(&serde_json::from_slice::<Value>(&json).ok()?["features"]["label"])
    })
}

/// Counts the rows and labels of a file.
pub(super) fn survey(path: &Path, survey: &mut Survey, poll: &mut Poll) -> Result<(), DataError> {
    let (schema, batches) = open_arrow(path)?;
    survey.add(Survey { names: names_of(path, &schema), ..Survey::default() })?;
    for batch in batches {
        poll()?;
        let batch = batch.map_err(|error| not_arrow(path, &error))?;
        let labels = batch.column_by_name("label");
        for row in 0..batch.num_rows() {
            let label = labels.map(|labels| label_of(labels, row)).transpose();
            let label = label.map_err(|problem| malformed(path, problem))?.flatten();
            survey.count(label.as_ref(), 1);
        }
    }
    Ok(())
}

/// Gives the rows of a file in order.
pub(super) fn read(path: &Path, sink: &mut CodeSink) -> Result<(), DataError> {
    let (schema, batches) = open_arrow(path)?;
    if schema.column_with_name("input_ids").is_none() {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(malformed(path, format!("has no column input_ids, its columns are {}", names.join(", "))));
    }
    let mut n_rows = 0;
    for batch in batches {
        let batch = batch.map_err(|error| not_arrow(path, &error))?;
        let ids = batch.column_by_name("input_ids").expect("the schema has it");
        let labels = batch.column_by_name("label");
        for row in 0..batch.num_rows() {
            let codes = list_row(ids, row).and_then(|codes| numbers(&codes));
            let label = labels.map(|labels| label_of(labels, row)).transpose();
            let problem = |problem: String| malformed(path, format!("row {n_rows} {problem}"));
            let (codes, label) = (codes.map_err(problem)?, label.map_err(problem)?.flatten());
            sink(CodeRow { place: format!("row {n_rows} of {}", path.display()), codes, label })?;
            n_rows += 1;
        }
    }
    Ok(())
}

fn list_row(array: &dyn Array, row: usize) -> Result<ArrayRef, String> {
    if array.is_null(row) {
        return Err("is null".to_string());
    }
    match array.data_type() {
        DataType::List(_) => Ok(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Ok(array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => Ok(array.as_fixed_size_list().value(row)),
        other => Err(format!("has input_ids of the type {other}, not lists of numbers")),
    }
}

fn numbers(array: &dyn Array) -> Result<Vec<i64>, String> {
    if *array.data_type() == DataType::UInt16 && array.null_count() == 0 {
        return Ok(array.as_primitive::<UInt16Type>().values().iter().map(|&code| code.into()).collect());
    }
    let number = |index: usize| match label_of(array, index) {
        Ok(Some(RawLabel::Number(number))) => Ok(i64::try_from(number).unwrap_or(i64::MAX)),
        _ => Err("has input_ids that are no numbers of codes".to_string()),
    };
    (0..array.len()).map(number).collect()
}
