//! adaLN: the condition becomes the shifts and scales of norms, and the gates of branches.
//!
//! Shift and scale are the bias and weight of the norm, and one fused operation computes both, whether all rows share the
//! condition or each has its own. (On GPUs, operations on rows with conditions of their own are composed of Burn's.)
// B batch, S positions, c width of the condition, H hidden

use burn::module::{Initializer, Param};
use burn::nn::{LayerNorm, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::norm::{affine, plain_norm};
use crate::condition::Condition;
use crate::ops;

/// A zero-initialised linear layer from the condition to vectors of `width` numbers in all.
pub(crate) fn modulation(cond_dim: usize, width: usize, device: &Device) -> Linear {
    LinearConfig::new(cond_dim, width).with_initializer(Initializer::Zeros).init(device)
}

/// `N` vectors of width H that a [`modulation`] layer computes from the condition.
#[derive(Clone, Debug)]
pub(crate) enum Modulation<const N: usize> {
    /// None: their effect is folded into the weights.
    Folded,
    /// For all rows, `[H]` each.
    Constant([Tensor<1>; N]),
    /// For each row, `[B, 1, H]` each, or for each token of packed rows, `[1, S, H]` each.
    PerRow([Tensor<3>; N]),
}

/// Shift and scale of a norm.
pub(crate) type ShiftScale = Modulation<2>;
/// The gate of a branch.
pub(crate) type Gate = Modulation<1>;

impl<const N: usize> Modulation<N> {
    /// The vectors; [`Folded`](Self::Folded) if the block has no modulation layer or the network no condition. Folding
    /// removes both.
    pub(crate) fn new(layer: &Option<Linear>, condition: Option<&Condition>) -> Self {
        debug_assert!(layer.is_some() || condition.is_none(), "a folded block has no condition");
        let (Some(layer), Some(condition)) = (layer, condition) else { return Self::Folded };
        match condition {
            Condition::Constant(condition) => Self::Constant(constant_vectors(layer, condition)),
            Condition::PerRow(condition) => {
                Self::per_row(ops::linear(layer, condition.clone()).unsqueeze_dim(1)) // [B, 1, N H]
            }
            Condition::Packed(condition, rows) => {
                let all = ops::linear(layer, condition.clone()).select(0, rows.clone()); // [S, N H]
                Self::per_row(all.unsqueeze_dim(0))
            }
        }
    }

    // Vectors that lie side by side, [B, 1, N H] or [1, S, N H].
    fn per_row(all: Tensor<3>) -> Self {
        let width = all.dims()[2] / N;
        Self::PerRow(std::array::from_fn(|index| all.clone().narrow(2, index * width, width)))
    }

    // Some of the vectors.
    fn select<const M: usize>(&self, indices: [usize; M]) -> Modulation<M> {
        match self {
            Self::Folded => Modulation::Folded,
            Self::Constant(vectors) => Modulation::Constant(indices.map(|index| vectors[index].clone())),
            Self::PerRow(vectors) => Modulation::PerRow(indices.map(|index| vectors[index].clone())),
        }
    }
}

/// The vectors of a condition that all rows share, `[c] -> [H]` each.
pub(crate) fn constant_vectors<const N: usize>(layer: &Linear, condition: &Tensor<1>) -> [Tensor<1>; N] {
    let all = ops::linear(layer, condition.clone().unsqueeze::<2>()).squeeze_dim::<1>(0); // [N H]
    let width = all.dims()[0] / N;
    std::array::from_fn(|index| all.clone().narrow(0, index * width, width))
}

/// The vectors that modulate a block, in the published order: shift, scale and gate of attention, then of the
/// feed-forward layer.
pub(crate) struct BlockModulation {
    pub(crate) attention: (ShiftScale, Gate),
    pub(crate) feed_forward: (ShiftScale, Gate),
}

impl BlockModulation {
    /// Number of vectors.
    pub(crate) const N: usize = 6;

    pub(crate) fn new(layer: &Option<Linear>, condition: Option<&Condition>) -> Self {
        let all = Modulation::<{ Self::N }>::new(layer, condition);
        Self { attention: (all.select([0, 1]), all.select([2])), feed_forward: (all.select([3, 4]), all.select([5])) }
    }
}

impl ShiftScale {
    /// `norm(x) * (1 + scale) + shift`.
    ///
    /// # Shapes
    /// `[B, S, H] -> [B, S, H]`
    pub(crate) fn norm(self, norm: &LayerNorm, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Folded => plain_norm(norm, x),
            Self::Constant(vectors) => {
                let [weight, bias] = modulated_affine(norm, vectors);
                ops::layer_norm(x, weight, bias)
            }
            Self::PerRow(vectors) => ops::layer_norm_per_row(x, affine_per_row(norm, vectors)),
        }
    }

    /// Shift and scale, `[1, 1, H]`, `[B, 1, H]` or `[1, S, H]` each; none if they are folded.
    pub(crate) fn vectors(self) -> Option<[Tensor<3>; 2]> {
        match self {
            Self::Folded => None,
            Self::Constant(vectors) => Some(vectors.map(|vector| vector.unsqueeze::<3>())),
            Self::PerRow(vectors) => Some(vectors),
        }
    }

    /// As [`norm`](Self::norm), recomputed in the backward pass.
    pub(crate) fn recomputed_norm(self, norm: &LayerNorm, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Folded => ops::recomputed_norm(x, affine(norm)),
            Self::Constant(vectors) => ops::recomputed_norm(x, modulated_affine(norm, vectors)),
            Self::PerRow(vectors) => ops::recomputed_norm_per_row(x, affine_per_row(norm, vectors)),
        }
    }
}

fn modulated_affine(norm: &LayerNorm, [shift, scale]: [Tensor<1>; 2]) -> [Tensor<1>; 2] {
    [norm.gamma.val() * (scale + 1.0), shift]
}

fn affine_per_row(norm: &LayerNorm, [shift, scale]: [Tensor<3>; 2]) -> [Tensor<3>; 2] {
    [(scale + 1.0) * norm.gamma.val().unsqueeze::<3>(), shift]
}

impl Gate {
    /// `x + gate * branch`.
    ///
    /// # Shapes
    /// `[B, S, H], [B, S, H] -> [B, S, H]`
    pub(crate) fn gated_sum(self, x: Tensor<3>, branch: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Folded => x + branch,
            Self::Constant([gate]) => ops::gated_sum(x, branch, gate),
            Self::PerRow([gate]) => ops::gated_sum_per_row(x, branch, gate),
        }
    }
}

/// `norm` with shift and scale folded in: `norm(x) * (1 + scale) + shift`.
pub(crate) fn folded_norm(mut norm: LayerNorm, [shift, scale]: [Tensor<1>; 2]) -> LayerNorm {
    norm.gamma = norm.gamma.map(|gamma| gamma * (scale + 1.0));
    norm.beta = Some(Param::from_tensor(shift));
    norm
}

/// `layer` with the gate folded in: `gate * layer(x)`.
pub(crate) fn folded_gate(layer: Linear, gate: Tensor<1>) -> Linear {
    Linear {
        weight: layer.weight.map(|weight| weight * gate.clone().unsqueeze()),
        bias: layer.bias.map(|bias| bias.map(|bias| bias * gate)),
    }
}
