//! Where a range of lines starts.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};

use super::input_file::InputFile;
use crate::error::DataError;

/// The byte at which a range of lines that starts with `byte` really starts: after the first line that is not blank and
/// starts there or later. So blank lines stay with the line that follows them. The file's start and end are borders.
pub(super) fn line_border(file: &InputFile, byte: u64) -> Result<u64, DataError> {
    let find = || {
        let mut opened = File::open(file.content())?;
        let size = opened.metadata()?.len();
        if byte == 0 || byte >= size {
            return Ok(byte.min(size));
        }
        let mut at = opened.seek(SeekFrom::Start(byte - 1))?;
        let mut reader = BufReader::new(opened);
        let mut line = Vec::new();
        // The rest of the line before.
        at += reader.read_until(b'\n', &mut line)? as u64;
        loop {
            line.clear();
            let n_bytes = reader.read_until(b'\n', &mut line)?;
            at += n_bytes as u64;
            if n_bytes == 0 || !std::str::from_utf8(&line).is_ok_and(|line| line.trim().is_empty()) {
                return Ok(at);
            }
        }
    };
    find().map_err(DataError::io("read", file.path()))
}
