//! Flex tensors as slices, and slices as Flex tensors.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};

/// Rows of each of `n_sets` sets of consecutive rows.
///
/// # Panics
/// When the rows cannot be divided so.
pub(crate) fn rows_of_set(n_rows: usize, n_sets: usize) -> usize {
    assert!(n_sets > 0 && n_rows.is_multiple_of(n_sets), "{n_rows} rows in {n_sets} sets of equal size");
    (n_rows / n_sets).max(1)
}

/// The elements of a contiguous float32 tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous float32")
}

/// The tensor with its elements side by side in their order. The memory may be larger than the tensor: the first tokens of a
/// longer tensor are not copied.
pub(crate) fn side_by_side(tensor: &FlexTensor) -> FlexTensor {
    if tensor.layout().is_contiguous() { tensor.clone() } else { tensor.to_contiguous() }
}

/// Integers of either width.
pub(crate) fn ints(tensor: &FlexTensor) -> Vec<i64> {
    let tensor = tensor.to_contiguous();
    match tensor.dtype() {
        DType::I32 => tensor.as_slice::<i32>().expect("contiguous").iter().map(|&value| value.into()).collect(),
        DType::I64 => tensor.as_slice::<i64>().expect("contiguous").to_vec(),
        other => panic!("indices in {other:?}"),
    }
}

/// A contiguous float32 tensor of these values.
pub(crate) fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// A contiguous tensor that spans its whole memory. Writing to it copies the memory only where another tensor shares it.
pub(crate) fn owned(tensor: FlexTensor) -> FlexTensor {
    let n = tensor.layout().shape().num_elements();
    if tensor.is_contiguous() && tensor.storage::<f32>().len() == n {
        return tensor;
    }
    let shape = shape(&tensor);
    self::tensor(values(&tensor.to_contiguous()).to_vec(), shape)
}

pub(crate) fn shape(tensor: &FlexTensor) -> Shape {
    tensor.layout().shape().clone()
}

/// The size of the last dimension, at least 1.
pub(crate) fn width(tensor: &FlexTensor) -> usize {
    tensor.layout().shape().last().copied().expect("at least one dimension").max(1)
}

/// The shape with another last dimension.
pub(crate) fn shape_with_width(tensor: &FlexTensor, width: usize) -> Shape {
    let mut shape = shape(tensor);
    let last = shape.num_dims() - 1;
    shape[last] = width;
    shape
}
