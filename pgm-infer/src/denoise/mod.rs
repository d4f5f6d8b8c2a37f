//! The networks as [`Denoiser`]s, which give the sampling loop its logits.

mod as_published;
mod causal;
mod images;
mod kept_rows;
mod mask_git;
mod masked;
mod network;
mod partition;
mod rows;
mod shared_rows;

pub use causal::CausalDenoiser;
#[cfg(all(feature = "files", feature = "threads"))]
pub(crate) use causal::wrong_order;
#[cfg(all(feature = "files", feature = "threads"))]
pub(crate) use kept_rows::DEFAULT_CACHE_BYTES;
pub use mask_git::MaskGitDenoiser;
pub use masked::{HeadPositions, MaskedDenoiser};
pub use network::{NetworkHandle, SamplingPath, hidden_at, logits_at};
pub use partition::{FullDenoiser, PartitionDenoiser};

pub use crate::sample::logits::logit_chunks;
pub use crate::sample::{CleanRow, Denoiser};
