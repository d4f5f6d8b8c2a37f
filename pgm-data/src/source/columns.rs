//! Parquet and Arrow: one document per row.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Read, Seek};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowDictionaryKeyType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::field_path::FieldPath;
use super::input_file::InputFile;
use super::records::{FieldValue, RecordSink};
use crate::error::DataError;

/// Rows that are decoded together.
const BATCH_ROWS: usize = 64;

/// Reads the text in `column` of each row of a Parquet file, or of the rows from `rows.0` up to `rows.1`. Nulls are skipped
/// and counted.
pub(super) fn read_parquet(
    file: &InputFile,
    column: &str,
    rows: Option<(u64, u64)>,
    sink: &mut RecordSink,
) -> Result<(), DataError> {
    let unreadable = |error: String| malformed(file, format!("is not a readable Parquet file ({error})"));
    let mut builder = open_parquet(file)?;
    let path = FieldPath::new(column);
    let index = root(builder.schema(), &path, column).map_err(|problem| malformed(file, problem))?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), [index]);
    if let Some((start, end)) = rows {
        if start >= end {
            return Ok(());
        }
        // Row groups without a row of the range are not read.
        let (mut groups, mut n_rows, mut n_before) = (Vec::new(), 0, 0);
        for (group, metadata) in builder.metadata().row_groups().iter().enumerate() {
            let after = n_rows + u64::try_from(metadata.num_rows()).unwrap_or(0);
            if after <= start {
                n_before = after;
            } else if n_rows < end {
                groups.push(group);
            }
            n_rows = after;
        }
        builder = builder.with_row_groups(groups);
        builder = builder.with_offset((start - n_before) as usize).with_limit((end - start) as usize);
    }
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
    let reader = reader.map_err(|error| unreadable(error.to_string()))?;
    read_batches(reader, &path, rows.map_or(0, |(start, _)| start), sink, |error| unreadable(error.to_string()))
}

/// The number of rows of a Parquet file.
pub(super) fn parquet_rows(file: &InputFile) -> Result<u64, DataError> {
    let n_rows = open_parquet(file)?.metadata().file_metadata().num_rows();
    Ok(u64::try_from(n_rows).unwrap_or(0))
}

fn open_parquet(file: &InputFile) -> Result<ParquetRecordBatchReaderBuilder<File>, DataError> {
    let opened = File::open(file.content()).map_err(DataError::io("read", file.path()))?;
    ParquetRecordBatchReaderBuilder::try_new(opened)
        .map_err(|error| malformed(file, format!("is not a readable Parquet file ({error})")))
}

/// Reads the text in `column` of each row of an Arrow file (Feather) or stream.
pub(super) fn read_arrow(file: &InputFile, column: &str, sink: &mut RecordSink) -> Result<(), DataError> {
    let unreadable = |error: ArrowError| malformed(file, format!("is not a readable Arrow file ({error})"));
    let open = || File::open(file.content()).map(BufReader::new).map_err(DataError::io("read", file.path()));
    let path = FieldPath::new(column);
    let root = |schema: &Schema| root(schema, &path, column).map_err(|problem| malformed(file, problem));
    let mut opened = open()?;
    let mut magic = [0; 6];
    let is_file = opened.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
    opened.rewind().map_err(DataError::io("read", file.path()))?;
    if is_file {
        let reader = arrow_ipc::reader::FileReader::try_new(opened, None).map_err(unreadable)?;
        let index = root(&reader.schema())?;
        let reader = arrow_ipc::reader::FileReader::try_new(open()?, Some(vec![index])).map_err(unreadable)?;
        read_batches(reader, &path, 0, sink, unreadable)
    } else {
        let reader = arrow_ipc::reader::StreamReader::try_new(opened, None).map_err(unreadable)?;
        let index = root(&reader.schema())?;
        let reader = arrow_ipc::reader::StreamReader::try_new(open()?, Some(vec![index])).map_err(unreadable)?;
        read_batches(reader, &path, 0, sink, unreadable)
    }
}

fn malformed(file: &InputFile, problem: String) -> DataError {
    DataError::Malformed { path: file.path().to_path_buf(), problem }
}

// The index of the top column in which the path starts. The path must lead to text or token ids.
fn root(schema: &Schema, path: &FieldPath, column: &str) -> Result<usize, String> {
    let mut problem = None;
    for (index, field) in schema.fields().iter().enumerate() {
        let Some(at) = path.step(0, field.name()) else { continue };
        match check_type(field.data_type(), path, at) {
            Ok(()) => return Ok(index),
            // Another column may have a longer part of the path as its name.
            Err(found) => problem = problem.or(Some(found)),
        }
    }
    Err(match problem {
        Some(found) => format!("column {column:?} {found}; name another with --column"),
        None => {
            let names = names(schema.fields());
            format!("has no column {column:?}, its columns are {names}; name one with --column")
        }
    })
}

fn names(fields: &Fields) -> String {
    let names: Vec<String> = fields.iter().map(|field| nested_name(field)).collect();
    names.join(", ")
}

fn nested_name(field: &Field) -> String {
    match field.data_type() {
        DataType::Struct(fields) if fields.len() == 1 => format!("{}.{}", field.name(), nested_name(&fields[0])),
        DataType::Struct(fields) => format!("{}.({})", field.name(), names(fields)),
        _ => field.name().clone(),
    }
}

