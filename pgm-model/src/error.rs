//! The error type of this crate.

use std::path::PathBuf;

use crate::import::torch_file::TorchError;

/// Errors of this crate. Each message says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A configuration value that no model can have.
    #[error("model configuration: {key} = {value} {problem}")]
    Config {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        value: String,
        /// What is wrong with it, as the end of a sentence.
        problem: String,
    },
    /// Weights that cannot be stored in the requested dtype.
    #[error("{0}")]
    Precision(String),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// A training run that has no such model; a complete sentence with what it has.
    #[error("{0}")]
    Run(String),
    /// A configuration that is not valid JSON, or has unknown or missing keys.
    #[error("{origin} is not a valid model configuration: {cause}")]
    Json {
        /// The file; only its name if it was passed as bytes.
        origin: String,
        /// The cause.
        cause: serde_json::Error,
    },
    /// A weights file that is not a readable safetensors file.
    #[error("{origin} is not a readable safetensors file ({problem}); it may be truncated, copy it again")]
    Weights {
        /// The file; only its name if it was passed as bytes.
        origin: String,
        /// The reader's message.
        problem: String,
    },
    /// The model has tensors that the file lacks.
    #[error(
        "{origin} lacks {count} of the model's tensors, the first is {first}; does the configuration belong to it?"
    )]
    MissingTensor {
        /// The weights file.
        origin: String,
        /// How many are missing.
        count: usize,
        /// The published name of the first.
        first: String,
    },
    /// The file has tensors that the model does not know.
    #[error(
        "{origin} holds {count} tensors that the model does not have, the first is {first}; does the configuration belong to it?"
    )]
    UnknownTensor {
        /// The weights file.
        origin: String,
        /// How many there are.
        count: usize,
        /// The name of the first.
        first: String,
    },
    /// A tensor of another shape than the configuration implies.
    #[error("{origin}: tensor {name} has shape {found:?}, the configuration asks for {expected:?}")]
    Shape {
        /// The weights file.
        origin: String,
        /// The published name.
        name: String,
        /// The shape by the configuration, as stored (`[out, in]` for linear layers).
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of a dtype that weights cannot have.
    #[error(
        "{origin}: tensor {name} is stored as {dtype}, which is none of F64, F32, F16, BF16; convert the weights in PyTorch, e.g. with .to(torch.bfloat16), and save them again"
    )]
    DType {
        /// The weights file.
        origin: String,
        /// The published name.
        name: String,
        /// The stored dtype.
        dtype: String,
    },
    /// A tensor with values that are NaN or infinite.
    #[error(
        "{origin}: tensor {name} has {count} values that are not finite, the first is {first}; the run diverged or the file is damaged, take an earlier checkpoint"
    )]
    NotFinite {
        /// The weights file.
        origin: String,
        /// The published name.
        name: String,
        /// How many values are not finite.
        count: usize,
        /// The first of them.
        first: f32,
    },
    /// What a download leaves in the place of a file.
    #[error("{origin} is {found}, not the file that it stands for; {remedy}")]
    Substitute {
        /// The file.
        origin: String,
        /// What it is.
        found: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A PyTorch file that cannot be read.
    #[error("cannot import {origin}: {cause}")]
    Torch {
        /// The file.
        origin: String,
        /// The cause.
        cause: TorchError,
    },
    /// A readable file that is not a checkpoint in a known format.
    #[error("cannot import {origin}: {problem}")]
    Import {
        /// The file.
        origin: String,
        /// What is missing or contradictory, and what to do.
        problem: String,
    },
    /// A tensor could not be read back from its device.
    #[error("cannot read tensor {name} from its device: {problem}")]
    Device {
        /// The published name.
        name: String,
        /// The backend's message.
        problem: String,
    },
}
