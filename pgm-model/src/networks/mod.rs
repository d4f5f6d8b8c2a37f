//! The networks: the Partition Transformer, its two baselines, and [`Network`] over them.

mod autoregressive;
mod cache;
mod embedding;
mod encoded;
mod masked;
mod network;
mod partition;

pub use autoregressive::AutoregressiveTransformer;
pub use cache::Cache;
pub use encoded::Encoded;
pub use masked::MaskedTransformer;
pub use network::Network;
pub use partition::PartitionTransformer;
