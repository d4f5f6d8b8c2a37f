//! Codecs: pictures to codes, and codes to pictures.
//!
//! A codec is a network of its own, which is trained before the models of its codes. [`VqCodec`] is LlamaGen's VQGAN
//! (arXiv 2406.06525): convolutions, and a codebook in which every vector has length 1. Published weights are read from the
//! `.pt` of its authors ([`open`]), or from a codec folder that [`save`] wrote: `config.json` and `model.safetensors` under
//! the published names.
//!
//! A model of codes remembers the [hash](VqCodec::hash) of its codec, because another codec's codes mean other pictures.

mod attention;
mod config;
mod decoder;
mod encoder;
mod files;
mod layers;
mod names;
mod quantiser;
mod residual;
mod sha256;
mod vq;

pub use config::{VqCodecConfig, VqKind};
#[cfg(feature = "files")]
pub use files::{open, save};
pub use files::{read_folder_bytes, read_torch};
pub use vq::VqCodec;
