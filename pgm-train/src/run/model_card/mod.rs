//! `README.md` of a model folder: a model card of the Hugging Face Hub's form.
//!
//! A card is a function of the settings, the data, the figures and the weights. It has no time, no folder's name and no
//! absolute path, so the same run has the same card wherever it stands. Its last line holds a checksum: a card that a
//! person has edited is not overwritten.

mod card;
mod codec;
mod figures;
mod front_matter;
mod seal;
mod sections;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use card::{CardSubject, ModelCard, Recipe};
pub(crate) use codec::codec_card;
pub use figures::bits_per_byte_of_a_nat;
pub(crate) use front_matter::CardWords;
pub(crate) use seal::{edited_card, write_card};
pub(crate) use sections::model_card;
pub(crate) use words::{README_FILE, StoredWeights, shown_path};
