//! The operations as Cube kernels, in float32: one definition for CUDA, Vulkan, Metal and WebGPU.
//!
//! Matrix products and sums over rows are the backend's, which tunes them; what stands between them is here.

mod attention;
mod kernels;
mod tensor_cores;

use burn::backend::TensorMetadata;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, FloatDType, IntDType, Shape, Slice, bf16, f16};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::client::Client;
use cubecl::ir::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::tf32;
use cubecl::zspace::{Strides, metadata::Metadata};

use super::extension::FusedOps;
use super::{AdamWStep, AttentionKind};
use attention::{Layout, TILE};
use kernels::UNITS;

/// Logits that are held at a time: 256 MiB.
const HELD: usize = 64 << 20;
/// Cubes in one dimension of a grid, which every device allows.
const CUBES: usize = 65_535;

impl FusedOps for CubeBackend {
    fn bias_gelu(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x, bias] = [x, bias].map(into_contiguous);
        let out = like(&x);
        if let Some((count, dim)) = elements(&out) {
            let args = [x, bias, out.clone()].map(CubeTensor::into_buffer_arg);
            let [x, bias, to] = args;
            kernels::bias_gelu::launch(&out.client, count, dim, x, bias, to);
        }
        out
    }

    fn bias_gelu_backward(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, bias, grad] = [x, bias, grad].map(into_contiguous);
        let (out, vector) = (like(&x), bias.shape());
        if let Some((count, dim)) = elements(&out) {
            let [x, bias, grad, to] = [x, bias, grad, out.clone()].map(CubeTensor::into_buffer_arg);
            kernels::bias_gelu_grad::launch(&out.client, count, dim, x, bias, grad, to);
        }
        let of_bias = sum_over_rows(out.clone(), vector);
        (out, of_bias)
    }

    fn affine_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, weight, bias] = [x, weight, bias].map(into_contiguous);
        let n_rows = rows(&x);
        let (out, moments) = (like(&x), empty(&x, Shape::new([n_rows, 2])));
        if let Some((count, dim)) = cubes(n_rows) {
            let client = x.client.clone();
            let [x, weight, bias, to] = [x, weight, bias, out.clone()].map(CubeTensor::into_buffer_arg);
            kernels::norm::launch(&client, count, dim, x, weight, bias, to, moments.clone().into_buffer_arg());
        }
        (out, moments)
    }

    fn affine_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [x, weight, moments, grad] = [x, weight, moments, grad].map(into_contiguous);
        let (out, of_weight, vector) = (like(&x), like(&x), weight.shape());
        if let Some((count, dim)) = cubes(rows(&x)) {
            let client = x.client.clone();
            let inputs = [x, weight, moments, grad.clone(), out.clone(), of_weight.clone()];
            let [x, weight, moments, grad, to, to_weight] = inputs.map(CubeTensor::into_buffer_arg);
            kernels::norm_grad::launch(&client, count, dim, x, weight, moments, grad, to, to_weight);
        }
        (out, sum_over_rows(of_weight, vector.clone()), sum_over_rows(grad, vector))
    }

    fn gated_sum(x: FloatTensor<Self>, branch: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x, branch, gate] = [x, branch, gate].map(into_contiguous);
        let out = like(&x);
        if let Some((count, dim)) = elements(&out) {
            let [x, branch, gate, to] = [x, branch, gate, out.clone()].map(CubeTensor::into_buffer_arg);
            kernels::gated_sum::launch(&out.client, count, dim, x, branch, gate, to);
        }
        out
    }

    fn gated_sum_backward(
        branch: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [branch, gate, grad] = [branch, gate, grad].map(into_contiguous);
        let (out, of_gate, vector) = (like(&branch), like(&branch), gate.shape());
        if let Some((count, dim)) = elements(&out) {
            let inputs = [branch, gate, grad, out.clone(), of_gate.clone()];
            let [branch, gate, grad, to, to_gate] = inputs.map(CubeTensor::into_buffer_arg);
            kernels::gated_sum_grad::launch(&out.client, count, dim, branch, gate, grad, to, to_gate);
        }
        (out, sum_over_rows(of_gate, vector))
    }

    fn sorted_by_label(labels: IntTensor<Self>) -> IntTensor<Self> {
        let [n_rows, n_tokens] = labels.shape().dims();
        sorted(labels, [n_rows, n_tokens])
    }

    fn self_attention(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        kind: AttentionKind,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Attention::of_self(qkv, angles, labels, kind).forward()
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
        Attention::of_self(qkv, angles, labels, kind).backward(out, lse, grad).0
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
        Attention::of_cross([q, kv], [q_angles, k_angles], [q_labels, k_labels], kind).forward()
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
        Attention::of_cross([q, kv], [q_angles, k_angles], [q_labels, k_labels], kind).backward(out, lse, grad)
    }

    fn linear_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        skip: usize,
    ) -> FloatTensor<Self> {
        let losses = pieces(&x, &w).into_iter().map(|rows| {
            let logits = wide(Self::float_matmul(in_type_of(part(x.clone(), rows), &w), w.clone()));
            cross_entropy(logits, &b, &targets, &weights, skip, rows, false).1
        });
        sum(losses.collect())
    }

    fn linear_cross_entropy_with_gradients(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        skip: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (mut losses, mut of_x) = (Vec::new(), Vec::new());
        let mut of_parameters: Option<(CubeTensor, CubeTensor)> = None;
        for rows in pieces(&x, &w) {
            let x = in_type_of(part(x.clone(), rows), &w);
            let logits = wide(Self::float_matmul(x.clone(), w.clone()));
            let (grad, loss) = cross_entropy(logits, &b, &targets, &weights, skip, rows, true);
            losses.push(loss);
            let of_b = sum_over_rows(grad.clone(), b.shape());
            let grad = in_type_of(grad, &w);
            of_x.push(wide(Self::float_matmul(grad.clone(), Self::float_transpose(w.clone()))));
            let of_w = wide(Self::float_matmul(Self::float_transpose(x), grad));
            of_parameters = Some(match of_parameters {
                Some((w, b)) => (Self::float_add(w, of_w), Self::float_add(b, of_b)),
                None => (of_w, of_b),
            });
        }
        let (of_w, of_b) = of_parameters.expect("at least one piece");
        (sum(losses), Self::float_cat(of_x, 0), in_type_of(of_w, &w), of_b)
    }

    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [parameter, moment_1, moment_2] = [parameter, moment_1, moment_2].map(mutable);
        let tensors = [parameter, gradient, moment_1, moment_2];
        // Rows that stand apart, as CUDA's do, are updated with what lies between them.
        let alike = tensors.iter().all(|x| x.meta.strides() == tensors[0].meta.strides() && in_one_piece(x).is_some());
        let [parameter, gradient, moment_1, moment_2] = if alike { tensors } else { tensors.map(own) };
        let tensors = [&parameter, &gradient, &moment_1, &moment_2];
        let pieces = tensors.map(|x| in_one_piece(x).unwrap_or_else(|| x.clone()));
        if let Some((count, dim)) = elements(&pieces[0]) {
            let [p, g, m1, m2] = pieces.map(CubeTensor::into_buffer_arg);
            let ([c1, c2], kept) = (step.corrections(), 1.0 - step.rate * step.weight_decay);
            let (beta_1, beta_2, epsilon, rate) = (step.beta_1, step.beta_2, step.epsilon, step.rate);
            let client = &parameter.client;
            kernels::adamw::launch(client, count, dim, p, g, m1, m2, beta_1, beta_2, c1, c2, epsilon, rate, kept);
        }
        (parameter, moment_1, moment_2)
    }
}

