//! Layer norm with shift and scale.

#[cfg(feature = "fused")]
pub(crate) mod autodiff;
#[cfg(feature = "cube")]
pub(crate) mod cube;
#[cfg(feature = "flex")]
pub(crate) mod flex;
mod rms;

#[cfg(feature = "fused")]
use burn::backend::Dispatch;
use burn::tensor::{FloatDType, Tensor, module};

#[cfg(feature = "fused")]
use super::autodiff::with_recomputation;
use super::constants::EPSILON;
#[cfg(feature = "fused")]
use super::device::fused;
#[cfg(feature = "fused")]
use super::extension::fused_ops::FusedOps;
pub use rms::rms_norm;

/// `(x - mean) / sqrt(variance + 1e-5) * weight + bias` over the last dimension.
///
/// # Shapes
/// x `[B, S, H]`, weight and bias `[H] -> [B, S, H]`
pub fn layer_norm(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, weight, bias) {
        let (y, _moments) = Dispatch::affine_norm(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
        return Tensor::from_dispatch(y);
    }
    // Half precision cannot hold the sums.
    let dtype: FloatDType = x.dtype().into();
    let sum_dtype = if dtype == FloatDType::F64 { dtype } else { FloatDType::F32 };
    let [weight, bias] = [weight, bias].map(|vector| vector.cast(sum_dtype));
    module::layer_norm(x.cast(sum_dtype), weight, Some(bias), f64::from(EPSILON)).cast(dtype)
}

/// [`layer_norm`] whose output is recomputed in the backward pass instead of kept.
///
/// # Shapes
/// x `[B, S, H]`, weight and bias `[H] -> [B, S, H]`
pub fn recomputed_norm(x: Tensor<3>, [weight, bias]: [Tensor<1>; 2]) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, weight, bias)
        && let Some(strategy) = x.device().gradient_checkpointing_strategy()
    {
        let y = layer_norm(with_recomputation(x), with_recomputation(weight), with_recomputation(bias));
        return y.with_gradient_checkpointing_strategy(strategy);
    }
    layer_norm(x, weight, bias)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, SHAPES, flat};

    #[test]
    fn the_fused_form_equals_the_composed_one() {
        for shape in SHAPES.into_iter().filter(|[.., h]| *h > 1) {
            let [b, s, h] = shape;
            Case::new(2, &[&shape, &[h], &[h]], b * s * h)
                .check("norm", &|_, x| flat(layer_norm(x[0].clone().reshape(shape), x[1].clone(), x[2].clone())));
        }
    }
}
