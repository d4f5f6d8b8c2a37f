//! Picks the values of a configuration, and keeps where each came from.

use std::fmt::Display;

use super::tensors::import_error;
use crate::error::ModelError;

pub(super) const FLAG: &str = "the command line";
pub(super) const FILE: &str = "the file's configuration";
pub(super) const TENSORS: &str = "the tensors";
pub(super) const TOKENIZER: &str = "the tokenizer";
pub(super) const DEFAULT: &str = "the published default";

/// One value of the configuration and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedSetting {
    /// Its key in `config.json`.
    pub key: &'static str,
    /// The value.
    pub value: String,
    /// Where it came from.
    pub source: String,
}

/// Picks the first value that there is and notes its source.
pub(super) struct Picker<'a> {
    origin: &'a str,
    pub(super) settings: Vec<ResolvedSetting>,
}

impl<'a> Picker<'a> {
    pub(super) fn new(origin: &'a str) -> Self {
        Self { origin, settings: Vec::new() }
    }

    pub(super) fn note(&mut self, key: &'static str, value: impl Display, source: &str) {
        self.settings.push(ResolvedSetting { key, value: value.to_string(), source: source.to_string() });
    }

    pub(super) fn pick_if_any<T: Display, const N: usize>(
        &mut self,
        key: &'static str,
        candidates: [(Option<T>, &str); N],
    ) -> Option<T> {
        let (value, source) = candidates.into_iter().find_map(|(value, source)| Some((value?, source)))?;
        self.note(key, &value, source);
        Some(value)
    }

    pub(super) fn pick<T: Display, const N: usize>(
        &mut self,
        key: &'static str,
        candidates: [(Option<T>, &str); N],
        remedy: &str,
    ) -> Result<T, ModelError> {
        let origin = self.origin;
        self.pick_if_any(key, candidates)
            .ok_or_else(|| import_error(origin, format!("nothing in it says its {key}; {remedy}")))
    }
}