fn check_type(data_type: &DataType, path: &FieldPath, at: usize) -> Result<(), String> {
    match data_type {
        DataType::Dictionary(_, values) => check_type(values, path, at),
        DataType::Struct(fields) => {
            let inner = fields.iter().find_map(|field| Some((field, path.step(at, field.name())?)));
            let (field, at) = inner.ok_or_else(|| format!("is a struct of {}", names(fields)))?;
            check_type(field.data_type(), path, at)
        }
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            if at == path.len() && element.data_type().is_integer() {
                return Ok(());
            }
            check_type(element.data_type(), path, at)
        }
        _ if at < path.len() => Err(format!("is not there: a part of its path has the type {data_type}")),
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_)
        | DataType::Null => Ok(()),
        _ => Err(format!("has the type {data_type}, not text")),
    }
}

fn read_batches<E>(
    batches: impl Iterator<Item = Result<RecordBatch, E>>,
    path: &FieldPath,
    mut n_rows: u64,
    sink: &mut RecordSink,
    unreadable: impl Fn(E) -> DataError,
) -> Result<(), DataError> {
    for batch in batches {
        let batch = batch.map_err(&unreadable)?;
        let schema = batch.schema();
        let Some(at) = path.step(0, schema.field(0).name()) else { continue };
        let mut rows = Vec::new();
        for row in 0..batch.num_rows() {
            n_rows += 1;
            let mut values = Vec::new();
            match push_values(batch.column(0).as_ref(), row, (path, at), &mut values) {
                Ok(()) => rows.push((n_rows, values)),
                Err(problem) => sink.bad(&format!("row {n_rows}"), problem)?,
            }
        }
        sink.push_rows(rows)?;
    }
    Ok(())
}

// The values of one row. The types were checked before.
fn push_values<'a>(
    array: &'a dyn Array,
    row: usize,
    (path, at): (&FieldPath, usize),
    values: &mut Vec<FieldValue<'a>>,
) -> Result<(), &'static str> {
    if array.is_null(row) {
        values.push(FieldValue::Null);
        return Ok(());
    }
    let bytes: &[u8] = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).as_bytes(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).as_bytes(),
        DataType::Utf8View => array.as_string_view().value(row).as_bytes(),
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        DataType::BinaryView => array.as_binary_view().value(row),
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row),
        DataType::Dictionary(key, _) => {
            let (keys, row) = (array.as_any_dictionary(), key_of(array, key, row));
            return push_values(keys.values().as_ref(), row, (path, at), values);
        }
        DataType::Struct(fields) => {
            let inner = fields.iter().enumerate().find_map(|(i, field)| Some((i, path.step(at, field.name())?)));
            let (index, at) = inner.ok_or("has no such field")?;
            return push_values(array.as_struct().column(index).as_ref(), row, (path, at), values);
        }
        DataType::List(_) => return push_elements(array.as_list::<i32>().value(row).as_ref(), (path, at), values),
        DataType::LargeList(_) => return push_elements(array.as_list::<i64>().value(row).as_ref(), (path, at), values),
        DataType::FixedSizeList(..) => {
            return push_elements(array.as_fixed_size_list().value(row).as_ref(), (path, at), values);
        }
        _ => {
            values.push(FieldValue::Null);
            return Ok(());
        }
    };
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    values.push(FieldValue::Text(Cow::Borrowed(text)));
    Ok(())
}

fn push_elements(
    elements: &dyn Array,
    (path, at): (&FieldPath, usize),
    values: &mut Vec<FieldValue>,
) -> Result<(), &'static str> {
    if at == path.len() && elements.data_type().is_integer() {
        let ids: Option<Vec<u32>> = (0..elements.len()).map(|index| token_id(elements, index)).collect();
        values.push(FieldValue::Ids(ids.ok_or("has a number that is no token id")?));
        return Ok(());
    }
    let mut inner = Vec::new();
    for index in 0..elements.len() {
        push_values(elements, index, (path, at), &mut inner)?;
    }
    // The elements live only here.
    values.extend(inner.into_iter().map(|value| match value {
        FieldValue::Text(text) => FieldValue::Text(Cow::Owned(text.into_owned())),
        FieldValue::Ids(ids) => FieldValue::Ids(ids),
        FieldValue::Null => FieldValue::Null,
    }));
    Ok(())
}

fn token_id(ids: &dyn Array, index: usize) -> Option<u32> {
    if ids.is_null(index) {
        return None;
    }
    match ids.data_type() {
        DataType::Int8 => u32::try_from(ids.as_primitive::<Int8Type>().value(index)).ok(),
        DataType::Int16 => u32::try_from(ids.as_primitive::<Int16Type>().value(index)).ok(),
        DataType::Int32 => u32::try_from(ids.as_primitive::<Int32Type>().value(index)).ok(),
        DataType::Int64 => u32::try_from(ids.as_primitive::<Int64Type>().value(index)).ok(),
        DataType::UInt8 => Some(u32::from(ids.as_primitive::<UInt8Type>().value(index))),
        DataType::UInt16 => Some(u32::from(ids.as_primitive::<UInt16Type>().value(index))),
        DataType::UInt32 => Some(ids.as_primitive::<UInt32Type>().value(index)),
        DataType::UInt64 => u32::try_from(ids.as_primitive::<UInt64Type>().value(index)).ok(),
        _ => None,
    }
}

fn key_of(array: &dyn Array, key: &DataType, row: usize) -> usize {
    fn of<K: ArrowDictionaryKeyType>(array: &dyn Array, row: usize) -> usize {
        array.as_dictionary::<K>().key(row).unwrap_or(0)
    }
    match key {
        DataType::Int8 => of::<Int8Type>(array, row),
        DataType::Int16 => of::<Int16Type>(array, row),
        DataType::Int32 => of::<Int32Type>(array, row),
        DataType::Int64 => of::<Int64Type>(array, row),
        DataType::UInt8 => of::<UInt8Type>(array, row),
        DataType::UInt16 => of::<UInt16Type>(array, row),
        DataType::UInt32 => of::<UInt32Type>(array, row),
        _ => of::<UInt64Type>(array, row),
    }
}
