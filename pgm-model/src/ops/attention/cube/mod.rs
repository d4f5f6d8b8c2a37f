//! Attention on GPUs as three kernels with an online softmax: no matrix of all scores is ever held.
//!
//! `scalar` runs everywhere, `tensor_cores` where a device has instructions for tiles of 16 rows.

// B rows, Q queries, C keys, h heads, d head width, H = h d

mod layout;
mod scalar;
mod sort;
mod tensor_cores;

use burn::backend::TensorMetadata;
use burn::tensor::{FloatDType, Shape, bf16, f16};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::ir::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::tf32;

use super::settings::AttentionSettings;
use crate::ops::cube::tensors::{empty, empty_like, unit_per_element, zeros};
use layout::{Layout, N_SETS};
pub(crate) use sort::sorted_by_label;

const _: () = assert!(N_SETS as usize == crate::visibility::MAX_SETS);

pub(crate) fn self_attention(
    qkv: CubeTensor,
    angles: CubeTensor,
    labels: CubeTensor,
    settings: AttentionSettings,
) -> (CubeTensor, CubeTensor) {
    CubeAttention::of_self(qkv, angles, labels, settings).forward()
}

pub(crate) fn self_attention_backward(
    qkv: CubeTensor,
    angles: CubeTensor,
    labels: CubeTensor,
    output: [CubeTensor; 3],
    settings: AttentionSettings,
) -> CubeTensor {
    CubeAttention::of_self(qkv, angles, labels, settings).backward(output).0
}

pub(crate) fn cross_attention(
    inputs: [CubeTensor; 2],
    angles: [CubeTensor; 2],
    labels: [CubeTensor; 2],
    settings: AttentionSettings,
) -> (CubeTensor, CubeTensor) {
    CubeAttention::of_cross(inputs, angles, labels, settings).forward()
}

pub(crate) fn cross_attention_backward(
    inputs: [CubeTensor; 2],
    angles: [CubeTensor; 2],
    labels: [CubeTensor; 2],
    output: [CubeTensor; 3],
    settings: AttentionSettings,
) -> (CubeTensor, CubeTensor) {
    CubeAttention::of_cross(inputs, angles, labels, settings).backward(output)
}

/// What computes the matmuls: scalar units, or tensor cores with inputs of some dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatmulUnit {
    Scalar,
    F16,
    BF16,
    // Eight exponent bits and ten fraction bits. Burn's own float32 matmuls on tensor cores use it, too.
    TF32,
}

// Tensor cores for matmuls in that dtype, if the device has them and the heads fit.
fn matmul_unit(client: &Client, matmul_dtype: FloatDType, layout: &Layout) -> MatmulUnit {
    let (unit, kind, k) = match matmul_dtype {
        FloatDType::F16 => (MatmulUnit::F16, FloatKind::F16, 16),
        FloatDType::BF16 => (MatmulUnit::BF16, FloatKind::BF16, 16),
        _ => (MatmulUnit::TF32, FloatKind::TF32, 8),
    };
    let number = ElemType::Float(kind);
    let matrix = MmaConfig { a_type: number, b_type: number, cd_type: ElemType::Float(FloatKind::F32), m: 16, n: 8, k };
    let fits = layout.head_width.is_multiple_of(2 * k as usize) && layout.head_width <= tensor_cores::MAX_HEAD_WIDTH;
    if fits && client.features().matmul.mma.contains(&matrix) { unit } else { MatmulUnit::Scalar }
}

// Launches a kernel of `scalar` or the kernel of that name of `tensor_cores`.
macro_rules! launch {
    ($unit:expr, $layout:expr, $kernel:ident($($argument:expr),* $(,)?)) => {
        match $unit {
            MatmulUnit::Scalar => {
                scalar::$kernel::launch($($argument,)* $layout, scalar::streamed_tokens($layout.head_width));
            }
            MatmulUnit::F16 => tensor_cores::$kernel::launch::<f16>($($argument,)* $layout, 2),
            MatmulUnit::BF16 => tensor_cores::$kernel::launch::<bf16>($($argument,)* $layout, 2),
            MatmulUnit::TF32 => tensor_cores::$kernel::launch::<tf32>($($argument,)* $layout, 1),
        }
    };
}

/// The inputs of the attention kernels.
struct CubeAttention {
    queries: CubeTensor,
    // Keys and values, if they are not in the queries' tensor.
    keys: Option<CubeTensor>,
    angles: [CubeTensor; 2],
    sorted: [CubeTensor; 2],
    layout: Layout,
    unit: MatmulUnit,
    n_rows: usize,
    n_heads: usize,
    n_queries: usize,
    n_keys: usize,
}

