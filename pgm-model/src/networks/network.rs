//! Any of the networks behind one type, for code that trains, saves or samples them all.
// B batch, K positions, H hidden, V vocabulary

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::autoregressive::AutoregressiveTransformer;
use super::mask_git::MaskGit;
use super::masked::MaskedTransformer;
use super::partition::PartitionTransformer;
use crate::config::ModelConfig;

/// The Partition Transformer or one of its baselines.
#[allow(clippy::large_enum_variant)] // only one exists at a time, and a boxed variant is not a Burn module
#[derive(Module, Debug)]
pub enum Network {
    /// The Partition Transformer.
    Partition(PartitionTransformer),
    /// The masked baseline.
    Masked(MaskedTransformer),
    /// The autoregressive baseline.
    Autoregressive(AutoregressiveTransformer),
    /// The baseline for image codes.
    MaskGit(MaskGit),
}

impl Network {
    /// A new network. The configuration should have been [validated](ModelConfig::validate).
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        match config {
            ModelConfig::Partition(config) => Self::Partition(PartitionTransformer::new(config, device)),
            ModelConfig::Masked(config) => Self::Masked(MaskedTransformer::new(config, device)),
            ModelConfig::Autoregressive(config) => Self::Autoregressive(AutoregressiveTransformer::new(config, device)),
            ModelConfig::MaskGit(config) => Self::MaskGit(MaskGit::new(config, device)),
        }
    }

    /// The network with its token embedding multiplied by `factor`.
    ///
    /// # Panics
    /// For a MaskGIT, whose head has the weight of the embedding.
    pub fn with_scaled_embedding(mut self, factor: f32) -> Self {
        let embedding = match &mut self {
            Self::Partition(model) => &mut model.embedding,
            Self::Masked(model) => &mut model.embedding,
            Self::Autoregressive(model) => &mut model.embedding,
            Self::MaskGit(_) => panic!("a MaskGIT's embedding is its head, too"),
        };
        embedding.weight = Param::initialized(embedding.weight.id, embedding.weight.val() * factor);
        self
    }

    /// The network with every parameter uniform in [-bound, bound), drawn on the host.
    ///
    /// A new network gives every token the same logit, because its last layer is zero. Tests and benchmarks that draw
    /// tokens want other logits.
    pub fn with_noise(self, bound: f32, seed: u64) -> Self {
        struct Noise(StdRng, f32);
        impl ModuleMapper for Noise {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let (shape, device) = (param.lazy_shape(), param.lazy_device());
                let values: Vec<f32> =
                    (0..shape.num_elements()).map(|_| self.0.random_range(-self.1..self.1)).collect();
                Param::initialized(param.id, Tensor::from_data(TensorData::new(values, shape), &device))
            }
        }
        self.map(&mut Noise(StdRng::seed_from_u64(seed), bound))
    }

    /// The network for inference, see [`PartitionTransformer::folded`].
    pub fn folded(self) -> Self {
        match self {
            Self::Partition(model) => Self::Partition(model.folded()),
            Self::Masked(model) => Self::Masked(model.folded()),
            Self::Autoregressive(model) => Self::Autoregressive(model.folded()),
            // Its condition is not constant.
            Self::MaskGit(model) => Self::MaskGit(model),
        }
    }

    /// The head alone: logits of hidden states.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, V]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Partition(model) => model.logits(hidden),
            Self::Masked(model) => model.logits(hidden),
            Self::Autoregressive(model) => model.logits(hidden),
            Self::MaskGit(model) => model.logits(hidden),
        }
    }

    /// The number of trainable parameters.
    pub fn n_parameters(&self) -> usize {
        self.num_params()
    }
}
