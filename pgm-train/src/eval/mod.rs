//! Evaluation: the likelihood bound of held-out rows ([`ppl()`]), samples under a judge ([`generative`]), multiple choice
//! ([`choice()`]) and the last word of a text ([`greedy()`]).
//!
//! What is drawn (rows, times, groups, samples) is a function of the seed and of an index alone, never of the model, of
//! the batch or of where a run was interrupted: two models at one seed answer the same questions, a repeated run gives
//! the same number, and with a [`ResultLog`] a stopped run goes on where it was.

mod bound;
pub mod choice;
pub mod generative;
pub mod greedy;
mod ledger;
pub mod ppl;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use pgm_data::DataFolder;
use pgm_infer::TextModel;
use pgm_model::model_folder::{TOKENIZER_FILE, WEIGHTS_FILE};
use pgm_model::{ModelConfig, Network, WeightDtype};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::judge::Observe;
use crate::{TrainError, files};

pub use choice::{ChoiceReport, ChoiceSettings, Question, choice};
pub use generative::{GenerativeSettings, sample_texts};
pub use greedy::{GreedyReport, GreedySettings, LastWord, greedy};
pub use ledger::ResultLog;
pub use ppl::{PplReport, PplSettings, RowNats, ppl};

/// A model folder under evaluation.
#[derive(Debug)]
pub struct EvalModel {
    folder: PathBuf,
    model: TextModel,
    device: Device,
    crc32: u32,
    weights: WeightDtype,
}

impl EvalModel {
    /// Opens a model folder.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, TrainError> {
        let device = device.clone().without_autodiff();
        let model = TextModel::load(folder, &device)?;
        let weights = folder.join(WEIGHTS_FILE);
        let (_, crc32) = files::fingerprint(&weights).map_err(|error| TrainError::file("read", &weights, error))?;
        Ok(Self { folder: folder.to_path_buf(), model, device, crc32, weights: WeightDtype::F32 })
    }

    /// The model with its weights in another type, which then belongs to its identity.
    ///
    /// # Errors
    /// When the device or the model cannot do it.
    pub fn with_weight_dtype(self, weights: WeightDtype) -> Result<Self, TrainError> {
        Ok(Self { model: self.model.with_weight_dtype(weights)?, weights, ..self })
    }

    /// The model with its tokenizer.
    pub fn model(&self) -> &TextModel {
        &self.model
    }

    /// What identifies it in a result: its kind and its weights.
    pub fn identity(&self) -> Value {
        let mut identity =
            json!({ "model": kind(self.model.config()), "weights_crc32": format!("{:08x}", self.crc32) });
        if self.weights != WeightDtype::F32 {
            identity["weights"] = self.weights.name().into();
        }
        identity
    }

    fn mask_index(&self) -> usize {
        self.model.config().backbone().mask_index
    }

    fn network(&self) -> &Network {
        self.model.network()
    }

    /// Tokens of the longest row it was trained on.
    pub fn length(&self) -> usize {
        self.model.config().backbone().length
    }

    fn is_autoregressive(&self) -> bool {
        matches!(self.model.config(), ModelConfig::Autoregressive(_))
    }

    /// Whether `data` was prepared for this model.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming what differs.
    pub fn check_data(&self, data: &DataFolder) -> Result<(), TrainError> {
        check_same_tokens(&self.folder, "--model", self.model.config(), data)?;
        let length = data.manifest().length;
        if length > self.length() {
            let problem = format!("has rows of {} tokens, the data of {length}; prepare shorter rows", self.length());
            return Err(TrainError::Config { origin: format!("--model {}", self.folder.display()), problem });
        }
        Ok(())
    }

    // BOS + text + EOS.
    fn row_of(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let backbone = self.model.config().backbone();
        let mut row = vec![backbone.bos_index as u32];
        row.extend(self.model.encode(text)?);
        row.push(backbone.eos_index as u32);
        Ok(row)
    }
}

/// The word for a kind of model, as in `config.json`.
pub fn kind(config: &ModelConfig) -> &'static str {
    match config {
        ModelConfig::Partition(_) => "partition",
        ModelConfig::Masked(_) => "masked",
        ModelConfig::Autoregressive(_) => "autoregressive",
    }
}

/// Whether a model's tokens are those of a data folder; `flag` names the model in the error.
pub(crate) fn check_same_tokens(
    folder: &Path,
    flag: &str,
    model: &ModelConfig,
    data: &DataFolder,
) -> Result<(), TrainError> {
    let refuse = |problem: String| Err(TrainError::Config { origin: format!("{flag} {}", folder.display()), problem });
    let (backbone, manifest) = (model.backbone(), data.manifest());
    let pairs = [
        ("tokens in the vocabulary", backbone.vocab_size, manifest.vocab_size),
        ("as its mask", backbone.mask_index, manifest.special.mask as usize),
    ];
    for (what, model, data) in pairs {
        if model != data {
            return refuse(format!("has {model} {what}, the data has {data}; prepare the data for this model"));
        }
    }
    if !same_tokenizer(folder, data.tokenizer().json())? {
        return refuse("has another tokenizer than the data; prepare the data with the model's".to_string());
    }
    Ok(())
}

/// Whether a model folder's `tokenizer.json` says the same as another.
///
/// # Errors
/// [`TrainError::File`] when it cannot be read.
pub fn same_tokenizer(folder: &Path, other: &[u8]) -> Result<bool, TrainError> {
    let path = folder.join(TOKENIZER_FILE);
    let json = std::fs::read(&path).map_err(|error| TrainError::file("read", &path, error))?;
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    Ok(parse(&json) == parse(other))
}

/// Reads a file of JSON lines; blank lines are skipped.
///
/// # Errors
/// Names the file that cannot be read or holds nothing, or the line that is something else.
pub fn read_lines<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Vec<T>, TrainError> {
    let text = std::fs::read_to_string(path).map_err(|error| TrainError::file("read", path, error))?;
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            // A line of its own is line 1 to the parser, which says so at the end of its message.
            let place = format!(" at line 1 column {}", error.column());
            let problem = format!("is not {what} ({})", error.to_string().replace(&place, ""));
            TrainError::Samples { path: path.to_path_buf(), line: index + 1, problem }
        })
    };
    let lines: Vec<T> =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect::<Result<_, _>>()?;
    if lines.is_empty() {
        return Err(TrainError::file("read", path, "it holds nothing"));
    }
    Ok(lines)
}

fn tell(observe: &mut Observe, done: usize, all: usize) -> Result<(), TrainError> {
    match observe(done, all) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(TrainError::Stopped),
    }
}

/// A string or a list of them, as task files have both.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Label {
    Index(usize),
    Text(String),
}
