//! Files of samples: JSON lines, each with a `text` and, if known, the sampled `tokens`.

use std::path::Path;

use pgm_model::model_folder::write_file;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::json_lines::read_json_lines;

/// A sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The decoded text.
    pub text: String,
    /// The sampled tokens, in the vocabulary of the model that sampled them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<u32>>,
}

/// Reads a file of samples. Blank lines and unknown keys are ignored.
///
/// # Errors
/// Names the file that cannot be read or is empty, or the line that is not a sample.
pub fn read_samples(path: &Path) -> Result<Vec<Sample>, TrainError> {
    let describe = |cause: &str| {
        format!("is not a sample ({cause}); each line is an object with \"text\" and, if known, \"tokens\"")
    };
    Ok(read_json_lines(path, describe)?.into_iter().map(|(_, sample)| sample).collect())
}

/// Writes a file of samples. It is written under a temporary name and then renamed.
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
    fn written_samples_are_read_back() {
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
            ("[\"a\"]", "line 1: is not a sample (it is not a JSON object)"),
            ("{\"text\": \"a\"", "line 1: is not a sample (EOF"),
            ("\n", "the file is empty"),
        ];
        for (content, expected) in cases {
            std::fs::write(&path, content).unwrap();
            let message = read_samples(&path).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        }
        assert!(read_samples(&folder.path().join("none.jsonl")).unwrap_err().to_string().contains("none.jsonl"));
    }
}
