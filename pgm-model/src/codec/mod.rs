//! Codecs: pictures to codes and back.
//!
//! A token model of pictures sees codes only. A [`Codec`] makes them of pixels, and pixels of them. Pixels are
//! `[B, C, H, W]` in -1 to 1; codes are `[B, h * w]`, row by row. A codec's folder has `config.json` and
//! `model.safetensors`, as a model's has. Codes carry the [`hash`](Codec::hash) of their codec.
//!
//! [`Autoencoder`] is the codec of one's own that `pgm-train codec` trains: convolutions around [`Fsq`] or a
//! [`VectorCodebook`]. [`VqCodec`] is LlamaGen's VQGAN, whose published weights are read from their `.pt` by [`open`].

mod autoencoder;
mod blocks;
mod config;
mod fsq;
mod identity;
mod pixel_codec;
mod vector_codebook;
mod vq;
mod weights;

pub use autoencoder::{Autoencoder, Reconstruction};
pub use config::{AutoencoderConfig, CodecConfig, MAX_CODES, QuantizerConfig};
pub use fsq::Fsq;
pub use pixel_codec::{Codec, CodecNetwork};
pub use vector_codebook::VectorCodebook;
pub use vq::{VqCodec, VqCodecConfig, VqKind, read_folder_bytes, read_torch};
#[cfg(feature = "files")]
pub use vq::{open, save};
