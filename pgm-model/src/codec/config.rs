//! The `config.json` of a codec's folder.

use serde::{Deserialize, Serialize};

use super::autoencoder::AutoencoderConfig;
use super::vq::VqCodecConfig;
use crate::error::ModelError;

/// Any codec, as `config.json` names it in `codec_type`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "codec_type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum CodecConfig {
    /// [`Autoencoder`](super::Autoencoder).
    Autoencoder(AutoencoderConfig),
    /// [`VqCodec`](super::VqCodec).
    #[serde(rename = "llamagen-vq")]
    Vq(VqCodecConfig),
}

impl CodecConfig {
    /// Checks the values that the types allow and no codec can have.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the first such key.
    pub fn validate(&self) -> Result<(), ModelError> {
        match self {
            Self::Autoencoder(config) => config.validate(),
            Self::Vq(config) => config.validate(),
        }
    }

    /// Number of codes.
    pub fn n_codes(&self) -> usize {
        match self {
            Self::Autoencoder(config) => config.quantizer.n_codes(),
            Self::Vq(config) => config.n_codes,
        }
    }

    /// The grid of a picture of so many rows and columns of pixels; `None` if the codec does not take that size.
    pub fn grid_of(&self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        match self {
            Self::Autoencoder(config) => ([height, width] == [config.height, config.width]).then(|| config.grid()),
            Self::Vq(config) => {
                let side = config.downsampling();
                let fits = |n: usize| n > 0 && n.is_multiple_of(side);
                (fits(height) && fits(width)).then(|| [height / side, width / side])
            }
        }
    }

    /// Rows and columns of pixels of a picture with that grid; `None` if the codec does not make that size.
    pub fn pixels_of(&self, [rows, columns]: [usize; 2]) -> Option<[usize; 2]> {
        let size = match self {
            Self::Autoencoder(config) => [config.height, config.width],
            Self::Vq(config) => [rows, columns].map(|n| n.saturating_mul(config.downsampling())),
        };
        (self.grid_of(size) == Some([rows, columns])).then_some(size)
    }

    /// Rows and columns of codes of a picture of [`pixels`](Self::pixels).
    pub fn grid(&self) -> [usize; 2] {
        match self {
            Self::Autoencoder(config) => config.grid(),
            Self::Vq(config) => [VqCodecConfig::SIDE / config.downsampling(); 2],
        }
    }

    /// Height, width and channels of a picture of the usual size. An autoencoder takes no other, LlamaGen's codecs do.
    pub fn pixels(&self) -> [usize; 3] {
        match self {
            Self::Autoencoder(config) => [config.height, config.width, config.channels],
            Self::Vq(config) => [VqCodecConfig::SIDE, VqCodecConfig::SIDE, config.channels],
        }
    }
}
