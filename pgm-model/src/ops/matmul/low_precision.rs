//! Matmul with low-precision weights.
//!
//! With few rows the time is that of reading the weight, which is widened in registers (`few_rows.rs`): low precision saves
//! memory and time. With more rows a few columns at a time are converted to float32 while they are in the cache. That
//! saves memory alone: the arithmetic is that of float32, and the conversion comes on top.
#![allow(unsafe_code)] // memory that is written column by column

// N rows, I inputs, O outputs

use std::ops::Range;

use burn::tensor::{DType, bf16, f16};
use burn_flex::{FlexQTensor, FlexTensor};

use crate::ops::flex::few_rows::{self, Weight};
use crate::ops::flex::gemm::{self, Matrix};
use crate::ops::flex::lanes::{widened_bf16, widened_f16};
use crate::ops::flex::memory::{Uninit, scratch, write_each, write_whole, written};
use crate::ops::flex::simd::for_each_instruction_set;
use crate::parallel::prelude::*;

/// Numbers that are converted at a time: 4 MiB of float32.
const CONVERTED: usize = 1 << 20;

/// `x weight` with half-precision weights, `[N, I], [I, O] -> [N, O]`.
pub(crate) fn half(x: &[f32], weight: &FlexTensor) -> Vec<f32> {
    let [inputs, outputs] = weight.layout().shape().dims();
    let sizes = [x.len() / inputs, inputs, outputs];
    let part = |row: usize, columns: Range<usize>| row * outputs + columns.start..row * outputs + columns.end;
    let few = few_rows::takes_low_precision(sizes);
    match weight.dtype() {
        DType::F16 => {
            let weight: &[f16] = weight.as_slice().expect("contiguous");
            if few {
                return few_rows::matmul(x, Weight::F16(weight), sizes);
            }
            by_columns(x, sizes, |row, columns, out| from_f16(&weight[part(row, columns)], out))
        }
        DType::BF16 => {
            let weight: &[bf16] = weight.as_slice().expect("contiguous");
            if few {
                return few_rows::matmul(x, Weight::Bf16(weight), sizes);
            }
            by_columns(x, sizes, |row, columns, out| from_bf16(&weight[part(row, columns)], out))
        }
        other => panic!("{other:?} is not a half-precision type"),
    }
}

/// `x weight` with quantised weights, `[N, I], [I, O] -> [N, O]`; `block` inputs of an output share a scale.
pub(crate) fn quantised(x: &[f32], weight: &FlexQTensor, block: usize) -> Vec<f32> {
    let numbers = weight.tensor().to_contiguous();
    let [inputs, outputs] = numbers.layout().shape().dims();
    let (numbers, scales): (&[i8], &[f32]) = (numbers.as_slice().expect("contiguous"), weight.scales());
    assert_eq!(scales.len(), inputs / block * outputs, "a scale for each {block} inputs of an output");
    let sizes = [x.len() / inputs, inputs, outputs];
    if few_rows::takes_low_precision(sizes) {
        return few_rows::matmul(x, Weight::I8 { numbers, scales, block }, sizes);
    }
    let part = |row: usize, columns: &Range<usize>| row * outputs + columns.start..row * outputs + columns.end;
    by_columns(x, sizes, |row, columns, out| {
        from_i8(&numbers[part(row, &columns)], &scales[part(row / block, &columns)], out)
    })
}

// `x weight`; `convert(row, columns, out)` writes a part of a row of the weight as float32.
fn by_columns(
    x: &[f32],
    [n_rows, inputs, outputs]: [usize; 3],
    convert: impl for<'a> Fn(usize, Range<usize>, &'a mut Uninit) -> &'a mut [f32] + Sync,
) -> Vec<f32> {
    let at_once = (CONVERTED / inputs.max(1)).next_multiple_of(64).min(outputs.max(1));
    let mut converted = scratch(inputs * at_once);
    written(n_rows * outputs, |out| {
        for start in (0..outputs).step_by(at_once) {
            let columns = start..(start + at_once).min(outputs);
            let n = columns.len();
            let part = &mut converted[..inputs * n];
            part.par_chunks_mut(n).enumerate().for_each(|(row, out)| {
                write_whole(out, |out| convert(row, columns.clone(), out));
            });
            // SAFETY: every row's part was written.
            let part = unsafe { part.assume_init_ref() };
            let (lhs, rhs) = (Matrix::rows(x, inputs), Matrix::rows(part, n));
            gemm::assign_columns(&mut out[start..], outputs, lhs, rhs, [n_rows, inputs, n]);
        }
        // SAFETY: the column ranges cover the output.
        unsafe { out.assume_init_mut() }
    })
}

for_each_instruction_set! {
    fn from_f16<'a>(x: &[f16], out: &'a mut Uninit) -> &'a mut [f32] = from_f16_body;
    fn from_bf16<'a>(x: &[bf16], out: &'a mut Uninit) -> &'a mut [f32] = from_bf16_body;
    /// `x * scale`.
    fn from_i8<'a>(x: &[i8], scale: &[f32], out: &'a mut Uninit) -> &'a mut [f32] = from_i8_body;
}

#[inline(always)]
fn from_f16_body<'a, const FMA: bool>(x: &[f16], out: &'a mut Uninit) -> &'a mut [f32] {
    let x = &x[..out.len()];
    write_each!(out, |i| widened_f16(x[i]))
}

#[inline(always)]
fn from_bf16_body<'a, const FMA: bool>(x: &[bf16], out: &'a mut Uninit) -> &'a mut [f32] {
    let x = &x[..out.len()];
    write_each!(out, |i| widened_bf16(x[i]))
}

#[inline(always)]
fn from_i8_body<'a, const FMA: bool>(x: &[i8], scale: &[f32], out: &'a mut Uninit) -> &'a mut [f32] {
    let n = out.len();
    let (x, scale) = (&x[..n], &scale[..n]);
    write_each!(out, |i| f32::from(x[i]) * scale[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_precision_number_converts_to_itself() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        let numbers: Vec<f16> = all.iter().map(|&bits| f16::from_bits(bits)).collect();
        let converted = written(all.len(), |out| from_f16(&numbers, out));
        assert!(converted.iter().zip(&numbers).all(|(&a, b)| same(a, b.to_f32())));
        let numbers: Vec<bf16> = all.iter().map(|&bits| bf16::from_bits(bits)).collect();
        let converted = written(all.len(), |out| from_bf16(&numbers, out));
        assert!(converted.iter().zip(&numbers).all(|(&a, b)| same(a, b.to_f32())));
    }
}
