//! Shapes and types of outputs: Burn's kernel fusion asks for them before it runs an operation.

use burn::backend::fusion::custom::TensorSpec;
use burn::tensor::Shape;

pub(super) fn number(x: &TensorSpec) -> TensorSpec {
    TensorSpec::new(Shape::new([1]), x.dtype)
}

pub(super) fn sorted(labels: &TensorSpec) -> TensorSpec {
    let [n_rows, n_tokens] = labels.shape.dims();
    TensorSpec::new(Shape::new([n_rows, 2 * n_tokens]), burn::tensor::DType::I32)
}

pub(super) fn moments(x: &TensorSpec) -> TensorSpec {
    let width = x.shape.last().copied().unwrap_or(1).max(1);
    TensorSpec::new(Shape::new([x.shape.num_elements() / width, 2]), x.dtype)
}

/// Output and log-sum-exp of attention whose queries are one of `parts` vectors of each token.
pub(super) fn attention(queries: &TensorSpec, parts: usize, n_heads: usize) -> (TensorSpec, TensorSpec) {
    let [n_rows, n_queries, width] = queries.shape.dims();
    let shapes = [[n_rows, n_queries, width / parts], [n_rows, n_heads, n_queries]];
    shapes.map(|shape| TensorSpec::new(Shape::new(shape), queries.dtype)).into()
}
