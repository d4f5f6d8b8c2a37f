//! LlamaGen's VQGAN (arXiv 2406.06525): convolutions, and a codebook in which every vector has length 1.

mod attention;
mod config;
mod decoder;
mod encoder;
mod layers;
mod network;
mod quantiser;
mod residual;
mod torch;

pub use config::VqCodecConfig;
pub use network::VqCodec;
pub(super) use torch::read_torch;
