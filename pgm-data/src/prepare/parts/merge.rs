//! From parts to a data folder.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::super::attempt::{Target, write_folder};
use super::super::options::{Prepared, Progress};
use super::super::piece::{EncodedPiece, Piece};
use super::super::sources::{Pieces, Sources, changed, texts};
use super::find::{Part, PartSet};
use super::folder::is_part;
use super::stream::{Item, StreamReader};
use crate::error::DataError;
use crate::files;
use crate::manifest::MANIFEST_FILE;
use crate::shard::token_width;
use crate::source::{DocumentShuffle, InputSize, SkippedRecords, TextInputs, TextPiece};
use crate::tokenizer::TextTokenizer;

/// The settings of [`merge_parts`].
#[derive(Debug)]
pub struct MergeParts<'a> {
    /// Folders of parts, or parts.
    pub parts: &'a [PathBuf],
    /// The folder to create. `None` makes the folder of the parts a data folder.
    pub out: Option<&'a Path>,
    /// Whether the parts are removed once the data folder is there.
    pub remove_parts: bool,
}

/// Makes the data folder of all parts of [`prepare_part`](super::prepare_part). Each of its files has the same bytes as after
/// [`prepare`](crate::prepare()) with the same options.
///
/// Tokens are copied by one thread. Shuffled documents go through temporary files, as they do in
/// [`prepare`](crate::prepare()). Where the validation text begins within a piece, this piece of the inputs is read again.
///
/// # Errors
/// [`DataError::Parts`] for parts that are missing, twice there, damaged, or of other settings, and for changed inputs;
/// [`DataError::Exists`]; and everything that
/// [`prepare`](crate::prepare()) says about all text.
pub fn merge_parts(
    options: &MergeParts,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Prepared, DataError> {
    let (out, target) = match (options.out, options.parts) {
        (Some(out), _) if out.exists() => return Err(DataError::Exists { path: out.to_path_buf() }),
        (Some(out), _) => (out, Target::New),
        (None, [folder]) if folder.join(MANIFEST_FILE).exists() => {
            return Err(DataError::Exists { path: folder.join(MANIFEST_FILE) });
        }
        (None, [folder]) if is_part(folder) => {
            return Err(DataError::Option("a part alone needs the folder to create: --out".to_string()));
        }
        (None, [folder]) => (folder.as_path(), Target::Existing),
        (None, _) => {
            return Err(DataError::Option("parts of several folders need the folder to create: --out".to_string()));
        }
    };
    let set = PartSet::find(options.parts)?;
    let settings = set.parts[0].manifest.settings.load(&set.parts[0].folder)?;
    let prepare = settings.options(out);
    let (train, validation) = texts(&prepare);
    let n_train = train.len();
    let inputs = train.into_iter().chain(validation).enumerate();
    let pieces: Vec<PartPieces> = inputs
        .map(|(source, inputs)| PartPieces { parts: &set.parts, source, inputs, tokenizer: prepare.tokenizer })
        .collect();
    let sized = |pieces: &'_ PartPieces| pieces.size();
    let train = pieces[..n_train].iter().map(|pieces| (pieces as &dyn Pieces, sized(pieces))).collect();
    let validation = pieces.get(n_train).map(|pieces| (pieces as &dyn Pieces, sized(pieces)));
    let sources = Sources::new(&prepare, train, validation)?;
    let mut report = |progress: Progress| match observe(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Stopped),
    };
    let mut prepared = write_folder(&prepare, &sources, target, &mut report)?;
    if target == Target::Existing {
        files::remove_unfinished(out);
    }
    if options.remove_parts {
        for part in &set.parts {
            if let Err(error) = std::fs::remove_dir_all(&part.folder) {
                prepared.notes.push(format!("{} could not be removed: {error}", part.folder.display()));
            }
        }
    }
    Ok(prepared)
}

/// One source of all parts.
struct PartPieces<'a> {
    parts: &'a [Part],
    // Its index among the sources.
    source: usize,
    inputs: &'a TextInputs,
    tokenizer: &'a TextTokenizer,
}

impl PartPieces<'_> {
    fn size(&self) -> InputSize {
        let sources = self.parts.iter().map(|part| &part.manifest.sources[self.source]);
        sources.fold(InputSize::default(), |size, source| InputSize {
            bytes: size.bytes.saturating_add(source.source_bytes),
            documents: size.documents.saturating_add(source.documents),
        })
    }

    // All records of the parts, in the order of the text.
    fn read_items(&self, f: &mut dyn FnMut(Item) -> Result<(), DataError>) -> Result<(), DataError> {
        let mut heads = BinaryHeap::new();
        let mut readers = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            let width = token_width(part.manifest.settings.vocab_size);
            let mut reader = StreamReader::open(&part.folder, &part.manifest.sources[self.source], width)?;
            let item = reader.next()?;
            heads.extend(item.as_ref().map(|item| Reverse((item.key(), index))));
            readers.push((reader, item));
        }
        while let Some(Reverse((_, index))) = heads.pop() {
            let (reader, head) = &mut readers[index];
            let item = std::mem::replace(head, reader.next()?);
            heads.extend(head.as_ref().map(|item| Reverse((item.key(), index))));
            if let Some(item) = item {
                f(item)?;
            }
        }
        Ok(())
    }
}

impl Pieces for PartPieces<'_> {
    fn read(
        &self,
        skipped: &mut SkippedRecords,
        poll: &mut dyn FnMut() -> Result<(), DataError>,
        f: &mut dyn FnMut(Piece) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        for part in self.parts {
            skipped.name(&part.manifest.bad_records);
        }
        let mut shuffle =
            self.inputs.shuffle().map(|seed| DocumentShuffle::new(seed, self.size().bytes)).transpose()?;
        self.read_items(&mut |Item { piece, nulls, bad, .. }| {
            skipped.add(nulls, bad);
            match (piece, &mut shuffle) {
                (None, _) => Ok(()),
                (Some(piece), None) => f(Piece::Encoded(piece)),
                (Some(piece), Some(shuffle)) => {
                    poll()?;
                    shuffle.push(&piece)
                }
            }
        })?;
        match shuffle {
            Some(shuffle) => shuffle.finish(&mut |piece: EncodedPiece| f(Piece::Encoded(piece))),
            None => Ok(()),
        }
    }

    fn text_of(&self, piece: &EncodedPiece) -> Result<TextPiece, DataError> {
        let text = self.inputs.text_of(piece)?;
        let again = EncodedPiece::new(self.tokenizer, &text, piece.continues, &[])?;
        match piece.place {
            Some(place) if again.tokens != piece.tokens => Err(changed(self.inputs, place)),
            _ => Ok(text),
        }
    }
}
