//! Reads codes and labels from files of the public codes.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt16Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Schema};
use rayon::prelude::*;
use serde_json::Value;

use super::find::CodeFiles;
use super::pickle::{Numbers, read_code_pickle};
use crate::error::DataError;
use crate::pictures::classes::Survey;
use crate::pictures::columns::{class_names, features, label_of};
use crate::pictures::picture::{Poll, RawLabel, malformed};

/// Pickles that are read together.
const CHUNK_FILES: usize = 1024;
/// A larger file is refused.
const MOST_PICKLE_BYTES: u64 = 16 << 20;

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

impl CodeFiles {
    /// Counts rows and labels.
    pub(super) fn survey(&self, poll: &mut Poll) -> Result<Survey, DataError> {
        let mut survey = Survey::default();
        match self {
            Self::Arrow(paths) => {
                for path in paths {
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
                }
            }
            Self::Pickles(_) => self.read(&mut |row| {
                poll()?;
                survey.count(row.label.as_ref(), 1);
                Ok(())
            })?,
            Self::Pairs(pairs) => {
                for (codes, labels) in pairs {
                    poll()?;
                    let n_rows = npy_rows(codes)?;
                    survey.count(Some(&npy_label(labels)?), n_rows);
                }
            }
        }
        Ok(survey)
    }

    /// Gives the rows in order.
    pub(super) fn read(&self, sink: &mut CodeSink) -> Result<(), DataError> {
        match self {
            Self::Arrow(paths) => paths.iter().try_for_each(|path| read_arrow(path, sink)),
            Self::Pickles(paths) => {
                for chunk in paths.chunks(CHUNK_FILES) {
                    let rows: Vec<Result<CodeRow, DataError>> =
                        chunk.par_iter().map(|path| read_pickle(path)).collect();
                    for row in rows {
                        sink(row?)?;
                    }
                }
                Ok(())
            }
            Self::Pairs(pairs) => {
                for (codes, labels) in pairs {
                    let label = npy_label(labels)?;
                    let Numbers { shape, values } = read_npy(codes)?;
                    let length = shape.last().map_or(1, |&length| length.max(1) as usize);
                    for (index, codes_of_row) in values.chunks_exact(length).enumerate() {
                        let place = format!("row {index} of {}", codes.display());
                        sink(CodeRow { place, codes: codes_of_row.to_vec(), label: Some(label.clone()) })?;
                    }
                }
                Ok(())
            }
        }
    }
}

fn read_pickle(path: &Path) -> Result<CodeRow, DataError> {
    let n_bytes = path.metadata().map_err(DataError::io("read", path))?.len();
    if n_bytes > MOST_PICKLE_BYTES {
        return Err(malformed(path, "is too large for the codes of one picture"));
    }
    let bytes = std::fs::read(path).map_err(DataError::io("read", path))?;
    let (codes, label) = read_code_pickle(&bytes).map_err(|problem| malformed(path, problem))?;
    let label =
        u64::try_from(label).map_err(|_| malformed(path, format!("has the label {label}, which is no class")))?;
    Ok(CodeRow { place: path.display().to_string(), codes: codes.values, label: Some(RawLabel::Number(label)) })
}

// Rows of a file of codes: all but the last side of its shape.
fn npy_rows(path: &Path) -> Result<u64, DataError> {
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let npy = npyz::NpyFile::new(BufReader::new(file)).map_err(|error| not_npy(path, &error))?;
    let shape = npy.shape();
    Ok(shape[..shape.len().saturating_sub(1)].iter().fold(1, |all: u64, &side| all.saturating_mul(side)))
}

fn npy_label(path: &Path) -> Result<RawLabel, DataError> {
    match read_npy(path)?.values[..] {
        [label] if label >= 0 => Ok(RawLabel::Number(label as u64)),
        [label] => Err(malformed(path, format!("has the label {label}, which is no class"))),
        ref labels => Err(malformed(path, format!("has {} labels, and a file of codes has one", labels.len()))),
    }
}

fn not_npy(path: &Path, error: &dyn std::fmt::Display) -> DataError {
    malformed(path, format!("is not a readable .npy file ({error})"))
}

/// Reads an array of whole numbers.
fn read_npy(path: &Path) -> Result<Numbers, DataError> {
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let npy = npyz::NpyFile::new(BufReader::new(file)).map_err(|error| not_npy(path, &error))?;
    let shape = npy.shape().to_vec();
    if npy.order() != npyz::Order::C && shape.len() > 1 {
        return Err(malformed(path, "has an array in Fortran's order"));
    }
    // Each type hands the file on where it is not that of the file.
    macro_rules! read_as {
        ($npy:ident, $($number:ty),*) => {{
            $(let $npy = match $npy.try_data::<$number>() {
                Ok(values) => {
                    let values: Result<Vec<$number>, _> = values.collect();
                    let values = values.map_err(|error| not_npy(path, &error))?;
                    let values: Result<Vec<i64>, _> = values.into_iter().map(i64::try_from).collect();
                    let values = values.map_err(|_| malformed(path, "has a number of more than 63 bits"))?;
                    return Ok(Numbers { shape, values });
                }
                Err(npy) => npy,
            };)*
            $npy
        }};
    }
    let npy = read_as!(npy, i64, u16, i32, u32, i16, u8, i8, u64);
    Err(malformed(path, format!("has an array of the type {}, not of whole numbers", npy.dtype().descr())))
}

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

fn read_arrow(path: &Path, sink: &mut CodeSink) -> Result<(), DataError> {
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
