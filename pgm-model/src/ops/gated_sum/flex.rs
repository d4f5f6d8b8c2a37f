//! [`gated_sum`](super::gated_sum) on the CPU.

use burn_flex::FlexTensor;

use crate::ops::flex::memory::{SetSums, Uninit, write_each, write_rows};
use crate::ops::flex::simd::{fma, for_each_instruction_set};
use crate::ops::flex::tensor::{rows_of_set, shape, tensor, values, width};

// A gate has one row for all rows of x, or one for each of several sets of as many consecutive rows.

pub(crate) fn gated_sum(x: FlexTensor, branch: FlexTensor, gate: FlexTensor) -> FlexTensor {
    let [x, branch, gate] = [x, branch, gate].map(|tensor| tensor.to_contiguous());
    let (width, numbers, branches, gate) = (width(&x), values(&x), values(&branch), values(&gate));
    let n_rows = numbers.len() / width;
    let n_of_set = rows_of_set(n_rows, gate.len() / width);
    let (out, _) = write_rows(
        n_rows,
        width,
        || (),
        |_, row, out| {
            let [x, branch] = [numbers, branches].map(|all| &all[row * width..][..width]);
            sum(x, branch, &gate[row / n_of_set * width..][..width], out)
        },
    );
    tensor(out, shape(&x))
}

pub(crate) fn gated_sum_backward(branch: FlexTensor, gate: FlexTensor, grad: FlexTensor) -> (FlexTensor, FlexTensor) {
    let [branch, gate, grad] = [branch, gate, grad].map(|tensor| tensor.to_contiguous());
    let (width, branches, gates, grads) = (width(&branch), values(&branch), values(&gate), values(&grad));
    let (n_rows, n_sets) = (branches.len() / width, gates.len() / width);
    let n_of_set = rows_of_set(n_rows, n_sets);
    let new_sums = || SetSums::new(width);
    let (out, sums) = write_rows(n_rows, width, new_sums, |sums, row, out| {
        let [branch, grad] = [branches, grads].map(|all| &all[row * width..][..width]);
        let set = row / n_of_set;
        sum_grad(branch, &gates[set * width..][..width], grad, out, sums.of(set))
    });
    (tensor(out, shape(&branch)), tensor(SetSums::total(&sums, n_sets, width), shape(&gate)))
}

for_each_instruction_set! {
    /// `x + gate * branch`, one row.
    fn sum<'a>(x: &[f32], branch: &[f32], gate: &[f32], out: &'a mut Uninit) -> &'a mut [f32] = sum_body;
    /// `grad * gate`, one row, and the addition of `grad * branch` to the gate's gradient.
    fn sum_grad<'a>(
        branch: &[f32], gate: &[f32], grad: &[f32], out: &'a mut Uninit, gate_grad: &mut [f32]
    ) -> &'a mut [f32] = sum_grad_body;
}

#[inline(always)]
fn sum_body<'a, const FMA: bool>(x: &[f32], branch: &[f32], gate: &[f32], out: &'a mut Uninit) -> &'a mut [f32] {
    let n = out.len();
    let (x, branch, gate) = (&x[..n], &branch[..n], &gate[..n]);
    write_each!(out, |i| fma::<FMA>(branch[i], gate[i], x[i]))
}

#[inline(always)]
fn sum_grad_body<'a, const FMA: bool>(
    branch: &[f32],
    gate: &[f32],
    grad: &[f32],
    out: &'a mut Uninit,
    gate_grad: &mut [f32],
) -> &'a mut [f32] {
    let n = out.len();
    let (branch, gate, grad, gate_grad) = (&branch[..n], &gate[..n], &grad[..n], &mut gate_grad[..n]);
    write_each!(out, |i| {
        gate_grad[i] = fma::<FMA>(grad[i], branch[i], gate_grad[i]);
        grad[i] * gate[i]
    })
}
