//! Layer norm with shift and scale.

#[cfg(all(feature = "fused", feature = "autodiff"))]
pub(crate) mod autodiff;
#[cfg(feature = "cube")]
pub(crate) mod cube;
#[cfg(feature = "flex")]
pub(crate) mod flex;
mod rms;

#[cfg(feature = "fused")]
use burn::backend::Dispatch;
use burn::tensor::{FloatDType, Tensor, module};

#[cfg(all(feature = "fused", feature = "autodiff"))]
use super::autodiff::with_recomputation;
use super::constants::EPSILON;
#[cfg(feature = "fused")]
use super::device::fused;
#[cfg(feature = "fused")]
use super::extension::fused_ops::FusedOps;
pub use rms::{affine_rms_norm, rms_norm};

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

/// As [`layer_norm`], with a weight and a bias for each row of the batch, or for each position of a single row.
///
/// # Shapes
/// x `[B, S, H]`, weight and bias `[B, 1, H]` (or `[1, S, H]` where B is 1) `-> [B, S, H]`
pub fn layer_norm_per_row(x: Tensor<3>, [weight, bias]: [Tensor<3>; 2]) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, weight, bias) {
        let [weight, bias] = [weight, bias].map(|vectors| vectors.flatten::<2>(0, 1).into_dispatch()); // [B or S, H]
        let (y, _moments) = Dispatch::affine_norm(x.into_dispatch(), weight, bias);
        return Tensor::from_dispatch(y);
    }
    let width = x.dims()[2];
    let options = (&x.device(), x.dtype());
    layer_norm(x, Tensor::ones([width], options), Tensor::zeros([width], options)) * weight + bias
}

/// [`layer_norm`] whose output is recomputed in the backward pass instead of kept.
///
/// # Shapes
/// x `[B, S, H]`, weight and bias `[H] -> [B, S, H]`
pub fn recomputed_norm(x: Tensor<3>, [weight, bias]: [Tensor<1>; 2]) -> Tensor<3> {
    #[cfg(all(feature = "fused", feature = "autodiff"))]
    if fused!(x, weight, bias)
        && let Some(strategy) = x.device().gradient_checkpointing_strategy()
    {
        let y = layer_norm(with_recomputation(x), with_recomputation(weight), with_recomputation(bias));
        return y.with_gradient_checkpointing_strategy(strategy);
    }
    layer_norm(x, weight, bias)
}

/// [`layer_norm_per_row`] whose output is recomputed in the backward pass instead of kept.
///
/// # Shapes
/// As [`layer_norm_per_row`]
pub fn recomputed_norm_per_row(x: Tensor<3>, [weight, bias]: [Tensor<3>; 2]) -> Tensor<3> {
    #[cfg(all(feature = "fused", feature = "autodiff"))]
    if fused!(x, weight, bias)
        && let Some(strategy) = x.device().gradient_checkpointing_strategy()
    {
        let affine = [weight, bias].map(with_recomputation);
        return layer_norm_per_row(with_recomputation(x), affine).with_gradient_checkpointing_strategy(strategy);
    }
    layer_norm_per_row(x, [weight, bias])
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

    #[test]
    fn the_fused_form_with_vectors_for_each_row_equals_the_composed_one() {
        for shape in SHAPES.into_iter().filter(|[.., h]| *h > 1) {
            let [b, s, h] = shape;
            // Vectors for each row, and for each position of a single row.
            for (shape, vectors) in [(shape, [b, 1, h]), ([1, b * s, h], [1, b * s, h])] {
                let case = Case::new(6, &[&shape, &vectors, &vectors], b * s * h);
                let affine = |x: &[Tensor<1>]| [x[1].clone(), x[2].clone()].map(|vector| vector.reshape(vectors));
                case.check("norm per row", &|_, x| flat(layer_norm_per_row(x[0].clone().reshape(shape), affine(&x))));
                case.check("recomputed norm per row", &|_, x| {
                    flat(recomputed_norm_per_row(x[0].clone().reshape(shape), affine(&x)))
                });
            }
        }
    }

    #[test]
    fn rms_norm_in_its_fused_form_equals_the_composed_one() {
        for shape in SHAPES {
            let [b, s, h] = shape;
            Case::new(7, &[&shape], b * s * h).check("rms norm", &|_, x| flat(rms_norm(x[0].clone().reshape(shape))));
            for (shape, vectors) in [(shape, [1, 1, h]), (shape, [b, 1, h]), ([1, b * s, h], [1, b * s, h])] {
                Case::new(8, &[&shape, &vectors, &vectors], b * s * h).check("affine rms norm", &|_, x| {
                    let affine = [x[1].clone(), x[2].clone()].map(|vector| vector.reshape(vectors));
                    flat(affine_rms_norm(x[0].clone().reshape(shape), affine))
                });
            }
        }
    }
}
