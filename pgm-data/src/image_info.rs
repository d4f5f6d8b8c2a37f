//! The `image` of `data.json`: what the rows of a folder of pictures are.
//!
//! Rows of pixels have no special token. Rows of tokens begin with BOS, as rows of text do, and go on with the picture
//! from the upper left to the lower right. The values of the picture are `0 .. n`, the mask is `n` and BOS is `n + 1`,
//! as in the paper's image models (`n` 16384: mask 16384, BOS 16385). EOS has
//! the id of BOS; no row ends with it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::DataError;
use crate::special_tokens::SpecialTokens;

/// Values of a pixel's channel.
const BYTE_VALUES: usize = 256;
/// The largest number of values per row.
const MAX_LENGTH: usize = 1 << 28;
/// The largest number of codes in a codebook, or of levels.
const MAX_VALUES: usize = 1 << 24;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ImageKind {
    /// Pixels, one byte for each channel. A codec trains on them, and no token model does.
    Pixels,
    /// Pixels as tokens: the grey levels of each channel.
    Tokens,
    /// Codes of a codec.
    Codes,
}

/// How a picture becomes a square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// The shorter side is resized to the size (bilinear, antialiased), then the middle is cropped.
    #[default]
    Center,
    /// ADM's: halved with a box filter while the shorter side is at least twice the size, then bicubic, then the middle.
    Adm,
    /// As `center`, cropped at a random offset that depends on the picture's number only.
    Random,
}

impl fmt::Display for Crop {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Center => "center",
            Self::Adm => "adm",
            Self::Random => "random",
        })
    }
}

impl FromStr for Crop {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        match text {
            "center" | "centre" => Ok(Self::Center),
            "adm" => Ok(Self::Adm),
            "random" => Ok(Self::Random),
            other => Err(DataError::Option(format!("the crop {other:?} is unknown; use center, adm or random"))),
        }
    }
}

/// The shape of a picture in memory: rows from the top, pixels from the left, channels side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelShape {
    /// Rows of pixels.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
}

impl PixelShape {
    /// Values of one picture.
    #[allow(clippy::len_without_is_empty)] // no picture is empty
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels
    }
}

/// Whose codes the rows are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodecIdentity {
    /// Number of codes.
    pub codebook: usize,
    /// A hash of the codec, in hexadecimal. Codes that other programs made have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// What the rows of a folder of pictures are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageInfo {
    /// What a row is.
    pub kind: ImageKind,
    /// The pictures in pixels. Codes that other programs made may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixels: Option<PixelShape>,
    /// Rows and columns of tokens. The three channels of a pixel as tokens are three columns. Pixels have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grid: Option<[usize; 2]>,
    /// Levels per channel, of pixels as tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<usize>,
    /// The codec, of codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<CodecIdentity>,
    /// How pictures were cropped to squares. `None` if they were prepared without a size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    /// Whether the training rows have each picture a second time, mirrored.
    pub flip: bool,
    /// The names of the classes: label `i` is `class_names[i]`. Without names the rows have no labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
}

impl ImageInfo {
    /// Rows of pixels.
    pub fn of_pixels(pixels: PixelShape, class_names: Vec<String>) -> Self {
        Self {
            kind: ImageKind::Pixels,
            pixels: Some(pixels),
            grid: None,
            levels: None,
            codec: None,
            crop: None,
            flip: false,
            class_names,
        }
    }

    /// Pixels as tokens of so many levels per channel.
    pub fn of_levels(pixels: PixelShape, levels: usize, class_names: Vec<String>) -> Self {
        let grid = Some([pixels.height, pixels.width * pixels.channels]);
        Self { kind: ImageKind::Tokens, grid, levels: Some(levels), ..Self::of_pixels(pixels, class_names) }
    }

    /// Codes of a codec in a grid of rows and columns. `pixels` is the shape of the decoded pictures.
    pub fn of_codes(
        grid: [usize; 2],
        codec: CodecIdentity,
        pixels: Option<PixelShape>,
        class_names: Vec<String>,
    ) -> Self {
        Self {
            kind: ImageKind::Codes,
            pixels,
            grid: Some(grid),
            levels: None,
            codec: Some(codec),
            crop: None,
            flip: false,
            class_names,
        }
    }

    /// Whether the rows have labels.
    pub fn is_labelled(&self) -> bool {
        !self.class_names.is_empty()
    }

    /// Values of a picture's token: the codebook, or the levels; 256 for pixels. The mask's id is this number.
    pub fn n_values(&self) -> usize {
        match self.kind {
            ImageKind::Pixels => BYTE_VALUES,
            ImageKind::Tokens => self.levels.unwrap_or(BYTE_VALUES),
            ImageKind::Codes => self.codec.as_ref().map_or(0, |codec| codec.codebook),
        }
    }

    /// Values of a stored row: pixels, or BOS and the tokens.
    pub fn row_length(&self) -> usize {
        match (self.kind, self.grid) {
            (ImageKind::Pixels, _) | (_, None) => self.pixels.map_or(0, |pixels| pixels.len()),
            (_, Some([rows, columns])) => 1 + rows * columns,
        }
    }

    /// Size of the vocabulary: the values of a token, the mask and BOS.
    pub fn vocab_size(&self) -> usize {
        self.n_values() + 2
    }

    /// The mask comes after the values, BOS after the mask. EOS has the id of BOS.
    pub fn special(&self) -> SpecialTokens {
        let mask = self.n_values() as u32;
        SpecialTokens { bos: mask + 1, eos: mask + 1, pad: None, mask }
    }

