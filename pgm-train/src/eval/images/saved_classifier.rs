//! The training of a classifier in a file, so that a stopped one continues and a finished one is not repeated.
//!
//! The file is a line of JSON (what identifies the training, the step, the lengths and the checksum of what follows), then the
//! records of the network and of the optimiser. It is written beside and renamed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use pgm_model::model_folder::write_file;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TrainError;
use crate::eval::result_log::changed;

/// Time between two writes of a running training.
const BETWEEN: Duration = Duration::from_secs(5);

/// Where the training of a [`Classifier`](super::Classifier) is kept.
#[derive(Debug)]
pub struct SavedClassifier {
    path: Option<PathBuf>,
    identity: Value,
    start: Option<TrainingState>,
    written: Instant,
}

/// A training after some steps.
#[derive(Debug)]
pub(super) struct TrainingState {
    pub(super) step: usize,
    pub(super) network: ModuleRecord,
    pub(super) optimiser: OptimizerRecord,
}

#[derive(Serialize, Deserialize)]
struct Header {
    classifier: Value,
    step: usize,
    lengths: [usize; 2],
    crc32: u32,
}

impl SavedClassifier {
    /// A training that is not kept.
    pub fn in_memory() -> Self {
        Self { path: None, identity: Value::Null, start: None, written: Instant::now() }
    }

    /// Opens the file of a training, which need not exist yet. `identity` is
    /// [`ClassifierOptions::identity`](super::ClassifierOptions::identity).
    ///
    /// # Errors
    /// [`TrainError::Changed`] when the file is of other pictures or options, [`TrainError::File`] when it cannot be read or is
    /// no such file. It is then left as it was.
    pub fn open(path: &Path, identity: Value) -> Result<Self, TrainError> {
        let start = match std::fs::read(path) {
            Ok(bytes) => Some(read(path, &bytes, &identity)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(TrainError::file("read", path, error)),
        };
        Ok(Self { path: Some(path.to_path_buf()), identity, start, written: Instant::now() })
    }

    /// What the file has; once.
    pub(super) fn take_start(&mut self) -> Option<TrainingState> {
        self.start.take()
    }

    /// Whether the training is kept and was not written for a while.
    pub(super) fn is_due(&self) -> bool {
        self.path.is_some() && self.written.elapsed() >= BETWEEN
    }

    /// Keeps the training.
    ///
    /// # Errors
    /// [`TrainError::File`] when it cannot be written.
    pub(super) fn write(&mut self, state: impl FnOnce() -> TrainingState) -> Result<(), TrainError> {
        let Some(path) = &self.path else { return Ok(()) };
        let TrainingState { step, network, optimiser } = state();
        let failed = |error: burn::store::RecordError| TrainError::file("write", path, error);
        let (network, optimiser) = (network.into_bytes().map_err(failed)?, optimiser.into_bytes().map_err(failed)?);
        let records = [&network[..], &optimiser[..]].concat();
        let header = Header {
            classifier: self.identity.clone(),
            step,
            lengths: [network.len(), optimiser.len()],
            crc32: crc32fast::hash(&records),
        };
        let mut bytes = serde_json::to_vec(&header).expect("a header always serialises");
        bytes.push(b'\n');
        bytes.extend(records);
        write_file(path, &bytes)?;
        self.written = Instant::now();
        Ok(())
    }
}

fn read(path: &Path, bytes: &[u8], identity: &Value) -> Result<TrainingState, TrainError> {
    let wrong = |problem: &str| TrainError::file("continue from", path, problem);
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let header = end.and_then(|end| serde_json::from_slice::<Header>(&bytes[..end]).ok());
    let (Some(end), Some(header)) = (end, header) else {
        return Err(wrong("it is not the training of a classifier; name another --progress file"));
    };
    if header.classifier != *identity {
        return Err(changed(path, &header.classifier, identity));
    }
    let (records, [n_network, n_optimiser]) = (&bytes[end + 1..], header.lengths);
    if n_network.checked_add(n_optimiser) != Some(records.len()) || crc32fast::hash(records) != header.crc32 {
        return Err(wrong("it is damaged; remove it to train the classifier again"));
    }
    let (network, optimiser) = records.split_at(n_network);
    let failed = |error: burn::store::RecordError| TrainError::file("continue from", path, error);
    Ok(TrainingState {
        step: header.step,
        network: ModuleRecord::from_bytes(Bytes::from_bytes_vec(network.to_vec())).map_err(failed)?,
        optimiser: OptimizerRecord::from_bytes(Bytes::from_bytes_vec(optimiser.to_vec())).map_err(failed)?,
    })
}
