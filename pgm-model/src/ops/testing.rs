//! Helpers for the tests of the operations: fused operations in float32 against composed ones in float64.
#![allow(clippy::print_stdout)] // the differences, shown with --nocapture

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Both half-precision types.
pub(crate) const HALF: [FloatDType; 2] = [FloatDType::BF16, FloatDType::F16];
/// Shapes `[B, S, H]` of elementwise operations.
pub(crate) const SHAPES: [[usize; 3]; 4] = [[1, 1, 1], [2, 3, 5], [3, 41, 67], [1, 130, 256]];

/// The devices under test: Flex, and a GPU if its feature is on.
pub(crate) fn devices() -> Vec<Device> {
    vec![
        Device::flex().autodiff(),
        #[cfg(feature = "wgpu")]
        Device::wgpu(burn::tensor::DeviceKind::DefaultDevice).autodiff(),
        #[cfg(feature = "cuda")]
        Device::cuda(0).autodiff(),
    ]
}

/// How far float32 may be from float64. Float32 matmuls use tf32 on CUDA, with ten fraction bits.
pub(crate) fn tolerance(device: &Device, has_matmul: bool) -> f64 {
    if has_matmul && format!("{device:?}").contains("Cuda") { 3e-3 } else { 3e-6 }
}

/// Random inputs with their shapes, and the gradient of the output.
///
/// Each device gets the same numbers in float32, which is fused; Flex also gets them in float64, which is composed.
pub(crate) struct Case {
    pub(crate) inputs: Vec<(Vec<f64>, Vec<usize>)>,
    output_grad: Vec<f64>,
}

/// An operation on flattened inputs.
pub(crate) type Operation<'a> = &'a dyn Fn(&Device, Vec<Tensor<1>>) -> Tensor<1>;

impl Case {
    pub(crate) fn new(seed: u64, shapes: &[&[usize]], n_outputs: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut draw = |n: usize| (0..n).map(|_| f64::from(rng.random_range(-2.0_f32..2.0))).collect::<Vec<_>>();
        let inputs = shapes.iter().map(|shape| (draw(shape.iter().product()), shape.to_vec())).collect();
        Self { inputs, output_grad: draw(n_outputs) }
    }

    /// The output, then the gradient of each input.
    pub(crate) fn run(&self, device: &Device, dtype: FloatDType, f: Operation<'_>) -> Vec<Vec<f64>> {
        let tensor = |values: &[f64]| floats(values, dtype, device);
        let inputs: Vec<_> = self.inputs.iter().map(|(values, _)| tensor(values).require_grad()).collect();
        let out = f(device, inputs.clone());
        let gradients = (out.clone().cast(dtype) * tensor(&self.output_grad)).sum().backward();
        let gradients = inputs.iter().map(|input| numbers(input.grad(&gradients).expect("every input counts")));
        std::iter::once(numbers(out.inner())).chain(gradients).collect()
    }

    /// Compares every device with the composed operation.
    pub(crate) fn check(&self, what: &str, f: Operation<'_>) {
        self.check_within(what, false, f);
    }

    /// As [`check`](Self::check) for an operation with matmuls.
    pub(crate) fn check_matmul(&self, what: &str, f: Operation<'_>) {
        self.check_within(what, true, f);
    }

    fn check_within(&self, what: &str, has_matmul: bool, f: Operation<'_>) {
        let composed = self.composed(f);
        for device in devices() {
            let tolerance = tolerance(&device, has_matmul);
            compare(what, &device, &self.run(&device, FloatDType::F32, f), &composed, tolerance);
        }
    }

    /// The composed operation in float64, whose gradients are checked against finite differences.
    pub(crate) fn composed(&self, f: Operation<'_>) -> Vec<Vec<f64>> {
        const STEP: f64 = 1e-5;
        let run = |case: &Self| case.run(&Device::flex().autodiff(), FloatDType::F64, f);
        let composed = run(self);
        let mut rng = StdRng::seed_from_u64(21);
        for (index, gradient) in composed[1..].iter().enumerate() {
            let direction: Vec<f64> = gradient.iter().map(|_| rng.random_range(-1.0..1.0)).collect();
            let at = |step: f64| {
                let mut inputs = self.inputs.clone();
                inputs[index].0.iter_mut().zip(&direction).for_each(|(value, along)| *value += step * along);
                let moved = run(&Self { inputs, output_grad: self.output_grad.clone() });
                dot(&moved[0], &self.output_grad)
            };
            let (slope, expected) = ((at(STEP) - at(-STEP)) / (2.0 * STEP), dot(gradient, &direction));
            assert!((slope - expected).abs() < 1e-6 * expected.abs().max(1.0), "{index}: {slope} {expected}");
        }
        composed
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Compares an output and gradients with those of the composed operation.
pub(crate) fn compare(what: &str, device: &Device, fused: &[Vec<f64>], composed: &[Vec<f64>], tolerance: f64) {
    let backend = if device.clone().without_autodiff() == Device::flex() { "Flex" } else { "Cube" };
    for (index, (fused, composed)) in fused.iter().zip(composed).enumerate() {
        let largest = composed.iter().fold(1.0_f64, |largest, value| largest.max(value.abs()));
        let worst = fused.iter().zip(composed).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f64::max);
        println!("{backend}, {what}, {}: {worst:.1e}", if index == 0 { "value" } else { "gradient" });
        assert_eq!(fused.len(), composed.len(), "{what}, {index}");
        assert!(fused.iter().all(|value| value.is_finite()), "{backend}, {what}, {index}: not finite");
        assert!(worst < tolerance, "{backend}, {what}, {index}: {worst:e}");
    }
}

pub(crate) fn floats(values: &[f64], dtype: FloatDType, device: &Device) -> Tensor<1> {
    let options = (device, DType::from(dtype));
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), options)
}

pub(crate) fn labels(rows: &[&[i32]], device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = rows.concat();
    Tensor::from_data(TensorData::new(values, [rows.len(), rows[0].len()]), device)
}

pub(crate) fn flat(x: Tensor<3>) -> Tensor<1> {
    let n = x.shape().num_elements();
    x.reshape([n])
}

pub(crate) fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}
