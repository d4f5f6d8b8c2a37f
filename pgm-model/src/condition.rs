//! The condition that modulates every block (adaLN).
//!
//! Text models are conditioned on nothing: their condition is always the same vector, the embedding of time 0. So its effect
//! can be folded into the weights. A class label gives each row a vector of its own, which cannot be folded.
// B batch, S tokens of packed rows, c width of the condition

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::activation::silu;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};

use crate::ops::{self, is_half};
use crate::sequence::Class;

/// The condition of a network that is not folded.
#[allow(clippy::large_enum_variant)] // one or two exist at a time, and all are handles of tensors
#[derive(Clone, Debug)]
pub enum Condition {
    /// One vector for all rows of every call, `[c]`. Only this one can be folded into the weights.
    Constant(Tensor<1>),
    /// A vector for each row, such as the embedding of a class label, `[B, c]`.
    PerRow(Tensor<2>),
    /// A vector for each of several packed rows, `[B, c]`, and the row that each token belongs to, `[S]`.
    Packed(Tensor<2>, Tensor<1, Int>),
}

impl Condition {
    /// The condition of packed tokens whose rows are `labels`, `[1, S]`. Labels beyond the last row belong to no token.
    pub(crate) fn packed(&self, labels: &Tensor<2, Int>) -> Self {
        match self {
            Self::Constant(_) => self.clone(),
            Self::PerRow(vectors) | Self::Packed(vectors, _) => {
                let last_row = vectors.dims()[0].saturating_sub(1) as i32;
                let rows = labels.clone().clamp_max(last_row).reshape([labels.dims()[1]]);
                Self::Packed(vectors.clone(), rows)
            }
        }
    }
}

/// A new class embedding: a vector for each class, and the last for "no class", drawn from N(0, `std`^2).
pub(crate) fn class_embedding(n_classes: usize, width: usize, std: f64, device: &Device) -> Embedding {
    let initializer = Initializer::Normal { mean: 0.0, std };
    EmbeddingConfig::new(n_classes + 1, width).with_initializer(initializer).init(device)
}

/// The condition of rows with these classes; of rows without a class if `classes` is `None`.
///
/// # Panics
/// When a class is not known to the embedding, or the number of classes is not `n_rows`.
pub(crate) fn class_condition(embedding: &Embedding, classes: Option<&[Class]>, n_rows: usize) -> Condition {
    let no_class = embedding.weight.lazy_shape().dims::<2>()[0] - 1;
    let index: Vec<i32> = match classes {
        Some(classes) => classes.iter().map(|class| class.unwrap_or(no_class) as i32).collect(),
        None => vec![no_class as i32; n_rows],
    };
    assert_eq!(index.len(), n_rows, "every row has one class");
    assert!(index.iter().all(|&class| class as usize <= no_class), "classes are below {no_class}: {index:?}");
    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [n_rows]), &embedding.weight.lazy_device());
    let vectors = embedding.forward(index.unsqueeze_dim(0)).squeeze_dim::<2>(0); // [B, c]
    Condition::PerRow(if is_half(vectors.dtype()) { vectors.cast(FloatDType::F32) } else { vectors })
}

const N_FREQUENCIES: usize = 128;

/// SiLU(MLP(sinusoid(t))), the time embedding of the text models.
#[derive(Module, Debug)]
pub struct TimeEmbedding {
    input: Linear,
    output: Linear,
}

impl TimeEmbedding {
    /// A new embedding of width `cond_dim`.
    pub fn new(cond_dim: usize, device: &Device) -> Self {
        Self {
            input: LinearConfig::new(2 * N_FREQUENCIES, cond_dim).init(device),
            output: LinearConfig::new(cond_dim, cond_dim).init(device),
        }
    }

    /// The embedding of t = 0, `[c]`. Text models are never conditioned on another time.
    pub fn forward(&self) -> Tensor<1> {
        let device = self.input.weight.device();
        // cos(0 f) = 1 and sin(0 f) = 0 at every frequency.
        let mut sinusoid = vec![1.0_f32; 2 * N_FREQUENCIES];
        sinusoid[N_FREQUENCIES..].fill(0.0);
        let x: Tensor<2> = Tensor::from_data(TensorData::new(sinusoid, [1, 2 * N_FREQUENCIES]), &device);
        silu(ops::linear(&self.output, silu(ops::linear(&self.input, x)))).squeeze_dim(0) // [1, c] -> [c]
    }
}
