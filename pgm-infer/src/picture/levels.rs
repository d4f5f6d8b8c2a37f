//! Pixels as tokens: each channel of each pixel is one of some levels.

use pgm_model::ModelConfig;

use super::pixels::Picture;

/// The most levels of a channel.
const BYTE_VALUES: usize = 256;

/// Pictures whose tokens are the levels of their channels, as `pgm-data images --as-tokens` makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelLevels {
    levels: usize,
    width: usize,
    height: usize,
    channels: usize,
}

impl PixelLevels {
    /// The levels of a model whose tokens are pixels: one that names no codec, and whose vocabulary has at most 256 values
    /// beside the mask and BOS.
    pub fn of(config: &ModelConfig) -> Option<Self> {
        let (image, levels) = (config.image()?, config.backbone().mask_index);
        let [height, width] = image.grid;
        let is_pixels = image.codec.is_none() && (2..=BYTE_VALUES).contains(&levels);
        let fits = image.channels == 1 || image.channels == 3;
        (is_pixels && fits).then_some(Self { levels, width, height, channels: image.channels })
    }

    /// Pixels of a row, rows, channels.
    pub fn shape(&self) -> (usize, usize, usize) {
        (self.width, self.height, self.channels)
    }

    /// The picture of a row's tokens.
    ///
    /// # Panics
    /// For another number of tokens.
    pub fn decode(&self, tokens: &[u32]) -> Picture {
        let pixels = tokens.iter().map(|&level| self.value(level)).collect();
        Picture::new(self.width, self.height, self.channels, pixels)
    }

    /// The tokens of a picture of this shape.
    pub fn encode(&self, picture: &Picture) -> Vec<u32> {
        let level = |&value: &u8| (usize::from(value) * self.levels / BYTE_VALUES) as u32;
        picture.pixels().iter().map(level).collect()
    }

    fn value(&self, level: u32) -> u8 {
        let highest = self.levels - 1;
        ((level as usize * 255 + highest / 2) / highest).min(255) as u8
    }
}

#[cfg(test)]
mod tests {
    use pgm_model::{BackboneConfig, ImageConfig, PartitionConfig, Projection, Queries};

    use super::*;

    fn config(n_values: usize, codec: Option<&str>) -> ModelConfig {
        let image = ImageConfig { channels: 3, codec: codec.map(Into::into), ..ImageConfig::new(2, [2, 4]) };
        ModelConfig::Partition(PartitionConfig {
            backbone: BackboneConfig::for_codes(n_values, 32, 2, image),
            encoder_blocks: 1,
            decoder_blocks: 1,
            queries: Queries::default(),
            projection: Projection::default(),
            sets: Default::default(),
        })
    }

    #[test]
    fn a_model_without_a_codec_and_with_few_values_has_pixels_as_tokens() {
        assert!(PixelLevels::of(&config(16_384, None)).is_none());
        assert!(PixelLevels::of(&config(16, Some("a hash"))).is_none());
        let levels = PixelLevels::of(&config(16, None)).unwrap();
        assert_eq!(levels.shape(), (4, 2, 3));
        let tokens: Vec<u32> = (0..24).map(|index| index * 5 % 16).collect();
        let picture = levels.decode(&tokens);
        assert_eq!(levels.encode(&picture), tokens);
        assert_eq!((picture.pixels()[0], picture.pixels()[3]), (0, 255), "level 15 of 16 is white");
    }
}
