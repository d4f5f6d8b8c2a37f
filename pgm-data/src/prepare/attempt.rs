//! One pass over all text, from pieces to a published folder.

use std::cell::RefCell;

use super::notes::Observed;
use super::options::{Prepare, Prepared, Progress, Validation};
use super::piece::Piece;
use super::route::{Destination, Route};
use super::sources::{Pieces, Sources};
use super::split_writer::SplitWriter;
use crate::error::DataError;
use crate::files;
use crate::manifest::{MANIFEST_FILE, Manifest, Split, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, VERSION, hex};
use crate::source::SkippedRecords;

/// Receives the progress, and ends the work with an error.
pub(super) type Report<'r> = dyn FnMut(Progress) -> Result<(), DataError> + 'r;

/// Where the folder is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A folder that does not exist.
    New,
    /// A folder that has other files already.
    Existing,
}

/// Makes the rows of all text.
pub(super) fn write_folder(
    options: &Prepare,
    sources: &Sources,
    target: Target,
    report: &mut Report,
) -> Result<Prepared, DataError> {
    let mut attempt = Attempt { options, sources, target, report, kept_whole: false };
    match attempt.run(false) {
        // A document that is longer than the validation text is cut only where there are no rows otherwise.
        Err(DataError::TooShort { split: "validation", .. }) if attempt.kept_whole => attempt.run(true),
        result => result,
    }
}

struct Attempt<'a, 'r, 's> {
    options: &'a Prepare<'a>,
    sources: &'a Sources<'s>,
    target: Target,
    report: &'r mut Report<'r>,
    kept_whole: bool,
}

impl Attempt<'_, '_, '_> {
    fn run(&mut self, cut_documents: bool) -> Result<Prepared, DataError> {
        let options = self.options;
        let folder = match self.target {
            Target::New => files::folder_beside(options.out),
            Target::Existing => files::folder_in(options.out),
        }?;
        let (mut done, total) = (0, self.sources.total);
        let report = RefCell::new(&mut *self.report);
        let mut advance = |bytes: u64| {
            done += bytes;
            report.borrow_mut()(Progress { done: done.min(total), total })
        };
        let mut poll = || report.borrow_mut()(Progress { done: 0, total: 0 });
        let mut skipped = SkippedRecords::new(options.inputs.options().skip_bad);
        let mut train = SplitWriter::new(options, Split::Train, folder.path());
        let mut validation = SplitWriter::new(options, Split::Validation, folder.path());
        let mut held_out = match options.validation {
            Validation::Documents(n_documents) => *n_documents,
            Validation::Fraction(_) | Validation::TextInputs(_) => 0,
        };
        held_out = self.sources.train.iter().map(|source| source.size.documents).sum::<u64>() - held_out;
        for source in &self.sources.train {
            let cut = match options.validation {
                Validation::Fraction(fraction) => (source.taken() as f64 * (1.0 - fraction)) as u64,
                Validation::Documents(_) | Validation::TextInputs(_) => u64::MAX,
            };
            let mut route = Route::new(cut, source.end, cut_documents);
            let mut complete = false;
            let result = source.pieces.read(&mut skipped, &mut poll, &mut |piece| {
                advance(piece.source_bytes())?;
                if let Validation::Documents(_) = options.validation {
                    if held_out == 0 {
                        return push(&mut validation, piece, source.pieces);
                    }
                    held_out -= u64::from(piece.ends_document());
                    return push(&mut train, piece, source.pieces);
                }
                let more = route.push(piece, source.pieces, &mut |destination, piece| match destination {
                    Destination::Train => push(&mut train, piece, source.pieces),
                    Destination::Validation => push(&mut validation, piece, source.pieces),
                    Destination::Nowhere => Ok(()),
                })?;
                complete = !more;
                if more { Ok(()) } else { Err(DataError::Stopped) }
            });
            self.kept_whole |= route.kept_whole;
            match result {
                Err(DataError::Stopped) if complete => {}
                result => result?,
            }
        }
        if let Some(pieces) = self.sources.validation {
            pieces.read(&mut skipped, &mut poll, &mut |piece| {
                advance(piece.source_bytes())?;
                push(&mut validation, piece, pieces)
            })?;
        }

        let rows = train.finish("training").and_then(|train| Ok((train, validation.finish("validation")?)));
        let ((train, train_text), (validation, validation_text)) = match rows {
            Err(DataError::TooShort { split: "training", .. }) if skipped.bad > 0 => {
                return Err(DataError::AllBad { n_bad: skipped.bad, named: skipped.named });
            }
            rows => rows?,
        };
        let manifest = Manifest {
            version: VERSION,
            length: options.length,
            mode: options.mode,
            row_eos: options.row_eos,
            detokenizer: options.inputs.detokenizer(),
            val_documents: match options.validation {
                Validation::Documents(n_documents) => Some(*n_documents),
                Validation::Fraction(_) | Validation::TextInputs(_) => None,
            },
            vocab_size: options.tokenizer.vocab_size(),
            special: options.tokenizer.special().clone(),
            special_names: Some(options.tokenizer.special_names()),
            tokenizer_sha256: hex(&options.tokenizer.hash()),
            image: None,
            skipped_nulls: skipped.nulls,
            skipped_bad: skipped.bad,
            train,
            validation,
        };
        let observed = Observed { skipped, train: train_text, validation: validation_text, cut_documents };
        observed.check(&manifest)?;
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest always serialises");
        files::write_file(&folder.path().join(TOKENIZER_FILE), options.tokenizer.json())?;
        if let Some(config) = options.tokenizer.config_json() {
            files::write_file(&folder.path().join(TOKENIZER_CONFIG_FILE), config)?;
        }
        files::write_file(&folder.path().join(MANIFEST_FILE), &json)?;
        match self.target {
            Target::New => files::publish_folder(folder, options.out)?,
            Target::Existing => files::publish_into(folder, options.out, MANIFEST_FILE)?,
        }
        let mut notes = options.tokenizer.notes().to_vec();
        notes.extend(observed.notes(options, &manifest));
        notes.extend(self.sources.notes(options));
        Ok(Prepared { manifest, notes })
    }
}

// A piece that was tokenized as what it is not here, the start of a text or its continuation, is tokenized again.
fn push(writer: &mut SplitWriter, piece: Piece, pieces: &dyn Pieces) -> Result<(), DataError> {
    match piece {
        Piece::Encoded(encoded) if encoded.continues != writer.continues() => {
            writer.push(Piece::Text(pieces.text_of(&encoded)?))
        }
        piece => writer.push(piece),
    }
}
