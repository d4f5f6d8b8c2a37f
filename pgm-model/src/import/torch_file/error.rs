//! Errors of files that cannot be read.

use super::value::PickleError;

/// A file of `torch.save` that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The container is damaged.
    #[error("its zip container cannot be read ({problem}); it may be truncated, copy it again")]
    Zip {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The format that torch wrote before version 1.6.
    #[error(
        "it has the form that torch wrote before 1.6, which is not read; convert it in Python: torch.save(torch.load(old, map_location=\"cpu\"), new)"
    )]
    Legacy,
    /// Neither format.
    #[error("it is no file of torch.save: {problem}")]
    NotTorch {
        /// What is missing.
        problem: &'static str,
    },
    /// The pickle is damaged or hostile.
    #[error("{0}")]
    Pickle(#[from] PickleError),
    /// An entry is not stored as torch stores it.
    #[error("entry {name} {problem}")]
    Entry {
        /// The entry.
        name: String,
        /// What is wrong, as the end of the sentence.
        problem: String,
    },
    /// A tensor whose description contradicts its storage.
    #[error("{name} {problem}")]
    Tensor {
        /// The tensor, as far as its name is known.
        name: String,
        /// What is wrong, as the end of the sentence.
        problem: String,
    },
}

pub(super) fn tensor_error<T>(problem: impl Into<String>) -> Result<T, TorchError> {
    Err(TorchError::Tensor { name: "a tensor".to_string(), problem: problem.into() })
}

/// A name from a file, shortened for an error message.
pub(crate) fn shortened(name: &str) -> String {
    let mut shown: String = name.chars().take(60).flat_map(char::escape_debug).collect();
    if name.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}
