//! The errors of this crate.

use std::path::{Path, PathBuf};

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
    #[error("no file {}; check --input{}", found(pattern), left_out(reasons))]
    NoInput {
        /// The pattern.
        pattern: String,
        /// What was found and left out.
        reasons: Vec<String>,
    },
    /// A text file that is not UTF-8.
    #[error("{} is not UTF-8 text at byte {offset}; give its encoding with --encoding (latin1, for example), convert it or leave it out", path.display())]
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
    /// No training row is left without the bad records.
    #[error("no training row is left: {n_bad} bad records were skipped ({})", named.join("; "))]
    AllBad {
        /// Their number.
        n_bad: u64,
        /// Place and problem of the first ones.
        named: Vec<String>,
    },
    /// A tokenizer file that cannot be used.
    #[error("tokenizer {origin}: {problem}")]
    Tokenizer {
        /// The file, or the operation that failed.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The text gives the mask token.
    #[error(
        "the text has the mask token {token}, which only a model may write; take it out of the text, or choose another mask with --special-tokens mask=NAME"
    )]
    MaskInText {
        /// The token's name.
        token: String,
    },
    /// The tokenizer does not know most of the text.
    #[error(
        "the tokenizer does not fit the text: {percent} % of the {split} {what}; choose another --tokenizer, or check --encoding"
    )]
    UnknownText {
        /// "training" or "validation".
        split: &'static str,
        /// "tokens are unknown" or "characters are in no token".
        what: &'static str,
        /// The share.
        percent: u64,
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
    /// Parts of a preparation that cannot be put together, or a part that cannot be made.
    #[error("{} {problem}", path.display())]
    Parts {
        /// The folder of a part, or of all parts.
        path: PathBuf,
        /// What is wrong and what to do: a sentence whose subject is the path.
        problem: String,
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
    /// A folder of pictures where text is needed.
    #[error("{} has pictures, not text, so it has no tokenizer; give a data folder of pgm-data prepare", path.display())]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
    },
    /// A folder of pixels where tokens are needed.
    #[error(
        "{} has pixels, and a model needs tokens; make codes with a codec (pgm-train encode), or use pgm-data images with --as-tokens",
        path.display()
    )]
    PixelsOnly {
        /// The folder.
        path: PathBuf,
    },
    /// A folder of text or codes where pixels are needed.
    #[error("{} has {found}, and this needs pixels; make them with pgm-data images", path.display())]
    NoPixels {
        /// The folder.
        path: PathBuf,
        /// "text" or "codes".
        found: &'static str,
    },
    /// A split without pictures.
    #[error("no picture is left for {split}; give more pictures, or another --val-fraction or --val")]
    NoPictures {
        /// "training" or "validation".
        split: &'static str,
    },
    /// A picture that cannot be read, or has no label.
    #[error("{place} {problem}; mend or remove it, or leave such pictures out with --skip-bad")]
    BadPicture {
        /// The file, or the member of a file.
        place: String,
        /// What is wrong: a sentence whose subject is the place.
        problem: String,
    },
    /// Codes that do not fit the grid or the codebook, or have no label.
    #[error("{place} {problem}")]
    BadCodes {
        /// The file, or the row of a file.
        place: String,
        /// What is wrong: a sentence whose subject is the place.
        problem: String,
    },
    /// A folder without pictures.
    #[error(
        "{} has no picture: no PNG, JPEG or WebP file, no MNIST or CIFAR file, no tar and no Parquet file{}",
        path.display(),
        left_out(reasons)
    )]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
        /// What was found and left out.
        reasons: Vec<String>,
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

    /// A file of a part of a preparation that is not what was written.
    pub(crate) fn damaged_part(folder: &Path, file: &str, problem: &str) -> Self {
        let problem = format!("is damaged ({file}: {problem}); remove it and prepare this part again");
        Self::Parts { path: folder.to_path_buf(), problem }
    }
}

fn found(pattern: &str) -> String {
    if std::path::Path::new(pattern).is_dir() {
        format!("in {pattern} can be read as text")
    } else {
        format!("matches {pattern}")
    }
}

fn left_out(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!(" (left out: {})", reasons.join("; ")) }
}
