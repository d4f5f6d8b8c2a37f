//! Pixels as bytes, as numbers, and as a PNG of originals above their reconstructions.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use pgm_data::PixelShape;
use pgm_model::model_folder::write_file;

use crate::TrainError;

/// Pictures side by side.
const COLUMNS: usize = 16;
/// Small pictures are enlarged to about this side.
const SIDE: usize = 64;
/// Pixels between two pictures.
const GAP: usize = 2;

/// Bytes with the channels side by side as numbers in -1 to 1, `[C, H, W]`.
pub fn pixels_of_bytes(bytes: &[u8], channels: usize) -> Vec<f32> {
    let values = |channel: usize| bytes.iter().skip(channel).step_by(channels);
    (0..channels).flat_map(values).map(|&byte| f32::from(byte) / 127.5 - 1.0).collect()
}

/// Numbers `[C, H, W]` as bytes with the channels side by side. What lies outside of -1 to 1 is cut off.
pub fn bytes_of_pixels(pixels: &[f32], channels: usize) -> Vec<u8> {
    let area = pixels.len() / channels;
    let byte = |value: f32| ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
    (0..area).flat_map(|place| (0..channels).map(move |channel| byte(pixels[channel * area + place]))).collect()
}

/// Writes a PNG of pairs: the first of each above the second.
///
/// # Errors
/// [`TrainError::File`] or [`TrainError::Model`] when it cannot be written.
pub(super) fn write_pairs(path: &Path, pairs: &[[Vec<u8>; 2]], shape: PixelShape) -> Result<(), TrainError> {
    let PixelShape { height, width, channels } = shape;
    let enlarged = (SIDE / height.max(width)).max(1);
    let (cell_height, cell_width) = (height * enlarged, width * enlarged);
    let n_columns = pairs.len().clamp(1, COLUMNS);
    let n_bands = pairs.len().div_ceil(n_columns);
    // The two of a pair touch; pairs stand apart.
    let (sheet_height, sheet_width) = (n_bands * (2 * cell_height + GAP) + GAP, n_columns * (cell_width + GAP) + GAP);
    let mut sheet = vec![255_u8; sheet_height * sheet_width * channels];
    for (index, pair) in pairs.iter().enumerate() {
        let (band, column) = (index / n_columns, index % n_columns);
        let left = GAP + column * (cell_width + GAP);
        for (which, picture) in pair.iter().enumerate() {
            let top = GAP + band * (2 * cell_height + GAP) + which * cell_height;
            for y in 0..cell_height {
                for x in 0..cell_width {
                    let from = (y / enlarged * width + x / enlarged) * channels;
                    let to = ((top + y) * sheet_width + left + x) * channels;
                    sheet[to..to + channels].copy_from_slice(&picture[from..from + channels]);
                }
            }
        }
    }
    let (w, h) = (sheet_width as u32, sheet_height as u32);
    let image = match channels {
        1 => GrayImage::from_raw(w, h, sheet).map(DynamicImage::ImageLuma8),
        _ => RgbImage::from_raw(w, h, sheet).map(DynamicImage::ImageRgb8),
    };
    let mut png = Cursor::new(Vec::new());
    let encoded = image.expect("the sheet has its size").write_to(&mut png, ImageFormat::Png);
    encoded.map_err(|error| TrainError::file("write", path, error))?;
    Ok(write_file(path, png.get_ref())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_values_outside_are_cut_off() {
        let bytes: Vec<u8> = (0..=254).collect();
        let pixels = pixels_of_bytes(&bytes, 3);
        // The first red, then the second; the green ones come 85 places later.
        assert_eq!((pixels[0], pixels[1]), (-1.0, 3.0 / 127.5 - 1.0));
        assert_eq!(pixels[85], 1.0 / 127.5 - 1.0);
        assert_eq!(bytes_of_pixels(&pixels, 3), bytes);
        assert_eq!(bytes_of_pixels(&[-3.0, 1.0, 7.0], 1), [0, 255, 255]);
    }

    #[test]
    fn originals_stand_above_their_reconstructions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.png");
        let shape = PixelShape { height: 3, width: 5, channels: 3 };
        let plain = |rgb: [u8; 3]| rgb.repeat(15);
        let pairs: Vec<[Vec<u8>; 2]> = (0..18).map(|i| [plain([i, 1, 2]), plain([i, 3, 4])]).collect();
        write_pairs(&path, &pairs, shape).unwrap();
        let image = image::open(&path).unwrap().into_rgb8();
        // Enlarged 12 times: 36 x 60 pixels; two bands of 16.
        assert_eq!(image.dimensions(), (16 * 62 + 2, 2 * 74 + 2));
        assert_eq!(image.get_pixel(0, 0).0, [255; 3]);
        assert_eq!((image.get_pixel(2, 2).0, image.get_pixel(2, 2 + 36).0), ([0, 1, 2], [0, 3, 4]));
        assert_eq!(image.get_pixel(2 + 62, 2 + 74 + 35).0, [17, 1, 2]);
        assert_eq!(image.get_pixel(2 + 62, 2 + 74 + 71).0, [17, 3, 4]);
        assert_eq!(image.get_pixel(2 + 2 * 62, 2 + 74).0, [255; 3], "there is no pair 18");
    }
}
