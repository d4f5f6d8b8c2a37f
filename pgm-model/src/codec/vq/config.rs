//! Sizes of LlamaGen's VQGAN: the contents of its `config.json`.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// The number of groups of every group norm.
pub(super) const N_GROUPS: usize = 32;
/// The largest size that a configuration may have. A larger one is a mistake or an attack.
const MAX_SIZE: usize = 1 << 20;
/// The most levels: then a code stands for 256 x 256 pixels.
const MAX_LEVELS: usize = 9;

/// LlamaGen's VQGAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqCodecConfig {
    /// Channels of a picture: 3, or 1 for grey ones.
    pub channels: usize,
    /// Channels of the first level are this times the first multiplier.
    pub base_width: usize,
    /// A multiplier of the base width for each level, the highest resolution first. Each level but the last halves the sides.
    pub multipliers: Vec<usize>,
    /// Residual blocks of each level of the encoder; the decoder has one more.
    pub n_blocks: usize,
    /// Channels between the encoder and the quantiser's projection.
    pub z_width: usize,
    /// Number of codes.
    pub n_codes: usize,
    /// Width of a code's vector.
    pub code_width: usize,
}

impl VqCodecConfig {
    /// Pixels of a side of the pictures that the published codecs were trained on.
    pub const SIDE: usize = 256;

    /// LlamaGen's codec with these multipliers; 16384 codes of width 8.
    pub fn llamagen(multipliers: &[usize]) -> Self {
        Self {
            channels: 3,
            base_width: 128,
            multipliers: multipliers.to_vec(),
            n_blocks: 2,
            z_width: 256,
            n_codes: 16_384,
            code_width: 8,
        }
    }

    /// `vq_ds8_c2i.pt`: a code for 8 x 8 pixels.
    pub fn ds8() -> Self {
        Self::llamagen(&[1, 2, 2, 4])
    }

    /// `vq_ds16_c2i.pt`: a code for 16 x 16 pixels.
    pub fn ds16() -> Self {
        Self::llamagen(&[1, 1, 2, 2, 4])
    }

    /// Pixels of a side for each code: a power of 2.
    pub fn downsampling(&self) -> usize {
        1 << (self.multipliers.len() - 1)
    }

    /// The width of a level.
    pub(super) fn width(&self, level: usize) -> usize {
        self.base_width * self.multipliers[level]
    }

    /// The level of the lowest resolution, the only one with attention.
    pub(super) fn last_level(&self) -> usize {
        self.multipliers.len() - 1
    }

    /// Checks the values that the types allow and no codec can have.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the first such key.
    pub fn validate(&self) -> Result<(), ModelError> {
        let invalid =
            |key, value: String, problem: &str| Err(ModelError::Config { key, value, problem: problem.to_string() });
        let sizes = [
            ("channels", self.channels),
            ("base_width", self.base_width),
            ("n_blocks", self.n_blocks),
            ("z_width", self.z_width),
            ("n_codes", self.n_codes),
            ("code_width", self.code_width),
        ];
        for (key, value) in sizes {
            if value == 0 || value > MAX_SIZE {
                return invalid(key, value.to_string(), "must be at least 1, and at most a million");
            }
        }
        if !self.base_width.is_multiple_of(N_GROUPS) {
            return invalid("base_width", self.base_width.to_string(), "must be a multiple of 32, for the group norms");
        }
        let multipliers = format!("{:?}", self.multipliers);
        if self.multipliers.is_empty() || self.multipliers.len() > MAX_LEVELS {
            return invalid("multipliers", multipliers, "must have one entry for each of 1 to 9 levels");
        }
        let fits = |&multiplier: &usize| {
            let width = multiplier.saturating_mul(self.base_width);
            width > 0 && width <= MAX_SIZE && width.is_multiple_of(N_GROUPS)
        };
        if !self.multipliers.iter().all(fits) {
            return invalid(
                "multipliers",
                multipliers,
                "times base_width must be multiples of 32, for the group norms",
            );
        }
        Ok(())
    }
}
