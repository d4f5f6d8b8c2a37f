//! LlamaGen's VQGAN (arXiv 2406.06525): convolutions, and a codebook in which every vector has length 1.
//!
//! Published weights are read from the `.pt` of its authors ([`open`]), or from a codec folder that [`save`] wrote:
//! `config.json` and `model.safetensors` under the published names.

mod attention;
mod config;
mod decoder;
mod encoder;
mod files;
mod layers;
mod network;
mod quantiser;
mod residual;

pub use config::{VqCodecConfig, VqKind};
#[cfg(feature = "files")]
pub use files::{open, save};
pub use files::{read_folder_bytes, read_torch};
pub use network::VqCodec;
