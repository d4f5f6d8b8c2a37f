//! Products with weights that are narrower than float32: widened a few columns at a time, while they are in the cache.
//!
//! What it saves is memory. The arithmetic is that of float32, so it costs the product and the widening.
//!
//! Shapes: N rows, I inputs, O outputs.

use burn::tensor::{DType, bf16, f16};
use burn_flex::{FlexQTensor, FlexTensor};
use rayon::prelude::*;

use super::{Matrix, math, product, uninitialised};

/// Numbers that are widened at a time: 4 MiB of them.
const WIDENED: usize = 1 << 20;

/// `x w` for x `[N, I]` and w `[I, O]`, which `widen(row, columns, out)` knows.
fn by_columns(
    x: &[f32],
    [n_rows, inputs, outputs]: [usize; 3],
    widen: impl Fn(usize, std::ops::Range<usize>, &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut out = uninitialised(n_rows * outputs);
    let at_once = (WIDENED / inputs.max(1)).next_multiple_of(64).min(outputs.max(1));
    let mut held = uninitialised(inputs * at_once);
    for start in (0..outputs).step_by(at_once) {
        let columns = start..(start + at_once).min(outputs);
        let n = columns.len();
        let held = &mut held[..inputs * n];
        held.par_chunks_mut(n).enumerate().for_each(|(row, held)| widen(row, columns.clone(), held));
        let sizes = [n_rows, inputs, n];
        product(&mut out[start..], outputs, false, Matrix::rows(x, inputs), Matrix::rows(held, n), sizes);
    }
    out
}

/// With half-precision weights.
pub(super) fn half(x: &[f32], weight: &FlexTensor) -> Vec<f32> {
    let [inputs, outputs] = weight.layout().shape().dims();
    let sizes = [x.len() / inputs, inputs, outputs];
    let row = |row: usize, columns: std::ops::Range<usize>| row * outputs + columns.start..row * outputs + columns.end;
    match weight.dtype() {
        DType::F16 => {
            let weight: &[f16] = weight.as_slice().expect("contiguous");
            by_columns(x, sizes, |index, columns, out| math::widen_f16(&weight[row(index, columns)], out))
        }
        DType::BF16 => {
            let weight: &[bf16] = weight.as_slice().expect("contiguous");
            by_columns(x, sizes, |index, columns, out| math::widen_bf16(&weight[row(index, columns)], out))
        }
        other => panic!("{other:?} is no half-precision type"),
    }
}

/// With quantised weights, a scale for each `block` inputs of an output.
pub(super) fn quantised(x: &[f32], weight: &FlexQTensor, block: usize) -> Vec<f32> {
    let numbers = weight.tensor().to_contiguous();
    let [inputs, outputs] = numbers.layout().shape().dims();
    let (numbers, scales): (&[i8], &[f32]) = (numbers.as_slice().expect("contiguous"), weight.scales());
    assert_eq!(scales.len(), inputs / block * outputs, "a scale for each {block} inputs of an output");
    let row = |row: usize, columns: &std::ops::Range<usize>| row * outputs + columns.start..row * outputs + columns.end;
    by_columns(x, [x.len() / inputs, inputs, outputs], |index, columns, out| {
        math::widen_i8(&numbers[row(index, &columns)], &scales[row(index / block, &columns)], out);
    })
}
