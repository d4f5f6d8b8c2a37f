//! The results of an evaluation so far, in a file, so that a stopped evaluation can continue.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use pgm_model::model_folder::write_file;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::TrainError;

/// A file of JSON lines: first the settings, then one entry per result, in order.
#[derive(Debug)]
pub struct ResultLog<T> {
    done: Vec<T>,
    file: Option<(File, PathBuf)>,
}

impl<T: Serialize + DeserializeOwned> ResultLog<T> {
    /// Opens a log or creates it. Without a path it is in memory only. `settings` must identify everything that the
    /// results depend on: model, data and settings.
    ///
    /// # Errors
    /// [`TrainError::Changed`] when the file has other settings, [`TrainError::File`] when it cannot be read or written, or
    /// is not a log. The file is then left as it was.
    pub fn open(path: Option<&Path>, settings: &Value) -> Result<Self, TrainError> {
        let Some(path) = path else { return Ok(Self { done: Vec::new(), file: None }) };
        let mut done = Vec::new();
        match std::fs::read(path) {
            Ok(bytes) => {
                let mut lines = bytes.split(|&byte| byte == b'\n');
                let first: Value =
                    lines.next().and_then(|line| serde_json::from_slice(line).ok()).ok_or_else(|| {
                        TrainError::file("continue from", path, "it is not a progress file; name a new file")
                    })?;
                if first != *settings {
                    return Err(changed(path, &first, settings));
                }
                // A crash may have cut off the last line, even within a character.
                done.extend(lines.map_while(|line| serde_json::from_slice(line).ok()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(TrainError::file("read", path, error)),
        }
        let mut text = line(settings);
        done.iter().for_each(|entry| text.push_str(&line(entry)));
        write_file(path, text.as_bytes())?;
        let file =
            OpenOptions::new().append(true).open(path).map_err(|error| TrainError::file("write", path, error))?;
        Ok(Self { done, file: Some((file, path.to_path_buf())) })
    }

    /// The entries so far.
    pub fn done(&self) -> &[T] {
        &self.done
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// [`TrainError::File`] when it cannot be written.
    pub fn push(&mut self, entry: T) -> Result<(), TrainError> {
        if let Some((file, path)) = &mut self.file {
            let written = file.write_all(line(&entry).as_bytes());
            written.map_err(|error| TrainError::file("write", path.as_path(), error))?;
        }
        self.done.push(entry);
        Ok(())
    }

    /// All entries.
    pub fn into_done(self) -> Vec<T> {
        self.done
    }
}

fn line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("an entry always serialises");
    text.push('\n');
    text
}

/// The error of a file whose settings are not these.
pub(crate) fn changed(path: &Path, before: &Value, now: &Value) -> TrainError {
    let empty = serde_json::Map::new();
    let (before, now) = (before.as_object().unwrap_or(&empty), now.as_object().unwrap_or(&empty));
    let key = now.keys().chain(before.keys()).find(|key| before.get(*key) != now.get(*key));
    let key = key.cloned().unwrap_or_default();
    let shown = |value: Option<&Value>| value.map_or("absent".to_string(), Value::to_string);
    let (before, now) = (shown(before.get(&key)), shown(now.get(&key)));
    let advice = "resume with the old setting or start a new run".to_string();
    TrainError::Changed { path: path.to_path_buf(), key, before, now, advice }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_are_read_back_and_a_cut_line_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("progress.jsonl");
        let settings = json!({ "seed": 1 });
        let mut log = ResultLog::open(Some(&path), &settings).unwrap();
        for entry in [0.1_f64, 1.0 / 3.0] {
            log.push(entry).unwrap();
        }
        drop(log);
        let mut bytes = std::fs::read(&path).unwrap();
        // The second one ends within a character.
        for cut in [&b"0."[..], b"\"\xc3"] {
            bytes.extend(cut);
            std::fs::write(&path, &bytes).unwrap();
            let log: ResultLog<f64> = ResultLog::open(Some(&path), &settings).unwrap();
            assert_eq!(log.done(), [0.1, 1.0 / 3.0]);
            bytes = std::fs::read(&path).unwrap();
        }
        let mut log: ResultLog<f64> = ResultLog::open(Some(&path), &settings).unwrap();
        log.push(2.0).unwrap();
        drop(log);
        assert_eq!(ResultLog::<f64>::open(Some(&path), &settings).unwrap().into_done(), [0.1, 1.0 / 3.0, 2.0]);
    }

    #[test]
    fn a_file_with_other_settings_or_other_content_is_refused_and_left_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("progress.jsonl");
        drop(ResultLog::<f64>::open(Some(&path), &json!({ "seed": 1, "rows": 3 })).unwrap());
        let before = std::fs::read(&path).unwrap();
        let message = ResultLog::<f64>::open(Some(&path), &json!({ "seed": 1, "rows": 4 })).unwrap_err().to_string();
        assert!(message.contains("rows was 3 and is now 4"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::write(&path, "precious").unwrap();
        let message = ResultLog::<f64>::open(Some(&path), &json!({})).unwrap_err().to_string();
        assert!(message.contains("not a progress file") && !message.contains('\n'), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
