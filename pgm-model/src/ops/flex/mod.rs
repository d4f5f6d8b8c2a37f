//! Shared parts of the CPU implementations: tensors as slices, memory, vector loops and the matmuls.
//!
//! Everything is float32. Sums over rows (gradients of weights and biases) are computed over fixed chunks of rows and
//! added in order, so that the result does not depend on the number of threads.

#[cfg(target_arch = "x86_64")]
mod avx2;
pub(crate) mod few_rows;
pub(crate) mod gemm;
pub(crate) mod lanes;
pub(crate) mod math;
pub(crate) mod memory;
pub(crate) mod simd;
pub(crate) mod tensor;
