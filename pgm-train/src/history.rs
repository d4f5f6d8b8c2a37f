//! `metrics.jsonl`: a line for each report and each validation.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Name of the file in a run's folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// A report of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainLine {
    /// Steps done.
    pub step: usize,
    /// Mean loss of the steps since the last report, nats per token as weighted by the objective.
    pub train_loss: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Global gradient norm of the last step, before clipping.
    pub grad_norm: f64,
    /// Tokens trained on per second since the last report.
    pub tokens_per_second: f64,
    /// Seconds of training so far, over all resumed parts.
    pub seconds: f64,
}

/// A validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationLine {
    /// Steps done.
    pub step: usize,
    /// NELBO of the averaged weights, nats per token.
    pub val_nelbo: f64,
    /// Its exponential.
    pub val_ppl: f64,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A report of training.
    Train(TrainLine),
    /// A validation.
    Validation(ValidationLine),
}

impl Line {
    fn step(&self) -> usize {
        match self {
            Self::Train(line) => line.step,
            Self::Validation(line) => line.step,
        }
    }
}

/// Reads the lines of a run's folder; a line cut off by a crash is left out.
///
/// # Errors
/// [`TrainError::File`] when the file is there but cannot be read.
pub fn read(out: &Path) -> Result<Vec<Line>, TrainError> {
    let path = out.join(METRICS_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(TrainError::file("read", path, error)),
    }
}

/// Appends lines.
pub(crate) struct History {
    file: File,
    path: PathBuf,
}

impl History {
    /// Opens the file of a run that goes on from `step`; lines of later steps, which a crash may have left, go, and all of
    /// a run that begins again.
    pub(crate) fn open(out: &Path, step: usize) -> Result<Self, TrainError> {
        let path = out.join(METRICS_FILE);
        let mut text = String::new();
        for line in read(out)?.iter().filter(|line| step > 0 && line.step() <= step) {
            text.push_str(&to_json(line));
        }
        pgm_model::model_folder::write_file(&path, text.as_bytes())?;
        let file =
            OpenOptions::new().append(true).open(&path).map_err(|error| TrainError::file("write", &path, error))?;
        Ok(Self { file, path })
    }

    pub(crate) fn push(&mut self, line: &Line) -> Result<(), TrainError> {
        self.file.write_all(to_json(line).as_bytes()).map_err(|error| TrainError::file("write", &self.path, error))
    }
}

fn to_json(line: &Line) -> String {
    let mut json = serde_json::to_string(line).expect("a line always serialises");
    json.push('\n');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_history_forgets_what_came_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let line = |step| Line::Validation(ValidationLine { step, val_nelbo: 0.1 + step as f64, val_ppl: 2.0 });
        let mut history = History::open(folder.path(), 0).unwrap();
        [5, 10, 15].iter().for_each(|&step| history.push(&line(step)).unwrap());
        history.file.write_all(b"{\"step\":20,\"val_n").unwrap();
        drop(history);
        let mut history = History::open(folder.path(), 10).unwrap();
        history.push(&line(15)).unwrap();
        assert_eq!(read(folder.path()).unwrap(), [line(5), line(10), line(15)]);
    }
}
