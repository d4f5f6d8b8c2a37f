//! Linear layers and matmul, for float32, half-precision and quantised weights.

#[cfg(all(feature = "fused", feature = "autodiff"))]
pub(crate) mod autodiff;
#[cfg(feature = "flex")]
pub(crate) mod flex;
#[cfg(feature = "flex")]
mod low_precision;

#[cfg(feature = "fused")]
use burn::backend::Dispatch;
use burn::nn::Linear;
#[cfg(all(feature = "fused", feature = "autodiff"))]
use burn::tensor::GradientCheckpointingStrategy;
use burn::tensor::{FloatDType, Tensor, module};

#[cfg(all(feature = "fused", feature = "autodiff"))]
use super::autodiff::with_recomputation;
#[cfg(feature = "fused")]
use super::device::fused;
use super::device::{is_flex, is_half, is_low_precision};
#[cfg(feature = "fused")]
use super::extension::fused_ops::FusedOps;

/// Inputs of an output that share a scale in a quantised weight.
pub(crate) const BLOCK: u8 = 32;

/// A linear layer, whose weight may be of lower precision than x (see [`weight_dtype`](crate::weight_dtype)).
///
/// # Shapes
/// `[.., in] -> [.., out]`
pub fn linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    let (weight, bias) = (layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()));
    if !is_low_precision(weight.dtype()) && !is_flex(&x.device()) {
        return module::linear(x, weight, bias);
    }
    let y = matmul(x, weight);
    match bias {
        Some(bias) => add_bias(y, bias),
        None => y,
    }
}

/// `y + bias` for y `[.., out]` and a bias `[out]`, into y's own memory on the CPU.
fn add_bias<const D: usize>(y: Tensor<D>, bias: Tensor<1>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if [y.dtype(), bias.dtype()] == [burn::tensor::DType::F32; 2] && is_flex(&y.device()) {
        return Tensor::from_dispatch(Dispatch::add_bias(y.into_dispatch(), bias.into_dispatch()));
    }
    y + bias.unsqueeze::<D>()
}

/// [`linear`] whose output is recomputed in the backward pass under gradient checkpointing: several layers over one x keep
/// nothing but x.
///
/// # Shapes
/// `[B, S, in] -> [B, S, out]`
pub fn recomputed_linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    #[cfg(all(feature = "fused", feature = "autodiff"))]
    if fused!(x) && x.device().gradient_checkpointing_strategy() == Some(GradientCheckpointingStrategy::Balanced) {
        let weight = with_recomputation(layer.weight.val()).into_dispatch();
        let y = Tensor::from_dispatch(Dispatch::recomputed_matmul(x.into_dispatch(), weight));
        return match &layer.bias {
            Some(bias) => add_bias(y, with_recomputation(bias.val())),
            None => y,
        };
    }
    linear(layer, x)
}

