//! The condition that modulates every block (adaLN).
//!
//! Text models are conditioned on nothing: their condition is always the same vector, the embedding of time 0. So its effect
//! can be folded into the weights. A class label gives each row a vector of its own, which cannot be folded.
// B batch, c width of the condition

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor, TensorData};

use crate::ops;

/// The condition of a network that is not folded.
#[derive(Clone, Debug)]
pub enum Condition {
    /// One vector for all rows of every call, `[c]`. Only this one can be folded into the weights.
    Constant(Tensor<1>),
    /// A vector for each row, such as the embedding of a class label, `[B, c]`.
    PerRow(Tensor<2>),
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
