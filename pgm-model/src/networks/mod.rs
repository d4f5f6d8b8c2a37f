//! The networks: the Partition Transformer, its baselines, and [`Network`] over them.

mod at_positions;
mod autoregressive;
mod cache;
mod embedding;
mod encoded;
mod encoded_row;
mod grown;
mod mask_git;
mod masked;
mod network;
mod partition;
mod partition_rows;

pub use autoregressive::AutoregressiveTransformer;
pub use cache::Cache;
pub use encoded::Encoded;
pub use encoded_row::{EncodedRow, NewTokens};
pub use mask_git::MaskGit;
pub use masked::MaskedTransformer;
pub use network::Network;
pub use partition::PartitionTransformer;
