//! Kernels that take a number or a row at a time.
//!
//! A row is reduced by one cube: each unit sums its share, then the halves of the shared memory are folded.
#![allow(missing_docs)] // launchers that the macro writes

use cubecl::prelude::*;

use super::super::{EPSILON, GELU};

/// Units of a cube that reduces a row; a power of two.
pub(super) const UNITS: u32 = 128;
/// The logit of the class that is left out: its probability is 0 in float32.
const NEVER: f32 = -1e30;

// The number of this cube in a grid of two dimensions.
#[cube]
fn cube_index() -> usize {
    CUBE_POS_Y as usize * CUBE_COUNT_X as usize + CUBE_POS_X as usize
}

// The sum of all units' values, in every unit.
#[cube]
fn total(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = ((UNITS / 2) as usize).runtime();
    while half > 0 {
        if unit < half {
            let sum = shared[unit] + shared[unit + half];
            shared[unit] = sum;
        }
        sync_cube();
        half /= 2;
    }
    let sum = shared[0];
    sync_cube();
    sum
}

// The largest of all units' values, in every unit.
#[cube]
fn largest(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = ((UNITS / 2) as usize).runtime();
    while half > 0 {
        if unit < half {
            let greater = shared[unit].max(shared[unit + half]);
            shared[unit] = greater;
        }
        sync_cube();
        half /= 2;
    }
    let greatest = shared[0];
    sync_cube();
    greatest
}

// `sigmoid(x (GELU[0] + GELU[1] x^2))`; the bound keeps the exponential finite.
#[cube]
fn gelu_gate(x: f32) -> f32 {
    let inner = x * (GELU[0] + GELU[1] * x * x);
    1.0 / (1.0 + ((-inner).min(80.0)).exp())
}

#[cube(launch)]
pub(super) fn bias_gelu(x: &[f32], bias: &[f32], out: &mut [f32]) {
    let index = ABSOLUTE_POS;
    if index >= out.len() {
        terminate!();
    }
    let x = x[index] + bias[index % bias.len()];
    out[index] = x * gelu_gate(x);
}

#[cube(launch)]
pub(super) fn bias_gelu_grad(x: &[f32], bias: &[f32], grad: &[f32], out: &mut [f32]) {
    let index = ABSOLUTE_POS;
    if index >= out.len() {
        terminate!();
    }
    let x = x[index] + bias[index % bias.len()];
    let gate = gelu_gate(x);
    let slope = x * (GELU[0] + 3.0 * GELU[1] * x * x);
    out[index] = grad[index] * gate * (1.0 + slope * (1.0 - gate));
}

#[cube(launch)]
pub(super) fn gated_sum(x: &[f32], branch: &[f32], gate: &[f32], out: &mut [f32]) {
    let index = ABSOLUTE_POS;
    if index >= out.len() {
        terminate!();
    }
    out[index] = x[index] + branch[index] * gate[index % gate.len()];
}

/// The gradient of the branch, and what the gate's is the sum of over rows.
#[cube(launch)]
pub(super) fn gated_sum_grad(branch: &[f32], gate: &[f32], grad: &[f32], out: &mut [f32], of_gate: &mut [f32]) {
    let index = ABSOLUTE_POS;
    if index >= out.len() {
        terminate!();
    }
    out[index] = grad[index] * gate[index % gate.len()];
    of_gate[index] = grad[index] * branch[index];
}

