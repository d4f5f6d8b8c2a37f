//! Animated PNGs (APNG): a PNG with further frames in chunks that viewers without animation skip.
//!
//! The format: <https://www.w3.org/TR/png-3/#apng-frame-based-animation>.

use std::path::Path;

use pgm_model::model_folder::write_file;

use super::pixels::Picture;
use crate::InferError;

/// Bytes of the signature at the beginning of a PNG.
const SIGNATURE: usize = 8;

/// An animation of pictures of one size.
#[derive(Debug)]
pub struct Animation {
    delay_ms: u16,
    frames: Vec<Vec<u8>>,
    shape: Option<(usize, usize, usize)>,
}

impl Animation {
    /// An animation without frames; each will be shown for `delay_ms` milliseconds.
    pub fn new(delay_ms: u16) -> Self {
        Self { delay_ms, frames: Vec::new(), shape: None }
    }

    /// Number of frames.
    pub fn n_frames(&self) -> usize {
        self.frames.len()
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// As [`Picture::png`].
    ///
    /// # Panics
    /// For a picture of another shape than the first frame.
    pub fn push(&mut self, frame: &Picture) -> Result<(), InferError> {
        let shape = (frame.width(), frame.height(), frame.channels());
        assert_eq!(*self.shape.get_or_insert(shape), shape, "frames of one shape");
        self.frames.push(frame.png()?);
        Ok(())
    }

    /// The bytes of the file. It repeats without end.
    ///
    /// # Panics
    /// Without a frame.
    pub fn bytes(&self) -> Vec<u8> {
        let first = &self.frames[0];
        let mut bytes = first[..SIGNATURE].to_vec();
        let mut sequence = 0_u32;
        let number = |value: usize| (value as u32).to_be_bytes();
        for (index, frame) in self.frames.iter().enumerate() {
            for (kind, data) in chunks(frame) {
                match kind {
                    b"IHDR" => {
                        if index == 0 {
                            push_chunk(&mut bytes, kind, data);
                            push_chunk(&mut bytes, b"acTL", &[number(self.frames.len()), number(0)].concat());
                        }
                        let (width, height, _) = self.shape.unwrap_or_default();
                        let mut control = [sequence.to_be_bytes(), number(width), number(height)].concat();
                        control.extend([0; 8]); // the frame's offset
                        control.extend(self.delay_ms.to_be_bytes());
                        control.extend(1000_u16.to_be_bytes());
                        control.extend([0, 0]); // nothing is disposed of, nothing is blended
                        push_chunk(&mut bytes, b"fcTL", &control);
                        sequence += 1;
                    }
                    b"IDAT" if index == 0 => push_chunk(&mut bytes, kind, data),
                    b"IDAT" => {
                        push_chunk(&mut bytes, b"fdAT", &[&sequence.to_be_bytes()[..], data].concat());
                        sequence += 1;
                    }
                    _ => {}
                }
            }
        }
        push_chunk(&mut bytes, b"IEND", &[]);
        bytes
    }

    /// Writes the file, as a whole.
    ///
    /// # Errors
    /// [`InferError::Request`] without a frame, [`InferError::Model`] when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), InferError> {
        if self.frames.is_empty() {
            return Err(InferError::Request("the animation has no frame".into()));
        }
        Ok(write_file(path, &self.bytes())?)
    }
}

// The chunks of a PNG that the encoder wrote: kind and data.
fn chunks(png: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = &png[SIGNATURE..];
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let (data, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after.get(4..)?;
        Some((kind, data))
    })
}

fn push_chunk(bytes: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    bytes.extend((data.len() as u32).to_be_bytes());
    let start = bytes.len();
    bytes.extend(kind);
    bytes.extend(data);
    let crc = crc32(&bytes[start..]);
    bytes.extend(crc.to_be_bytes());
}

// The CRC of PNG chunks, bit by bit with a table of bytes.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut value = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[byte] = value;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 255) as usize] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::AnimationDecoder;
    use image::codecs::png::PngDecoder;

    use super::*;

    #[test]
    fn every_frame_comes_back_and_the_first_is_the_still_picture() {
        let frame = |value: u8| Picture::filled(7, 5, &[value, 2 * value, 255 - value]);
        let mut animation = Animation::new(120);
        for value in [0, 60, 120] {
            animation.push(&frame(value)).unwrap();
        }
        let bytes = animation.bytes();
        assert_eq!(Picture::from_bytes(&bytes, 3).unwrap(), frame(0));
        let decoder = PngDecoder::new(Cursor::new(&bytes)).unwrap();
        assert!(decoder.is_apng().unwrap());
        let frames = decoder.apng().unwrap().into_frames().collect_frames().unwrap();
        assert_eq!(frames.len(), 3);
        for (found, value) in frames.iter().zip([0, 60, 120]) {
            let pixels = image::DynamicImage::from(found.buffer().clone()).to_rgb8().into_raw();
            assert_eq!(pixels, frame(value).pixels());
            assert_eq!(found.delay().numer_denom_ms().0 / found.delay().numer_denom_ms().1, 120);
        }
        // The check value of this CRC.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let error = Animation::new(1).write(Path::new("never.png")).unwrap_err().to_string();
        assert!(error.contains("no frame"), "{error}");
    }
}
