//! Files that are read, and files that are left out.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempPath;

use super::compression::Compression;
use super::format::FileFormat;

/// A file that is read.
#[derive(Clone, Debug)]
pub struct InputFile {
    pub(super) path: PathBuf,
    /// Its format after decompression.
    pub format: FileFormat,
    /// Its compression.
    pub compression: Compression,
    // What was read from standard input or a pipe, since the text is read twice.
    pub(super) copy: Option<Arc<TempPath>>,
}

impl InputFile {
    /// Its name in messages: its path, or "standard input".
    pub fn path(&self) -> &Path {
        &self.path
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
