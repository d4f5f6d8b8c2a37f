//! A picture in memory.

use std::io::Cursor;
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError, ImageFormat, ImageReader, Limits,
};
use pgm_model::model_folder::write_file;

use crate::InferError;

/// Rows of pixels from the top, channels side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// A picture of these pixels: `height * width * channels` values. It has 1 (grey) or 3 channels (red, green, blue).
    ///
    /// # Panics
    /// For another number of values or channels, and for a picture without pixels.
    pub fn new(width: usize, height: usize, channels: usize, pixels: Vec<u8>) -> Self {
        assert!(channels == 1 || channels == 3, "a picture has 1 or 3 channels, not {channels}");
        assert!(width > 0 && height > 0, "a picture of {width} x {height} pixels");
        assert_eq!(pixels.len(), width * height * channels, "values of a picture of {width} x {height} pixels");
        Self { width, height, channels, pixels }
    }

    /// A picture of one colour.
    pub fn filled(width: usize, height: usize, colour: &[u8]) -> Self {
        Self::new(width, height, colour.len(), colour.repeat(width * height))
    }

    /// Pixels of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows of pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// 1 (grey) or 3 (red, green, blue).
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// All values.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The channels of a pixel.
    ///
    /// # Panics
    /// Outside the picture.
    pub fn pixel(&self, x: usize, y: usize) -> &[u8] {
        assert!(x < self.width, "column {x} of {}", self.width);
        &self.pixels[(y * self.width + x) * self.channels..][..self.channels]
    }

    pub(super) fn pixel_mut(&mut self, x: usize, y: usize) -> &mut [u8] {
        debug_assert!(x < self.width);
        &mut self.pixels[(y * self.width + x) * self.channels..][..self.channels]
    }

    /// Reads a PNG, JPEG or WebP file as `pgm-data images` reads those of a training: the Exif orientation is applied,
    /// transparent pixels lie over white, and a colour's grey is ITU-R 601 luma.
    ///
    /// # Errors
    /// [`InferError::File`] naming the file.
    pub fn read(path: &Path, channels: usize) -> Result<Self, InferError> {
        let image = decode(&read_bytes(path)?).map_err(|problem| unreadable(path, problem))?;
        Ok(Self::of_image(&image, channels))
    }

    /// As [`read`](Self::read), from the bytes of a file.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8], channels: usize) -> Result<Self, String> {
        Ok(Self::of_image(&decode(bytes)?, channels))
    }

    /// As [`from_bytes`](Self::from_bytes), for a picture of at most `most` pixels: a larger one is refused by its header,
    /// before memory is allocated for it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes_within(bytes: &[u8], channels: usize, most: usize) -> Result<Self, String> {
        let (width, height) = size(bytes)?;
        if width.saturating_mul(height) > most {
            return Err(format!("it has {width} x {height} pixels; it may have at most {most} in all"));
        }
        Self::from_bytes(bytes, channels)
    }

    fn of_image(image: &DynamicImage, channels: usize) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let color = image.color();
        let picture = match (color.has_color(), color.has_alpha()) {
            (true, true) => Self::new(width, height, 3, over_white(image.to_rgba8().as_raw(), 3)),
            (true, false) => Self::new(width, height, 3, image.to_rgb8().into_raw()),
            (false, true) => Self::new(width, height, 1, over_white(image.to_luma_alpha8().as_raw(), 1)),
            (false, false) => Self::new(width, height, 1, image.to_luma8().into_raw()),
        };
        picture.with_channels(channels)
    }

    /// The picture in grey or in colours.
    #[must_use]
    pub fn with_channels(self, channels: usize) -> Self {
        match (self.channels, channels) {
            (1, 3) => Self { channels, pixels: self.pixels.iter().flat_map(|&value| [value; 3]).collect(), ..self },
            (3, 1) => {
                // ITU-R 601, in 16 bits.
                let luma = |pixel: &[u8]| {
                    let [red, green, blue] = [0, 1, 2].map(|index: usize| u32::from(pixel[index]));
                    ((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16) as u8
                };
                Self { channels, pixels: self.pixels.chunks_exact(3).map(luma).collect(), ..self }
            }
            _ => self,
        }
    }

    /// Each pixel as a square of `factor * factor` pixels.
    #[must_use]
    pub fn enlarged(&self, factor: usize) -> Self {
        let mut large = Self::filled(self.width * factor, self.height * factor, &vec![0; self.channels]);
        for y in 0..large.height {
            for x in 0..large.width {
                large.pixel_mut(x, y).copy_from_slice(self.pixel(x / factor, y / factor));
            }
        }
        large
    }

    /// A rectangle of the picture.
    ///
    /// # Panics
    /// When it lies outside the picture.
    #[must_use]
    pub fn window(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        assert!(x + width <= self.width && y + height <= self.height, "a window inside the picture");
        let line = |line: usize| &self.pixels[((y + line) * self.width + x) * self.channels..][..width * self.channels];
        Self::new(width, height, self.channels, (0..height).flat_map(line).copied().collect())
    }

    /// Puts another picture of the same number of channels into this one; what does not fit is cut off.
    pub fn paste(&mut self, other: &Self, x: usize, y: usize) {
        let width = other.width.min(self.width.saturating_sub(x));
        for line in 0..other.height.min(self.height.saturating_sub(y)) {
            let from = &other.pixels[line * other.width * other.channels..][..width * other.channels];
            let start = ((y + line) * self.width + x) * self.channels;
            self.pixels[start..start + from.len()].copy_from_slice(from);
        }
    }

    /// The bytes of a PNG file.
    ///
    /// # Errors
    /// [`InferError::Request`] for a picture that is too large for the format.
    pub fn png(&self) -> Result<Vec<u8>, InferError> {
        let mut bytes = Vec::new();
        let kind = if self.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let sides = u32::try_from(self.width).ok().zip(u32::try_from(self.height).ok());
        let (width, height) = sides.ok_or_else(|| self.too_large("its sides are too long"))?;
        let written = PngEncoder::new(&mut bytes).write_image(&self.pixels, width, height, kind);
        written.map_err(|error| self.too_large(error))?;
        Ok(bytes)
    }

    fn too_large(&self, problem: impl std::fmt::Display) -> InferError {
        let (width, height) = (self.width, self.height);
        InferError::Request(format!("a picture of {width} x {height} pixels cannot become a PNG: {problem}"))
    }

    /// Writes a PNG file, as a whole.
    ///
    /// # Errors
    /// As [`png`](Self::png), and [`InferError::Model`] when the file cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<(), InferError> {
        Ok(write_file(path, &self.png()?)?)
    }
}

pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, InferError> {
    std::fs::read(path).map_err(|error| unreadable(path, error.to_string()))
}

pub(super) fn unreadable(path: &Path, problem: String) -> InferError {
    InferError::File { path: path.to_path_buf(), problem }
}

/// Width and height, as the header of a PNG, JPEG or WebP file says them.
pub(super) fn size(bytes: &[u8]) -> Result<(usize, usize), String> {
    let reader = reader(bytes)?;
    let size = crate::unwind::catch(|| reader.into_dimensions())?.map_err(broken)?;
    Ok((size.0 as usize, size.1 as usize))
}

fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    // Another format is recognised, but there is no decoder for it.
    match reader.format() {
        Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP) => Ok(reader),
        _ => Err("it is no PNG, JPEG or WebP file".into()),
    }
}

// Pixels whose last channel is alpha.
fn over_white(pixels: &[u8], channels: usize) -> Vec<u8> {
    let blend = |value: u8, alpha: u8| {
        ((u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255) as u8
    };
    let pixels = pixels.chunks_exact(channels + 1);
    pixels.flat_map(|pixel| pixel[..channels].iter().map(move |&value| blend(value, pixel[channels]))).collect()
}

fn broken(error: ImageError) -> String {
    format!("{error}; it may be truncated, copy it again")
}

/// Decodes a PNG, JPEG or WebP file.
pub(super) fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    let reader = reader(bytes)?;
    let decode = || {
        let mut decoder = reader.into_decoder()?;
        let mut limits = Limits::default();
        limits.reserve(decoder.total_bytes())?;
        decoder.set_limits(limits)?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    };
    // A decoder's panic on a damaged file is that file's error.
    let image = crate::unwind::catch(decode)?.map_err(broken)?;
    if image.width() == 0 || image.height() == 0 {
        return Err("it has no pixels".into());
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(channels: usize) -> Picture {
        Picture::new(5, 3, channels, (0..15 * channels).map(|value| (value * 5) as u8).collect())
    }

    #[test]
    fn a_png_comes_back_as_the_same_pixels() {
        for channels in [1, 3] {
            let picture = gradient(channels);
            assert_eq!(Picture::from_bytes(&picture.png().unwrap(), channels).unwrap(), picture);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        gradient(3).write_png(&path).unwrap();
        assert_eq!(Picture::read(&path, 3).unwrap(), gradient(3));
    }

    #[test]
    fn files_that_are_no_pictures_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.png");
        let png = gradient(3).png().unwrap();
        std::fs::write(&path, &png[..png.len() / 2]).unwrap();
        let error = Picture::read(&path, 3).unwrap_err().to_string();
        assert!(error.contains("cut.png") && error.contains("truncated"), "{error}");
        std::fs::write(&path, b"not a picture").unwrap();
        let error = Picture::read(&path, 3).unwrap_err().to_string();
        assert!(error.contains("no PNG, JPEG or WebP"), "{error}");
        let error = Picture::read(&folder.path().join("missing.png"), 3).unwrap_err().to_string();
        assert!(error.contains("missing.png"), "{error}");
    }

    #[test]
    fn a_picture_of_too_many_pixels_is_refused_by_its_header() {
        let png = gradient(1).png().unwrap();
        assert_eq!(Picture::from_bytes_within(&png, 1, 15).unwrap(), gradient(1));
        let error = Picture::from_bytes_within(&png, 1, 14).unwrap_err();
        assert!(error.contains("5 x 3 pixels") && error.contains("at most 14"), "{error}");
        // A header that promises 30000 x 30000 pixels, and nothing behind it.
        let mut header = png[..33].to_vec();
        header[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]);
        let crc = crc32(&header[12..29]);
        header[29..33].copy_from_slice(&crc.to_be_bytes());
        let error = Picture::from_bytes_within(&header, 1, 1 << 22).unwrap_err();
        assert!(error.contains("30000 x 30000") || error.contains("truncated"), "{error}");
        // Nor is memory taken for them where no number of pixels is given.
        let error = Picture::from_bytes(&[&header[..], &png[33..]].concat(), 1).unwrap_err();
        assert!(error.to_lowercase().contains("limit"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32, byte: &u8| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        };
        !bytes.iter().fold(u32::MAX, step)
    }

    #[test]
    fn windows_are_cut_out_and_pasted_back() {
        let picture = gradient(3);
        let window = picture.window(1, 1, 3, 2);
        assert_eq!(window.pixel(2, 1), picture.pixel(3, 2));
        let mut copy = Picture::filled(5, 3, &[9, 9, 9]);
        copy.paste(&window, 1, 1);
        assert_eq!((copy.pixel(1, 1), copy.pixel(0, 0)), (picture.pixel(1, 1), &[9, 9, 9][..]));
        copy.paste(&picture, 4, 2);
        assert_eq!(copy.pixel(4, 2), picture.pixel(0, 0), "the rest is cut off");
        let large = picture.enlarged(2);
        assert_eq!((large.width(), large.height(), large.pixel(9, 5)), (10, 6, picture.pixel(4, 2)));
        assert_eq!(gradient(1).with_channels(3).with_channels(1), gradient(1));
    }
}
