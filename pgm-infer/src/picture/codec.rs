//! What turns a row's tokens into a picture and back.

use std::sync::Arc;

use burn::tensor::Device;

use super::levels::PixelLevels;
use super::pixels::Picture;
use crate::InferError;

/// Pixels to tokens and back, for pictures of one shape.
pub trait PictureCodec: std::fmt::Debug + Send + Sync {
    /// Width, height and channels of its pictures.
    fn shape(&self) -> (usize, usize, usize);

    /// Whether the tokens are the pixels themselves, so that a picture comes back exactly and a token tells nothing of its
    /// neighbours' pixels.
    fn is_exact(&self) -> bool;

    /// The picture of each row of tokens, the tokens in the order of the grid.
    ///
    /// # Errors
    /// [`InferError::Device`] when the device fails.
    fn decode(&self, rows: &[&[u32]]) -> Result<Vec<Picture>, InferError>;

    /// The tokens of each picture of this codec's shape.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn encode(&self, pictures: &[Picture]) -> Result<Vec<Vec<u32>>, InferError>;

    /// The codec on another device of the same kind; none where one serves all devices.
    fn on_device(&self, _device: &Device) -> Option<Arc<dyn PictureCodec>> {
        None
    }
}

impl PictureCodec for PixelLevels {
    fn shape(&self) -> (usize, usize, usize) {
        self.shape()
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn decode(&self, rows: &[&[u32]]) -> Result<Vec<Picture>, InferError> {
        Ok(rows.iter().map(|row| self.decode(row)).collect())
    }

    fn encode(&self, pictures: &[Picture]) -> Result<Vec<Vec<u32>>, InferError> {
        Ok(pictures.iter().map(|picture| self.encode(picture)).collect())
    }
}
