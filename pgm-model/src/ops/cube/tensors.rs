//! Tensors and launch sizes on a GPU.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, FloatDType, Shape, Slice};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;
use cubecl::zspace::{Strides, metadata::Metadata};

use super::reduce::UNITS;

/// Cubes in one dimension of a grid, which every device allows.
const CUBES: usize = 65_535;

/// Rows `start..end`.
pub(crate) fn slice_rows(x: CubeTensor, [start, end]: [usize; 2]) -> CubeTensor {
    CubeBackend::float_slice(x, &[Slice::from(start..end)])
}

/// A tensor in the type of a weight, which may be half precision.
pub(crate) fn in_type_of(x: CubeTensor, weight: &CubeTensor) -> CubeTensor {
    if x.dtype() == weight.dtype() { x } else { CubeBackend::float_cast(x, weight.dtype().into()) }
}

/// A tensor in float32.
pub(crate) fn in_float32(x: CubeTensor) -> CubeTensor {
    if x.dtype() == DType::F32 { x } else { CubeBackend::float_cast(x, FloatDType::F32) }
}

/// The sum of all elements of some vectors, `[1]`.
pub(crate) fn sum(vectors: Vec<CubeTensor>) -> CubeTensor {
    CubeBackend::float_sum(CubeBackend::float_cat(vectors, 0))
}

/// Sums x over all dimensions but the last. The result has the shape `vectors`. If that holds n vectors, x is split into n
/// equal blocks of consecutive rows, and each block is summed by itself.
pub(crate) fn sum_over_rows(x: CubeTensor, vectors: Shape) -> CubeTensor {
    let width = x.shape()[x.shape().num_dims() - 1];
    let n_sets = vectors.num_elements() / width.max(1);
    let shape = match n_sets {
        1 => Shape::new([n_rows(&x), width]),
        _ => Shape::new([n_sets, n_rows(&x) / n_sets.max(1), width]),
    };
    let dim = shape.num_dims() - 2;
    CubeBackend::float_reshape(CubeBackend::float_sum_dim(CubeBackend::float_reshape(x, shape), dim), vectors)
}

/// The width of a row of x, and how many consecutive rows share a vector.
pub(crate) fn widths(x: &CubeTensor, vectors: &CubeTensor) -> [usize; 2] {
    let width = x.shape()[x.shape().num_dims() - 1];
    let n_sets = vectors.shape().num_elements() / width.max(1);
    [width, (n_rows(x) / n_sets.max(1)).max(1)]
}

/// A tensor whose memory no other tensor shares.
pub(crate) fn mutable(x: CubeTensor) -> CubeTensor {
    if x.can_mut() { x } else { x.copy() }
}

/// A contiguous tensor whose memory no other tensor shares.
pub(crate) fn owned(x: CubeTensor) -> CubeTensor {
    into_contiguous(mutable(into_contiguous(x)))
}

/// All memory of a tensor as one vector, if its rows stand in order, with or without gaps behind them.
pub(crate) fn as_vector(x: &CubeTensor) -> Option<CubeTensor> {
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

/// The number of rows: the product of all dimensions but the last.
pub(crate) fn n_rows(x: &CubeTensor) -> usize {
    let shape = x.shape();
    shape.num_elements() / shape[shape.num_dims() - 1].max(1)
}

/// An uninitialised float32 tensor on the device of another.
pub(crate) fn empty(like: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, DType::F32)
}

pub(crate) fn zeros(like: &CubeTensor, shape: Shape) -> CubeTensor {
    CubeBackend::float_zeros(shape, &like.device, FloatDType::F32)
}

/// An uninitialised float32 tensor of the same shape.
pub(crate) fn empty_like(x: &CubeTensor) -> CubeTensor {
    empty(x, x.shape())
}

/// A launch of one cube for each row; nothing without rows.
pub(crate) fn cube_per_row(n: usize) -> Option<(CubeCount, CubeDim)> {
    let count = CubeCount::Static(n.min(CUBES) as u32, n.div_ceil(CUBES) as u32, 1);
    (n > 0).then(|| (count, CubeDim::new_1d(UNITS)))
}

/// A launch of one unit for each element; nothing without elements.
pub(crate) fn unit_per_element(x: &CubeTensor) -> Option<(CubeCount, CubeDim)> {
    let n = x.shape().num_elements();
    let dim = CubeDim::new_1d(UNITS);
    (n > 0).then(|| (calculate_cube_count_elemwise(&x.client, n, dim), dim))
}
