//! The Inception network of the published FID, on Burn: that of the file `pt_inception-2015-12-05-6726825d.pth`.
//!
//! Batch norms are folded into the convolutions when the weights are read. The weights are read as data from a file that
//! the caller names; nothing is downloaded.

mod blocks;
mod convolution;
mod network;
mod weights;

pub use network::{FeatureLayer, Inception, InceptionOutput};
