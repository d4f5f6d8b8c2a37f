//! The codec that `pgm-train codec` trains: a small convolutional autoencoder with a quantised bottleneck.

mod blocks;
mod config;
mod fsq;
mod network;
mod vector_codebook;

pub use config::{AutoencoderConfig, MAX_CODES, QuantizerConfig};
pub use fsq::Fsq;
pub use network::{Autoencoder, Reconstruction};
pub use vector_codebook::VectorCodebook;
