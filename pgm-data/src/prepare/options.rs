//! The settings of [`prepare`](crate::prepare()).

use std::path::Path;

use crate::error::DataError;
use crate::manifest::{Manifest, Mode};
use crate::source::TextInputs;
use crate::tokenizer::TextTokenizer;

/// The largest number of tokens per row.
const MAX_LENGTH: usize = 1 << 24;

/// Where the validation rows come from.
#[derive(Clone, Debug)]
pub enum Validation {
    /// This fraction of the text, counted in bytes from the end; of a mixture, from the end of each part. Plain text is
    /// cut anywhere. Other documents stay whole, unless no validation row is left then.
    Fraction(f64),
    /// This many of the last documents.
    Documents(u64),
    /// Other inputs.
    TextInputs(TextInputs),
}

/// The settings of [`prepare`](crate::prepare()).
#[derive(Debug)]
pub struct Prepare<'a> {
    /// The text. Validation rows come from it too, except with [`Validation::TextInputs`].
    pub inputs: &'a TextInputs,
    /// Where the validation rows come from.
    pub validation: &'a Validation,
    /// The tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// Tokens per row.
    pub length: usize,
    /// How documents become rows.
    pub mode: Mode,
    /// Whether each packed row ends with EOS, as in the public code.
    pub row_eos: bool,
    /// The folder to create. It must not exist.
    pub out: &'a Path,
}

impl Prepare<'_> {
    pub(super) fn validate(&self) -> Result<(), DataError> {
        self.validate_settings()?;
        if self.out.exists() { Err(DataError::Exists { path: self.out.to_path_buf() }) } else { Ok(()) }
    }

    /// Checks everything except the output folder.
    pub(super) fn validate_settings(&self) -> Result<(), DataError> {
        let least = if self.row_eos || self.mode == Mode::Pad { 3 } else { 2 };
        if self.length < least {
            let message = format!("--length {} is too short: a row needs at least {least} tokens", self.length);
            return Err(DataError::Option(message));
        }
        if self.length > MAX_LENGTH {
            let message = format!("--length {} is too long: a row can have {MAX_LENGTH} tokens", self.length);
            return Err(DataError::Option(message));
        }
        match self.validation {
            Validation::Documents(_) if !self.inputs.parts().is_empty() => Err(DataError::Option(
                "--val-documents cannot be combined with --weight; use --val-fraction or --val".to_string(),
            )),
            Validation::Fraction(fraction) if !(*fraction > 0.0 && *fraction < 1.0) => {
                Err(DataError::Option(format!("--val-fraction {fraction} must lie between 0 and 1")))
            }
            Validation::TextInputs(inputs) if inputs.detokenizer() != self.inputs.detokenizer() => {
                Err(DataError::Option("training and validation inputs must have the same detokenizer".to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// What [`prepare_with_notes`](crate::prepare_with_notes) or [`prepare_images`](crate::prepare_images) made.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The content of `data.json`.
    pub manifest: Manifest,
    /// What a user should know: sentences about what was left out, changed or counted.
    pub notes: Vec<String>,
}

/// Progress in bytes of text, before any detokenizer, or in pictures.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes tokenized, or pictures written, so far.
    pub done: u64,
    /// Bytes or pictures in all inputs. It is 0 while they are being counted.
    pub total: u64,
}
