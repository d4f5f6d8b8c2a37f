//! Shared parts of the GPU implementations. Kernels are written once for CUDA, Vulkan, Metal and WebGPU.
//!
//! Everything is float32. Matmuls and sums over rows are the backend's own, which it autotunes.

pub(crate) mod reduce;
pub(crate) mod tensors;
