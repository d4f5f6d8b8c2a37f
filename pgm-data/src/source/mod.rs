//! Reading text: plain files, JSON, tables, Parquet and Arrow, each as a stream of pieces.
//!
//! A detokenizer is applied before text is cut into pieces: to whole documents of records, to plain text line by line.
//! So the concatenated pieces do not depend on where the cuts are.

#[cfg(feature = "columns")]
mod columns;
mod compression;
mod detect;
mod field_path;
mod find;
mod format;
mod hub;
pub(crate) mod input_file;
mod json;
mod line_border;
mod open;
mod options;
mod piece;
mod plain_text;
mod records;
mod saved;
mod separated;
mod share;
mod shuffle;
mod table;

use std::collections::HashSet;
use std::path::Path;

pub use compression::Compression;
pub use format::FileFormat;
pub(crate) use hub::{HubSplit, split_of};
pub use input_file::{InputFile, SkippedFile};
pub use options::{Documents, ReadOptions, TextEncoding};
pub use piece::TextPiece;
pub use records::SkippedRecords;
pub(crate) use saved::SavedInputs;
pub use share::PartIndex;
pub(crate) use share::{FileRange, FileShare, LEAST_RANGE, PiecePlace, shares};
pub(crate) use shuffle::{DocumentShuffle, Spilled};

use crate::detokenize::Detokenizer;
use crate::error::DataError;
#[cfg(not(feature = "columns"))]
use crate::no_columns as columns;
use find::FoundFiles;
use open::OpenedText;
use piece::PieceSink;
use records::RecordSink;

/// The size of the inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputSize {
    /// Bytes of text, before any detokenizer.
    pub bytes: u64,
    /// Documents: plain files or their parts, and records whose text is not null.
    pub documents: u64,
}

/// Files to read, in order, and where their text is.
#[derive(Clone, Debug)]
pub struct TextInputs {
    found: FoundFiles,
    options: ReadOptions,
    detokenizer: Option<Detokenizer>,
    shuffle: Option<u64>,
    mixture: Vec<MixturePart>,
}

/// One source of a mixture.
#[derive(Clone, Debug)]
pub(crate) struct MixturePart {
    /// Its text.
    pub(crate) inputs: TextInputs,
    /// Its share of the mixture's bytes. All shares together are 1.
    pub(crate) share: f64,
}

