//! The errors of this crate.

use std::path::PathBuf;

/// Errors of this crate. Each message says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// "read", "write" or "map".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// An input pattern matches no file.
    #[error("no file matches {pattern}; check --input")]
    NoInput {
        /// The pattern.
        pattern: String,
    },
    /// A text file that is not UTF-8.
    #[error("{} is not UTF-8 text at byte {offset}; convert it or leave it out", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first invalid byte.
        offset: u64,
    },
    /// A JSONL line or a Parquet file without the named field or column of text.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what to do.
        problem: String,
    },
    /// A tokenizer file that cannot be used.
    #[error("tokenizer {origin}: {problem}")]
    Tokenizer {
        /// The file, or the operation that failed.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The tokenizer has no BOS or EOS token with a usual name.
    #[error("tokenizer {origin} has no {role} token with a usual name; name it with --special-tokens {role}=NAME")]
    NoSpecialToken {
        /// The file.
        origin: String,
        /// "bos" or "eos".
        role: &'static str,
    },
    /// An invalid option.
    #[error("{0}")]
    Option(String),
    /// The output folder exists.
    #[error("{} exists already; remove it or choose another --out", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The inputs have too few tokens for a single row.
    #[error(
        "the {split} inputs have {tokens} tokens, too few for one row of length {length}; give more text or a smaller --length"
    )]
    TooShort {
        /// "training" or "validation".
        split: &'static str,
        /// Tokens of the inputs.
        tokens: u64,
        /// Tokens per row.
        length: usize,
    },
    /// A folder that is not a complete data folder.
    #[error("{} is not a prepared data folder ({problem}); make one with pgm-data prepare", path.display())]
    NotPrepared {
        /// The folder.
        path: PathBuf,
        /// What is missing or invalid.
        problem: String,
    },
    /// A data folder whose files are not as they were written.
    #[error("{} is damaged: {problem}; prepare the data again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The caller stopped the work.
    #[error("stopped; nothing was written")]
    Stopped,
}

impl DataError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io { action, path, cause }
    }
}
