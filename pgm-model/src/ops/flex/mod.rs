//! The operations on the CPU, in float32.
//!
//! Sums over rows (gradients of weights and biases) are made over fixed pieces of rows and added in order, so that
//! they do not depend on how many threads there are.
#![allow(unsafe_code)] // vector instructions, the matrix product's pointers and new memory

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod head;
mod math;
mod narrow;
mod product;

use burn::backend::Flex;
use burn::backend::tensor::{FloatTensor, IntTensor, QuantizedTensor};
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use product::{Matrix, product};
use rayon::prelude::*;

use super::extension::FusedOps;
use super::{AdamWStep, AttentionKind, EPSILON, GELU};

/// Rows that one task takes.
const ROWS: usize = 32;
/// Numbers that one task takes where there are no rows.
const PIECE: usize = 1 << 16;

impl FusedOps for Flex {
    fn wide_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        check_inner(&x, &weight);
        let [inputs, outputs] = weight.layout().shape().dims();
        let n_rows = values(&x).len() / inputs;
        let mut out = uninitialised(n_rows * outputs);
        let (lhs, rhs) = (Matrix::rows(values(&x), inputs), Matrix::rows(values(&weight), outputs));
        product(&mut out, outputs, false, lhs, rhs, [n_rows, inputs, outputs]);
        tensor(out, with_width(&x, outputs))
    }

    fn wide_product_x_backward(weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let (weight, grad) = (weight.to_contiguous(), grad.to_contiguous());
        let [inputs, outputs] = weight.layout().shape().dims();
        let n_rows = values(&grad).len() / outputs;
        let mut out = uninitialised(n_rows * inputs);
        let (lhs, rhs) = (Matrix::rows(values(&grad), outputs), Matrix::rows(values(&weight), outputs).transposed());
        product(&mut out, inputs, false, lhs, rhs, [n_rows, outputs, inputs]);
        tensor(out, with_width(&grad, inputs))
    }

    fn wide_product_weight_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, grad) = (x.to_contiguous(), grad.to_contiguous());
        let (inputs, outputs) = (width(&x), width(&grad));
        let n_rows = values(&x).len() / inputs;
        let mut out = uninitialised(inputs * outputs);
        let (lhs, rhs) = (Matrix::rows(values(&x), inputs).transposed(), Matrix::rows(values(&grad), outputs));
        product(&mut out, outputs, false, lhs, rhs, [inputs, n_rows, outputs]);
        tensor(out, Shape::new([inputs, outputs]))
    }

    fn half_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        check_inner(&x, &weight);
        let out = narrow::half(values(&x), &weight);
        tensor(out, with_width(&x, weight.layout().shape()[1]))
    }

    fn quantised_product(x: FloatTensor<Self>, weight: QuantizedTensor<Self>, block: usize) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        check_inner(&x, weight.tensor());
        let out = narrow::quantised(values(&x), &weight, block);
        tensor(out, with_width(&x, weight.tensor().layout().shape()[1]))
    }

    fn bias_gelu(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, bias) = (x.to_contiguous(), bias.to_contiguous());
        let width = width(&x);
        let mut out = uninitialised(values(&x).len());
        let pieces = out.par_chunks_mut(ROWS * width).zip(values(&x).par_chunks(ROWS * width));
        pieces.for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                math::bias_gelu(x, values(&bias), out);
            }
        });
        tensor(out, shape(&x))
    }

    fn bias_gelu_backward(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, bias, grad] = [x, bias, grad].map(|tensor| tensor.to_contiguous());
        let width = width(&x);
        let mut out = uninitialised(values(&x).len());
        let size = ROWS * width;
        let pieces = out.par_chunks_mut(size).zip(values(&x).par_chunks(size)).zip(values(&grad).par_chunks(size));
        let sums = pieces.map(|((out, x), grad)| {
            let mut sums = vec![0.0; width];
            let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(grad.chunks_exact(width));
            for ((out, x), grad) in rows {
                math::bias_gelu_grad(x, values(&bias), grad, out, &mut sums);
            }
            sums
        });
        let sums = total(sums.collect(), width);
        (tensor(out, shape(&x)), tensor(sums, shape(&bias)))
    }

    fn affine_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.to_contiguous());
        let width = width(&x);
        let n_rows = values(&x).len() / width;
        let (mut out, mut moments) = (uninitialised(n_rows * width), uninitialised(2 * n_rows));
        let pieces = out.par_chunks_mut(ROWS * width).zip(moments.par_chunks_mut(ROWS * 2));
        pieces.zip(values(&x).par_chunks(ROWS * width)).for_each(|((out, moments), x)| {
            let rows = out.chunks_exact_mut(width).zip(moments.as_chunks_mut::<2>().0).zip(x.chunks_exact(width));
            for ((out, moments), x) in rows {
                *moments = math::layer_norm(x, values(&weight), values(&bias), out);
            }
        });
        (tensor(out, shape(&x)), tensor(moments, Shape::new([n_rows, 2])))
    }

    fn affine_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [x, weight, moments, grad] = [x, weight, moments, grad].map(|tensor| tensor.to_contiguous());
        let width = width(&x);
        let mut out = uninitialised(values(&x).len());
        let size = ROWS * width;
        let inputs = values(&x).par_chunks(size).zip(values(&grad).par_chunks(size));
        let pieces = out.par_chunks_mut(size).zip(values(&moments).par_chunks(ROWS * 2)).zip(inputs);
        let sums = pieces.map(|((out, moments), (x, grad))| {
            let mut sums = vec![0.0; 2 * width];
            let (weight_sums, bias_sums) = sums.split_at_mut(width);
            let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(grad.chunks_exact(width));
            for (((out, x), grad), moments) in rows.zip(moments.as_chunks::<2>().0) {
                math::layer_norm_grad(x, values(&weight), *moments, grad, out, weight_sums, bias_sums);
            }
            sums
        });
        let mut weight_sums = total(sums.collect(), 2 * width);
        let bias_sums = weight_sums.split_off(width);
        let vector = shape(&weight);
        (tensor(out, shape(&x)), tensor(weight_sums, vector.clone()), tensor(bias_sums, vector))
    }

    fn gated_sum(x: FloatTensor<Self>, branch: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x, branch, gate] = [x, branch, gate].map(|tensor| tensor.to_contiguous());
        let width = width(&x);
        let mut out = uninitialised(values(&x).len());
        let size = ROWS * width;
        let pieces = out.par_chunks_mut(size).zip(values(&x).par_chunks(size)).zip(values(&branch).par_chunks(size));
        pieces.for_each(|((out, x), branch)| {
            let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(branch.chunks_exact(width));
            for ((out, x), branch) in rows {
                math::gated_sum(x, branch, values(&gate), out);
            }
        });
        tensor(out, shape(&x))
    }

    fn gated_sum_backward(
        branch: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [branch, gate, grad] = [branch, gate, grad].map(|tensor| tensor.to_contiguous());
        let width = width(&branch);
        let mut out = uninitialised(values(&branch).len());
        let size = ROWS * width;
        let inputs = values(&branch).par_chunks(size).zip(values(&grad).par_chunks(size));
        let sums = out.par_chunks_mut(size).zip(inputs).map(|(out, (branch, grad))| {
            let mut sums = vec![0.0; width];
            let rows = out.chunks_exact_mut(width).zip(branch.chunks_exact(width)).zip(grad.chunks_exact(width));
            for ((out, branch), grad) in rows {
                math::gated_sum_grad(branch, values(&gate), grad, out, &mut sums);
            }
            sums
        });
        let sums = total(sums.collect(), width);
        (tensor(out, shape(&branch)), tensor(sums, shape(&gate)))
    }

    fn sorted_by_label(labels: IntTensor<Self>) -> IntTensor<Self> {
        labels // its loops sort them as they go
    }

    fn self_attention(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        kind: AttentionKind,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let inputs = attention::Inputs::of_self(&qkv, &angles, &labels, kind);
        let (out, lse) = inputs.forward();
        let [n_rows, n_queries, width] = [inputs.n_rows, inputs.n_queries, inputs.width()];
        (
            tensor(out, Shape::new([n_rows, n_queries, width])),
            tensor(lse, Shape::new([n_rows, kind.n_heads, n_queries])),
        )
    }

    fn self_attention_backward(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        kind: AttentionKind,
    ) -> FloatTensor<Self> {
        let inputs = attention::Inputs::of_self(&qkv, &angles, &labels, kind);
        let [out, lse, grad] = [out, lse, grad].map(|tensor| tensor.to_contiguous());
        let (gradient, _) = inputs.backward(values(&out), values(&lse), values(&grad));
        tensor(gradient, shape(&qkv))
    }

    fn cross_attention(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        q_angles: FloatTensor<Self>,
        k_angles: FloatTensor<Self>,
        q_labels: IntTensor<Self>,
        k_labels: IntTensor<Self>,
        kind: AttentionKind,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let inputs = attention::Inputs::of_cross(&q, &kv, [&q_angles, &k_angles], [&q_labels, &k_labels], kind);
        let (out, lse) = inputs.forward();
        let [n_rows, n_queries, width] = [inputs.n_rows, inputs.n_queries, inputs.width()];
        (
            tensor(out, Shape::new([n_rows, n_queries, width])),
            tensor(lse, Shape::new([n_rows, kind.n_heads, n_queries])),
        )
    }

    fn cross_attention_backward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        q_angles: FloatTensor<Self>,
        k_angles: FloatTensor<Self>,
        q_labels: IntTensor<Self>,
        k_labels: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        kind: AttentionKind,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let inputs = attention::Inputs::of_cross(&q, &kv, [&q_angles, &k_angles], [&q_labels, &k_labels], kind);
        let [out, lse, grad] = [out, lse, grad].map(|tensor| tensor.to_contiguous());
        let (of_queries, of_keys) = inputs.backward(values(&out), values(&lse), values(&grad));
        (tensor(of_queries, shape(&q)), tensor(of_keys, shape(&kv)))
    }

    fn linear_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        skip: usize,
    ) -> FloatTensor<Self> {
        let [x, w, b, weights] = [x, w, b, weights].map(|tensor| tensor.to_contiguous());
        let head = head::Head::new([&x, &w, &b, &weights], ints(&targets), skip);
        tensor(vec![head.loss(None)], Shape::new([1]))
    }

    fn linear_cross_entropy_with_gradients(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        skip: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [x, w, b, weights] = [x, w, b, weights].map(|tensor| tensor.to_contiguous());
        let head = head::Head::new([&x, &w, &b, &weights], ints(&targets), skip);
        let mut gradients = head.gradients();
        let loss = head.loss(Some(&mut gradients));
        let head::Gradients { x: gx, w: gw, b: gb } = gradients;
        (tensor(vec![loss], Shape::new([1])), tensor(gx, shape(&x)), tensor(gw, shape(&w)), tensor(gb, shape(&b)))
    }

    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [mut parameter, mut moment_1, mut moment_2] = [parameter, moment_1, moment_2].map(own);
        let gradient = gradient.to_contiguous();
        let parameters = parameter.storage_mut::<f32>().par_chunks_mut(PIECE);
        let moments = moment_1.storage_mut::<f32>().par_chunks_mut(PIECE);
        let moments = moments.zip(moment_2.storage_mut::<f32>().par_chunks_mut(PIECE));
        parameters.zip(values(&gradient).par_chunks(PIECE)).zip(moments).for_each(
            |((parameters, gradients), (moments_1, moments_2))| {
                math::adamw(parameters, gradients, moments_1, moments_2, step);
            },
        );
        (parameter, moment_1, moment_2)
    }

    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        let sums: Vec<f64> = values(&x).par_chunks(PIECE).map(|x| f64::from(math::dot(x, x))).collect();
        tensor(vec![sums.iter().sum::<f64>() as f32], Shape::new([1]))
    }

    fn scaled(x: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        let (mut x, factor) = (own(x), values(&factor.to_contiguous())[0]);
        x.storage_mut::<f32>().par_chunks_mut(PIECE).for_each(|x| math::scale_in_place(x, factor));
        x
    }

    fn moved(x: FloatTensor<Self>, y: FloatTensor<Self>, share: f32) -> FloatTensor<Self> {
        let (mut x, y) = (own(x), y.to_contiguous());
        let pieces = x.storage_mut::<f32>().par_chunks_mut(PIECE).zip(values(&y).par_chunks(PIECE));
        pieces.for_each(|(x, y)| math::moved(x, y, share));
        x
    }
}

