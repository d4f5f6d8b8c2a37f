//! Codecs: pictures to codes and back.
//!
//! A token model of pictures sees codes only. A [`Codec`] makes them of pixels, and pixels of them. Pixels are
//! `[B, C, H, W]` in -1 to 1; codes are `[B, h * w]`, row by row. A codec's folder has `config.json` and
//! `model.safetensors`, as a model's has. Codes carry the [`hash`](Codec::hash) of their codec.
//!
//! [`Autoencoder`] is the codec that `pgm-train codec` trains: convolutions around [`Fsq`] or a
//! [`VectorCodebook`]. [`VqCodec`] is LlamaGen's VQGAN, whose published weights
//! [`Codec::open`] reads from their `.pt`.

mod autoencoder;
mod config;
mod identity;
mod pixel_codec;
mod vq;
mod weights;

pub use autoencoder::{
    Autoencoder, AutoencoderConfig, Fsq, MAX_CODES, QuantizerConfig, Reconstruction, VectorCodebook,
};
pub use config::CodecConfig;
pub use pixel_codec::{Codec, CodecNetwork};
pub use vq::{VqCodec, VqCodecConfig};
