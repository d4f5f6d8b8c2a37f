//! Reads codes and labels from files of the public codes.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use rayon::prelude::*;

use super::arrow;
use super::code_row::{CodeRow, CodeSink};
use super::find::CodeFiles;
use super::pickle::{Numbers, read_code_pickle};
use crate::error::DataError;
use crate::pictures::classes::Survey;
use crate::pictures::picture::{Poll, RawLabel, malformed};

/// Pickles that are read together.
const CHUNK_FILES: usize = 1024;
/// A larger file is refused.
const MOST_PICKLE_BYTES: u64 = 16 << 20;

impl CodeFiles {
    /// Counts rows and labels.
    pub(super) fn survey(&self, poll: &mut Poll) -> Result<Survey, DataError> {
        let mut survey = Survey::default();
        match self {
            Self::Arrow(paths) => {
                for path in paths {
                    arrow::survey(path, &mut survey, poll)?;
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
            Self::Arrow(paths) => paths.iter().try_for_each(|path| arrow::read(path, sink)),
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
