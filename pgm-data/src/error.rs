//! What can go wrong between a text file and a row of tokens.

use std::path::PathBuf;

/// Errors of this crate. Each message names what is wrong, where, and what to do.
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
        /// What was asked for.
        pattern: String,
    },
    /// A text input that is not UTF-8.
    #[error("{} is not UTF-8 text at byte {offset}; convert it, or leave it out", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Where the first invalid byte stands.
        offset: u64,
    },
    /// A JSONL line or a Parquet file without the asked-for text.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place and the remedy.
        problem: String,
    },
    /// A tokenizer file that cannot be used.
    #[error("tokenizer {origin}: {problem}")]
    Tokenizer {
        /// The file or "bytes".
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The tokenizer has no token for a role that needs one.
    #[error("tokenizer {origin} has no {role} token that is known by name; name it with --special-tokens {role}=NAME")]
    NoSpecialToken {
        /// The file.
        origin: String,
        /// "bos", "eos", "pad" or "mask".
        role: &'static str,
    },
    /// An option that makes no sense.
    #[error("{0}")]
    Option(String),
    /// The output exists already.
    #[error("{} exists already; remove it or choose another --out", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The inputs make not a single row.
    #[error(
        "the {split} inputs hold {tokens} tokens, too few for one row of length {length}; give more text or a smaller --length"
    )]
    TooShort {
        /// "training" or "validation".
        split: &'static str,
        /// What they hold.
        tokens: u64,
        /// Tokens of a row.
        length: usize,
    },
    /// A folder that is not a finished data folder.
    #[error("{} is not a prepared data folder ({problem}); make one with pgm-data prepare", path.display())]
    NotPrepared {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// A shard whose bytes are not what was written.
    #[error("{} is damaged: {problem}; prepare the data again", path.display())]
    Damaged {
        /// The shard.
        path: PathBuf,
        /// What does not fit.
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
