//! Partition Generative Models on [Burn](burn): the networks, their objectives and their model folders.
//!
//! A sequence is split into two groups. Attention never crosses the groups except in one layer, the
//! [`GroupSwap`](layers::GroupSwap), after which every position describes the *other* group. So each group is predicted
//! from the other. The network never reads a mask token (Deschenaux, Tran and Gulcehre, ICLR 2026, arXiv 2505.18883).
//!
//! [`PartitionTransformer`] has two ways in: [`forward_partition`](PartitionTransformer::forward_partition) trains,
//! [`forward_clean`](PartitionTransformer::forward_clean) samples. They agree wherever both are defined.
//! [`MaskedTransformer`] is the masked-diffusion baseline (MDLM, arXiv 2406.07524) made of the same blocks, and
//! [`AutoregressiveTransformer`] the causal one. Models of image codes are class-conditional; their baseline is [`MaskGit`].
//!
//! This crate knows no tokenizer, no sampler and no data set. After initialisation the only random numbers are dropout's,
//! from the device's generator. Only [`model_folder`], [`codec`] and `import` touch the disk, with the feature
//! `files`.

pub mod attention_plan;
pub mod codec;
pub mod condition;
pub mod config;
pub mod convert;
pub mod error;
pub mod import;
pub mod layers;
pub mod loss;
pub mod model_folder;
pub mod networks;
pub mod ops;
mod parallel;
pub mod presets;
pub mod rotary;
pub mod sequence;
pub mod visibility;
pub mod weight_dtype;

pub use attention_plan::AttentionPlan;
pub use condition::Condition;
pub use config::{
    AutoregressiveConfig, BackboneConfig, ImageConfig, MaskGitConfig, MaskedConfig, ModelConfig, PartitionConfig,
    Projection, Queries, Sets,
};
pub use error::ModelError;
pub use layers::LossTarget;
pub use networks::{
    AutoregressiveTransformer, Cache, Encoded, EncodedRow, MaskGit, MaskedTransformer, Network, NewTokens,
    PartitionTransformer,
};
pub use sequence::{Class, CleanTokens, PackedRows, Partition, Positions};
pub use weight_dtype::WeightDtype;
