//! From text to a data folder.
//!
//! Files are read as a stream. A few megabytes at a time are tokenized in parallel and written as rows, in order.
//! Everything goes into a temporary folder beside the target, which is renamed at the end: an interrupted run leaves
//! no folder that looks complete.

mod options;
mod split_writer;

use std::ops::ControlFlow;

pub use options::{Prepare, Progress, Validation};

use crate::error::DataError;
use crate::files;
use crate::manifest::{MANIFEST_FILE, Manifest, Split, TOKENIZER_FILE, VERSION, hex};
use crate::source::{TextInputs, TextPiece};
use split_writer::SplitWriter;

/// Prepares a data folder. `observe` receives the progress and can stop the work.
///
/// # Errors
/// What is wrong with the inputs or the options; [`DataError::Stopped`] when `observe` returns
/// [`ControlFlow::Break`]. No folder exists at `out` then.
pub fn prepare(options: &Prepare, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Manifest, DataError> {
    options.validate()?;
    let folder = files::folder_beside(options.out)?;
    let mut report = |progress: Progress| match observe(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Stopped),
    };

    let mut counting = || report(Progress { done: 0, total: 0 });
    let size = options.inputs.size(&mut counting)?;
    let mut total = size.bytes;
    match options.validation {
        Validation::Fraction(_) => {}
        Validation::Documents(n_documents) if *n_documents == 0 || *n_documents >= size.documents => {
            return Err(DataError::Option(format!(
                "--val-documents {n_documents} must be at least 1 and less than the {} documents of the input",
                size.documents
            )));
        }
        Validation::Documents(_) => {}
        Validation::TextInputs(inputs) => total += inputs.size(&mut counting)?.bytes,
    }

    let mut done = 0;
    let mut advance = |bytes: u64| {
        done += bytes;
        report(Progress { done, total })
    };
    let mut train = SplitWriter::new(options, Split::Train, folder.path());
    let mut validation = SplitWriter::new(options, Split::Validation, folder.path());
    match options.validation {
        Validation::Fraction(fraction) => {
            let cut = (size.bytes as f64 * (1.0 - fraction)) as u64;
            let mut seen = 0;
            options.inputs.for_each_piece(&mut |piece| {
                let start = seen;
                seen += piece.source_bytes;
                advance(piece.source_bytes)?;
                if start >= cut {
                    validation.push(piece)
                } else if seen <= cut || !piece.divisible {
                    train.push(piece)
                } else {
                    let (before, after) = split_piece(piece, cut - start);
                    train.push(before)?;
                    validation.push(after)
                }
            })?;
        }
        Validation::Documents(n_documents) => {
            let mut n_train = size.documents - n_documents;
            options.inputs.for_each_piece(&mut |piece| {
                advance(piece.source_bytes)?;
                if n_train == 0 {
                    return validation.push(piece);
                }
                n_train -= u64::from(piece.ends_document);
                train.push(piece)
            })?;
        }
        Validation::TextInputs(inputs) => {
            let mut push_all = |writer: &mut SplitWriter, inputs: &TextInputs| {
                inputs.for_each_piece(&mut |piece| {
                    advance(piece.source_bytes)?;
                    writer.push(piece)
                })
            };
            push_all(&mut train, options.inputs)?;
            push_all(&mut validation, inputs)?;
        }
    }

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
        tokenizer_sha256: hex(&options.tokenizer.hash()),
        train: train.finish("training")?,
        validation: validation.finish("validation")?,
    };
    let json = serde_json::to_vec_pretty(&manifest).expect("a manifest always serialises");
    files::write_file(&folder.path().join(TOKENIZER_FILE), options.tokenizer.json())?;
    files::write_file(&folder.path().join(MANIFEST_FILE), &json)?;
    files::publish_folder(folder, options.out)?;
    Ok(manifest)
}

// Cuts a piece so that its first part stands for `source_bytes` bytes of the file and ends a document.
fn split_piece(piece: TextPiece, source_bytes: u64) -> (TextPiece, TextPiece) {
    // With a detokenizer the text is shorter than its source; the cut is proportional.
    let at = (u128::from(source_bytes) * piece.text.len() as u128 / u128::from(piece.source_bytes)) as usize;
    let at = (0..=at.min(piece.text.len())).rev().find(|&i| piece.text.is_char_boundary(i)).unwrap_or(0);
    let (before, after) = piece.text.split_at(at);
    let before = TextPiece { text: before.to_string(), ends_document: true, source_bytes, ..piece };
    let after = TextPiece { text: after.to_string(), source_bytes: piece.source_bytes - source_bytes, ..piece };
    (before, after)
}
