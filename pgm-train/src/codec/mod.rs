//! Training of a codec: pictures in, a codec's folder out.
//!
//! [`fit_codec`] runs on the training loop of [`fit`](crate::fit()): checkpoints, exact resuming and `metrics.jsonl` are
//! the same.

mod fit;
mod loader;
mod model;
mod pictures;
mod quality;
mod validation;

pub use fit::{FitCodec, FitCodecResult, RECONSTRUCTIONS_FILE, fit_codec};
pub use pictures::{bytes_of_pixels, pixels_of_bytes};
pub use quality::{psnr, ssim};
pub use validation::CodecLine;