/// What multiplies in attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Units {
    Scalar,
    F16,
    BF16,
    // Numbers of eight bits of exponent and ten of fraction: what a device's units make of float32, in Burn's products, too.
    TF32,
}

// The units for products in that type, if the device has them and heads fit them.
fn units(client: &Client, products: FloatDType, layout: &Layout) -> Units {
    let (units, kind, k) = match products {
        FloatDType::F16 => (Units::F16, FloatKind::F16, 16),
        FloatDType::BF16 => (Units::BF16, FloatKind::BF16, 16),
        _ => (Units::TF32, FloatKind::TF32, 8),
    };
    let number = ElemType::Float(kind);
    let matrix = MmaConfig { a_type: number, b_type: number, cd_type: ElemType::Float(FloatKind::F32), m: 16, n: 8, k };
    let fits = layout.head_width.is_multiple_of(2 * k as usize) && layout.head_width <= tensor_cores::WIDEST;
    if fits && client.features().matmul.mma.contains(&matrix) { units } else { Units::Scalar }
}

// A kernel of `attention` or its like of `tensor_cores`.
macro_rules! launch {
    ($units:expr, $layout:expr, $kernel:ident($($argument:expr),* $(,)?)) => {
        match $units {
            Units::Scalar => {
                attention::$kernel::launch($($argument,)* $layout, attention::passing($layout.head_width));
            }
            Units::F16 => tensor_cores::$kernel::launch::<f16>($($argument,)* $layout, 2),
            Units::BF16 => tensor_cores::$kernel::launch::<bf16>($($argument,)* $layout, 2),
            Units::TF32 => tensor_cores::$kernel::launch::<tf32>($($argument,)* $layout, 1),
        }
    };
}

