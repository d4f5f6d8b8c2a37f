//! Parquet and Arrow files with a column of pictures, as the Hugging Face hub has them.

use std::fs::File;
use std::io::{BufReader, Read, Seek};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::classes::Survey;
use super::picture::{BadPicture, Picture, PictureContent, PictureSink, Poll, RawLabel, malformed};
use super::source::Columns;
use crate::error::DataError;

/// Rows that are decoded together.
const BATCH_ROWS: usize = 64;
/// Names of columns of labels, in the order in which they are looked up.
const LABEL_COLUMNS: [&str; 8] = ["label", "labels", "fine_label", "cls", "class", "target", "category", "class_name"];

/// The places of the columns, and what the schema knows about classes.
struct Found {
    picture: usize,
    label: Option<usize>,
    names: Option<Vec<String>>,
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

impl Columns {
    pub(super) fn survey(&self, poll: &mut Poll) -> Result<Survey, DataError> {
        let (schema, n_rows) = self.schema()?;
        let found = self.find(&schema)?;
        let mut survey = Survey { names: found.names.clone(), ..Survey::default() };
        let Some(label) = found.label else {
            let n_rows = match n_rows {
                Some(n_rows) => n_rows,
                None => self.count_rows(found.picture, poll)?,
            };
            survey.count(None, n_rows);
            return Ok(survey);
        };
        for batch in self.batches(&[label])? {
            poll()?;
            let batch = batch.map_err(|error| self.unreadable(&error))?;
            for row in 0..batch.num_rows() {
                survey.count(label_of(batch.column(0), row).ok().flatten().as_ref(), 1);
            }
        }
        Ok(survey)
    }

    fn count_rows(&self, column: usize, poll: &mut Poll) -> Result<u64, DataError> {
        let mut n_rows = 0;
        for batch in self.batches(&[column])? {
            poll()?;
            n_rows += batch.map_err(|error| self.unreadable(&error))?.num_rows() as u64;
        }
        Ok(n_rows)
    }

    pub(super) fn read(&self, sink: &mut PictureSink) -> Result<(), DataError> {
        let (schema, _) = self.schema()?;
        let found = self.find(&schema)?;
        let columns: Vec<usize> = std::iter::once(found.picture).chain(found.label).collect();
        let names: Vec<&String> = columns.iter().map(|&column| schema.field(column).name()).collect();
        let mut n_rows = 0;
        for batch in self.batches(&columns)? {
            let batch = batch.map_err(|error| self.unreadable(&error))?;
            let column = |name: &str| batch.column_by_name(name).expect("the column was chosen");
            let pictures = column(names[0]);
            let labels = names.get(1).map(|name| column(name));
            for row in 0..batch.num_rows() {
                n_rows += 1;
                let place = format!("row {n_rows} of {}", self.path.display());
                let picture = bytes_of(pictures, row).and_then(|bytes| {
                    let label = labels.map(|labels| label_of(labels, row)).transpose()?.flatten();
                    Ok((PictureContent::Encoded(bytes.to_vec()), label))
                });
                sink(match picture {
                    Ok((content, label)) => Ok(Picture { place, content, label }),
                    Err(problem) => Err(BadPicture { place, problem }),
                })?;
            }
        }
        Ok(())
    }

    fn is_parquet(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
    }

    fn file(&self) -> Result<File, DataError> {
        File::open(&self.path).map_err(DataError::io("read", &self.path))
    }

    fn unreadable(&self, error: &dyn std::fmt::Display) -> DataError {
        let format = if self.is_parquet() { "Parquet" } else { "Arrow" };
        malformed(&self.path, format!("is not a readable {format} file ({error})"))
    }

