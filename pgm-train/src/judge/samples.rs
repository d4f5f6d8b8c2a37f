//! Samples in a file: JSON lines, each an object with `text` and, if known, the model's `tokens`.

use std::path::Path;

use pgm_model::model_folder::write_file;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// A sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its text.
    pub text: String,
    /// The row the model drew, in the model's own tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<u32>>,
}

/// Reads a file of samples. Blank lines and other keys are ignored.
///
/// # Errors
/// Names the file that cannot be read, the line that is no sample, or says that there is none.
pub fn read_samples(path: &Path) -> Result<Vec<Sample>, TrainError> {
    let bytes = std::fs::read(path).map_err(|error| TrainError::file("read", path, error))?;
    let wrong = |index: usize, cause: &str| {
        let problem =
            format!("is not a sample ({cause}); each line is an object with \"text\" and, if known, \"tokens\"");
        TrainError::Samples { path: path.to_path_buf(), line: index + 1, problem }
    };
    let parse = |(index, line): (usize, &[u8])| {
        // Serde would take an array for an object.
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err(wrong(index, "it is no JSON object"));
        }
        serde_json::from_slice(line).map_err(|error| {
            // A line of its own is line 1 to the parser, which says so at the end of its message.
            let place = format!(" at line 1 column {}", error.column());
            wrong(index, &error.to_string().replace(&place, ""))
        })
    };
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    let samples: Vec<Sample> =
        lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(parse).collect::<Result<_, _>>()?;
    if samples.is_empty() {
        return Err(TrainError::file("read", path, "it holds no samples"));
    }
    Ok(samples)
}

/// Writes a file of samples, beside and renamed into place.
///
/// # Errors
/// Names the file that cannot be written.
pub fn write_samples(path: &Path, samples: &[Sample]) -> Result<(), TrainError> {
    let mut bytes = Vec::new();
    for sample in samples {
        serde_json::to_writer(&mut bytes, sample).expect("a sample always serialises");
        bytes.push(b'\n');
    }
    Ok(write_file(path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        let samples = [
            Sample { text: "two\nlines, \"quotes\", 🦀".to_string(), tokens: Some(vec![3, 1, 4_000_000_000]) },
            Sample::default(),
        ];
        write_samples(&path, &samples).unwrap();
        assert_eq!(read_samples(&path).unwrap(), samples);
    }

    #[test]
    fn other_keys_blank_lines_and_carriage_returns_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        std::fs::write(&path, "{\"text\": \"a\", \"seed\": 7}\r\n\n  \n{\"text\": \"b\", \"tokens\": null}").unwrap();
        let texts: Vec<String> = read_samples(&path).unwrap().into_iter().map(|sample| sample.text).collect();
        assert_eq!(texts, ["a", "b"]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        let cases = [
            ("{\"text\": \"a\"}\n\n{\"txt\": \"b\"}\n", "samples.jsonl line 3: is not a sample (missing field `text`)"),
            ("{\"text\": 5}", "samples.jsonl line 1: is not a sample (invalid type: integer `5`, expected a string)"),
            ("{\"text\": \"a\", \"tokens\": [-1]}", "line 1: is not a sample (invalid value"),
            ("[\"a\"]", "line 1: is not a sample (it is no JSON object)"),
            ("{\"text\": \"a\"", "line 1: is not a sample (EOF"),
            ("\n", "it holds no samples"),
        ];
        for (content, expected) in cases {
            std::fs::write(&path, content).unwrap();
            let message = read_samples(&path).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        }
        assert!(read_samples(&folder.path().join("none.jsonl")).unwrap_err().to_string().contains("none.jsonl"));
    }
}