// What the attention kernels read.
struct Attention {
    queries: CubeTensor,
    // Absent when the keys stand in the queries' tensor.
    keys: Option<CubeTensor>,
    angles: [CubeTensor; 2],
    sorted: [CubeTensor; 2],
    layout: Layout,
    units: Units,
    n_rows: usize,
    n_heads: usize,
    n_queries: usize,
    n_keys: usize,
}

impl Attention {
    fn of_self(qkv: CubeTensor, angles: CubeTensor, sorted: CubeTensor, kind: AttentionKind) -> Self {
        let [n_rows, n_tokens, row] = qkv.shape().dims();
        let (qkv, width) = (into_contiguous(qkv), row / 3);
        let [angles, sorted] = [angles, sorted].map(into_contiguous);
        let shared = angles.shape()[0] == 1;
        let layout = Layout {
            head_width: width / kind.n_heads,
            rows: [row; 3],
            firsts: [0, width, 2 * width],
            causal: kind.causal,
            shared_angles: [shared; 2],
            labelled: kind.labelled,
        };
        Self {
            units: units(&qkv.client, kind.products, &layout),
            queries: qkv,
            keys: None,
            angles: [angles.clone(), angles],
            sorted: [sorted.clone(), sorted],
            layout,
            n_rows,
            n_heads: kind.n_heads,
            n_queries: n_tokens,
            n_keys: n_tokens,
        }
    }

    fn of_cross(
        [q, kv]: [CubeTensor; 2],
        angles: [CubeTensor; 2],
        sorted: [CubeTensor; 2],
        kind: AttentionKind,
    ) -> Self {
        let ([n_rows, n_queries, width], [_, n_keys, row]) = (q.shape().dims(), kv.shape().dims());
        let [angles, sorted] = [angles, sorted].map(|pair| pair.map(into_contiguous));
        let layout = Layout {
            head_width: width / kind.n_heads,
            rows: [width, row, row],
            firsts: [0, 0, width],
            causal: false,
            shared_angles: angles.each_ref().map(|table| table.shape()[0] == 1),
            labelled: kind.labelled,
        };
        Self {
            units: units(&q.client, kind.products, &layout),
            queries: into_contiguous(q),
            keys: Some(into_contiguous(kv)),
            angles,
            sorted,
            layout,
            n_rows,
            n_heads: kind.n_heads,
            n_queries,
            n_keys,
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.layout.head_width as f32).sqrt()
    }

    // Cubes for a side of `n` tokens.
    fn grid(&self, n: usize) -> (CubeCount, CubeDim) {
        let (tile, dim) = match self.units {
            Units::Scalar => (TILE, TILE),
            _ => (tensor_cores::TILE, tensor_cores::UNITS),
        };
        let tiles = n.div_ceil(tile as usize) as u32;
        (CubeCount::Static(tiles, self.n_heads as u32, self.n_rows as u32), CubeDim::new_1d(dim))
    }

    fn is_empty(&self) -> bool {
        self.n_rows * self.n_heads * self.n_queries * self.n_keys * self.layout.head_width == 0
    }

    fn forward(self) -> (CubeTensor, CubeTensor) {
        let shapes = [
            Shape::new([self.n_rows, self.n_queries, self.n_heads * self.layout.head_width]),
            Shape::new([self.n_rows, self.n_heads, self.n_queries]),
        ];
        if self.is_empty() {
            return shapes.map(|shape| zeros(&self.queries, shape)).into();
        }
        let [out, lse] = shapes.map(|shape| empty(&self.queries, shape));
        let (count, dim) = self.grid(self.n_queries);
        let scale = self.scale();
        let Self { queries, keys, angles: [q_angles, k_angles], sorted: [q_sorted, k_sorted], .. } = self;
        let keys = keys.unwrap_or_else(|| queries.clone());
        let tensors = [queries, keys, q_angles, k_angles, q_sorted, k_sorted, out.clone(), lse.clone()];
        let [q, kv, q_angles, k_angles, q_sorted, k_sorted, to, to_lse] = tensors.map(CubeTensor::into_buffer_arg);
        let sizes = [self.n_queries, self.n_keys].map(|n| n as u32);
        launch!(
            self.units,
            self.layout,
            forward(
                &out.client,
                count,
                dim,
                q,
                kv,
                q_angles,
                k_angles,
                q_sorted,
                k_sorted,
                to,
                to_lse,
                sizes[0],
                sizes[1],
                scale,
            )
        );
        (out, lse)
    }