    // The schema, and the number of rows where the file says it.
    fn schema(&self) -> Result<(Schema, Option<u64>), DataError> {
        if self.is_parquet() {
            let builder = ParquetRecordBatchReaderBuilder::try_new(self.file()?);
            let builder = builder.map_err(|error| self.unreadable(&error))?;
            let n_rows = builder.metadata().file_metadata().num_rows();
            return Ok((builder.schema().as_ref().clone(), u64::try_from(n_rows).ok()));
        }
        Ok((self.arrow(None)?.0, None))
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches, DataError> {
        if self.is_parquet() {
            let builder = ParquetRecordBatchReaderBuilder::try_new(self.file()?);
            let builder = builder.map_err(|error| self.unreadable(&error))?;
            let mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
            let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
            return Ok(Box::new(reader.map_err(|error| self.unreadable(&error))?));
        }
        Ok(self.arrow(Some(columns.to_vec()))?.1)
    }

    // An Arrow file or stream: its schema and the batches of some columns.
    fn arrow(&self, columns: Option<Vec<usize>>) -> Result<(Schema, Batches), DataError> {
        let mut reader = BufReader::new(self.file()?);
        let mut magic = [0; 6];
        let is_file = reader.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
        reader.rewind().map_err(DataError::io("read", &self.path))?;
        if is_file {
            let batches = arrow_ipc::reader::FileReader::try_new(reader, columns);
            let batches = batches.map_err(|error| self.unreadable(&error))?;
            Ok((batches.schema().as_ref().clone(), Box::new(batches)))
        } else {
            let batches = arrow_ipc::reader::StreamReader::try_new(reader, columns);
            let batches = batches.map_err(|error| self.unreadable(&error))?;
            Ok((batches.schema().as_ref().clone(), Box::new(batches)))
        }
    }

    fn find(&self, schema: &Schema) -> Result<Found, DataError> {
        let names = schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        let place = |name: &str| {
            let place = schema.fields().iter().position(|field| field.name() == name);
            place.ok_or_else(|| malformed(&self.path, format!("has no column {name:?}, its columns are {names}")))
        };
        let picture = match &self.picture_column {
            Some(name) => place(name)?,
            None => schema.fields().iter().position(|field| is_picture(field.data_type())).ok_or_else(|| {
                malformed(
                    &self.path,
                    format!("has no column of pictures, its columns are {names}; name one with --column"),
                )
            })?,
        };
        if !is_picture(schema.field(picture).data_type()) {
            let (name, data_type) = (schema.field(picture).name(), schema.field(picture).data_type());
            let problem = format!("has no pictures in the column {name:?}, whose type is {data_type}");
            return Err(malformed(&self.path, problem));
        }
        let features = features(schema);
        let feature = |index: usize| features.get(schema.field(index).name());
        let is_class = |index: usize| feature(index).is_some_and(|feature| feature["_type"] == "ClassLabel");
        let label = match &self.label_column {
            _ if !self.with_labels => None,
            Some(name) => Some(place(name)?),
            None => {
                let by_name = || LABEL_COLUMNS.iter().find_map(|name| place(name).ok());
                (0..schema.fields().len()).find(|&index| is_class(index)).or_else(by_name)
            }
        };
        let names = label.and_then(|index| class_names(feature(index)?));
        Ok(Found { picture, label, names })
    }
}

// Bytes, or the hub's struct of bytes and a path.
fn is_picture(data_type: &DataType) -> bool {
    match data_type {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::Struct(fields) => fields.iter().any(|field| field.name() == "bytes" && is_picture(field.data_type())),
        _ => false,
    }
}

fn bytes_of(array: &dyn Array, row: usize) -> Result<&[u8], String> {
    if array.is_null(row) {
        return Err("is null".to_string());
    }
    match array.data_type() {
        DataType::Binary => Ok(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Ok(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => Ok(array.as_binary_view().value(row)),
        _ => {
            let bytes = array.as_struct().column_by_name("bytes").ok_or("has no bytes")?;
            if bytes.is_null(row) {
                return Err("has no bytes, only the path of another file".to_string());
            }
            bytes_of(bytes, row)
        }
    }
}

/// The label of a row: a number or a text. Null is no label.
pub(crate) fn label_of(array: &dyn Array, row: usize) -> Result<Option<RawLabel>, String> {
    if array.is_null(row) {
        return Ok(None);
    }
    let number: i128 = match array.data_type() {
        DataType::Utf8 => return Ok(Some(RawLabel::Name(array.as_string::<i32>().value(row).to_string()))),
        DataType::LargeUtf8 => return Ok(Some(RawLabel::Name(array.as_string::<i64>().value(row).to_string()))),
        DataType::Utf8View => return Ok(Some(RawLabel::Name(array.as_string_view().value(row).to_string()))),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        other => return Err(format!("has a label of the type {other}, which is no number and no name")),
    };
    match u64::try_from(number) {
        Ok(number) => Ok(Some(RawLabel::Number(number))),
        Err(_) => Err(format!("has the label {number}, which is no class")),
    }
}

/// What the hub's `datasets` writes about the columns into a schema.
pub(crate) fn features(schema: &Schema) -> Value {
    let metadata = schema.metadata().get("huggingface").and_then(|json| serde_json::from_str::<Value>(json).ok());
    metadata.map(|mut value| value["info"]["features"].take()).unwrap_or_default()
}

/// The names of a `ClassLabel` feature.
pub(crate) fn class_names(feature: &Value) -> Option<Vec<String>> {
    let names = feature["names"].as_array()?;
    names.iter().map(|name| name.as_str().map(String::from)).collect()
}