    /// The level of a channel's value, in pixels as tokens.
    pub fn level_of(&self, value: u8) -> u32 {
        (usize::from(value) * self.n_values() / BYTE_VALUES) as u32
    }

    /// The channel's value that a level is shown as: evenly spread over 0 to 255, and a value of that level.
    pub fn value_of(&self, level: u32) -> u8 {
        let (level, levels) = (level as usize, self.n_values());
        let spread = (level * 255 + (levels - 1) / 2) / (levels - 1).max(1);
        // Rounding could leave the level where there are nearly as many levels as values.
        let first = |level: usize| (level * BYTE_VALUES).div_ceil(levels);
        spread.max(first(level)).min(first(level + 1) - 1).min(255) as u8
    }

    /// Rows and columns of cells, and the tokens of a cell: the channels of pixels as tokens, else 1. Rows of `length` tokens, BOS
    /// included, that have no grid are one line.
    pub fn cells(&self, length: usize) -> ([usize; 2], usize) {
        let channels = match (self.levels, self.pixels) {
            (Some(_), Some(pixels)) => pixels.channels,
            _ => 1,
        };
        let [rows, columns] = self.grid.unwrap_or([1, length - 1]);
        ([rows, columns / channels], channels)
    }

    /// SHA-256 of what gives a stored row its meaning.
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(serde_json::to_vec(self).expect("a manifest always serialises")).into()
    }

    /// Checks that the fields are possible and consistent. Called on reading and on writing, so that no size overflows.
    pub(crate) fn check(&self) -> Result<(), String> {
        let fits = |sides: &[usize]| {
            sides
                .iter()
                .try_fold(1_usize, |all, &side| all.checked_mul(side))
                .is_some_and(|n| (1..=MAX_LENGTH).contains(&n))
        };
        if let Some(PixelShape { height, width, channels }) = self.pixels {
            if channels != 1 && channels != 3 {
                return Err(format!("pictures have 1 or 3 channels, not {channels}"));
            }
            if !fits(&[height, width, channels]) {
                return Err(format!("pictures of {height}x{width} pixels are not possible"));
            }
        }
        if let Some([rows, columns]) = self.grid
            && !fits(&[rows, columns])
        {
            return Err(format!("a grid of {rows}x{columns} is not possible"));
        }
        let (has_pixels, has_grid) = (self.pixels.is_some(), self.grid.is_some());
        match self.kind {
            ImageKind::Pixels if !has_pixels || has_grid => Err("pixels need their shape and have no grid".to_string()),
            ImageKind::Tokens if !has_pixels || !has_grid => {
                Err("pixels as tokens need a shape and a grid".to_string())
            }
            ImageKind::Tokens if !self.levels.is_some_and(|levels| (2..=BYTE_VALUES).contains(&levels)) => {
                Err("pixels as tokens need 2 to 256 levels".to_string())
            }
            ImageKind::Tokens if self.row_length() != 1 + self.pixels.map_or(0, |pixels| pixels.len()) => {
                Err("the grid of pixels as tokens does not fit their shape".to_string())
            }
            ImageKind::Codes if !has_grid => Err("codes need a grid".to_string()),
            ImageKind::Codes if !(1..=MAX_VALUES).contains(&self.n_values()) => {
                Err(format!("a codebook of {} codes is not possible", self.n_values()))
            }
            ImageKind::Pixels | ImageKind::Tokens | ImageKind::Codes => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_divide_the_values_evenly_and_come_back_as_themselves() {
        let shape = PixelShape { height: 2, width: 5, channels: 3 };
        for levels in [2, 3, 16, 255, 256] {
            let info = ImageInfo::of_levels(shape, levels, Vec::new());
            info.check().unwrap();
            assert_eq!((info.level_of(0), info.level_of(255)), (0, levels as u32 - 1), "{levels}");
            assert_eq!((info.value_of(0), info.value_of(levels as u32 - 1)), (0, 255));
            for level in 0..levels as u32 {
                assert_eq!(info.level_of(info.value_of(level)), level, "{levels}");
            }
            assert_eq!((info.grid, info.row_length()), (Some([2, 15]), 31));
            assert_eq!((info.special().mask, info.special().bos), (levels as u32, levels as u32 + 1));
            assert_eq!(info.vocab_size(), levels + 2);
        }
    }

    #[test]
    fn impossible_facts_are_refused() {
        let shape = PixelShape { height: 2, width: 5, channels: 3 };
        let pixels = ImageInfo::of_pixels(shape, Vec::new());
        let codes =
            |rows, codebook| ImageInfo::of_codes([rows, 4], CodecIdentity { codebook, hash: None }, None, Vec::new());
        assert!(pixels.check().is_ok() && codes(4, 16_384).check().is_ok());
        let two_channels = PixelShape { channels: 2, ..shape };
        let huge = PixelShape { height: usize::MAX / 2, ..shape };
        for (info, says) in [
            (ImageInfo { pixels: Some(two_channels), ..pixels.clone() }, "1 or 3 channels"),
            (ImageInfo { pixels: Some(huge), ..pixels.clone() }, "not possible"),
            (ImageInfo { pixels: None, ..pixels.clone() }, "need their shape"),
            (ImageInfo { levels: Some(1), ..ImageInfo::of_levels(shape, 2, Vec::new()) }, "2 to 256"),
            (ImageInfo { grid: Some([2, 5]), ..ImageInfo::of_levels(shape, 2, Vec::new()) }, "does not fit"),
            (codes(0, 16), "not possible"),
            (codes(4, 0), "codebook"),
        ] {
            let message = info.check().unwrap_err();
            assert!(message.contains(says), "{message}");
        }
    }
}
