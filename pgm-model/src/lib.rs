//! Partition Generative Models on [Burn](burn): the networks, their objectives and their checkpoints.
//!
//! A sequence is split into two groups. Attention never crosses the groups except through one layer,
//! [`GroupSwap`](group_swap::GroupSwap), after which every position describes the *other* group; each group is
//! predicted from the other, and no mask token exists (Deschenaux, Tran and Gulcehre, ICLR 2026,
//! arXiv 2505.18883).
//!
//! There are two ways into [`PartitionTransformer`]: [`forward_partition`](PartitionTransformer::forward_partition)
//! trains, [`forward_clean`](PartitionTransformer::forward_clean) samples. They agree wherever both are defined.
//! [`MaskedTransformer`] is the masked-diffusion baseline (MDLM, arXiv 2406.07524) made of the same blocks, and
//! [`AutoregressiveTransformer`] the causal one.
//!
//! This crate knows no tokenizer, no sampler and no data set, draws no random number after initialisation but
//! dropout's, and
//! touches the disk only in [`model_folder`].

pub mod autoregressive;
pub mod block;
pub mod conditioning;
pub mod config;
mod error;
pub mod group_swap;
pub mod head;
pub mod import;
pub mod loss;
pub mod masked;
pub mod model_folder;
pub mod network;
pub mod ops;
mod parallel;
pub mod partition;
pub mod plan;
pub mod presets;
pub mod rotary;
pub mod visibility;
pub mod weight_dtype;

pub use autoregressive::AutoregressiveTransformer;
pub use config::{
    AutoregressiveConfig, BackboneConfig, MaskedConfig, ModelConfig, PartitionConfig, Projection, Queries,
};
pub use error::ModelError;
pub use head::LossTarget;
pub use masked::MaskedTransformer;
pub use network::Network;
pub use partition::{Encoded, PartitionTransformer};
pub use plan::{CleanTokens, PackedRows, Partition, Positions};
pub use weight_dtype::WeightDtype;
