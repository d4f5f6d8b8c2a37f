//! [`matmul`](super::matmul) on the CPU. With few rows, as in sampling, the weight is read once, and in its own type.

use burn::tensor::Shape;
use burn_flex::{FlexQTensor, FlexTensor};

use super::low_precision;
use crate::ops::flex::few_rows::{self, Weight};
use crate::ops::flex::gemm::{self, Matrix};
use crate::ops::flex::math;
use crate::ops::flex::memory::{ALONE, ROWS, total, written};
use crate::ops::flex::tensor::{owned, shape_with_width, tensor, values, width};
use crate::parallel::prelude::*;

pub(crate) fn matmul(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    check_inner(&x, &weight);
    let [inputs, outputs] = weight.layout().shape().dims();
    let n_rows = values(&x).len() / inputs;
    let sizes = [n_rows, inputs, outputs];
    let out = if few_rows::takes_f32(sizes) {
        few_rows::matmul(values(&x), Weight::F32(values(&weight)), sizes)
    } else {
        let (lhs, rhs) = (Matrix::rows(values(&x), inputs), Matrix::rows(values(&weight), outputs));
        written(n_rows * outputs, |out| gemm::assign(out, lhs, rhs, sizes))
    };
    tensor(out, shape_with_width(&x, outputs))
}

pub(crate) fn matmul_x_backward(weight: FlexTensor, grad: FlexTensor) -> FlexTensor {
    let (weight, grad) = (weight.to_contiguous(), grad.to_contiguous());
    let [inputs, outputs] = weight.layout().shape().dims();
    let n_rows = values(&grad).len() / outputs;
    let (lhs, rhs) = (Matrix::rows(values(&grad), outputs), Matrix::rows(values(&weight), outputs).transposed());
    let out = written(n_rows * inputs, |out| gemm::assign(out, lhs, rhs, [n_rows, outputs, inputs]));
    tensor(out, shape_with_width(&grad, inputs))
}

pub(crate) fn matmul_weight_backward(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
    let (x, grad) = (x.to_contiguous(), grad.to_contiguous());
    let (inputs, outputs) = (width(&x), width(&grad));
    let n_rows = values(&x).len() / inputs;
    let (lhs, rhs) = (Matrix::rows(values(&x), inputs).transposed(), Matrix::rows(values(&grad), outputs));
    let out = written(inputs * outputs, |out| gemm::assign(out, lhs, rhs, [inputs, n_rows, outputs]));
    tensor(out, Shape::new([inputs, outputs]))
}

/// `y + bias`, in y's memory unless another tensor shares it.
pub(crate) fn add_bias(y: FlexTensor, bias: FlexTensor) -> FlexTensor {
    let (mut y, bias) = (owned(y), bias.to_contiguous());
    let (width, bias) = (width(&y), values(&bias));
    assert_eq!(bias.len(), width, "the numbers of the bias and the width of y");
    let numbers = y.storage_mut::<f32>();
    let add = |rows: &mut [f32]| rows.chunks_exact_mut(width).for_each(|row| math::add(bias, row));
    if numbers.len() <= ALONE {
        add(numbers);
    } else {
        numbers.par_chunks_mut(ROWS * width).for_each(add);
    }
    y
}

pub(crate) fn add_bias_backward(grad: FlexTensor) -> FlexTensor {
    let grad = grad.to_contiguous();
    let width = width(&grad);
    let sum = |rows: &[f32]| {
        let mut sum = vec![0.0; width];
        rows.chunks_exact(width).for_each(|row| math::add(row, &mut sum));
        sum
    };
    let sums: Vec<Vec<f32>> = values(&grad).par_chunks(ROWS * width).map(sum).collect();
    tensor(total(&sums, width), Shape::new([width]))
}

pub(crate) fn matmul_half(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    check_inner(&x, &weight);
    let out = low_precision::half(values(&x), &weight);
    tensor(out, shape_with_width(&x, weight.layout().shape()[1]))
}

pub(crate) fn matmul_quantised(x: FlexTensor, weight: FlexQTensor, block: usize) -> FlexTensor {
    let x = x.to_contiguous();
    check_inner(&x, weight.tensor());
    let out = low_precision::quantised(values(&x), &weight, block);
    tensor(out, shape_with_width(&x, weight.tensor().layout().shape()[1]))
}

fn check_inner(x: &FlexTensor, weight: &FlexTensor) {
    assert_eq!(width(x), weight.layout().shape()[0], "the width of x and the rows of the weight");
}
