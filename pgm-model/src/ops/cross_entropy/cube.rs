//! [`linear_cross_entropy`](super::linear_cross_entropy) on GPUs, some rows at a time: one cube a row.
#![allow(missing_docs, clippy::too_many_arguments)] // launchers that the macro writes

use burn::backend::TensorMetadata;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::tensor::{IntDType, Shape, Slice};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::ops::cube::reduce::{UNITS, cube_index, cube_max, cube_sum};
use crate::ops::cube::tensors::{
    as_vector, cube_per_row, empty, in_float32, in_type_of, mutable, slice_rows, sum, sum_over_rows,
};

/// Logits that are held at a time: 256 MiB.
const MAX_LOGITS: usize = 64 << 20;
/// The logit of the excluded class: its probability is 0 in float32.
const EXCLUDED: f32 = -1e30;

pub(crate) fn linear_cross_entropy(
    [x, w, b]: [CubeTensor; 3],
    targets: CubeTensor,
    weights: CubeTensor,
    excluded_class: usize,
) -> CubeTensor {
    let losses = row_chunks(&x, &w).into_iter().map(|rows| {
        let logits = in_float32(CubeBackend::float_matmul(in_type_of(slice_rows(x.clone(), rows), &w), w.clone()));
        cross_entropy(logits, &b, &targets, &weights, excluded_class, rows, false).1
    });
    sum(losses.collect())
}

pub(crate) fn linear_cross_entropy_with_gradients(
    [x, w, b]: [CubeTensor; 3],
    targets: CubeTensor,
    weights: CubeTensor,
    excluded_class: usize,
) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
    let (mut losses, mut x_grads) = (Vec::new(), Vec::new());
    let mut parameter_grads: Option<(CubeTensor, CubeTensor)> = None;
    for rows in row_chunks(&x, &w) {
        let x = in_type_of(slice_rows(x.clone(), rows), &w);
        let logits = in_float32(CubeBackend::float_matmul(x.clone(), w.clone()));
        let (grad, loss) = cross_entropy(logits, &b, &targets, &weights, excluded_class, rows, true);
        losses.push(loss);
        let b_grad = sum_over_rows(grad.clone(), b.shape());
        let grad = in_type_of(grad, &w);
        x_grads.push(in_float32(CubeBackend::float_matmul(grad.clone(), CubeBackend::float_transpose(w.clone()))));
        let w_grad = in_float32(CubeBackend::float_matmul(CubeBackend::float_transpose(x), grad));
        parameter_grads = Some(match parameter_grads {
            Some((w, b)) => (CubeBackend::float_add(w, w_grad), CubeBackend::float_add(b, b_grad)),
            None => (w_grad, b_grad),
        });
    }
    let (w_grad, b_grad) = parameter_grads.expect("at least one chunk");
    (sum(losses), CubeBackend::float_cat(x_grads, 0), in_type_of(w_grad, &w), b_grad)
}

// The logits, or their gradient in the logits' memory, and the weighted losses of a chunk of rows.
fn cross_entropy(
    logits: CubeTensor,
    b: &CubeTensor,
    targets: &CubeTensor,
    weights: &CubeTensor,
    excluded_class: usize,
    [start, end]: [usize; 2],
    with_gradient: bool,
) -> (CubeTensor, CubeTensor) {
    let logits = mutable(logits);
    let logits = if as_vector(&logits).is_some() { logits } else { into_contiguous(logits) };
    let losses = empty(&logits, Shape::new([end - start]));
    let targets = CubeBackend::int_slice(targets.clone(), &[Slice::from(start..end)]);
    let targets = into_contiguous(CubeBackend::int_cast(targets, IntDType::I32));
    let weights = slice_rows(weights.clone(), [start, end]);
    if let Some((count, dim)) = cube_per_row(end - start) {
        let all = as_vector(&logits).unwrap_or_else(|| logits.clone());
        let tensors = [all, into_contiguous(b.clone()), targets, into_contiguous(weights), losses.clone()];
        let [to, b, targets, weights, to_losses] = tensors.map(CubeTensor::into_buffer_arg);
        let (client, step, excluded_class) = (&logits.client, logits.meta.strides()[0] as u32, excluded_class as u32);
        cross_entropy_kernel::launch(
            client,
            count,
            dim,
            to,
            b,
            targets,
            weights,
            to_losses,
            step,
            excluded_class,
            with_gradient,
        );
    }
    (logits, losses)
}

// Chunks of rows whose logits are held at a time.
fn row_chunks(x: &CubeTensor, w: &CubeTensor) -> Vec<[usize; 2]> {
    let (n, v) = (x.shape()[0], w.shape()[1]);
    let at_once = (MAX_LOGITS / v.max(1)).clamp(64, 8192);
    (0..n.max(1)).step_by(at_once).map(|start| [start, (start + at_once).min(n)]).collect()
}

/// One cube a row of logits; rows are `row_step` numbers apart. With gradients the logits become
/// `weight (softmax - one-hot)`.
#[cube(launch)]
fn cross_entropy_kernel(
    logits: &mut [f32],
    bias: &[f32],
    targets: &[i32],
    weights: &[f32],
    losses: &mut [f32],
    row_step: u32,
    excluded_class: u32,
    #[comptime] with_gradient: bool,
) {
    let (row, width) = (cube_index(), bias.len());
    let mut shared = Shared::<[f32]>::new_slice(UNITS as usize);
    let start = row * row_step as usize;
    let inside = row < losses.len();
    let unit = UNIT_POS as usize;
    let mut max = f32::new(EXCLUDED);
    if inside {
        let mut i = unit;
        while i < width {
            if i != excluded_class as usize {
                max = max.max(logits[start + i] + bias[i]);
            }
            i += UNITS as usize;
        }
    }
    let max = cube_max(max, &mut shared);
    let mut sum = 0.0_f32;
    if inside {
        let mut i = unit;
        while i < width {
            if i != excluded_class as usize {
                sum += (logits[start + i] + bias[i] - max).exp();
            }
            i += UNITS as usize;
        }
    }
    let sum = cube_sum(sum, &mut shared);
    if inside && unit == 0 {
        let target = targets[row] as usize;
        losses[row] = weights[row] * (max + sum.ln() - logits[start + target] - bias[target]);
    }
    if comptime!(with_gradient) {
        sync_cube(); // the loss has read the target's logit by now
        if inside {
            let (target, weight) = (targets[row] as usize, weights[row]);
            let mut i = unit;
            while i < width {
                let mut probability = 0.0_f32;
                if i != excluded_class as usize {
                    probability = (logits[start + i] + bias[i] - max).exp() / sum;
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
