//! GELU with the bias of the layer before it.

#[cfg(all(feature = "fused", feature = "autodiff"))]
pub(crate) mod autodiff;
#[cfg(feature = "cube")]
pub(crate) mod cube;
#[cfg(feature = "flex")]
pub(crate) mod flex;

#[cfg(feature = "fused")]
use burn::backend::Dispatch;
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

use super::constants::GELU;
#[cfg(feature = "fused")]
use super::device::fused;
#[cfg(feature = "fused")]
use super::extension::fused_ops::FusedOps;

/// `gelu(x + bias)` in the tanh form.
///
/// # Shapes
/// x `[B, S, H]`, bias `[H] -> [B, S, H]`
pub fn bias_gelu(x: Tensor<3>, bias: Tensor<1>) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, bias) {
        return Tensor::from_dispatch(Dispatch::bias_gelu(x.into_dispatch(), bias.into_dispatch()));
    }
    let x = x + bias.unsqueeze::<3>();
    let inner = x.clone() * x.clone() * GELU[1] + GELU[0];
    sigmoid(x.clone() * inner) * x
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, SHAPES, flat};

    #[test]
    fn the_fused_form_equals_the_composed_one() {
        for shape in SHAPES {
            let [b, s, h] = shape;
            Case::new(1, &[&shape, &[h]], b * s * h)
                .check("gelu", &|_, x| flat(bias_gelu(x[0].clone().reshape(shape), x[1].clone())));
        }
    }
}
