//! The operations of an optimiser on parameters and gradients. The tensors are outside the autodiff graph.

#[cfg(feature = "cube")]
pub(crate) mod cube;
#[cfg(feature = "flex")]
pub(crate) mod flex;
pub(crate) mod step;

#[cfg(feature = "fused")]
use burn::backend::Dispatch;
use burn::tensor::Tensor;

#[cfg(feature = "fused")]
use super::device::fused;
#[cfg(feature = "fused")]
use super::extension::fused_ops::FusedOps;
pub use step::AdamWStep;

/// One step of AdamW: the parameter and its two moments.
///
/// # Shapes
/// All tensors have the shape of the parameter.
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    [moment_1, moment_2]: [Tensor<D>; 2],
    step: AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    #[cfg(feature = "fused")]
    if fused!(parameter, gradient, moment_1, moment_2) {
        let (moment_1, moment_2) = (moment_1.into_dispatch(), moment_2.into_dispatch());
        let (parameter, moment_1, moment_2) =
            Dispatch::adamw(parameter.into_dispatch(), gradient.into_dispatch(), moment_1, moment_2, step);
        let [parameter, moment_1, moment_2] = [parameter, moment_1, moment_2].map(Tensor::from_dispatch);
        return (parameter, [moment_1, moment_2]);
    }
    let moment_1 = moment_1 * step.beta_1 + gradient.clone() * (1.0 - step.beta_1);
    let moment_2 = moment_2 * step.beta_2 + gradient.square() * (1.0 - step.beta_2);
    let [correction_1, correction_2] = step.bias_corrections();
    let update = (moment_1.clone() / correction_1) / ((moment_2.clone() / correction_2).sqrt() + step.epsilon);
    (parameter * (1.0 - step.rate * step.weight_decay) - update * step.rate, [moment_1, moment_2])
}

/// The sum of the squares of all elements.
///
/// # Shapes
/// any `-> [1]`
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    #[cfg(feature = "fused")]
    if fused!(x) {
        return Tensor::from_dispatch(Dispatch::sum_of_squares(x.into_dispatch()));
    }
    x.square().sum()
}

/// `x * factor` for one number.
///
/// # Shapes
/// x any, factor `[1] ->` the shape of x
pub fn scale<const D: usize>(x: Tensor<D>, factor: Tensor<1>) -> Tensor<D> {
    #[cfg(feature = "fused")]
    if fused!(x, factor) {
        return Tensor::from_dispatch(Dispatch::scale(x.into_dispatch(), factor.into_dispatch()));
    }
    x * factor.unsqueeze::<D>()
}

/// `x + weight * (y - x)`.
///
/// # Shapes
/// x and y of one shape, which is also the result's
pub fn lerp<const D: usize>(x: Tensor<D>, y: Tensor<D>, weight: f64) -> Tensor<D> {
    #[cfg(feature = "fused")]
    if fused!(x, y) {
        return Tensor::from_dispatch(Dispatch::lerp(x.into_dispatch(), y.into_dispatch(), weight as f32));
    }
    x.clone() + (y - x) * weight
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, FloatDType};

    use super::*;
    use crate::ops::testing::{Case, compare, devices, floats, numbers, tolerance};

    const STEP: AdamWStep =
        AdamWStep { rate: 0.1, beta_1: 0.9, beta_2: 0.99, epsilon: 1e-8, weight_decay: 0.02, number: 3 };

    #[test]
    fn the_fused_operations_equal_the_composed_ones() {
        let case = Case::new(12, &[&[70_001], &[70_001], &[70_001], &[70_001]], 1);
        let run = |device: &Device, dtype| {
            let device = device.clone().without_autodiff();
            let [parameter, gradient, first, second] =
                [0, 1, 2, 3].map(|index: usize| floats(&case.inputs[index].0, dtype, &device));
            let second = second.square();
            let before = parameter.clone();
            let (after, [first, second]) = adamw(parameter, gradient.clone(), [first, second], STEP);
            let factor = floats(&[0.3], dtype, &device);
            let between = lerp(after.clone(), gradient.clone(), 0.25);
            let sum = sum_of_squares(gradient.clone());
            [after, first, second, sum, scale(gradient, factor), between, before].map(numbers)
        };
        let composed = run(&Device::flex(), FloatDType::F64);
        for device in devices() {
            compare("optimiser", &device, &run(&device, FloatDType::F32), &composed, tolerance(&device, false));
        }
    }

    // Matrices as CUDA lays them out have gaps behind their rows, and a gradient may be transposed.
    #[test]
    fn adamw_takes_matrices_of_any_layout() {
        // A view of a wider matrix stays in that matrix's memory.
        let layouts = ["contiguous", "transposed gradient", "views of columns", "views of rows"];
        for (columns, layout) in [301, 384].into_iter().flat_map(|columns| layouts.map(|layout| (columns, layout))) {
            let rows = 37;
            let case = Case::new(16, &[&[2 * rows * columns], &[2 * rows * columns], &[2 * rows * columns]], 1);
            let run = |device: &Device, dtype| {
                let device = device.clone().without_autodiff();
                let matrix = |index: usize| {
                    let all = floats(&case.inputs[index].0, dtype, &device);
                    match layout {
                        "views of columns" => all.reshape([rows, 2 * columns]).narrow(1, columns, columns),
                        "views of rows" => all.reshape([2 * rows, columns]).narrow(0, rows, rows),
                        "transposed gradient" if index == 1 => {
                            all.reshape([2 * columns, rows]).narrow(0, 0, columns).swap_dims(0, 1)
                        }
                        _ => all.narrow(0, 0, rows * columns).reshape([rows, columns]),
                    }
                };
                let [parameter, gradient, first] = [0, 1, 2].map(matrix);
                let (second, before) = (matrix(2).square(), matrix(0));
                let (after, [first, second]) = adamw(parameter, gradient, [first, second], STEP);
                [after, first, second, before].map(numbers)
            };
            let composed = run(&Device::flex(), FloatDType::F64);
            for device in devices() {
                let found = run(&device, FloatDType::F32);
                compare(&format!("optimiser, {layout}"), &device, &found, &composed, tolerance(&device, false));
            }
        }
    }
}
