//! AdamW on GPUs: one unit an element.
#![allow(missing_docs, clippy::too_many_arguments)] // launchers that the macro writes

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::step::AdamWStep;
use crate::ops::cube::tensors::{as_vector, mutable, owned, unit_per_element};

pub(crate) fn adamw(
    parameter: CubeTensor,
    gradient: CubeTensor,
    moment_1: CubeTensor,
    moment_2: CubeTensor,
    step: AdamWStep,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [parameter, moment_1, moment_2] = [parameter, moment_1, moment_2].map(mutable);
    let tensors = [parameter, gradient, moment_1, moment_2];
    // Gaps between rows, as CUDA has them, are updated like the rows.
    let alike = tensors.iter().all(|x| x.meta.strides() == tensors[0].meta.strides() && as_vector(x).is_some());
    let [parameter, gradient, moment_1, moment_2] = if alike { tensors } else { tensors.map(owned) };
    let tensors = [&parameter, &gradient, &moment_1, &moment_2];
    let vectors = tensors.map(|x| as_vector(x).unwrap_or_else(|| x.clone()));
    if let Some((count, dim)) = unit_per_element(&vectors[0]) {
        let [p, g, m1, m2] = vectors.map(CubeTensor::into_buffer_arg);
        let ([c1, c2], kept) = (step.bias_corrections(), 1.0 - step.rate * step.weight_decay);
        let (beta_1, beta_2, epsilon, rate) = (step.beta_1, step.beta_2, step.epsilon, step.rate);
        let client = &parameter.client;
        adamw_kernel::launch(client, count, dim, p, g, m1, m2, beta_1, beta_2, c1, c2, epsilon, rate, kept);
    }
    (parameter, moment_1, moment_2)
}

/// One step of AdamW in place; `kept` is the part of a parameter that the weight decay leaves.
#[cube(launch)]
fn adamw_kernel(
    parameter: &mut [f32],
    gradient: &[f32],
    moment_1: &mut [f32],
    moment_2: &mut [f32],
    beta_1: f32,
    beta_2: f32,
    correction_1: f32,
    correction_2: f32,
    epsilon: f32,
    rate: f32,
    kept: f32,
) {
    let index = ABSOLUTE_POS;
    if index >= parameter.len() {
        terminate!();
    }
    let gradient = gradient[index];
    let first = moment_1[index] * beta_1 + gradient * (1.0 - beta_1);
    let second = moment_2[index] * beta_2 + gradient * gradient * (1.0 - beta_2);
    let update = (first / correction_1) / ((second / correction_2).sqrt() + epsilon);
    moment_1[index] = first;
    moment_2[index] = second;
    parameter[index] = parameter[index] * kept - update * rate;
}