/// `x weight`. With a half-precision weight x is rounded to its type and the result is cast back.
///
/// # Shapes
/// x `[.., in]`, weight `[in, out] -> [.., out]`
pub fn matmul<const D: usize>(x: Tensor<D>, weight: Tensor<2>) -> Tensor<D> {
    let dtype = weight.dtype();
    #[cfg(feature = "flex")]
    if x.dtype() == burn::tensor::DType::F32 && dtype == burn::tensor::DType::F32 && is_flex(&x.device()) {
        return Tensor::from_dispatch(Dispatch::matmul(x.into_dispatch(), weight.into_dispatch()));
    }
    #[cfg(feature = "flex")]
    if is_low_precision(dtype) && is_flex(&x.device()) && !x.device().is_autodiff() {
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        return Tensor::from_dispatch(match is_half(dtype) {
            true => Dispatch::matmul_half(x, weight),
            false => Dispatch::matmul_quantised(x, weight, BLOCK.into()),
        });
    }
    if !is_half(dtype) {
        return module::linear(x, weight, None);
    }
    let (half, x_dtype): (FloatDType, FloatDType) = (dtype.into(), x.dtype().into());
    module::linear(x.cast(half), weight, None).cast(x_dtype)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::module::{Param, ParamId};
    use burn::tensor::Device;

    use super::*;
    use crate::ops::recomputed_norm;
    use crate::ops::testing::{Case, HALF, compare, devices, flat};

    #[test]
    fn matmul_equals_burns_own() {
        for [b, s, inputs, outputs] in [[1, 1, 1, 1], [2, 3, 5, 40], [3, 41, 67, 130], [1, 130, 300, 64]] {
            let case = Case::new(4, &[&[b, s, inputs], &[inputs, outputs]], b * s * outputs);
            case.check_matmul("matmul", &|_, x| {
                let [input, weight] = [x[0].clone(), x[1].clone()];
                flat(matmul(input.reshape([b, s, inputs]), weight.reshape([inputs, outputs])))
            });
        }
    }

    #[test]
    fn layers_equal_burns_own() {
        for [b, s, inputs, outputs] in [[1, 1, 1, 1], [2, 3, 5, 40], [3, 41, 67, 130], [2, 70, 30, 300]] {
            let case = Case::new(5, &[&[b, s, inputs], &[inputs, outputs], &[outputs]], b * s * outputs);
            case.check_matmul("layer", &|_, x| {
                let [input, weight, bias] = [x[0].clone(), x[1].clone(), x[2].clone()];
                let layer = Linear {
                    weight: Param::initialized(ParamId::new(), weight.reshape([inputs, outputs])),
                    bias: Some(Param::initialized(ParamId::new(), bias)),
                };
                flat(linear(&layer, input.reshape([b, s, inputs])))
            });
        }
    }

    // The sum is written into y, which another tensor may share.
    #[test]
    fn a_bias_changes_no_other_tensor() {
        let device = Device::flex();
        let y = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], &device);
        let shared = y.clone();
        let sum = add_bias(y, Tensor::from_data([10.0, 20.0], &device));
        assert_eq!(sum.into_data().try_to_vec::<f32>().unwrap(), [11.0, 22.0, 13.0, 24.0]);
        assert_eq!(shared.into_data().try_to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn recomputed_layers_equal_kept_ones() {
        for [b, s, inputs, outputs] in [[1, 1, 2, 3], [2, 41, 67, 130]] {
            let shapes: [&[usize]; 5] = [&[b, s, inputs], &[inputs], &[inputs], &[inputs, outputs], &[outputs]];
            let run = |half: Option<FloatDType>, normed: bool| {
                move |_: &Device, x: Vec<Tensor<1>>| {
                    let checkpointed = |index: usize| with_recomputation(x[index].clone());
                    let [input, weight, bias, layer, layer_bias] = std::array::from_fn(checkpointed);
                    let layer = layer.reshape([inputs, outputs]);
                    let layer = half.map_or(layer.clone(), |dtype| layer.cast(dtype));
                    let layer = Linear {
                        weight: Param::initialized(ParamId::new(), layer),
                        bias: Some(Param::initialized(ParamId::new(), layer_bias)),
                    };
                    // Every input needs a gradient, if a zero one.
                    let unused = (weight.clone().sum() + bias.clone().sum()) * 0.0;
                    let input = input.reshape([b, s, inputs]);
                    let input = if normed { recomputed_norm(input, [weight, bias]) } else { input };
                    let y = recomputed_linear(&layer, input);
                    // The gradient of the square needs the recomputed y.
                    let found = flat(y.clone() * y) + unused;
                    found.with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Disabled)
                }
            };
            let case = Case::new(17, &shapes, b * s * outputs);
            case.check_matmul("recomputed, with a norm", &run(None, true));
            case.check_matmul("recomputed", &run(None, false));
            let composed = case.composed(&run(None, true));
            for (device, dtype) in devices().into_iter().flat_map(|d| HALF.map(|dtype| (d.clone(), dtype))) {
                if device.supports_dtype(burn::tensor::DType::from(dtype)) {
                    let half = case.run(&device, FloatDType::F32, &run(Some(dtype), true));
                    compare(&format!("recomputed, {dtype:?}"), &device, &half, &composed, 2e-2);
                }
            }
        }
    }
}
