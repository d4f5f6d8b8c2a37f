//! The cross-entropy of logits, and of a linear layer whose logits are never held as a whole.
//!
//! One class, the mask, is excluded: it has no probability and is never a target.

#[cfg(all(feature = "fused", feature = "autodiff"))]
pub(crate) mod autodiff;
#[cfg(feature = "cube")]
pub(crate) mod cube;
#[cfg(feature = "flex")]
pub(crate) mod flex;

#[cfg(feature = "fused")]
use burn::backend::Dispatch;
#[cfg(feature = "fused")]
use burn::tensor::DType;
use burn::tensor::activation::log_softmax;
use burn::tensor::{FloatDType, Int, Tensor};

use super::device::is_half;
#[cfg(feature = "fused")]
use super::device::{fused, is_flex};
#[cfg(feature = "fused")]
use super::extension::fused_ops::FusedOps;
use super::matmul::matmul;

/// [`weighted_loss`] of the logits `x w + b`, in nats. With a half-precision w the matmuls run in half
/// precision; the loss stays in float32.
///
/// # Shapes
/// x `[N, H]`, w `[H, V]`, b `[V]`, targets and weights `[N] -> [1]`
pub fn linear_cross_entropy(
    x: Tensor<2>,
    w: Tensor<2>,
    b: Tensor<1>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    excluded_class: usize,
) -> Tensor<1> {
    #[cfg(feature = "fused")]
    if fused!(x, b, weights) && (w.dtype() == DType::F32 || is_half(w.dtype())) {
        // Half-precision matmuls are no faster on Flex.
        let w = if is_flex(&w.device()) { w.cast(FloatDType::F32) } else { w };
        let (x, w, b) = (x.into_dispatch(), w.into_dispatch(), b.into_dispatch());
        let (targets, weights) = (targets.into_dispatch(), weights.into_dispatch());
        return Tensor::from_dispatch(Dispatch::linear_cross_entropy(x, w, b, targets, weights, excluded_class));
    }
    let logits = matmul(x, w) + b.unsqueeze::<2>();
    let dtype = if is_half(logits.dtype()) { FloatDType::F32 } else { logits.dtype().into() };
    weighted_loss(logits.unsqueeze(), targets.unsqueeze(), weights.cast(dtype).unsqueeze(), excluded_class)
}

/// Cross-entropy of each token in nats, without the excluded class; float32 for half-precision logits, too.
///
/// # Shapes
/// logits `[B, L, V]`, targets `[B, L] -> [B, L]`
pub fn token_cross_entropy(logits: Tensor<3>, targets: Tensor<2, Int>, excluded_class: usize) -> Tensor<2> {
    let n_classes = logits.dims()[2];
    let column = Tensor::<1, Int>::arange(0..n_classes as i64, &logits.device());
    let is_excluded = column.equal_elem(excluded_class as i64).unsqueeze::<3>();
    let logits = if is_half(logits.dtype()) { logits.cast(FloatDType::F32) } else { logits };
    // Finite rather than -inf: exp gives the same 0, and no gradient becomes NaN.
    let logits = logits.clone().mask_fill(is_excluded.expand(logits.dims()), -1e30);
    let log_probabilities = log_softmax(logits, 2);
    log_probabilities.gather(2, targets.unsqueeze_dim(2)).squeeze_dim::<2>(2).neg()
}

/// The weighted sum of cross-entropies. The weights hold everything else: `w(t)`, the factor 1/2, validity, and the
/// division by the number of valid tokens of the whole optimiser batch.
///
/// # Shapes
/// logits `[B, L, V]`, targets and weights `[B, L] -> [1]`
pub fn weighted_loss(
    logits: Tensor<3>,
    targets: Tensor<2, Int>,
    weights: Tensor<2>,
    excluded_class: usize,
) -> Tensor<1> {
    (token_cross_entropy(logits, targets, excluded_class) * weights).sum()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{DType, Device, TensorData};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::ops::testing::{Case, HALF, compare, devices, floats};

    #[test]
    fn the_fused_loss_equals_the_loss_of_the_logits() {
        for [n, h, v] in [[1, 1, 2], [5, 3, 70], [67, 20, 513]] {
            let mut rng = StdRng::seed_from_u64(10);
            let (mut targets, mut weights) = (Vec::new(), Vec::new());
            for row in 0..n {
                targets.push(rng.random_range(0..v as i32 - 1));
                weights.push(if row % 5 == 3 { 0.0 } else { rng.random_range(0.01..9.0_f64) });
            }
            let case = Case::new(11, &[&[n, h], &[h, v], &[v]], 1);
            case.check_matmul(&format!("cross-entropy {n} {h} {v}"), &|device, x| {
                let targets = Tensor::<1, Int>::from_data(TensorData::new(targets.clone(), [n]), device);
                let (w, dtype): (_, FloatDType) = (x[1].clone().reshape([h, v]), x[0].dtype().into());
                let weights = floats(&weights, dtype, device);
                linear_cross_entropy(x[0].clone().reshape([n, h]), w, x[2].clone(), targets, weights, v - 1)
            });
        }
    }

    // As training with `precision = "bf16"` calls it; WGSL has no bfloat16.
    #[test]
    fn a_half_precision_weight_gives_the_loss_of_float32() {
        let [n, h, v] = [70, 33, 301];
        let (targets, weights) = (vec![7_i32; n], vec![0.5; n]);
        let case = Case::new(13, &[&[n, h], &[h, v], &[v]], 1);
        let loss = |half: Option<FloatDType>| {
            let (targets, weights) = (targets.clone(), weights.clone());
            move |device: &Device, x: Vec<Tensor<1>>| {
                let targets = Tensor::<1, Int>::from_data(TensorData::new(targets.clone(), [n]), device);
                let w = x[1].clone().reshape([h, v]);
                let w = half.map_or(w.clone(), |dtype| w.cast(dtype));
                let weights = floats(&weights, x[0].dtype().into(), device);
                linear_cross_entropy(x[0].clone().reshape([n, h]), w, x[2].clone(), targets, weights, v - 1)
            }
        };
        let composed = case.composed(&loss(None));
        for device in devices() {
            for dtype in HALF {
                if device.supports_dtype(DType::from(dtype)) {
                    let half = case.run(&device, FloatDType::F32, &loss(Some(dtype)));
                    compare(&format!("cross-entropy, {dtype:?}"), &device, &half, &composed, 2e-2);
                }
            }
        }
    }
}
