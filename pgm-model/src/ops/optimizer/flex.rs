//! The optimiser's operations on the CPU.

use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::step::AdamWStep;
use crate::ops::flex::math;
use crate::ops::flex::simd::{fma, for_each_instruction_set};
use crate::ops::flex::tensor::{owned, tensor, values};
use crate::parallel::prelude::*;

/// Numbers of one task.
const CHUNK: usize = 1 << 16;

pub(crate) fn adamw(
    parameter: FlexTensor,
    gradient: FlexTensor,
    moment_1: FlexTensor,
    moment_2: FlexTensor,
    step: AdamWStep,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let [mut parameter, mut moment_1, mut moment_2] = [parameter, moment_1, moment_2].map(owned);
    let gradient = gradient.to_contiguous();
    let parameters = parameter.storage_mut::<f32>().par_chunks_mut(CHUNK);
    let moments = moment_1.storage_mut::<f32>().par_chunks_mut(CHUNK);
    let moments = moments.zip(moment_2.storage_mut::<f32>().par_chunks_mut(CHUNK));
    parameters.zip(values(&gradient).par_chunks(CHUNK)).zip(moments).for_each(
        |((parameters, gradients), (moments_1, moments_2))| {
            adamw_in_place(parameters, gradients, moments_1, moments_2, step);
        },
    );
    (parameter, moment_1, moment_2)
}

pub(crate) fn sum_of_squares(x: FlexTensor) -> FlexTensor {
    let x = x.to_contiguous();
    let sums: Vec<f64> = values(&x).par_chunks(CHUNK).map(|x| f64::from(math::dot(x, x))).collect();
    tensor(vec![sums.iter().sum::<f64>() as f32], Shape::new([1]))
}

pub(crate) fn scale(x: FlexTensor, factor: FlexTensor) -> FlexTensor {
    let factor = values(&factor.to_contiguous())[0];
    if factor == 1.0 {
        return x;
    }
    let mut x = owned(x);
    x.storage_mut::<f32>().par_chunks_mut(CHUNK).for_each(|x| scale_in_place(x, factor));
    x
}

pub(crate) fn lerp(x: FlexTensor, y: FlexTensor, weight: f32) -> FlexTensor {
    let (mut x, y) = (owned(x), y.to_contiguous());
    let chunks = x.storage_mut::<f32>().par_chunks_mut(CHUNK).zip(values(&y).par_chunks(CHUNK));
    chunks.for_each(|(x, y)| lerp_in_place(x, y, weight));
    x
}

for_each_instruction_set! {
    /// One step of AdamW.
    fn adamw_in_place(
        parameters: &mut [f32], gradients: &[f32], moments_1: &mut [f32], moments_2: &mut [f32], step: AdamWStep
    ) = adamw_body;
    /// `x *= factor`.
    fn scale_in_place(x: &mut [f32], factor: f32) = scale_body;
    /// `x += weight * (y - x)`.
    fn lerp_in_place(x: &mut [f32], y: &[f32], weight: f32) = lerp_body;
}

#[inline(always)]
fn adamw_body<const FMA: bool>(
    parameters: &mut [f32],
    gradients: &[f32],
    moments_1: &mut [f32],
    moments_2: &mut [f32],
    step: AdamWStep,
) {
    let [correction_1, correction_2] = step.bias_corrections();
    let kept = 1.0 - step.rate * step.weight_decay;
    let n = parameters.len();
    let (gradients, moments_1, moments_2) = (&gradients[..n], &mut moments_1[..n], &mut moments_2[..n]);
    for i in 0..n {
        let gradient = gradients[i];
        moments_1[i] = step.beta_1 * moments_1[i] + (1.0 - step.beta_1) * gradient;
        moments_2[i] = step.beta_2 * moments_2[i] + (1.0 - step.beta_2) * gradient * gradient;
        let update = (moments_1[i] / correction_1) / ((moments_2[i] / correction_2).sqrt() + step.epsilon);
        parameters[i] = parameters[i] * kept - step.rate * update;
    }
}

#[inline(always)]
fn scale_body<const FMA: bool>(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

#[inline(always)]
fn lerp_body<const FMA: bool>(x: &mut [f32], y: &[f32], weight: f32) {
    for (x, y) in x.iter_mut().zip(y) {
        *x = fma::<FMA>(y - *x, weight, *x);
    }
}
