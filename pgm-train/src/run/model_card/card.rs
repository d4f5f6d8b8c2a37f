//! What a card is made of.

use pgm_data::Manifest;
use pgm_model::ModelConfig;
use serde_json::Value;

use super::front_matter::CardWords;
use super::words::StoredWeights;
use crate::config::CardSection;

/// What the cards of a run have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelCard {
    /// The section `[card]` of the configuration.
    pub(crate) section: CardSection,
    /// Licence and languages of the model that this one was made of, as far as its card has them.
    pub(crate) inherited: CardWords,
    /// The data; absent for a conversion, which trains on none.
    pub(crate) data: Option<Manifest>,
    pub(crate) recipe: Recipe,
}

/// How a model was made: a command and its configuration file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recipe {
    /// The command, with the names of folders in capitals.
    pub(crate) command: String,
    /// The name of the file, and its contents with every key that has an effect.
    pub(crate) file: Option<(&'static str, String)>,
}

/// What a card is about.
pub(crate) struct CardSubject<'a> {
    pub(crate) config: &'a ModelConfig,
    /// `tokenizer.json`; a model of pictures has none.
    pub(crate) tokenizer: Option<&'a [u8]>,
    /// `training.json`.
    pub(crate) training: &'a Value,
    pub(crate) weights: &'a StoredWeights,
}

impl ModelCard {
    /// Licence and languages: those of the configuration, else those of the model that this one was made of.
    pub(super) fn words(&self, training: &Value) -> CardWords {
        let license = Some(self.section.license.clone()).filter(|license| !license.is_empty());
        let own = CardWords { license, languages: self.section.languages() };
        let recorded = |origin: &Value| serde_json::from_value(origin["card"].clone()).unwrap_or_default();
        let words = own.or(recorded(&training["settings"]["init"])).or(recorded(&training["converted_from"]));
        words.or(self.inherited.clone())
    }
}
