//! From the bytes of a PNG, JPEG or WebP file to pixels.
//!
//! * The format is found by the content, not by the name.
//! * The Exif orientation is applied.
//! * 16 bits become 8 by scaling. CMYK becomes RGB. Colour profiles are not applied.
//! * Transparent pixels lie over white.
//! * Grey in three channels is repeated. Colour in one channel is ITU-R 601 luma, as PIL's `L`.
//! * Of an animation the first picture is taken.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use crate::image_info::PixelShape;

/// Decodes a picture to 1 or 3 channels. The problem is a sentence whose subject is the picture.
pub(super) fn decode(bytes: &[u8], channels: usize) -> Result<(Vec<u8>, PixelShape), String> {
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => format,
        _ if bytes.is_empty() => return Err("is empty".to_string()),
        _ => return Err("is no PNG, JPEG or WebP picture".to_string()),
    };
    let unreadable = |error: image::ImageError| {
        // Some of these errors have several lines.
        let error = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        format!("is a broken {} picture ({error})", name(format))
    };
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let orientation = decoder.orientation().map_err(unreadable)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    // The decoder fills what is missing with grey.
    if format == ImageFormat::Jpeg && !jpeg_has_end(bytes) {
        return Err("is a truncated JPEG picture".to_string());
    }
    picture.apply_orientation(orientation);
    let shape = PixelShape { height: picture.height() as usize, width: picture.width() as usize, channels };
    Ok((with_channels(&picture, channels), shape))
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        _ => "WebP",
    }
}

fn with_channels(picture: &DynamicImage, channels: usize) -> Vec<u8> {
    let color = picture.color();
    if color.has_color() {
        let colors: Vec<u8> =
            if color.has_alpha() { over_white(picture.to_rgba8().as_raw(), 3) } else { picture.to_rgb8().into_raw() };
        return with_channels_of(&colors, 3, channels);
    }
    let greys = if color.has_alpha() {
        over_white(picture.to_luma_alpha8().as_raw(), 1)
    } else {
        picture.to_luma8().into_raw()
    };
    with_channels_of(&greys, 1, channels)
}

/// Pixels of `from` channels as pixels of `to` channels.
pub(super) fn with_channels_of(pixels: &[u8], from: usize, to: usize) -> Vec<u8> {
    match (from, to) {
        (3, 1) => pixels.as_chunks::<3>().0.iter().map(luma).collect(),
        (1, 3) => pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
        _ => pixels.to_vec(),
    }
}

fn luma(&[red, green, blue]: &[u8; 3]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

// Pixels whose last channel is alpha.
fn over_white(pixels: &[u8], channels: usize) -> Vec<u8> {
    let blend = |value: u8, alpha: u8| {
        ((u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255) as u8
    };
    let pixels = pixels.chunks_exact(channels + 1);
    pixels.flat_map(|pixel| pixel[..channels].iter().map(move |&value| blend(value, pixel[channels]))).collect()
}

// Whether the marker of the end follows the last scan. Thumbnails have an end of their own, so the segments are walked.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while at + 1 < bytes.len() {
        if bytes[at] != 0xff {
            // Data of a scan.
            at += 1;
            continue;
        }
        match bytes[at + 1] {
            0xd9 => return true,
            // A byte 0xff in the data, a restart marker, a marker without a segment.
            0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
            // Any number of 0xff can stand before a marker.
            0xff => at += 1,
            _ => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(high) * 256 + usize::from(low),
                _ => return false,
            },
        }
    }
    false
}
