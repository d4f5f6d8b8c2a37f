//! Tokenizing a part.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::super::options::{Prepare, Progress};
use super::super::piece::{EncodedPiece, marker_names, sample};
use super::super::sources::texts;
use super::folder::{PartManifest, StoredSource, part_name};
use super::settings::PartSettings;
use super::stream::{Item, StreamWriter};
use crate::error::DataError;
use crate::files;
use crate::manifest::{MANIFEST_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use crate::shard::token_width;
use crate::source::{FileRange, FileShare, LEAST_RANGE, PartIndex, PiecePlace, SkippedRecords, TextInputs, TextPiece};
use crate::tokenizer::TextTokenizer;

/// Bytes of text that are tokenized together.
const CHUNK_BYTES: usize = 8 << 20;
/// Of so many bytes of text the start is checked for characters that the tokenizer drops.
const SAMPLED_BYTES: usize = 512 << 10;

/// A part that [`prepare_part`] made.
#[derive(Clone, Debug)]
pub struct PreparedPart {
    /// Its folder.
    pub folder: PathBuf,
    /// Documents that end in it.
    pub documents: u64,
    /// Tokens of its text.
    pub tokens: u64,
    /// Whether it was there already.
    pub was_finished: bool,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Prepares one of several parts, in a folder in `options.out`. The processes that make the parts need nothing of each
/// other and may end in any order. A finished part is skipped; a part that was not finished has no folder of
/// its name. [`merge_parts`](super::merge_parts) makes the data folder of all parts.
///
/// # Errors
/// What is wrong with the inputs or the options; [`DataError::Parts`] when the part was made with other settings;
/// [`DataError::Exists`] when `options.out` is a data folder; [`DataError::Option`] for standard input, which only one
/// process could read; [`DataError::Stopped`] when `observe` returns [`ControlFlow::Break`].
pub fn prepare_part(
    options: &Prepare,
    part: PartIndex,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<PreparedPart, DataError> {
    prepare_part_with(options, part, LEAST_RANGE, observe)
}

/// The files of which a part has something, each with what it has: "all", "the lines of bytes 0 to 100", ...
///
/// # Errors
/// [`DataError::Io`] or [`DataError::Malformed`] for a file that cannot be looked at.
pub fn part_share(inputs: &TextInputs, part: PartIndex) -> Result<Vec<(PathBuf, String)>, DataError> {
    let sources = inputs.parts().iter().map(|part| &part.inputs);
    let sources: Vec<&TextInputs> = if inputs.parts().is_empty() { vec![inputs] } else { sources.collect() };
    let mut found = Vec::new();
    for inputs in sources {
        for FileShare { file, range, deal } in inputs.shares(part, LEAST_RANGE)? {
            let share = match (range, deal) {
                (FileRange::Whole, None) => "all".to_string(),
                (FileRange::Whole, Some(_)) => "some of its documents".to_string(),
                (FileRange::Lines { start, end }, _) => format!("the lines of bytes {start} to {end}"),
                (FileRange::Rows { start, end }, _) => format!("the rows from {} to {end}", start + 1),
            };
            found.push((inputs.input_files()[file].path().to_path_buf(), share));
        }
    }
    Ok(found)
}

/// As [`prepare_part`], with the size from which files of lines are cut by bytes.
pub(super) fn prepare_part_with(
    options: &Prepare,
    part: PartIndex,
    least_range: u64,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<PreparedPart, DataError> {
    options.validate_settings()?;
    let (train, validation) = texts(options);
    let sources: Vec<&TextInputs> = train.into_iter().chain(validation).collect();
    if let Some(file) = sources.iter().flat_map(|inputs| inputs.input_files()).find(|file| file.is_copy()) {
        return Err(DataError::Option(format!(
            "{} can be read by one process only, so it cannot be prepared with --shard; write it to a file first",
            file.path().display()
        )));
    }
    let settings = PartSettings::of(options, part.count())?;
    let folder = options.out.join(part_name(part));
    if let Some(finished) = finished(&folder, part, &settings)? {
        files::remove_unfinished_for(options.out, &part_name(part));
        return Ok(finished);
    }
    if options.out.join(MANIFEST_FILE).exists() {
        return Err(DataError::Exists { path: options.out.to_path_buf() });
    }
    let mut writer = PartWriter { options, part, least_range, observe, done: 0, total: 0 };
    let result = writer.write(&sources, settings.clone(), &folder);
    // Another process may have been given the same part, and may have been faster.
    match result {
        Err(error @ DataError::Io { .. }) => finished(&folder, part, &settings).ok().flatten().ok_or(error),
        result => {
            if result.is_ok() {
                files::remove_unfinished_for(options.out, &part_name(part));
            }
            result
        }
    }
}

// The part, if it is complete and has these settings.
fn finished(folder: &Path, part: PartIndex, settings: &PartSettings) -> Result<Option<PreparedPart>, DataError> {
    if !folder.exists() {
        return Ok(None);
    }
    let manifest = PartManifest::read(folder)?;
    let other = settings.difference(&manifest.settings);
    let other = other.or_else(|| (manifest.index != part.index()).then(|| format!("index {}", manifest.index)));
    if let Some(difference) = other {
        let problem = format!(
            "was prepared with other settings ({difference}); remove the parts of these settings, or choose another --out"
        );
        return Err(DataError::Parts { path: folder.to_path_buf(), problem });
    }
    Ok(Some(prepared(folder, &manifest.sources, true, Vec::new())))
}

fn prepared(folder: &Path, sources: &[StoredSource], was_finished: bool, notes: Vec<String>) -> PreparedPart {
    let (documents, tokens) = sources.iter().fold((0, 0), |(d, t), source| (d + source.documents, t + source.tokens));
    PreparedPart { folder: folder.to_path_buf(), documents, tokens, was_finished, notes }
}

struct PartWriter<'a, 'o> {
    options: &'a Prepare<'a>,
    part: PartIndex,
    least_range: u64,
    observe: &'a mut (dyn FnMut(Progress) -> ControlFlow<()> + 'o),
    done: u64,
    total: u64,
}

impl PartWriter<'_, '_> {
    fn write(
        &mut self,
        sources: &[&TextInputs],
        settings: PartSettings,
        folder: &Path,
    ) -> Result<PreparedPart, DataError> {
        let (options, tokenizer) = (self.options, self.options.tokenizer);
        let shares = sources.iter().map(|inputs| inputs.shares(self.part, self.least_range));
        let shares = shares.collect::<Result<Vec<_>, DataError>>()?;
        self.total = sources.iter().zip(&shares).map(|(inputs, shares)| bytes_to_read(inputs, shares)).sum();
        let unfinished = files::folder_for(options.out, &part_name(self.part))?;
        let (mut stored, mut bad_records, mut n_nulls, mut n_bad) = (Vec::new(), Vec::new(), 0, 0);
        for (index, (inputs, shares)) in sources.iter().zip(shares).enumerate() {
            let width = token_width(tokenizer.vocab_size());
            let stream = StreamWriter::create(unfinished.path(), format!("source-{index}.tokens"), width)?;
            let mut encoder = Encoder::new(tokenizer, stream);
            let mut skipped = SkippedRecords::new(inputs.options().skip_bad);
            for share in shares {
                self.read(inputs, share, &mut skipped, &mut encoder)?;
            }
            stored.push(encoder.finish()?);
            n_nulls += skipped.nulls;
            n_bad += skipped.bad;
            bad_records.extend(skipped.named);
        }
        files::write_file(&unfinished.path().join(TOKENIZER_FILE), tokenizer.json())?;
        if let Some(config) = tokenizer.config_json() {
            files::write_file(&unfinished.path().join(TOKENIZER_CONFIG_FILE), config)?;
        }
        let mut notes = tokenizer.notes().to_vec();
        if n_nulls > 0 {
            notes.push(format!("records whose text is null were skipped: {n_nulls}"));
        }
        if n_bad > 0 {
            notes.push(format!("bad records were skipped: {n_bad} ({})", bad_records.join("; ")));
        }
        if stored.iter().all(|source| source.tokens == 0) {
            notes.push(format!("part {} is empty: the inputs have fewer documents than parts", self.part));
        }
        let prepared = prepared(folder, &stored, false, notes);
        PartManifest::new(self.part.index(), settings, stored, bad_records).write(unfinished.path())?;
        files::publish_folder(unfinished, folder)?;
        Ok(prepared)
    }

    fn read(
        &mut self,
        inputs: &TextInputs,
        share: FileShare,
        skipped: &mut SkippedRecords,
        encoder: &mut Encoder,
    ) -> Result<(), DataError> {
        let FileShare { file, range, mut deal } = share;
        let watch = skipped.watch();
        let _ = watch.take();
        let place = |index| PiecePlace { file: file as u64, range, index };
        let (mut index, mut continues) = (0, false);
        inputs.read_range(file, range, skipped, &mut |piece| {
            self.done += piece.source_bytes;
            let progress = Progress { done: self.done.min(self.total), total: self.total };
            if (self.observe)(progress).is_break() {
                return Err(DataError::Stopped);
            }
            let before = watch.take();
            let ends_document = piece.ends_document;
            if deal.as_mut().is_none_or(|deal| deal.next(piece.source_bytes)) {
                encoder.push(ReadPiece { piece, continues, place: place(index), before })?;
            }
            continues = !ends_document;
            index += 1;
            Ok(())
        })?;
        let (nulls, bad) = watch.take();
        if (nulls > 0 || bad > 0) && deal.is_none_or(|deal| deal.is_first()) {
            encoder.end_range(Item { place: place(u64::MAX), piece: None, nulls, bad })?;
        }
        Ok(())
    }
}

// For the progress only.
fn bytes_to_read(inputs: &TextInputs, shares: &[FileShare]) -> u64 {
    let bytes = |share: &FileShare| match share.range {
        FileRange::Lines { start, end } => end - start,
        FileRange::Whole | FileRange::Rows { .. } => inputs.input_files()[share.file].n_bytes(),
    };
    shares.iter().map(bytes).sum()
}

/// A piece that was read.
struct ReadPiece {
    piece: TextPiece,
    continues: bool,
    place: PiecePlace,
    // Nulls and bad records before it.
    before: (u64, u64),
}

/// Tokenizes pieces in parallel and writes them in order.
struct Encoder<'a> {
    tokenizer: &'a TextTokenizer,
    names: Vec<String>,
    stream: StreamWriter,
    chunk: Vec<ReadPiece>,
    bytes: usize,
}

impl<'a> Encoder<'a> {
    fn new(tokenizer: &'a TextTokenizer, stream: StreamWriter) -> Self {
        Self { tokenizer, names: marker_names(tokenizer), stream, chunk: Vec::new(), bytes: 0 }
    }

    fn push(&mut self, read: ReadPiece) -> Result<(), DataError> {
        self.bytes += read.piece.text.len() + read.piece.tokens.as_ref().map_or(0, |tokens| 4 * tokens.len());
        self.chunk.push(read);
        if self.bytes >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn end_range(&mut self, end: Item) -> Result<(), DataError> {
        self.flush()?;
        self.stream.push(&end)
    }

    fn flush(&mut self) -> Result<(), DataError> {
        self.bytes = 0;
        let mut since_sample = SAMPLED_BYTES;
        let chunk: Vec<(ReadPiece, bool)> = std::mem::take(&mut self.chunk)
            .into_iter()
            .map(|read| {
                let sampled = since_sample >= SAMPLED_BYTES && !read.piece.text.is_empty();
                since_sample = if sampled { 0 } else { since_sample } + read.piece.text.len();
                (read, sampled)
            })
            .collect();
        let (tokenizer, names) = (self.tokenizer, &self.names);
        let encode = |(ReadPiece { piece, continues, place, before: (nulls, bad) }, sampled): (ReadPiece, bool)| {
            let mut encoded = EncodedPiece::new(tokenizer, &piece, continues, names)?;
            if sampled {
                (encoded.lost, encoded.sampled) = sample(tokenizer, &piece.text);
            }
            Ok(Item { place, piece: Some(encoded), nulls, bad })
        };
        let items = chunk.into_par_iter().map(encode).collect::<Result<Vec<Item>, DataError>>()?;
        items.iter().try_for_each(|item| self.stream.push(item))
    }

    fn finish(mut self) -> Result<StoredSource, DataError> {
        self.flush()?;
        self.stream.finish()
    }
}
