//! Files of JSON lines: one object per line.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::TrainError;

/// Reads a file of JSON objects, one per line, each with its line number counted from 1. Blank lines are skipped.
/// `describe` makes the error of a line that is not such an object from its cause.
///
/// # Errors
/// [`TrainError::File`] when the file cannot be read or has no object, [`TrainError::Samples`] for a wrong line.
pub(crate) fn read_json_lines<T: DeserializeOwned>(
    path: &Path,
    describe: impl Fn(&str) -> String,
) -> Result<Vec<(usize, T)>, TrainError> {
    let bytes = std::fs::read(path).map_err(|error| TrainError::file("read", path, error))?;
    let parse = |(index, line): (usize, &[u8])| {
        let wrong =
            |cause: &str| TrainError::Samples { path: path.to_path_buf(), line: index + 1, problem: describe(cause) };
        // Serde reads an array as a struct, too.
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err(wrong("it is not a JSON object"));
        }
        let item = serde_json::from_slice(line).map_err(|error| {
            // The parser counts lines from the start of this line; its "line 1" would be misleading.
            let position = format!(" at line 1 column {}", error.column());
            wrong(&error.to_string().replace(&position, ""))
        })?;
        Ok((index + 1, item))
    };
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let lines = text.split(|&byte| byte == b'\n').enumerate();
    let items: Vec<(usize, T)> =
        lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(parse).collect::<Result<_, _>>()?;
    if items.is_empty() {
        return Err(TrainError::file("read", path, "the file is empty"));
    }
    Ok(items)
}
