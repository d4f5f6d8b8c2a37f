//! A codec of one's own: a small convolutional autoencoder whose middle is quantised.

mod blocks;
mod config;
mod fsq;
mod network;
mod vector_codebook;

pub use config::{AutoencoderConfig, MAX_CODES, QuantizerConfig};
pub use fsq::Fsq;
pub use network::{Autoencoder, Reconstruction};
pub use vector_codebook::VectorCodebook;
