//! What a user should know about prepared text.

use super::options::Prepare;
use super::piece::marker_names;
use super::split_writer::SplitText;
use crate::error::DataError;
use crate::manifest::{Manifest, Mode, SplitManifest};
use crate::source::{Documents, FileFormat, SkippedRecords};

/// Dropped tokens of more than this share are worth a note.
const MANY_DROPPED: f64 = 0.1;

/// What was seen while preparing.
pub(super) struct Observed {
    pub(super) skipped: SkippedRecords,
    pub(super) train: SplitText,
    pub(super) validation: SplitText,
    pub(super) cut_documents: bool,
}

impl Observed {
    /// Refuses text of which the tokenizer does not know more than half.
    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), DataError> {
        for (split, counts, text) in self.splits(manifest) {
            if 2 * counts.unknown_tokens > counts.tokens {
                let percent = 100 * counts.unknown_tokens / counts.tokens;
                return Err(DataError::UnknownText { split, what: "tokens are unknown", percent });
            }
            if 2 * text.lost > text.sampled {
                let percent = 100 * text.lost / text.sampled;
                return Err(DataError::UnknownText { split, what: "characters are in no token", percent });
            }
        }
        Ok(())
    }

    fn splits<'a>(&'a self, manifest: &'a Manifest) -> [(&'static str, &'a SplitManifest, &'a SplitText); 2] {
        [("training", &manifest.train, &self.train), ("validation", &manifest.validation, &self.validation)]
    }

    /// Sentences for the user.
    pub(super) fn notes(&self, options: &Prepare, manifest: &Manifest) -> Vec<String> {
        let mut notes = Vec::new();
        if self.skipped.nulls > 0 {
            notes.push(format!("records whose text is null were skipped: {}", self.skipped.nulls));
        }
        if self.skipped.bad > 0 {
            let more = self.skipped.bad - self.skipped.named.len() as u64;
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            notes.push(format!(
                "bad records were skipped: {} ({}{more})",
                self.skipped.bad,
                self.skipped.named.join("; ")
            ));
        }
        if self.cut_documents {
            notes.push("the last training document is cut: its end is the validation text".to_string());
        }
        for (split, counts, text) in self.splits(manifest) {
            let share = |part: u64, all: u64| 100.0 * part as f64 / all.max(1) as f64;
            if counts.unknown_tokens > 0 {
                let percent = share(counts.unknown_tokens, counts.tokens);
                let (unknown, all) = (counts.unknown_tokens, counts.tokens);
                notes.push(format!(
                    "{percent:.2} % of the {split} tokens are unknown to the tokenizer: {unknown} of {all}"
                ));
            }
            if text.lost > 0 {
                let percent = share(text.lost, text.sampled);
                notes.push(format!(
                    "the tokenizer drops characters that it does not know: {percent:.1} % of a sample of the {split} text"
                ));
            }
            let many = counts.dropped_tokens as f64 > MANY_DROPPED * counts.tokens as f64;
            if many && options.mode == Mode::Pad {
                let percent = share(counts.dropped_tokens, counts.tokens).floor();
                notes.push(format!("{percent:.0} % of the {split} tokens are in no row: {}", advice(options)));
            }
        }
        if options.inputs.options().documents != Documents::File && !is_plain_text(options) {
            notes.push("--documents has no effect: no input is plain text, and records are documents".to_string());
        }
        notes.extend(self.markers(options));
        notes
    }

    // Names of special tokens in the text, which are ordinary characters there.
    fn markers(&self, options: &Prepare) -> Vec<String> {
        let mut notes = Vec::new();
        for (index, name) in marker_names(options.tokenizer).iter().enumerate() {
            let count = self.train.markers[index] + self.validation.markers[index];
            if count == 0 {
                continue;
            }
            let advice = if is_plain_text(options) && index < 2 {
                format!("; --documents '{name}' makes it the border of documents")
            } else {
                String::new()
            };
            notes.push(format!("the text has the name of the special token {name} as ordinary text: {count}{advice}"));
        }
        notes
    }
}

fn is_plain_text(options: &Prepare) -> bool {
    options.inputs.input_files().iter().any(|file| file.format == FileFormat::Text)
}

fn advice(options: &Prepare) -> &'static str {
    if is_plain_text(options) && options.inputs.options().documents == Documents::File {
        "a file is one document, and a padded row has only its start; use --documents line or --mode pack"
    } else {
        "a padded row has only the start of its document; use a larger --length or --mode pack"
    }
}
