//! What all parts of a preparation have in common.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::options::{Prepare, Validation};
use super::super::sources::texts;
use crate::detokenize::Detokenizer;
use crate::error::DataError;
use crate::manifest::{Mode, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, hex};
use crate::source::{SavedInputs, TextInputs};
use crate::special_tokens::SpecialTokens;
use crate::tokenizer::TextTokenizer;

/// Everything that the rows depend on. Parts with equal settings fit together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartSettings {
    /// The number of parts.
    pub(super) parts: u64,
    length: usize,
    mode: Mode,
    row_eos: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detokenizer: Option<Detokenizer>,
    pub(super) vocab_size: usize,
    special: SpecialTokens,
    tokenizer_sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokenizer_config_sha256: Option<String>,
    validation: SavedValidation,
    // The share of each input in a mixture. Numbers are text here, so that they come back to the last digit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shares: Vec<String>,
    inputs: Vec<SavedInputs>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SavedValidation {
    Fraction(String),
    Documents(u64),
    Inputs(SavedInputs),
}

/// The settings with what they refer to.
pub(super) struct LoadedSettings {
    inputs: TextInputs,
    validation: Validation,
    tokenizer: TextTokenizer,
    length: usize,
    mode: Mode,
    row_eos: bool,
}

impl PartSettings {
    pub(super) fn of(options: &Prepare, parts: u64) -> Result<Self, DataError> {
        let (train, _) = texts(options);
        let tokenizer = options.tokenizer;
        Ok(Self {
            parts,
            length: options.length,
            mode: options.mode,
            row_eos: options.row_eos,
            detokenizer: options.inputs.detokenizer(),
            vocab_size: tokenizer.vocab_size(),
            special: tokenizer.special().clone(),
            tokenizer_sha256: hex(&tokenizer.hash()),
            tokenizer_config_sha256: tokenizer.config_json().map(|config| hex(&Sha256::digest(config))),
            validation: match options.validation {
                Validation::Fraction(fraction) => SavedValidation::Fraction(fraction.to_string()),
                Validation::Documents(n_documents) => SavedValidation::Documents(*n_documents),
                Validation::TextInputs(inputs) => SavedValidation::Inputs(SavedInputs::of(inputs)?),
            },
            shares: options.inputs.parts().iter().map(|part| part.share.to_string()).collect(),
            inputs: train.into_iter().map(SavedInputs::of).collect::<Result<_, DataError>>()?,
        })
    }

    /// The sources of a part.
    pub(super) fn n_sources(&self) -> usize {
        self.inputs.len() + usize::from(matches!(self.validation, SavedValidation::Inputs(_)))
    }

    /// Where two settings differ, if they do: a key with its two values.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let value = |settings: &Self| serde_json::to_value(settings).unwrap_or_default();
        difference("", &value(self), &value(other))
    }

    /// The inputs, and the tokenizer in the folder of a part.
    pub(super) fn load(&self, folder: &Path) -> Result<LoadedSettings, DataError> {
        let damaged = |name: &str, problem: &str| DataError::damaged_part(folder, name, problem);
        let number = |text: &String| text.parse::<f64>().map_err(|_| damaged("part.json", "a share is no number"));
        let open = |inputs: &SavedInputs| inputs.open(self.detokenizer);
        let mut inputs = self.inputs.iter().map(open).collect::<Result<Vec<_>, DataError>>()?;
        let shares = self.shares.iter().map(number).collect::<Result<Vec<f64>, DataError>>()?;
        let inputs = if shares.is_empty() && inputs.len() == 1 {
            inputs.remove(0)
        } else if shares.len() == inputs.len() {
            TextInputs::of_parts(inputs.into_iter().zip(shares).collect())?
        } else {
            return Err(damaged("part.json", "its shares do not fit its inputs"));
        };
        let validation = match &self.validation {
            SavedValidation::Fraction(fraction) => Validation::Fraction(number(fraction)?),
            SavedValidation::Documents(n_documents) => Validation::Documents(*n_documents),
            SavedValidation::Inputs(inputs) => Validation::TextInputs(open(inputs)?),
        };
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(DataError::io("read", path))
        };
        let json = read(TOKENIZER_FILE)?;
        if hex(&Sha256::digest(&json)) != self.tokenizer_sha256 {
            return Err(damaged(TOKENIZER_FILE, "it is not the tokenizer of this part"));
        }
        let config = self.tokenizer_config_sha256.as_ref().map(|_| read(TOKENIZER_CONFIG_FILE)).transpose()?;
        if config.as_ref().map(|config| hex(&Sha256::digest(config))) != self.tokenizer_config_sha256 {
            return Err(damaged(TOKENIZER_CONFIG_FILE, "it is not the tokenizer's configuration of this part"));
        }
        let origin = folder.join(TOKENIZER_FILE).display().to_string();
        let tokenizer = TextTokenizer::with_special(json, &origin, self.special.clone(), self.vocab_size)?;
        let tokenizer = tokenizer.with_config(config).for_pieces();
        let Self { length, mode, row_eos, .. } = *self;
        Ok(LoadedSettings { inputs, validation, tokenizer, length, mode, row_eos })
    }
}

impl LoadedSettings {
    pub(super) fn options<'a>(&'a self, out: &'a Path) -> Prepare<'a> {
        Prepare {
            inputs: &self.inputs,
            validation: &self.validation,
            tokenizer: &self.tokenizer,
            length: self.length,
            mode: self.mode,
            row_eos: self.row_eos,
            out,
        }
    }
}

fn difference(key: &str, a: &Value, b: &Value) -> Option<String> {
    let below = |name: &str| if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            let null = &Value::Null;
            names
                .into_iter()
                .find_map(|name| difference(&below(name), a.get(name).unwrap_or(null), b.get(name).unwrap_or(null)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(index, (a, b))| difference(&below(&index.to_string()), a, b))
        }
        (Value::Array(a), Value::Array(b)) => Some(format!("{} and {} entries of {key}", a.len(), b.len())),
        (a, b) => (a != b).then(|| format!("{key} = {a} and {b}")),
    }
}
