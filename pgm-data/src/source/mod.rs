//! Reading text: plain files, JSONL and Parquet, each as a stream of pieces.
//!
//! A detokenizer is applied before text is cut into pieces: to whole documents of JSONL and Parquet, to plain text line
//! by line. So the concatenated pieces do not depend on where the cuts are.

mod documents;
mod piece;
mod plain_text;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use piece::TextPiece;

use crate::detokenize::Detokenizer;
use crate::error::DataError;

/// The size of the inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputSize {
    /// Bytes of text, before any detokenizer.
    pub bytes: u64,
    /// Documents: plain files, lines of JSONL, rows of Parquet that are not null.
    pub documents: u64,
}

/// Files to read, in order, and where their text is.
#[derive(Clone, Debug)]
pub struct TextInputs {
    files: Vec<PathBuf>,
    field: String,
    column: String,
    detokenizer: Option<Detokenizer>,
}

impl TextInputs {
    /// Finds the files of paths, folders and glob patterns. Folders are searched recursively, without hidden and binary
    /// files.
    ///
    /// `*.jsonl` and `*.ndjson` are read as JSONL with the text in `field`, `*.parquet` as Parquet with the text in
    /// `column`, and any other file as plain text, one document per file.
    ///
    /// # Errors
    /// [`DataError::NoInput`] for a pattern that matches no file, [`DataError::Io`] for an unreadable folder.
    pub fn resolve(patterns: &[String], field: &str, column: &str) -> Result<Self, DataError> {
        let mut files = Vec::new();
        for pattern in patterns {
            let path = Path::new(pattern);
            let before = files.len();
            if path.is_dir() {
                walk(path, &mut files)?;
            } else if path.is_file() {
                files.push(path.to_path_buf());
            } else {
                let no_input = || DataError::NoInput { pattern: pattern.clone() };
                let matches = glob::glob(pattern).map_err(|_| no_input())?;
                files.extend(matches.flatten().filter(|path| path.is_file()));
            }
            if files.len() == before {
                return Err(DataError::NoInput { pattern: pattern.clone() });
            }
        }
        Ok(Self { files, field: field.to_string(), column: column.to_string(), detokenizer: None })
    }

    /// The same files with a detokenizer.
    pub fn detokenized(self, detokenizer: Option<Detokenizer>) -> Self {
        Self { detokenizer, ..self }
    }

    /// The detokenizer, if there is one.
    pub fn detokenizer(&self) -> Option<Detokenizer> {
        self.detokenizer
    }

    /// The files, in the order in which they are read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Counts the bytes of text and the documents of all files. Plain files are not read. JSONL and Parquet files are
    /// read once, and `poll` is called for every document so that the caller can stop.
    ///
    /// # Errors
    /// As for [`for_each_piece`](Self::for_each_piece), and every error of `poll`.
    pub fn size(&self, poll: &mut dyn FnMut() -> Result<(), DataError>) -> Result<InputSize, DataError> {
        let mut total = InputSize::default();
        for path in &self.files {
            if matches!(Kind::of(path), Kind::Text) {
                total.bytes += path.metadata().map_err(DataError::io("read", path))?.len();
                total.documents += 1;
            } else {
                self.read_file(path, None, &mut |piece| {
                    total.bytes += piece.source_bytes;
                    total.documents += 1;
                    poll()
                })?;
            }
        }
        Ok(total)
    }

    /// Calls `f` with all text, in order. Plain text comes in pieces of bounded size, documents of JSONL and Parquet
    /// come whole.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::NotUtf8`] or [`DataError::Malformed`] naming the file and the place, and every
    /// error of `f`.
    pub fn for_each_piece(&self, f: &mut dyn FnMut(TextPiece) -> Result<(), DataError>) -> Result<(), DataError> {
        self.files.iter().try_for_each(|path| self.read_file(path, self.detokenizer, f))
    }

    fn read_file(
        &self,
        path: &Path,
        detokenizer: Option<Detokenizer>,
        f: &mut dyn FnMut(TextPiece) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        match (Kind::of(path), detokenizer) {
            (Kind::Text, None) => plain_text::read(path, f),
            (Kind::Text, Some(detokenizer)) => plain_text::read_detokenized(path, detokenizer, f),
            (Kind::JsonLines, _) => documents::read_json_lines(path, &self.field, detokenizer, f),
            (Kind::Parquet, _) => documents::read_parquet(path, &self.column, detokenizer, f),
        }
    }
}

/// The format of a file, by its extension.
enum Kind {
    Text,
    JsonLines,
    Parquet,
}

impl Kind {
    fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "ndjson") => Self::JsonLines,
            Some("parquet") => Self::Parquet,
            _ => Self::Text,
        }
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let entries = std::fs::read_dir(folder).map_err(DataError::io("read", folder))?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(DataError::io("read", folder))?;
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.is_file() && (!matches!(Kind::of(&path), Kind::Text) || !looks_binary(&path)?) {
            files.push(path);
        }
    }
    Ok(())
}

// A zero byte among the first 8 KiB.
fn looks_binary(path: &Path) -> Result<bool, DataError> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(DataError::io("read", path))?;
    file.take(8192).read_to_end(&mut start).map_err(DataError::io("read", path))?;
    Ok(start.contains(&0))
}

#[cfg(test)]
mod tests;
