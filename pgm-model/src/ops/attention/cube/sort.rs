//! Sorts tokens by label, once for all layers.
#![allow(missing_docs)] // launchers that the macro writes

use burn::backend::TensorMetadata;
use burn::backend::ops::IntTensorOps;
use burn::tensor::{DType, IntDType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::ops::cube::reduce::UNITS;

/// Tokens in the order of their labels, then those labels: `[B, S] -> [B, 2 S]`.
pub(crate) fn sorted_by_label(labels: CubeTensor) -> CubeTensor {
    let [n_rows, n_tokens] = labels.shape().dims();
    let labels = into_contiguous(CubeBackend::int_cast(labels, IntDType::I32));
    let shape = Shape::new([n_rows, 2 * n_tokens]);
    let sorted = empty_device_contiguous_dtype(labels.client.clone(), labels.device.clone(), shape, DType::I32);
    if n_rows * n_tokens > 0 {
        let count = CubeCount::Static(n_tokens.div_ceil(UNITS as usize) as u32, n_rows as u32, 1);
        let [labels, to] = [labels, sorted.clone()].map(CubeTensor::into_buffer_arg);
        let client = &sorted.client;
        sort_by_label::launch(client, count, CubeDim::new_1d(UNITS), labels, to, n_tokens as u32);
    }
    sorted
}

/// One unit a token: writes its index and its label to the token's place in the order of labels.
#[cube(launch)]
fn sort_by_label(labels: &[i32], sorted: &mut [i32], n_tokens: u32) {
    let (token, row, n) = (ABSOLUTE_POS_X as usize, CUBE_POS_Y as usize, n_tokens as usize);
    if token < n {
        let label = labels[row * n + token];
        let mut rank = 0_usize.runtime();
        for other in 0..n {
            let others = labels[row * n + other];
            if others < label || (others == label && other < token) {
                rank += 1;
            }
        }
        sorted[2 * row * n + rank] = token as i32;
        sorted[(2 * row + 1) * n + rank] = label;
    }
}
