//! Files that are read, and files that are left out.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempPath;

use super::compression::Compression;
use super::detect::DetectedFormat;
use super::format::FileFormat;
use super::options::TextEncoding;

/// A file that is read.
#[derive(Clone, Debug)]
pub struct InputFile {
    path: PathBuf,
    /// Its format after decompression.
    pub format: FileFormat,
    /// Its encoding, of a file of characters that is not UTF-8.
    pub encoding: Option<TextEncoding>,
    /// Whether its content says that it has records, and its name does not.
    pub(super) found_by_content: bool,
    /// Its compression.
    pub compression: Compression,
    // What was read from standard input or a pipe, since the text is read twice.
    copy: Option<Arc<TempPath>>,
}

impl InputFile {
    pub(super) fn new(path: PathBuf, detected: DetectedFormat, copy: Option<Arc<TempPath>>) -> Self {
        let DetectedFormat { format, compression, encoding, found_by_content, .. } = detected;
        Self { path, format, encoding, found_by_content, compression, copy }
    }

    /// Whether it was read from standard input or a pipe.
    pub(crate) fn is_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Its size on disk, 0 if it cannot be told.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.content().metadata().map_or(0, |metadata| metadata.len())
    }

    /// Its name in messages: its path, or "standard input".
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same path for the same file, however it was named. What was read from a pipe has none.
    pub(super) fn identity(&self) -> Option<PathBuf> {
        if self.is_copy() { None } else { self.path.canonicalize().ok() }
    }

    /// Where its content is.
    pub(super) fn content(&self) -> &Path {
        self.copy.as_deref().map_or(&self.path, |copy| copy)
    }
}

/// A file or folder that is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedFile {
    /// Its path.
    pub path: PathBuf,
    /// Why, as a sentence whose subject is the path.
    pub reason: String,
}

impl fmt::Display for SkippedFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.reason)
    }
}
