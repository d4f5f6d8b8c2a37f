//! Sizes of the autoencoder: the contents of its `config.json`.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// The largest codebook. A larger one is a mistake or an attack.
pub const MAX_CODES: usize = 1 << 24;
/// The longest side of a picture, in pixels.
const MAX_SIDE: usize = 1 << 14;
/// The widest layer, and the most blocks of a level.
const MAX_WIDTH: usize = 1 << 13;

/// How an encoder's vectors become codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum QuantizerConfig {
    /// Finite scalar quantisation ([`Fsq`](super::Fsq)): so many levels for each channel. The codebook has as many codes
    /// as their product.
    Fsq {
        /// Levels of each channel.
        levels: Vec<usize>,
    },
    /// The nearest vector of a learned codebook ([`VectorCodebook`](super::VectorCodebook)).
    Vq {
        /// Vectors of the codebook.
        codes: usize,
        /// Width of a vector.
        width: usize,
    },
}

impl QuantizerConfig {
    /// Number of codes.
    pub fn n_codes(&self) -> usize {
        match self {
            Self::Fsq { levels } => {
                levels.iter().try_fold(1_usize, |all, &levels| all.checked_mul(levels)).unwrap_or(usize::MAX)
            }
            Self::Vq { codes, .. } => *codes,
        }
    }

    /// Width of the vectors that are quantised.
    pub fn width(&self) -> usize {
        match self {
            Self::Fsq { levels } => levels.len(),
            Self::Vq { width, .. } => *width,
        }
    }

    fn validate(&self) -> Result<(), ModelError> {
        let n_codes = self.n_codes();
        match self {
            Self::Fsq { levels } if levels.is_empty() => Err(invalid("levels", "[]", "needs at least one channel")),
            Self::Fsq { levels } => {
                if let Some(&n) = levels.iter().find(|n| !(2..=256).contains(*n)) {
                    return Err(invalid("levels", n, "must be 2 to 256 for each channel"));
                }
                let problem = format!("make a codebook of more than {MAX_CODES} codes");
                if n_codes > MAX_CODES { Err(invalid("levels", format!("{levels:?}"), problem)) } else { Ok(()) }
            }
            Self::Vq { .. } if !(2..=MAX_CODES).contains(&n_codes) => {
                Err(invalid("codes", n_codes, format!("must be 2 to {MAX_CODES}")))
            }
            Self::Vq { width, .. } if !(1..=256).contains(width) => Err(invalid("width", width, "must be 1 to 256")),
            Self::Vq { .. } => Ok(()),
        }
    }
}

/// A convolutional autoencoder of one's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderConfig {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Width of the layers at each resolution, the highest first. Each is followed by a halving of the sides, so n widths
    /// downsample by 2^n.
    pub widths: Vec<usize>,
    /// Residual blocks at each resolution.
    pub blocks: usize,
    /// How vectors become codes.
    pub quantizer: QuantizerConfig,
}

impl AutoencoderConfig {
    /// Pixels of a code's side.
    pub fn factor(&self) -> usize {
        1 << self.widths.len().min(usize::BITS as usize - 1)
    }

    /// Rows and columns of codes.
    pub fn grid(&self) -> [usize; 2] {
        [self.height / self.factor(), self.width / self.factor()]
    }

    /// Checks the values that the types allow and no codec can have.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the first such key.
    pub fn validate(&self) -> Result<(), ModelError> {
        if self.channels != 1 && self.channels != 3 {
            return Err(invalid("channels", self.channels, "must be 1 or 3"));
        }
        if self.widths.is_empty() || self.widths.len() > 8 {
            return Err(invalid(
                "widths",
                format!("{:?}", self.widths),
                "must be 1 to 8 numbers, one for each halving",
            ));
        }
        if let Some(width) = self.widths.iter().find(|&&width| !(1..=MAX_WIDTH).contains(&width)) {
            return Err(invalid("widths", width, format!("must be 1 to {MAX_WIDTH} each")));
        }
        if !(1..=64).contains(&self.blocks) {
            return Err(invalid("blocks", self.blocks, "must be 1 to 64"));
        }
        let factor = self.factor();
        for (key, side) in [("height", self.height), ("width", self.width)] {
            if side == 0 || side > MAX_SIDE || !side.is_multiple_of(factor) {
                let n = self.widths.len();
                let problem = format!(
                    "must be a multiple of {factor}, because {n} widths halve a picture {n} times, and at most {MAX_SIDE}"
                );
                return Err(invalid(key, side, problem));
            }
        }
        self.quantizer.validate()
    }
}