    // Gradients of the queries' tensor and of the keys', which may be one.
    fn backward(self, out: CubeTensor, lse: CubeTensor, grad: CubeTensor) -> (CubeTensor, CubeTensor) {
        let keys = self.keys.as_ref().unwrap_or(&self.queries);
        if self.is_empty() {
            return (zeros(&self.queries, self.queries.shape()), zeros(keys, keys.shape()));
        }
        let of_queries = like(&self.queries);
        let of_keys = self.keys.as_ref().map_or_else(|| of_queries.clone(), like);
        let [out, lse, grad] = [out, lse, grad].map(into_contiguous);
        let scale = self.scale();
        let [n_queries, n_keys] = [self.n_queries, self.n_keys].map(|n| n as u32);
        let client = self.queries.client.clone();

        let statistics = empty(&lse, Shape::new([2, self.n_rows, self.n_heads, self.n_queries]));
        let (count, dim) = elements(&lse).expect("not empty");
        let tensors = [out, lse, grad.clone(), statistics.clone()];
        let [out, lse, upstream, to] = tensors.map(CubeTensor::into_buffer_arg);
        let (n_heads, d) = (self.n_heads as u32, self.layout.head_width);
        attention::statistics::launch(&client, count, dim, out, lse, upstream, to, n_queries, n_heads, d);

        let arguments = |to: CubeTensor| {
            let ([q_angles, k_angles], [q_sorted, k_sorted]) = (self.angles.clone(), self.sorted.clone());
            let (queries, keys) = (self.queries.clone(), keys.clone());
            [queries, keys, q_angles, k_angles, q_sorted, k_sorted, statistics.clone(), grad.clone(), to]
                .map(CubeTensor::into_buffer_arg)
        };
        let (count, dim) = self.grid(self.n_queries);
        let [q, kv, q_angles, k_angles, q_sorted, k_sorted, statistics_, upstream, to] = arguments(of_queries.clone());
        launch!(
            self.units,
            self.layout,
            query_grads(
                &client,
                count,
                dim,
                q,
                kv,
                q_angles,
                k_angles,
                q_sorted,
                k_sorted,
                statistics_,
                upstream,
                to,
                n_queries,
                n_keys,
                scale,
            )
        );
        let (count, dim) = self.grid(self.n_keys);
        let [q, kv, q_angles, k_angles, q_sorted, k_sorted, statistics_, upstream, to] = arguments(of_keys.clone());
        launch!(
            self.units,
            self.layout,
            key_grads(
                &client,
                count,
                dim,
                q,
                kv,
                q_angles,
                k_angles,
                q_sorted,
                k_sorted,
                statistics_,
                upstream,
                to,
                n_queries,
                n_keys,
                scale,
            )
        );
        (of_queries, of_keys)
    }
}

// Tokens in the order of their labels, then those labels, `[B, 2 S]`.
fn sorted(labels: CubeTensor, [n_rows, n_tokens]: [usize; 2]) -> CubeTensor {
    let labels = into_contiguous(CubeBackend::int_cast(labels, IntDType::I32));
    let shape = Shape::new([n_rows, 2 * n_tokens]);
    let sorted = empty_device_contiguous_dtype(labels.client.clone(), labels.device.clone(), shape, DType::I32);
    if n_rows * n_tokens > 0 {
        let count = CubeCount::Static(n_tokens.div_ceil(UNITS as usize) as u32, n_rows as u32, 1);
        let [labels, to] = [labels, sorted.clone()].map(CubeTensor::into_buffer_arg);
        let client = &sorted.client;
        attention::sort_by_label::launch(client, count, CubeDim::new_1d(UNITS), labels, to, n_tokens as u32);
    }
    sorted
}

// The gradient of a piece's logits, in their place, if wanted, and its rows' weighted losses.
fn cross_entropy(
    logits: CubeTensor,
    b: &CubeTensor,
    targets: &CubeTensor,
    weights: &CubeTensor,
    skip: usize,
    [start, end]: [usize; 2],
    with_gradient: bool,
) -> (CubeTensor, CubeTensor) {
    let logits = mutable(logits);
    let logits = if in_one_piece(&logits).is_some() { logits } else { into_contiguous(logits) };
    let losses = empty(&logits, Shape::new([end - start]));
    let targets = CubeBackend::int_slice(targets.clone(), &[Slice::from(start..end)]);
    let targets = into_contiguous(CubeBackend::int_cast(targets, IntDType::I32));
    let weights = part(weights.clone(), [start, end]);
    if let Some((count, dim)) = cubes(end - start) {
        let all = in_one_piece(&logits).unwrap_or_else(|| logits.clone());
        let tensors = [all, into_contiguous(b.clone()), targets, into_contiguous(weights), losses.clone()];
        let [to, b, targets, weights, to_losses] = tensors.map(CubeTensor::into_buffer_arg);
        let (client, step, skip) = (&logits.client, logits.meta.strides()[0] as u32, skip as u32);
        kernels::cross_entropy::launch(
            client,
            count,
            dim,
            to,
            b,
            targets,
            weights,
            to_losses,
            step,
            skip,
            with_gradient,
        );
    }
    (logits, losses)
}

