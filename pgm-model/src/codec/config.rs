//! The `config.json` of a codec's folder.

use serde::{Deserialize, Serialize};

use super::autoencoder::AutoencoderConfig;
use crate::error::ModelError;

/// Any codec, as `config.json` names it in `codec_type`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "codec_type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum CodecConfig {
    /// [`Autoencoder`](super::Autoencoder).
    Autoencoder(AutoencoderConfig),
}

impl CodecConfig {
    /// Checks the values that the types allow and no codec can have.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the first such key.
    pub fn validate(&self) -> Result<(), ModelError> {
        match self {
            Self::Autoencoder(config) => config.validate(),
        }
    }

    /// Number of codes.
    pub fn n_codes(&self) -> usize {
        match self {
            Self::Autoencoder(config) => config.quantizer.n_codes(),
        }
    }

    /// Rows and columns of codes of a picture of the codec's size.
    pub fn grid(&self) -> [usize; 2] {
        match self {
            Self::Autoencoder(config) => config.grid(),
        }
    }

    /// Height, width and channels of a picture.
    pub fn pixels(&self) -> [usize; 3] {
        match self {
            Self::Autoencoder(config) => [config.height, config.width, config.channels],
        }
    }
}
