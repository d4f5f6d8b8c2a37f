//! In place of what reads Parquet and Arrow, in a build without the feature `columns`.

use std::path::Path;

use crate::error::DataError;
use crate::pictures::classes::Survey;
use crate::pictures::source::Columns;
use crate::source::input_file::InputFile;

fn not_read<T>(path: &Path) -> Result<T, DataError> {
    let problem = "is a Parquet or an Arrow file, and this program was built without them; prepare it with pgm-data";
    Err(DataError::Malformed { path: path.to_path_buf(), problem: problem.to_string() })
}

pub(crate) fn read_parquet<S>(file: &InputFile, _: &str, _: Option<(u64, u64)>, _: &mut S) -> Result<(), DataError> {
    not_read(file.path())
}

pub(crate) fn read_arrow<S>(file: &InputFile, _: &str, _: &mut S) -> Result<(), DataError> {
    not_read(file.path())
}

pub(crate) fn parquet_rows(file: &InputFile) -> Result<u64, DataError> {
    not_read(file.path())
}

pub(crate) fn survey<P: ?Sized>(path: &Path, _: &mut Survey, _: &mut P) -> Result<(), DataError> {
    not_read(path)
}

pub(crate) fn read<S: ?Sized>(path: &Path, _: &mut S) -> Result<(), DataError> {
    not_read(path)
}

impl Columns {
    pub(crate) fn survey<P: ?Sized>(&self, _: &mut P) -> Result<Survey, DataError> {
        not_read(&self.path)
    }

    pub(crate) fn read<S: ?Sized>(&self, _: &mut S) -> Result<(), DataError> {
        not_read(&self.path)
    }
}