fn invalid(key: &'static str, value: impl ToString, problem: impl Into<String>) -> ModelError {
    ModelError::Config { key, value: value.to_string(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AutoencoderConfig {
        let quantizer = QuantizerConfig::Fsq { levels: vec![8, 5, 5, 5] };
        AutoencoderConfig { height: 28, width: 28, channels: 1, widths: vec![32, 64], blocks: 1, quantizer }
    }

    #[test]
    fn sizes_of_the_common_data_sets() {
        let mnist = config();
        mnist.validate().unwrap();
        assert_eq!((mnist.grid(), mnist.quantizer.n_codes()), ([7, 7], 1000));
        let cifar = AutoencoderConfig { height: 32, width: 32, channels: 3, ..config() };
        assert_eq!(cifar.grid(), [8, 8]);
        let wide = AutoencoderConfig { height: 64, width: 128, widths: vec![16, 32, 64], ..config() };
        assert_eq!((wide.factor(), wide.grid()), (8, [8, 16]));
    }

    #[test]
    fn a_configuration_is_the_same_after_json_and_unknown_keys_are_named() {
        for quantizer in [QuantizerConfig::Fsq { levels: vec![3, 4] }, QuantizerConfig::Vq { codes: 7, width: 4 }] {
            let config = AutoencoderConfig { quantizer, ..config() };
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<AutoencoderConfig>(&json).unwrap(), config);
            let message =
                serde_json::from_str::<AutoencoderConfig>(&json.replace("blocks", "block")).unwrap_err().to_string();
            assert!(message.contains("block"), "{message}");
        }
    }

    #[test]
    fn impossible_values_are_named() {
        let fsq = |levels: &[usize]| QuantizerConfig::Fsq { levels: levels.to_vec() };
        for (config, says) in [
            (AutoencoderConfig { channels: 2, ..config() }, "channels = 2 must be 1 or 3"),
            (AutoencoderConfig { height: 30, ..config() }, "height = 30 must be a multiple of 4"),
            (AutoencoderConfig { width: 0, ..config() }, "width = 0"),
            (AutoencoderConfig { width: usize::MAX - 3, ..config() }, "width = "),
            (AutoencoderConfig { widths: vec![], ..config() }, "widths = []"),
            (AutoencoderConfig { widths: vec![8; 99], ..config() }, "1 to 8 numbers"),
            (AutoencoderConfig { widths: vec![8, 0], ..config() }, "widths = 0"),
            (AutoencoderConfig { blocks: 0, ..config() }, "blocks = 0"),
            (AutoencoderConfig { quantizer: fsq(&[]), ..config() }, "levels = []"),
            (AutoencoderConfig { quantizer: fsq(&[8, 1]), ..config() }, "levels = 1 must be 2 to 256"),
            (AutoencoderConfig { quantizer: fsq(&[256; 4]), ..config() }, "more than 16777216 codes"),
            (AutoencoderConfig { quantizer: fsq(&[256; 99]), ..config() }, "more than 16777216 codes"),
            (AutoencoderConfig { quantizer: QuantizerConfig::Vq { codes: 1, width: 4 }, ..config() }, "codes = 1"),
            (AutoencoderConfig { quantizer: QuantizerConfig::Vq { codes: 9, width: 0 }, ..config() }, "width = 0"),
        ] {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
