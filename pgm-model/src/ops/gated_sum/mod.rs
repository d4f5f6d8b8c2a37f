//! The residual sum with a gate for each channel.

#[cfg(all(feature = "fused", feature = "autodiff"))]
pub(crate) mod autodiff;
#[cfg(feature = "cube")]
pub(crate) mod cube;
#[cfg(feature = "flex")]
pub(crate) mod flex;

#[cfg(feature = "fused")]
use burn::backend::Dispatch;
use burn::tensor::Tensor;

#[cfg(feature = "fused")]
use super::device::fused;
#[cfg(feature = "fused")]
use super::extension::fused_ops::FusedOps;

/// `x + gate * branch`.
///
/// # Shapes
/// x and branch `[B, S, H]`, gate `[H] -> [B, S, H]`
pub fn gated_sum(x: Tensor<3>, branch: Tensor<3>, gate: Tensor<1>) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, branch, gate) {
        let (x, branch, gate) = (x.into_dispatch(), branch.into_dispatch(), gate.into_dispatch());
        return Tensor::from_dispatch(Dispatch::gated_sum(x, branch, gate));
    }
    x + branch * gate.unsqueeze::<3>()
}

/// As [`gated_sum`], with a gate for each row of the batch, or for each position of a single row.
///
/// # Shapes
/// x and branch `[B, S, H]`, gate `[B, 1, H]` (or `[1, S, H]` where B is 1) `-> [B, S, H]`
pub fn gated_sum_per_row(x: Tensor<3>, branch: Tensor<3>, gate: Tensor<3>) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, branch, gate) {
        let gate = gate.flatten::<2>(0, 1).into_dispatch(); // [B or S, H]
        return Tensor::from_dispatch(Dispatch::gated_sum(x.into_dispatch(), branch.into_dispatch(), gate));
    }
    x + branch * gate
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::ops::testing::{Case, SHAPES, flat};

    #[test]
    fn the_fused_form_equals_the_composed_one() {
        for shape in SHAPES {
            let [b, s, h] = shape;
            Case::new(3, &[&shape, &shape, &[h]], b * s * h).check("gated sum", &|_, x| {
                flat(gated_sum(x[0].clone().reshape(shape), x[1].clone().reshape(shape), x[2].clone()))
            });
        }
    }

    #[test]
    fn the_fused_form_with_a_gate_for_each_row_equals_the_composed_one() {
        for shape in SHAPES {
            let [b, s, h] = shape;
            // A gate for each row, and one for each position of a single row.
            for (shape, gates) in [(shape, [b, 1, h]), ([1, b * s, h], [1, b * s, h])] {
                Case::new(5, &[&shape, &shape, &gates], b * s * h).check("gated sum per row", &|_, x| {
                    let [a, branch] = [x[0].clone(), x[1].clone()].map(|x| x.reshape(shape));
                    flat(gated_sum_per_row(a, branch, x[2].clone().reshape(gates)))
                });
            }
        }
    }
}
