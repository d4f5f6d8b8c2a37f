//! The conditioning vector that modulates every block (adaLN).
//!
//! The text models embed a time that is always 0. A class label would be another source of the same `[B, c]` vector;
//! the blocks only see the vector. Where it is the same for every row of every call, as in text sampling, what it does
//! is folded into the neighbouring weights once, and neither the vector nor the layers that read it are there any more.
//!
//! Shapes: B batch (1 where all rows share it), c conditioning width, H hidden.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, Linear, LinearConfig};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor, TensorData};

use crate::ops;

const N_FREQUENCIES: usize = 128;

/// SiLU(MLP(sinusoid(t))), section 2 of the paper's appendix on architectures.
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

    /// The condition at t = 0, `[1, c]`: neither text model is told the time.
    pub fn forward(&self) -> Tensor<2> {
        let device = self.input.weight.device();
        // cos(0 f) = 1 and sin(0 f) = 0 at every frequency.
        let mut sinusoid = vec![1.0_f32; 2 * N_FREQUENCIES];
        sinusoid[N_FREQUENCIES..].fill(0.0);
        let x = Tensor::from_data(TensorData::new(sinusoid, [1, 2 * N_FREQUENCIES]), &device);
        silu(ops::linear(&self.output, silu(ops::linear(&self.input, x))))
    }
}

/// A zero-initialised linear layer from the condition to `N` vectors of width H.
pub(crate) fn modulation(cond_dim: usize, width: usize, device: &Device) -> Linear {
    LinearConfig::new(cond_dim, width).with_initializer(Initializer::Zeros).init(device)
}

/// The `N` vectors, each `[B, 1, H]`, where they are not folded into the weights.
pub(crate) fn modulators<const N: usize>(
    layer: &Option<Linear>,
    condition: Option<&Tensor<2>>,
) -> [Option<Tensor<3>>; N] {
    let (Some(layer), Some(condition)) = (layer, condition) else { return [const { None }; N] };
    let all: Tensor<3> = ops::linear(layer, condition.clone()).unsqueeze_dim(1); // [B, 1, N H]
    let width = all.dims()[2] / N;
    std::array::from_fn(|index| Some(all.clone().narrow(2, index * width, width)))
}

/// `norm(x) (1 + scale) + shift`; shift and scale `[B or 1, 1, H]`.
pub(crate) fn modulated_norm(
    norm: &LayerNorm,
    x: Tensor<3>,
    shift: Option<Tensor<3>>,
    scale: Option<Tensor<3>>,
) -> Tensor<3> {
    match (modulated_affine(norm, &shift, &scale), shift, scale) {
        (Some([weight, bias]), ..) => ops::layer_norm(x, weight, bias),
        (None, Some(shift), Some(scale)) => plain_norm(norm, x) * (scale + 1.0) + shift,
        (None, ..) => plain_norm(norm, x),
    }
}

/// [`modulated_norm`], made again for the backward pass where all rows share what modulates.
pub(crate) fn recomputed_modulated_norm(
    norm: &LayerNorm,
    x: Tensor<3>,
    shift: Option<Tensor<3>>,
    scale: Option<Tensor<3>>,
) -> Tensor<3> {
    match modulated_affine(norm, &shift, &scale) {
        Some(affine) => ops::recomputed_norm(x, affine),
        None => modulated_norm(norm, x, shift, scale),
    }
}

// Weight and bias of a norm with what modulates it; absent where that differs from row to row.
fn modulated_affine(norm: &LayerNorm, shift: &Option<Tensor<3>>, scale: &Option<Tensor<3>>) -> Option<[Tensor<1>; 2]> {
    let (Some(shift), Some(scale)) = (shift, scale) else { return Some(affine(norm)) };
    Some([norm.gamma.val() * (vector(scale)? + 1.0), vector(shift)?])
}

/// The norm that does what [`modulated_norm`] does with these.
pub(crate) fn folded_norm(mut norm: LayerNorm, shift: Option<Tensor<3>>, scale: Option<Tensor<3>>) -> LayerNorm {
    if let (Some(shift), Some(scale)) = (shift.as_ref().and_then(vector), scale.as_ref().and_then(vector)) {
        norm.gamma = norm.gamma.map(|gamma| gamma * (scale + 1.0));
        norm.beta = Some(Param::from_tensor(shift));
    }
    norm
}

/// The layer whose output is the branch that [`gated_sum`] adds with this gate.
pub(crate) fn folded_gate(layer: Linear, gate: &Option<Tensor<3>>) -> Linear {
    match gate.as_ref().and_then(vector) {
        Some(gate) => Linear {
            weight: layer.weight.map(|weight| weight * gate.clone().unsqueeze()),
            bias: layer.bias.map(|bias| bias.map(|bias| bias * gate)),
        },
        None => layer,
    }
}

/// The norm alone.
pub(crate) fn plain_norm(norm: &LayerNorm, x: Tensor<3>) -> Tensor<3> {
    let [weight, bias] = affine(norm);
    ops::layer_norm(x, weight, bias)
}

/// The weight and the bias of a norm.
pub(crate) fn affine(norm: &LayerNorm) -> [Tensor<1>; 2] {
    let weight = norm.gamma.val();
    let bias = norm.beta.as_ref().map_or_else(|| weight.zeros_like(), |bias| bias.val());
    [weight, bias]
}

/// `x + branch gate`; gate `[B or 1, 1, H]`.
pub(crate) fn gated_sum(x: Tensor<3>, branch: Tensor<3>, gate: Option<Tensor<3>>) -> Tensor<3> {
    let Some(gate) = gate else { return x + branch };
    match vector(&gate) {
        Some(gate) => ops::gated_sum(x, branch, gate),
        None => x + branch * gate,
    }
}

// The one vector that all rows share.
fn vector(of_rows: &Tensor<3>) -> Option<Tensor<1>> {
    let [n_rows, _, width] = of_rows.dims();
    (n_rows == 1).then(|| of_rows.clone().reshape([width]))
}
