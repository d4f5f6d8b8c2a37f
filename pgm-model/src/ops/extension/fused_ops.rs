//! The table of fused operations as a Burn backend extension.
//!
//! Flex, Cube and autodiff implement it; each implementation only forwards to the folder of the operation. A backward
//! pass is a method of its own, because `Autodiff<B>` reaches the inner backend only through the trait. Burn generates one
//! dispatch for each trait, so all operations are in one.

use burn::backend::tensor::{FloatTensor, IntTensor, QuantizedTensor};
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::FloatDType;
#[cfg(all(feature = "cube", feature = "fusion"))]
use burn::tensor::Shape;

#[cfg(all(feature = "cube", feature = "fusion"))]
use super::specs;
use crate::ops::attention::settings::AttentionSettings;
use crate::ops::device::is_half;
use crate::ops::optimizer::step::AdamWStep;

fn not_differentiable() -> ! {
    panic!("gradients of gradients are not defined for the fused operations")
}

/// The fused operations. Shapes are those of the public functions; `rows` are all dimensions but the last, flattened.
#[allow(missing_docs)]
#[cfg_attr(not(feature = "flex"), allow(dead_code))] // only Flex multiplies by low-precision weights here
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    Autodiff: cfg(feature = "autodiff"),
    Fusion: cfg(all(feature = "cube", feature = "fusion")),
)]
pub trait FusedOps: Backend {
    /// `x weight` in float32.
    #[fusion(default)]
    fn matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear(x, weight, None)
    }

    /// Gradient of x.
    #[fusion(default)]
    fn matmul_x_backward(weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear_x_backward(weight, grad)
    }

    /// Gradient of the weight.
    #[fusion(default)]
    fn matmul_weight_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear_weight_backward(x, grad)
    }

    /// `x weight` in the weight's type, which may be half precision, for float32 x. With checkpointing the result is
    /// recomputed in the backward pass.
    #[fusion(default)]
    fn recomputed_matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        match half_dtype::<Self>(&weight) {
            Some(half) => {
                let dtype = x.dtype().into();
                Self::float_cast(Self::linear(Self::float_cast(x, half), weight, None), dtype)
            }
            None => Self::matmul(x, weight),
        }
    }

    /// Gradient of x.
    #[fusion(default)]
    fn recomputed_matmul_x_backward(weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        match half_dtype::<Self>(&weight) {
            Some(half) => {
                let dtype = grad.dtype().into();
                Self::float_cast(Self::linear_x_backward(weight, Self::float_cast(grad, half)), dtype)
            }
            None => Self::matmul_x_backward(weight, grad),
        }
    }

    /// Gradient of the weight.
    #[fusion(default)]
    fn recomputed_matmul_weight_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        match half_dtype::<Self>(&weight) {
            Some(half) => {
                let [x, grad] = [x, grad].map(|tensor| Self::float_cast(tensor, half));
                Self::linear_weight_backward(x, grad)
            }
            None => Self::matmul_weight_backward(x, grad),
        }
    }

    /// `y + bias` for the bias of a layer.
    #[fusion(default)]
    fn add_bias(y: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let mut shape = y.shape();
        let width = shape.num_dims() - 1;
        shape[..width].fill(1);
        Self::float_add(y, Self::float_reshape(bias, shape))
    }

    /// Gradient of the bias; that of y is `grad` itself.
    #[fusion(default)]
    fn add_bias_backward(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear_bias_backward(grad)
    }

    /// `x weight` for float32 x and a half-precision weight, without a gradient.
    #[fusion(default)]
    fn matmul_half(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let _ = (x, weight);
        not_differentiable()
    }

    /// `x weight` for float32 x and a quantised weight, without a gradient; `block` inputs of an output share a scale.
    #[fusion(default)]
    fn matmul_quantised(x: FloatTensor<Self>, weight: QuantizedTensor<Self>, block: usize) -> FloatTensor<Self> {
        let _ = (x, weight, block);
        not_differentiable()
    }

    /// `gelu(x + bias)`.
    #[fusion(dtype = x, shape = x)]
    fn bias_gelu(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of x and the bias.
    #[fusion(meta = |x, bias, _| (x.clone(), bias.clone()))]
    fn bias_gelu_backward(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (x, bias, grad);
        not_differentiable()
    }

    /// The normalised rows, then mean and reciprocal standard deviation of each row, `[rows, 2]`, without a gradient.
    #[fusion(meta = |x, _, _| (x.clone(), specs::moments(x)))]
    fn affine_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of x, weight and bias.
    #[fusion(meta = |x, weight, _, _| (x.clone(), weight.clone(), weight.clone()))]
    fn affine_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (x, weight, moments, grad);
        not_differentiable()
    }

    /// As `affine_norm` without a mean: RMSNorm.
    #[fusion(meta = |x, _, _| (x.clone(), specs::moments(x)))]
    fn affine_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of x, weight and bias.
    #[fusion(meta = |x, weight, _, _| (x.clone(), weight.clone(), weight.clone()))]
    fn affine_rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (x, weight, moments, grad);
        not_differentiable()
    }

    /// `x + gate * branch`.
    #[fusion(dtype = x, shape = x)]
    fn gated_sum(x: FloatTensor<Self>, branch: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of branch and gate; the gradient of x is `grad` itself.
    #[fusion(meta = |branch, gate, _| (branch.clone(), gate.clone()))]
    fn gated_sum_backward(
        branch: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (branch, gate, grad);
        not_differentiable()
    }

    /// Labels `[B, S]` in the form that attention reads; computed once for all layers.
    #[fusion(meta = |labels| specs::sorted(labels))]
    fn sorted_by_label(labels: IntTensor<Self>) -> IntTensor<Self>;

    /// Self-attention with sorted labels: the output, then the log-sum-exp of each query's scores, `[B, h, S]`, without a
    /// gradient.
    #[fusion(meta = |qkv, _, _, settings| specs::attention(qkv, 3, settings.n_heads))]
    fn self_attention(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradient of qkv.
    #[fusion(dtype = qkv, shape = qkv)]
    #[allow(clippy::too_many_arguments)]
    fn self_attention_backward(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let _ = (qkv, angles, labels, out, lse, grad, settings);
        not_differentiable()
    }

    /// Cross-attention with sorted labels: the output, then the log-sum-exp of each query's scores, `[B, h, Q]`, without
    /// a gradient.
    #[fusion(meta = |q, _, _, _, _, _, settings| specs::attention(q, 1, settings.n_heads))]
    #[allow(clippy::too_many_arguments)]
    fn cross_attention(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        q_angles: FloatTensor<Self>,
        k_angles: FloatTensor<Self>,
        q_labels: IntTensor<Self>,
        k_labels: IntTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of q and kv.
    #[fusion(meta = |q, kv, _, _, _, _, _, _, _, _| (q.clone(), kv.clone()))]
    #[allow(clippy::too_many_arguments)]
    fn cross_attention_backward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        q_angles: FloatTensor<Self>,
        k_angles: FloatTensor<Self>,
        q_labels: IntTensor<Self>,
        k_labels: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (q, kv, q_angles, k_angles, q_labels, k_labels, out, lse, grad, settings);
        not_differentiable()
    }

    /// The weighted sum of the cross-entropies, `[1]`.
    #[fusion(dtype = x, shape = Shape::new([1]))]
    fn linear_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        excluded_class: usize,
    ) -> FloatTensor<Self>;

    /// The weighted sum with its gradients of x, w and b. The backward pass only scales them by one number, so the
    /// logits are computed once.
    #[fusion(meta = |x, w, b, _, _, _| (specs::number(x), x.clone(), w.clone(), b.clone()))]
    fn linear_cross_entropy_with_gradients(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        excluded_class: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (x, w, b, targets, weights, excluded_class);
        not_differentiable()
    }

    /// One step of AdamW: the parameter and its two moments, updated in place where no other tensor shares their memory.
    #[fusion(meta = |parameter, _, moment_1, moment_2, _| (parameter.clone(), moment_1.clone(), moment_2.clone()))]
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (parameter, gradient, moment_1, moment_2, step);
        not_differentiable()
    }

    /// The sum of squares, `[1]`.
    #[fusion(default)]
    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_sum(Self::float_mul(x.clone(), x))
    }

    /// `x * factor` for one number `[1]`.
    #[fusion(default)]
    fn scale(x: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        scale_by::<Self>(x, factor)
    }

    /// `x + weight * (y - x)`.
    #[fusion(default)]
    fn lerp(x: FloatTensor<Self>, y: FloatTensor<Self>, weight: f32) -> FloatTensor<Self> {
        Self::float_add(x.clone(), Self::float_mul_scalar(Self::float_sub(y, x), weight.into()))
    }
}

// The type of a half-precision weight.
fn half_dtype<B: Backend>(weight: &FloatTensor<B>) -> Option<FloatDType> {
    is_half(weight.dtype()).then(|| weight.dtype().into())
}

/// `x * factor` for one number `[1]`, in the type of x.
pub(crate) fn scale_by<B: Backend>(x: FloatTensor<B>, factor: FloatTensor<B>) -> FloatTensor<B> {
    let ones = vec![1; x.shape().num_dims()];
    let factor = if factor.dtype() == x.dtype() { factor } else { B::float_cast(factor, x.dtype().into()) };
    B::float_mul(x, B::float_reshape(factor, ones.into()))
}
