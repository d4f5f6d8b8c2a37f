//! `metrics.jsonl`: one line of JSON for each report of training figures and for each validation.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::TrainError;

/// Name of the file in a run's folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// The figures of a validation: of token models ([`ValidationLine`]) or of a codec.
pub trait ValidationFigures: Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What the learning curve shows of it.
    const CURVE: &str;
    /// The unit of that and of the training loss.
    const UNIT: &str;

    /// Steps done.
    fn step(&self) -> usize;

    /// The point of the learning curve, and its 95 % interval.
    fn point(&self) -> (f64, Option<[f64; 2]>);

    /// Whether it is the lowest so far, where that is kept.
    fn is_best(&self) -> bool {
        false
    }

    /// Notes that it is the lowest so far.
    fn set_best(&mut self) {}
}

/// Figures of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainLine {
    /// Steps done.
    pub step: usize,
    /// Mean loss of the steps since the last line: nats per token as weighted by the objective, or a codec's loss.
    pub train_loss: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Global gradient norm of the last step, before clipping.
    pub grad_norm: f64,
    /// Tokens per second since the last line; pictures per second for a codec.
    pub tokens_per_second: f64,
    /// Seconds of training so far, over all resumed parts.
    pub seconds: f64,
    /// What several processes have of it; absent for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<WorldLine>,
}

/// Several processes in the steps since the last line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorldLine {
    /// The number of processes.
    pub size: usize,
    /// Milliseconds of a step that rank 0 spent exchanging gradients, waiting for slower ranks included.
    pub exchange_ms: f64,
    /// Bytes that rank 0 sent in a step.
    pub exchange_bytes: u64,
}

/// A validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationLine {
    /// Steps done.
    pub step: usize,
    /// NELBO of the averaged weights, nats per token.
    pub val_nelbo: f64,
    /// Its 95 % interval over the rows; absent for a single row and in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_nelbo_interval: Option<[f64; 2]>,
    /// Its exponential, the perplexity. Above 709 nats it is infinite, which JSON cannot say: it is `null` in the file.
    #[serde(deserialize_with = "null_is_infinite")]
    pub val_ppl: f64,
    /// Whether it is the lowest so far; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub best: bool,
}

impl ValidationLine {
    pub(crate) fn new(step: usize, val_nelbo: f64, val_nelbo_interval: Option<[f64; 2]>) -> Self {
        Self { step, val_nelbo, val_nelbo_interval, val_ppl: val_nelbo.exp(), best: false }
    }
}

impl ValidationFigures for ValidationLine {
    const CURVE: &str = "validation NELBO";
    const UNIT: &str = "nats per token";

    fn step(&self) -> usize {
        self.step
    }

    fn point(&self) -> (f64, Option<[f64; 2]>) {
        (self.val_nelbo, self.val_nelbo_interval)
    }

    fn is_best(&self) -> bool {
        self.best
    }

    fn set_best(&mut self) {
        self.best = true;
    }
}

fn null_is_infinite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line<V = ValidationLine> {
    /// Figures of training.
    Train(TrainLine),
    /// A validation.
    Validation(V),
}

impl<V: ValidationFigures> Line<V> {
    fn step(&self) -> usize {
        match self {
            Self::Train(line) => line.step,
            Self::Validation(line) => line.step(),
        }
    }
}

/// Reads the lines of a run's folder; a line that a crash has cut off is left out.
///
/// # Errors
/// [`TrainError::File`] when the file exists but cannot be read.
pub fn read(out: &Path) -> Result<Vec<Line>, TrainError> {
    read_lines(out)
}

/// As [`read`], with validations of any kind.
///
/// # Errors
/// As [`read`].
pub fn read_lines<V: ValidationFigures>(out: &Path) -> Result<Vec<Line<V>>, TrainError> {
    let path = out.join(METRICS_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(TrainError::file("read", path, error)),
    }
}

/// The open file of a run.
pub(crate) struct History {
    file: File,
    path: PathBuf,
}

impl History {
    /// Opens the file of a run that has done `step` steps. Lines of later steps, which a crash may have left, are
    /// removed; so are all lines of a run that starts again.
    pub(crate) fn open<V: ValidationFigures>(out: &Path, step: usize) -> Result<Self, TrainError> {
        let path = out.join(METRICS_FILE);
        let mut text = String::new();
        for line in read_lines::<V>(out)?.iter().filter(|line| step > 0 && line.step() <= step) {
            text.push_str(&to_json(line));
        }
        pgm_model::model_folder::write_file(&path, text.as_bytes())?;
        let file =
            OpenOptions::new().append(true).open(&path).map_err(|error| TrainError::file("write", &path, error))?;
        Ok(Self { file, path })
    }

    /// Appends a line.
    pub(crate) fn push<V: ValidationFigures>(&mut self, line: &Line<V>) -> Result<(), TrainError> {
        self.file.write_all(to_json(line).as_bytes()).map_err(|error| TrainError::file("write", &self.path, error))
    }
}

fn to_json<V: ValidationFigures>(line: &Line<V>) -> String {
    let mut json = serde_json::to_string(line).expect("a line always serialises");
    json.push('\n');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_history_forgets_lines_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let line = |step| {
            let nats = 0.1 + step as f64;
            Line::Validation(ValidationLine::new(step, nats, Some([nats - 0.3, nats + 0.1])))
        };
        let mut history = History::open::<ValidationLine>(folder.path(), 0).unwrap();
        [5, 10, 15].iter().for_each(|&step| history.push(&line(step)).unwrap());
        history.file.write_all(b"{\"step\":20,\"val_n").unwrap();
        drop(history);
        let mut history = History::open::<ValidationLine>(folder.path(), 10).unwrap();
        history.push(&line(15)).unwrap();
        assert_eq!(read(folder.path()).unwrap(), [line(5), line(10), line(15)]);
    }

    #[test]
    fn a_perplexity_too_large_for_a_float_keeps_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let line = Line::Validation(ValidationLine::new(3, 800.0, None));
        let mut history = History::open::<ValidationLine>(folder.path(), 0).unwrap();
        history.push(&line).unwrap();
        drop(history);
        let text = std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        assert_eq!(text, "{\"step\":3,\"val_nelbo\":800.0,\"val_ppl\":null}\n");
        assert_eq!(read(folder.path()).unwrap(), [line]);
    }

    #[test]
    fn a_file_of_the_first_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let text = "{\"step\":0,\"val_nelbo\":5.5,\"val_ppl\":244.69}\n{\"step\":10,\"train_loss\":5.25,\"lr\":0.001,\
                    \"grad_norm\":1.5,\"tokens_per_second\":1000.0,\"seconds\":2.5}\n";
        std::fs::write(folder.path().join(METRICS_FILE), text).unwrap();
        let lines = read(folder.path()).unwrap();
        let Line::Validation(line) = &lines[0] else { panic!("{lines:?}") };
        assert_eq!((line.step, line.val_ppl, line.val_nelbo_interval), (0, 244.69, None));
        assert!(matches!(&lines[1], Line::Train(line) if line.step == 10 && line.seconds == 2.5));
    }
}
