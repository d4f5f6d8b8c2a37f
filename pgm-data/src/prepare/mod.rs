//! From text to a data folder.
//!
//! Files are read as a stream. A few megabytes at a time are tokenized in parallel and written as rows, in order.
//! Everything goes into a temporary folder beside the target, which is renamed at the end: an interrupted run leaves
//! no folder that looks complete.

mod notes;
mod options;
mod route;
mod split_writer;

use std::cell::RefCell;
use std::ops::ControlFlow;

pub use options::{Prepare, Progress, Validation};

use crate::error::DataError;
use crate::files;
use crate::manifest::{MANIFEST_FILE, Manifest, Split, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, VERSION, hex};
use crate::source::{InputSize, SkippedRecords, TextInputs};
use notes::Observed;
use route::{Destination, Route};
use split_writer::SplitWriter;

/// What [`prepare_with_notes`] or [`prepare_images`](crate::prepare_images) made.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The content of `data.json`.
    pub manifest: Manifest,
    /// What a user should know: sentences about what was left out, changed or counted.
    pub notes: Vec<String>,
}

/// Prepares a data folder. `observe` receives the progress and can stop the work.
///
/// # Errors
/// What is wrong with the inputs or the options; [`DataError::Stopped`] when `observe` returns
/// [`ControlFlow::Break`]. No folder exists at `out` then.
pub fn prepare(options: &Prepare, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Manifest, DataError> {
    prepare_with_notes(options, observe).map(|prepared| prepared.manifest)
}

/// As [`prepare`], with notes for the user.
///
/// # Errors
/// As for [`prepare`].
pub fn prepare_with_notes(
    options: &Prepare,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Prepared, DataError> {
    options.validate()?;
    let mut report = |progress: Progress| match observe(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Stopped),
    };
    let sources = Sources::count(options, &mut || report(Progress { done: 0, total: 0 }))?;
    let mut attempt = Attempt { options, sources: &sources, report: &mut report, kept_whole: false };
    match attempt.run(false) {
        // A document that is longer than the validation text is cut only where there are no rows otherwise.
        Err(DataError::TooShort { split: "validation", .. }) if attempt.kept_whole => attempt.run(true),
        result => result,
    }
}

/// The inputs and their sizes.
struct Sources<'a> {
    /// Each source of a mixture with its size and the bytes that are taken of it.
    train: Vec<(&'a TextInputs, InputSize, u64)>,
    /// Bytes of all text that is read.
    total: u64,
}

impl<'a> Sources<'a> {
    fn count(options: &Prepare<'a>, poll: &mut dyn FnMut() -> Result<(), DataError>) -> Result<Self, DataError> {
        let mut train = Vec::new();
        let parts = options.inputs.parts();
        if parts.is_empty() {
            train.push((options.inputs, options.inputs.size(poll)?, u64::MAX));
        } else {
            for part in parts {
                train.push((&part.inputs, part.inputs.size(poll)?, 0));
            }
            if let Some((inputs, ..)) = train.iter().find(|(_, size, _)| size.bytes == 0) {
                let names: Vec<String> = inputs.files().iter().map(|path| path.display().to_string()).collect();
                return Err(DataError::Option(format!("{} has no text for its --weight", names.join(", "))));
            }
            // The whole mixture is as large as the source allows that is smallest for its share.
            let largest = train.iter().zip(parts).map(|((_, size, _), part)| size.bytes as f64 / part.share);
            let bytes = largest.fold(f64::INFINITY, f64::min);
            for ((_, size, end), part) in train.iter_mut().zip(parts) {
                *end = ((bytes * part.share).round() as u64).min(size.bytes);
            }
        }
        let mut total = train.iter().map(|(_, size, end)| size.bytes.min(*end)).sum();
        if let Validation::Documents(n_documents) = options.validation {
            let all: u64 = train.iter().map(|(_, size, _)| size.documents).sum();
            if *n_documents == 0 || *n_documents >= all {
                return Err(DataError::Option(format!(
                    "--val-documents {n_documents} must be at least 1 and less than the {all} documents of the input"
                )));
            }
        }
        if let Validation::TextInputs(inputs) = options.validation {
            total += inputs.size(poll)?.bytes;
        }
        Ok(Self { train, total })
    }
}

/// One pass over all text.
struct Attempt<'a, 'r> {
    options: &'a Prepare<'a>,
    sources: &'a Sources<'a>,
    report: &'r mut dyn FnMut(Progress) -> Result<(), DataError>,
    kept_whole: bool,
}

impl Attempt<'_, '_> {
    fn run(&mut self, cut_documents: bool) -> Result<Prepared, DataError> {
        let options = self.options;
        let folder = files::folder_beside(options.out)?;
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
        held_out = self.sources.train.iter().map(|(_, size, _)| size.documents).sum::<u64>() - held_out;
        for (inputs, size, end) in &self.sources.train {
            let taken = size.bytes.min(*end);
            let cut = match options.validation {
                Validation::Fraction(fraction) => (taken as f64 * (1.0 - fraction)) as u64,
                Validation::Documents(_) | Validation::TextInputs(_) => u64::MAX,
            };
            let mut route = Route::new(cut, *end, cut_documents);
            let mut complete = false;
            let result = inputs.read(&mut skipped, &mut poll, &mut |piece| {
                advance(piece.source_bytes)?;
                if let Validation::Documents(_) = options.validation {
                    if held_out == 0 {
                        return validation.push(piece);
                    }
                    held_out -= u64::from(piece.ends_document);
                    return train.push(piece);
                }
                let more = route.push(piece, &mut |destination, piece| match destination {
                    Destination::Train => train.push(piece),
                    Destination::Validation => validation.push(piece),
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
        if let Validation::TextInputs(inputs) = options.validation {
            inputs.read(&mut skipped, &mut poll, &mut |piece| {
                advance(piece.source_bytes)?;
                validation.push(piece)
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
        files::publish_folder(folder, options.out)?;
        let mut notes = options.tokenizer.notes().to_vec();
        notes.extend(observed.notes(options, &manifest));
        notes.extend(self.sources.notes(options));
        Ok(Prepared { manifest, notes })
    }
}

impl Sources<'_> {
    // What a mixture takes of each source.
    fn notes(&self, options: &Prepare) -> Vec<String> {
        let named = self.train.iter().zip(options.inputs.parts());
        named
            .map(|((inputs, size, end), part)| {
                let first = inputs.files().first().map(|path| path.display().to_string()).unwrap_or_default();
                let others = inputs.files().len() - 1;
                let others = if others > 0 { format!(" and {others} more") } else { String::new() };
                let (taken, share) = (size.bytes.min(*end), 100.0 * part.share);
                format!("{share:.1} % of the text are {taken} of the {} bytes of {first}{others}", size.bytes)
            })
            .collect()
    }
}
