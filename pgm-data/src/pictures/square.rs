//! From a picture of any size to a square of the rows' size.

use super::resample::{Filter, resize};
use crate::image_info::{Crop, PixelShape};

/// The largest number of values of a resized picture, before the square is cut out.
const MOST_VALUES: usize = 1 << 28;

/// The square that is cut out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Square {
    /// Its side.
    pub(super) size: usize,
    /// How it is cut.
    pub(super) crop: Crop,
}

/// Cuts a square out of a picture. `number` is the picture's place among all, for a random crop. The problem is a sentence
/// whose subject is the picture.
pub(super) fn to_square(pixels: Vec<u8>, shape: PixelShape, square: Square, number: u64) -> Result<Vec<u8>, String> {
    let Square { size, crop } = square;
    let (mut pixels, mut shape) = (pixels, shape);
    if (shape.height, shape.width) == (size, size) {
        return Ok(pixels);
    }
    let (short, long) = (shape.height.min(shape.width), shape.height.max(shape.width));
    if size * (size * long / short) * shape.channels > MOST_VALUES {
        return Err(format!("is too narrow for squares of {size}: it has {}x{} pixels", shape.height, shape.width));
    }
    if crop == Crop::Adm {
        while shape.height.min(shape.width) >= 2 * size {
            let (height, width) = (shape.height / 2, shape.width / 2);
            pixels = resize(&pixels, shape, height, width, Filter::Box);
            shape = PixelShape { height, width, ..shape };
        }
    }
    let short = shape.height.min(shape.width);
    if short != size {
        let side = |side: usize| match crop {
            // Python's round: a half goes to the even number.
            Crop::Adm => (side as f64 * (size as f64 / short as f64)).round_ties_even() as usize,
            Crop::Center | Crop::Random => (size * side) / short,
        };
        let (height, width) = (side(shape.height).max(size), side(shape.width).max(size));
        let filter = if crop == Crop::Adm { Filter::Bicubic } else { Filter::Bilinear };
        pixels = resize(&pixels, shape, height, width, filter);
        shape = PixelShape { height, width, ..shape };
    }
    let (below, beside) = (shape.height - size, shape.width - size);
    let (top, left) = match crop {
        Crop::Center => {
            ((below as f64 / 2.0).round_ties_even() as usize, (beside as f64 / 2.0).round_ties_even() as usize)
        }
        Crop::Adm => (below / 2, beside / 2),
        Crop::Random => {
            let random = mixed(number);
            (((random >> 32) % (below as u64 + 1)) as usize, ((random & 0xffff_ffff) % (beside as u64 + 1)) as usize)
        }
    };
    Ok(cut(&pixels, shape, top, left, size))
}

fn cut(pixels: &[u8], shape: PixelShape, top: usize, left: usize, size: usize) -> Vec<u8> {
    let row_len = shape.width * shape.channels;
    let rows = pixels.chunks_exact(row_len).skip(top).take(size);
    rows.flat_map(|row| &row[left * shape.channels..(left + size) * shape.channels]).copied().collect()
}

/// The picture seen in a mirror: left and right are exchanged.
pub(super) fn mirrored(pixels: &[u8], shape: PixelShape) -> Vec<u8> {
    let rows = pixels.chunks_exact(shape.width * shape.channels);
    rows.flat_map(|row| row.chunks_exact(shape.channels).rev().flatten()).copied().collect()
}

// SplitMix64: bits that are random in all places for numbers that follow each other.
fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::resample::{Filter, resize};
    use super::*;

    fn picture(height: usize, width: usize, channels: usize) -> (Vec<u8>, PixelShape) {
        let value = |y: usize, x: usize, c: usize| ((x * 37 + y * 91 + c * 53 + (x * y) % 17 * 11) % 256) as u8;
        let places = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..channels).map(move |c| (y, x, c))));
        (places.map(|(y, x, c)| value(y, x, c)).collect(), PixelShape { height, width, channels })
    }

    #[test]
    fn filters_give_the_bytes_that_pil_gives() {
        // Image.fromarray(picture).resize((4, 3), filter) and resize((5, 4), filter) of Pillow.
        for (filter, smaller, larger) in [
            (Filter::Box, [111, 135, 131, 137, 126, 136, 85, 109, 134], [0, 0, 37, 37, 37, 91]),
            (Filter::Bilinear, [122, 134, 138, 129, 128, 131, 108, 111, 136], [0, 4, 19, 33, 37, 57]),
            (Filter::Bicubic, [118, 135, 137, 134, 130, 131, 101, 107, 138], [0, 0, 14, 30, 36, 48]),
        ] {
            let (pixels, shape) = picture(9, 13, 3);
            assert_eq!(resize(&pixels, shape, 3, 4, filter)[..9], smaller, "{filter:?}");
            let (pixels, shape) = picture(3, 2, 1);
            assert_eq!(resize(&pixels, shape, 4, 5, filter)[..6], larger, "{filter:?}");
        }
    }

    #[test]
    fn crops_are_those_of_torchvision_and_adm() {
        let adm_tall = [129, 121, 134, 138, 138, 130, 122, 123, 143, 160, 141, 120, 118, 130, 100, 139];
        let adm_wide = [152, 109, 130, 87, 107, 130, 134, 126, 186, 113, 104, 141, 120, 108, 79, 131];
        let center_tall = [128, 122, 133, 135, 136, 129, 120, 130, 138, 152, 149, 117, 126, 134, 105, 140];
        let center_wide = [133, 128, 104, 91, 132, 131, 128, 95, 136, 119, 137, 150, 112, 101, 118, 121];
        for (crop, tall, wide) in [(Crop::Adm, adm_tall, adm_wide), (Crop::Center, center_tall, center_wide)] {
            for ((height, width), expected) in [((23, 15), tall), ((9, 14), wide)] {
                let (pixels, shape) = picture(height, width, 1);
                assert_eq!(to_square(pixels, shape, Square { size: 4, crop }, 0).unwrap(), expected, "{crop}");
            }
        }
    }

    #[test]
    fn random_crops_reach_every_place_and_depend_on_the_number_only() {
        let (pixels, shape) = picture(4, 7, 1);
        let square = Square { size: 4, crop: Crop::Random };
        let at = |number| to_square(pixels.clone(), shape, square, number).unwrap();
        let all: std::collections::HashSet<Vec<u8>> = (0..100).map(at).collect();
        assert_eq!(all.len(), 4);
        assert_eq!(at(5), at(5));
    }

    #[test]
    fn a_picture_is_mirrored_by_pixels_and_not_by_values() {
        let shape = PixelShape { height: 2, width: 2, channels: 3 };
        let pixels = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(mirrored(&pixels, shape), [4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9]);
    }

    #[test]
    fn a_line_that_would_fill_the_memory_is_refused() {
        let shape = PixelShape { height: 1, width: 60_000, channels: 3 };
        let square = Square { size: 512, crop: Crop::Center };
        assert!(to_square(vec![0; shape.len()], shape, square, 0).unwrap_err().contains("too narrow"));
    }
}
