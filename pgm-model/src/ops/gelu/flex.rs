//! [`bias_gelu`](super::bias_gelu) on the CPU.

use burn_flex::FlexTensor;

use crate::ops::constants::GELU;
use crate::ops::flex::memory::{Uninit, total, write_each, write_rows};
use crate::ops::flex::simd::{exp_of, fma, for_each_instruction_set};
use crate::ops::flex::tensor::{shape, tensor, values, width};

pub(crate) fn bias_gelu(x: FlexTensor, bias: FlexTensor) -> FlexTensor {
    let (x, bias) = (x.to_contiguous(), bias.to_contiguous());
    let (width, numbers, bias) = (width(&x), values(&x), values(&bias));
    let n_rows = numbers.len() / width;
    let (out, _) = write_rows(n_rows, width, || (), |_, row, out| gelu(&numbers[row * width..][..width], bias, out));
    tensor(out, shape(&x))
}

pub(crate) fn bias_gelu_backward(x: FlexTensor, bias: FlexTensor, grad: FlexTensor) -> (FlexTensor, FlexTensor) {
    let [x, bias, grad] = [x, bias, grad].map(|tensor| tensor.to_contiguous());
    let (width, numbers, grads, biases) = (width(&x), values(&x), values(&grad), values(&bias));
    let new_sums = || vec![0.0; width];
    let (out, sums) = write_rows(numbers.len() / width, width, new_sums, |sums, row, out| {
        let [x, grad] = [numbers, grads].map(|all| &all[row * width..][..width]);
        gelu_grad(x, biases, grad, out, sums)
    });
    (tensor(out, shape(&x)), tensor(total(&sums, width), shape(&bias)))
}

for_each_instruction_set! {
    /// `gelu(x + bias)`, one row.
    fn gelu<'a>(x: &[f32], bias: &[f32], out: &'a mut Uninit) -> &'a mut [f32] = gelu_body;
    /// `grad * gelu'(x + bias)`, one row, which is also added to `bias_grad`.
    fn gelu_grad<'a>(
        x: &[f32], bias: &[f32], grad: &[f32], out: &'a mut Uninit, bias_grad: &mut [f32]
    ) -> &'a mut [f32] = gelu_grad_body;
}

#[inline(always)]
fn gelu_body<'a, const FMA: bool>(x: &[f32], bias: &[f32], out: &'a mut Uninit) -> &'a mut [f32] {
    let n = out.len();
    let (x, bias) = (&x[..n], &bias[..n]);
    write_each!(out, |i| {
        let x = x[i] + bias[i];
        let u = x * fma::<FMA>(x * x, GELU[1], GELU[0]);
        x / (1.0 + exp_of::<FMA>(-u))
    })
}

#[inline(always)]
fn gelu_grad_body<'a, const FMA: bool>(
    x: &[f32],
    bias: &[f32],
    grad: &[f32],
    out: &'a mut Uninit,
    bias_grad: &mut [f32],
) -> &'a mut [f32] {
    let n = out.len();
    let (x, bias, grad, bias_grad) = (&x[..n], &bias[..n], &grad[..n], &mut bias_grad[..n]);
    write_each!(out, |i| {
        let x = x[i] + bias[i];
        let square = x * x;
        let e = exp_of::<FMA>(-x * fma::<FMA>(square, GELU[1], GELU[0]));
        let s = 1.0 / (1.0 + e);
        // 1 - s = e s, without the cancellation.
        let derivative = s * fma::<FMA>(x * fma::<FMA>(square, 3.0 * GELU[1], GELU[0]), e * s, 1.0);
        let value = grad[i] * derivative;
        bias_grad[i] += value;
        value
    })
}
