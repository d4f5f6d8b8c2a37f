//! Any of the networks behind one type, for code that trains, stores or samples them all.

use burn::module::Module;
use burn::tensor::Device;

use crate::{AutoregressiveTransformer, MaskedTransformer, ModelConfig, PartitionTransformer};

/// A Partition Transformer or one of its baselines.
#[allow(clippy::large_enum_variant)] // one of them exists at a time, and a boxed variant is no Burn module
#[derive(Module, Debug)]
pub enum Network {
    /// The Partition Transformer.
    Partition(PartitionTransformer),
    /// The masked baseline.
    Masked(MaskedTransformer),
    /// The autoregressive baseline.
    Autoregressive(AutoregressiveTransformer),
}

impl Network {
    /// A new network of that configuration, which should have been [validated](ModelConfig::validate).
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        match config {
            ModelConfig::Partition(config) => Self::Partition(PartitionTransformer::new(config, device)),
            ModelConfig::Masked(config) => Self::Masked(MaskedTransformer::new(config, device)),
            ModelConfig::Autoregressive(config) => Self::Autoregressive(AutoregressiveTransformer::new(config, device)),
        }
    }

    /// Trainable numbers in all.
    pub fn n_parameters(&self) -> usize {
        self.num_params()
    }
}