// The elements of a contiguous float32 tensor.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous float32")
}

// A tensor that is all of its memory; writing to it copies only what somebody else holds.
fn own(tensor: FlexTensor) -> FlexTensor {
    let n = tensor.layout().shape().num_elements();
    if tensor.is_contiguous() && tensor.storage::<f32>().len() == n {
        return tensor;
    }
    let shape = shape(&tensor);
    self::tensor(values(&tensor.to_contiguous()).to_vec(), shape)
}

fn shape(tensor: &FlexTensor) -> Shape {
    tensor.layout().shape().clone()
}

fn with_width(tensor: &FlexTensor, width: usize) -> Shape {
    let mut shape = shape(tensor);
    let last = shape.num_dims() - 1;
    shape[last] = width;
    shape
}

fn width(tensor: &FlexTensor) -> usize {
    tensor.layout().shape().last().copied().expect("at least one dimension").max(1)
}

// That a product's sides fit.
fn check_inner(x: &FlexTensor, weight: &FlexTensor) {
    assert_eq!(width(x), weight.layout().shape()[0], "inputs of a product and rows of its weight");
}

// Integers of whatever width the tensor has them in.
fn ints(tensor: &FlexTensor) -> Vec<i64> {
    let tensor = tensor.to_contiguous();
    match tensor.dtype() {
        DType::I32 => tensor.as_slice::<i32>().expect("contiguous").iter().map(|&value| value.into()).collect(),
        DType::I64 => tensor.as_slice::<i64>().expect("contiguous").to_vec(),
        other => panic!("indices in {other:?}"),
    }
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

// Memory for numbers that are written before they are read; zeroing it first would cost as much as the operation.
#[allow(clippy::uninit_vec)]
fn uninitialised(n: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(n);
    // SAFETY: every bit pattern is a float, and each caller writes every element.
    unsafe { values.set_len(n) };
    values
}

// The sums of all pieces, in order.
fn total(pieces: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    for piece in &pieces {
        math::add(piece, &mut total);
    }
    total
}