impl TextInputs {
    /// Finds the files of paths, folders and glob patterns, with the text in `field` of JSON and in `column` of tables.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub fn resolve(patterns: &[String], field: &str, column: &str) -> Result<Self, DataError> {
        let options = ReadOptions { field: field.to_string(), column: column.to_string(), ..ReadOptions::default() };
        Self::find(patterns, &options)
    }

    /// Finds the files of paths, folders and glob patterns; `-` is standard input.
    ///
    /// The format of a file is found by its extension, in any case and before `.gz` or `.zst`, and by its content:
    /// JSON, Parquet and Arrow are never read as text. Folders are searched recursively. Hidden files, files that are
    /// no text, descriptions of the data set and the test split are left out; the validation split is in
    /// [`validation_split`](Self::validation_split).
    ///
    /// # Errors
    /// [`DataError::NoInput`] for a pattern that matches no file, [`DataError::Malformed`] for a named file that
    /// cannot be read as text, [`DataError::Io`] for an unreadable file or folder.
    pub fn find(patterns: &[String], options: &ReadOptions) -> Result<Self, DataError> {
        let found = FoundFiles::of_patterns(patterns, options)?;
        Ok(Self { found, options: options.clone(), detokenizer: None, shuffle: None, mixture: Vec::new() })
    }

    /// Files that were found before.
    fn of_files(
        found: FoundFiles,
        options: ReadOptions,
        detokenizer: Option<Detokenizer>,
        shuffle: Option<u64>,
    ) -> Self {
        Self { found, options, detokenizer, shuffle, mixture: Vec::new() }
    }

    /// Inputs with their shares, which together are 1.
    pub(crate) fn of_parts(parts: Vec<(Self, f64)>) -> Result<Self, DataError> {
        let shares: Vec<f64> = parts.iter().map(|(_, share)| *share).collect();
        let mut mixture = Self::mixture(parts)?;
        // As they were, to the last digit.
        for (part, share) in mixture.mixture.iter_mut().zip(shares) {
            part.share = share;
        }
        Ok(mixture)
    }

    /// Several inputs with their weights. [`prepare()`](crate::prepare()) takes of each its share of the text's bytes,
    /// from its start, and as much as it can without using any text twice: the input that is smallest for its weight
    /// is taken whole.
    ///
    /// # Errors
    /// [`DataError::Option`] for weights that are not positive numbers, or inputs with different detokenizers.
    pub fn mixture(parts: Vec<(Self, f64)>) -> Result<Self, DataError> {
        let refused = |problem: String| Err(DataError::Option(problem));
        let Some((first, _)) = parts.first() else {
            return refused("a mixture needs at least one --input".to_string());
        };
        if let Some((_, weight)) = parts.iter().find(|(_, weight)| !(weight.is_finite() && *weight > 0.0)) {
            return refused(format!("--weight {weight} must be a number above 0"));
        }
        if parts.iter().any(|(inputs, _)| inputs.detokenizer != first.detokenizer) {
            return refused("all inputs of a mixture must have the same detokenizer".to_string());
        }
        let (mut found, mut known) = (FoundFiles::default(), HashSet::new());
        for (inputs, _) in &parts {
            let files = inputs.found.files.iter().chain(&inputs.found.validation);
            if let Some(twice) = files.clone().find(|file| file.identity().is_some_and(|path| known.contains(&path))) {
                return refused(format!(
                    "{} is in two inputs of the mixture; name it in one of them, since no text is used twice",
                    twice.path().display()
                ));
            }
            known.extend(files.filter_map(InputFile::identity));
            found.files.extend(inputs.found.files.iter().cloned());
            found.validation.extend(inputs.found.validation.iter().cloned());
            found.skipped.extend(inputs.found.skipped.iter().cloned());
        }
        let (options, detokenizer, shuffle) = (first.options.clone(), first.detokenizer, first.shuffle);
        let total: f64 = parts.iter().map(|(_, weight)| weight).sum();
        let part = |(inputs, weight)| MixturePart { inputs, share: weight / total };
        Ok(Self { found, options, detokenizer, shuffle, mixture: parts.into_iter().map(part).collect() })
    }

    /// The parts of a mixture. Other inputs have none.
    pub(crate) fn parts(&self) -> &[MixturePart] {
        &self.mixture
    }

    /// The same files with a detokenizer.
    pub fn detokenized(self, detokenizer: Option<Detokenizer>) -> Self {
        Self { detokenizer, ..self }
    }

    /// The same documents in a random order, which depends on `seed` and on nothing else. `None` keeps the order of the
    /// files. The documents go through temporary files, which take as much disk as the text.
    pub fn shuffled(self, seed: Option<u64>) -> Self {
        Self { shuffle: seed, ..self }
    }

    /// The detokenizer, if there is one.
    pub fn detokenizer(&self) -> Option<Detokenizer> {
        self.detokenizer
    }

    /// The settings of reading.
    pub fn options(&self) -> &ReadOptions {
        &self.options
    }

    /// The paths of the files, in the order in which they are read.
    pub fn files(&self) -> Vec<&Path> {
        self.found.files.iter().map(InputFile::path).collect()
    }

    /// The files with their formats, in the order in which they are read.
    pub fn input_files(&self) -> &[InputFile] {
        &self.found.files
    }

    /// What was found and is not read, with the reasons.
    pub fn skipped_files(&self) -> &[SkippedFile] {
        &self.found.skipped
    }

    /// The files of the validation split, if the inputs are folders that have one.
    pub fn validation_split(&self) -> Option<Self> {
        if self.found.validation.is_empty() {
            return None;
        }
        let found = FoundFiles { files: self.found.validation.clone(), ..FoundFiles::default() };
        Some(Self { found, shuffle: None, mixture: Vec::new(), ..self.clone() })
    }

    /// Counts the bytes of text and the documents of all files. Plain files whose size says it are not read. Other
    /// files are read once, and `poll` is called for every piece so that the caller can stop.
    ///
    /// # Errors
    /// As for [`for_each_piece`](Self::for_each_piece), and every error of `poll`.
    pub fn size(&self, poll: &mut dyn FnMut() -> Result<(), DataError>) -> Result<InputSize, DataError> {
        let mut total = InputSize::default();
        let mut skipped = SkippedRecords::new(self.options.skip_bad);
        for file in &self.found.files {
            let whole_file = file.format == FileFormat::Text && self.options.documents == Documents::File;
            if whole_file && file.compression == Compression::None && file.encoding.is_none() {
                let mark_bytes = OpenedText::new(file)?.mark_bytes;
                let n_bytes = file.content().metadata().map_err(DataError::io("read", file.path()))?.len();
                total.bytes += n_bytes - mark_bytes;
                total.documents += 1;
                continue;
            }
            // Separators are looked for after the detokenizer, so its bytes count there.
            let separated = file.format == FileFormat::Text && !whole_file;
            let detokenizer = self.detokenizer.filter(|_| separated);
            self.read_file(file, FileRange::Whole, detokenizer, &mut skipped, &mut |piece| {
                total.bytes += piece.source_bytes;
                total.documents += u64::from(piece.ends_document);
                poll()
            })?;
        }
        Ok(total)
    }

    /// Calls `f` with all text, in order. Documents come in pieces of bounded size.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::NotUtf8`] or [`DataError::Malformed`] naming the file and the place, and every
    /// error of `f`.
    pub fn for_each_piece(&self, f: &mut dyn FnMut(TextPiece) -> Result<(), DataError>) -> Result<(), DataError> {
        self.read(&mut SkippedRecords::new(self.options.skip_bad), &mut || Ok(()), f)
    }

    /// As [`for_each_piece`](Self::for_each_piece), and counts the records that are left out. `poll` is called for every
    /// piece that is read before the first one comes, as it is where documents are shuffled.
    ///
    /// # Errors
    /// As for [`for_each_piece`](Self::for_each_piece), and every error of `poll`.
    pub(crate) fn read(
        &self,
        skipped: &mut SkippedRecords,
        poll: &mut dyn FnMut() -> Result<(), DataError>,
        f: &mut PieceSink,
    ) -> Result<(), DataError> {
        let detokenizer = self.detokenizer;
        let Some(seed) = self.shuffle else {
            let whole = FileRange::Whole;
            return self.found.files.iter().try_for_each(|file| self.read_file(file, whole, detokenizer, skipped, f));
        };
        let n_bytes = self.size(poll)?.bytes;
        let mut shuffle = DocumentShuffle::new(seed, n_bytes)?;
        for file in &self.found.files {
            self.read_file(file, FileRange::Whole, detokenizer, skipped, &mut |piece| {
                poll()?;
                shuffle.push(&piece)
            })?;
        }
        shuffle.finish(f)
    }

    /// The seed of the documents' order.
    pub(crate) fn shuffle(&self) -> Option<u64> {
        self.shuffle
    }

    /// What a part has of the files.
    pub(crate) fn shares(&self, part: PartIndex, least_range: u64) -> Result<Vec<FileShare>, DataError> {
        let detokenized = self.detokenizer.is_some();
        shares(&self.found.files, &self.options.documents, detokenized, part, least_range)
    }

    /// Calls `f` with the text of a range of a file, in the order of the file.
    pub(crate) fn read_range(
        &self,
        file: usize,
        range: FileRange,
        skipped: &mut SkippedRecords,
        f: &mut PieceSink,
    ) -> Result<(), DataError> {
        self.read_file(&self.found.files[file], range, self.detokenizer, skipped, f)
    }

    /// Reads one piece again.
    pub(crate) fn piece_at(&self, place: PiecePlace) -> Result<Option<TextPiece>, DataError> {
        let file = usize::try_from(place.file).unwrap_or(usize::MAX);
        if file >= self.found.files.len() {
            return Ok(None);
        }
        let mut skipped = SkippedRecords::new(self.options.skip_bad);
        let (mut found, mut index) = (None, 0);
        let result = self.read_range(file, place.range, &mut skipped, &mut |piece| {
            if index == place.index {
                found = Some(piece);
                return Err(DataError::Stopped);
            }
            index += 1;
            Ok(())
        });
        match result {
            Err(DataError::Stopped) => Ok(found),
            result => result.map(|()| None),
        }
    }

    fn read_file(
        &self,
        file: &InputFile,
        range: FileRange,
        detokenizer: Option<Detokenizer>,
        skipped: &mut SkippedRecords,
        f: &mut PieceSink,
    ) -> Result<(), DataError> {
        let ReadOptions { field, column, documents, .. } = &self.options;
        let open = || match range {
            FileRange::Lines { start, end } => OpenedText::of_lines(file, start, end),
            FileRange::Whole | FileRange::Rows { .. } => OpenedText::new(file),
        };
        let rows = match range {
            FileRange::Rows { start, end } => Some((start, end)),
            FileRange::Whole | FileRange::Lines { .. } => None,
        };
        if file.format == FileFormat::Text {
            return match (documents, detokenizer) {
                (Documents::File, None) => plain_text::read(file, open()?, f),
                (Documents::File, Some(detokenizer)) => plain_text::read_detokenized(file, open()?, detokenizer, f),
                (documents, _) => separated::read(file, open()?, documents, detokenizer, f),
            };
        }
        let hint = if file.found_by_content { "; --format text reads the file as plain text" } else { "" };
        let mut sink = RecordSink { path: file.path(), hint, detokenizer, skipped, pieces: f };
        match file.format {
            FileFormat::Text => unreachable!("read above"),
            FileFormat::JsonLines => json::read_lines(file, open()?, field, &mut sink),
            FileFormat::Json => json::read_values(file, open()?, field, &mut sink),
            FileFormat::Csv => table::read(file, open()?, b',', column, &mut sink),
            FileFormat::Tsv => table::read(file, open()?, b'\t', column, &mut sink),
            FileFormat::Parquet => columns::read_parquet(file, column, rows, &mut sink),
            FileFormat::Arrow => columns::read_arrow(file, column, &mut sink),
        }
    }
}

#[cfg(test)]
mod tests;