impl CubeAttention {
    fn of_self(qkv: CubeTensor, angles: CubeTensor, sorted: CubeTensor, settings: AttentionSettings) -> Self {
        let [n_rows, n_tokens, row] = qkv.shape().dims();
        let (qkv, width) = (into_contiguous(qkv), row / 3);
        let [angles, sorted] = [angles, sorted].map(into_contiguous);
        let shared = angles.shape()[0] == 1;
        let layout = Layout {
            head_width: width / settings.n_heads,
            rows: [row; 3],
            firsts: [0, width, 2 * width],
            causal: settings.causal,
            shared_angles: [shared; 2],
            labelled: settings.labelled,
            ordered: settings.ordered,
        };
        Self {
            unit: matmul_unit(&qkv.client, settings.matmul_dtype, &layout),
            queries: qkv,
            keys: None,
            angles: [angles.clone(), angles],
            sorted: [sorted.clone(), sorted],
            layout,
            n_rows,
            n_heads: settings.n_heads,
            n_queries: n_tokens,
            n_keys: n_tokens,
        }
    }

    fn of_cross(
        [q, kv]: [CubeTensor; 2],
        angles: [CubeTensor; 2],
        sorted: [CubeTensor; 2],
        settings: AttentionSettings,
    ) -> Self {
        let ([n_rows, n_queries, width], [_, n_keys, row]) = (q.shape().dims(), kv.shape().dims());
        let [angles, sorted] = [angles, sorted].map(|pair| pair.map(into_contiguous));
        let layout = Layout {
            head_width: width / settings.n_heads,
            rows: [width, row, row],
            firsts: [0, 0, width],
            causal: false,
            shared_angles: angles.each_ref().map(|table| table.shape()[0] == 1),
            labelled: settings.labelled,
            ordered: settings.ordered,
        };
        Self {
            unit: matmul_unit(&q.client, settings.matmul_dtype, &layout),
            queries: into_contiguous(q),
            keys: Some(into_contiguous(kv)),
            angles,
            sorted,
            layout,
            n_rows,
            n_heads: settings.n_heads,
            n_queries,
            n_keys,
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.layout.head_width as f32).sqrt()
    }

    // The launch for a resident side of `n` tokens.
    fn grid(&self, n: usize) -> (CubeCount, CubeDim) {
        let (tile, dim) = match self.unit {
            MatmulUnit::Scalar => (scalar::TILE, scalar::TILE),
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
            self.unit,
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

    // Gradients of the queries' tensor and of the keys' tensor, which may be the same.
    fn backward(self, [out, lse, grad]: [CubeTensor; 3]) -> (CubeTensor, CubeTensor) {
        let keys = self.keys.as_ref().unwrap_or(&self.queries);
        if self.is_empty() {
            return (zeros(&self.queries, self.queries.shape()), zeros(keys, keys.shape()));
        }
        let q_grads = empty_like(&self.queries);
        let k_grads = self.keys.as_ref().map_or_else(|| q_grads.clone(), empty_like);
        let [out, lse, grad] = [out, lse, grad].map(into_contiguous);
        let scale = self.scale();
        let [n_queries, n_keys] = [self.n_queries, self.n_keys].map(|n| n as u32);
        let client = self.queries.client.clone();

        let statistics = empty(&lse, Shape::new([2, self.n_rows, self.n_heads, self.n_queries]));
        let (count, dim) = unit_per_element(&lse).expect("not empty");
        let tensors = [out, lse, grad.clone(), statistics.clone()];
        let [out, lse, upstream, to] = tensors.map(CubeTensor::into_buffer_arg);
        let (n_heads, d) = (self.n_heads as u32, self.layout.head_width);
        scalar::statistics::launch(&client, count, dim, out, lse, upstream, to, n_queries, n_heads, d);

        let arguments = |to: CubeTensor| {
            let ([q_angles, k_angles], [q_sorted, k_sorted]) = (self.angles.clone(), self.sorted.clone());
            let (queries, keys) = (self.queries.clone(), keys.clone());
            [queries, keys, q_angles, k_angles, q_sorted, k_sorted, statistics.clone(), grad.clone(), to]
                .map(CubeTensor::into_buffer_arg)
        };
        let (count, dim) = self.grid(self.n_queries);
        let [q, kv, q_angles, k_angles, q_sorted, k_sorted, statistics_, upstream, to] = arguments(q_grads.clone());
        launch!(
            self.unit,
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
        let [q, kv, q_angles, k_angles, q_sorted, k_sorted, statistics_, upstream, to] = arguments(k_grads.clone());
        launch!(
            self.unit,
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
        (q_grads, k_grads)
    }
}
