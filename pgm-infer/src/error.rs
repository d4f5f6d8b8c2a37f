//! The error type of this crate.

use std::path::PathBuf;

/// Errors of this crate. Each message names what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The model folder cannot be used.
    #[error(transparent)]
    Model(#[from] pgm_model::ModelError),
    /// A file of the model folder could not be read.
    #[error("cannot read {}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file could not be written.
    #[error("cannot write {}: {problem}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The tokenizer does not belong to the model.
    #[error(
        "{origin} has token ids up to {largest}, the model's vocabulary has {vocab_size} tokens; it is the tokenizer of another model"
    )]
    WrongTokenizer {
        /// The tokenizer's file.
        origin: String,
        /// Its largest id.
        largest: usize,
        /// The model's vocabulary.
        vocab_size: usize,
    },
    /// The tokenizer refused a text or an id, or panicked.
    #[error("the tokenizer cannot {action}: {problem}")]
    Tokenizer {
        /// "encode" or "decode".
        action: &'static str,
        /// The tokenizer's message.
        problem: String,
    },
    /// A setting that makes no sense.
    #[error("{name} {value} {problem}")]
    Setting {
        /// The setting, named as the command's flag.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A request that leaves nothing to decode or does not fit.
    #[error("{0}")]
    Request(String),
    /// The model computed logits from which no token can be drawn: one is NaN or +inf, or all are -inf.
    #[error(
        "the logits at position {position} are not finite numbers; the weights are damaged or overflow their dtype, \
         try another copy of the model or f32 weights"
    )]
    NotFinite {
        /// The position in the row.
        position: usize,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}