// Rows whose logits are held together.
fn pieces(x: &CubeTensor, w: &CubeTensor) -> Vec<[usize; 2]> {
    let (n, v) = (x.shape()[0], w.shape()[1]);
    let at_once = (HELD / v.max(1)).clamp(64, 8192);
    (0..n.max(1)).step_by(at_once).map(|start| [start, (start + at_once).min(n)]).collect()
}

fn part(x: CubeTensor, [start, end]: [usize; 2]) -> CubeTensor {
    CubeBackend::float_slice(x, &[Slice::from(start..end)])
}

// In the type of a weight, which may be a half-precision one.
fn in_type_of(x: CubeTensor, weight: &CubeTensor) -> CubeTensor {
    if x.dtype() == weight.dtype() { x } else { CubeBackend::float_cast(x, weight.dtype().into()) }
}

fn wide(x: CubeTensor) -> CubeTensor {
    if x.dtype() == DType::F32 { x } else { CubeBackend::float_cast(x, FloatDType::F32) }
}

// The sum of vectors' elements, `[1]`.
fn sum(vectors: Vec<CubeTensor>) -> CubeTensor {
    CubeBackend::float_sum(CubeBackend::float_cat(vectors, 0))
}

// The sum over all dimensions but the last, in the shape of a vector.
fn sum_over_rows(x: CubeTensor, vector: Shape) -> CubeTensor {
    let shape = Shape::new([rows(&x), vector.num_elements()]);
    let sums = CubeBackend::float_sum_dim(CubeBackend::float_reshape(x, shape), 0);
    CubeBackend::float_reshape(sums, vector)
}

// Memory that nobody else holds.
fn mutable(x: CubeTensor) -> CubeTensor {
    if x.can_mut() { x } else { x.copy() }
}

// The same without gaps.
fn own(x: CubeTensor) -> CubeTensor {
    into_contiguous(mutable(into_contiguous(x)))
}

// A vector of all that a tensor's memory holds, where its rows stand in order, with gaps behind them or without.
fn in_one_piece(x: &CubeTensor) -> Option<CubeTensor> {
    let (shape, strides) = (x.shape(), x.meta.strides());
    let n_dims = shape.num_dims();
    let in_order = (1..n_dims).all(|i| match i + 1 == n_dims {
        true => strides[i] == 1 && strides[i - 1] >= shape[i],
        false => strides[i - 1] == strides[i] * shape[i],
    });
    let n = if n_dims > 1 { shape[0] * strides[0] } else { shape.num_elements() };
    let fits = in_order && strides[n_dims - 1] == 1 && (n * x.dtype.size()) as u64 <= x.handle.size_in_used();
    let vector = Metadata::new(Shape::new([n]), Strides::new(&[1]));
    fits.then(|| CubeTensor::new(x.client.clone(), x.handle.clone(), vector, x.device.clone(), x.dtype))
}

fn rows(x: &CubeTensor) -> usize {
    let shape = x.shape();
    shape.num_elements() / shape[shape.num_dims() - 1].max(1)
}

fn empty(like: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, DType::F32)
}

fn zeros(like: &CubeTensor, shape: Shape) -> CubeTensor {
    CubeBackend::float_zeros(shape, &like.device, FloatDType::F32)
}

fn like(x: &CubeTensor) -> CubeTensor {
    empty(x, x.shape())
}

// A cube for each row.
fn cubes(n_rows: usize) -> Option<(CubeCount, CubeDim)> {
    let count = CubeCount::Static(n_rows.min(CUBES) as u32, n_rows.div_ceil(CUBES) as u32, 1);
    (n_rows > 0).then(|| (count, CubeDim::new_1d(UNITS)))
}

// A unit for each element.
fn elements(x: &CubeTensor) -> Option<(CubeCount, CubeDim)> {
    let n = x.shape().num_elements();
    let dim = CubeDim::new_1d(UNITS);
    (n > 0).then(|| (calculate_cube_count_elemwise(&x.client, n, dim), dim))
}