/// One cube a row: the normalised row, its mean and its reciprocal deviation.
#[cube(launch)]
pub(super) fn norm(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32], moments: &mut [f32]) {
    let (row, width) = (cube_index(), weight.len());
    let mut shared = Shared::<[f32]>::new_slice(UNITS as usize);
    let start = row * width;
    let inside = start < out.len();
    let unit = UNIT_POS as usize;
    let mut sum = 0.0_f32;
    if inside {
        let mut i = unit;
        while i < width {
            sum += x[start + i];
            i += UNITS as usize;
        }
    }
    let mean = total(sum, &mut shared) / f32::cast_from(width as u32);
    let mut squares = 0.0_f32;
    if inside {
        let mut i = unit;
        while i < width {
            let centred = x[start + i] - mean;
            squares += centred * centred;
            i += UNITS as usize;
        }
    }
    let variance = total(squares, &mut shared) / f32::cast_from(width as u32);
    let scale = 1.0 / (variance + EPSILON).sqrt();
    if inside {
        let mut i = unit;
        while i < width {
            out[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
            i += UNITS as usize;
        }
        if unit == 0 {
            moments[2 * row] = mean;
            moments[2 * row + 1] = scale;
        }
    }
}

/// One cube a row: the gradient of x, and what the weight's is the sum of over rows.
#[cube(launch)]
pub(super) fn norm_grad(
    x: &[f32],
    weight: &[f32],
    moments: &[f32],
    grad: &[f32],
    out: &mut [f32],
    of_weight: &mut [f32],
) {
    let (row, width) = (cube_index(), weight.len());
    let mut shared = Shared::<[f32]>::new_slice(UNITS as usize);
    let start = row * width;
    let inside = start < out.len();
    let unit = UNIT_POS as usize;
    let mut sum = 0.0_f32;
    let mut product = 0.0_f32;
    let mut mean = 0.0_f32;
    let mut scale = 0.0_f32;
    if inside {
        mean = moments[2 * row];
        scale = moments[2 * row + 1];
        let mut i = unit;
        while i < width {
            let normalised = (x[start + i] - mean) * scale;
            let upstream = grad[start + i];
            of_weight[start + i] = upstream * normalised;
            sum += upstream * weight[i];
            product += upstream * weight[i] * normalised;
            i += UNITS as usize;
        }
    }
    let mean_grad = total(sum, &mut shared) / f32::cast_from(width as u32);
    let mean_product = total(product, &mut shared) / f32::cast_from(width as u32);
    if inside {
        let mut i = unit;
        while i < width {
            let normalised = (x[start + i] - mean) * scale;
            out[start + i] = scale * (grad[start + i] * weight[i] - mean_grad - normalised * mean_product);
            i += UNITS as usize;
        }
    }
}

/// One cube a row of logits, `row_step` numbers from the last, which become `weight (softmax - one-hot)`; the class `skip`
/// counts for nothing.
#[cube(launch)]
pub(super) fn cross_entropy(
    logits: &mut [f32],
    bias: &[f32],
    targets: &[i32],
    weights: &[f32],
    losses: &mut [f32],
    row_step: u32,
    skip: u32,
    #[comptime] with_gradient: bool,
) {
    let (row, width) = (cube_index(), bias.len());
    let mut shared = Shared::<[f32]>::new_slice(UNITS as usize);
    let start = row * row_step as usize;
    let inside = row < losses.len();
    let unit = UNIT_POS as usize;
    let mut greatest = f32::new(NEVER);
    if inside {
        let mut i = unit;
        while i < width {
            if i != skip as usize {
                greatest = greatest.max(logits[start + i] + bias[i]);
            }
            i += UNITS as usize;
        }
    }
    let greatest = largest(greatest, &mut shared);
    let mut sum = 0.0_f32;
    if inside {
        let mut i = unit;
        while i < width {
            if i != skip as usize {
                sum += (logits[start + i] + bias[i] - greatest).exp();
            }
            i += UNITS as usize;
        }
    }
    let sum = total(sum, &mut shared);
    if inside && unit == 0 {
        let target = targets[row] as usize;
        losses[row] = weights[row] * (greatest + sum.ln() - logits[start + target] - bias[target]);
    }
    if comptime!(with_gradient) {
        sync_cube(); // the loss has read the target's logit
        if inside {
            let (target, weight) = (targets[row] as usize, weights[row]);
            let mut i = unit;
            while i < width {
                let mut probability = 0.0_f32;
                if i != skip as usize {
                    probability = (logits[start + i] + bias[i] - greatest).exp() / sum;
                }
                if i == target {
                    probability -= 1.0;
                }
                logits[start + i] = weight * probability;
                i += UNITS as usize;
            }
        }
    }
}

/// One step of AdamW where the numbers stand. `rates` are those of the moments, their corrections, the step and what the
/// weight decay leaves.
#[cube(launch)]
pub(super) fn adamw(
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
