//! Shared parts of the GPU implementations. Kernels are written once for CUDA, Vulkan, Metal and WebGPU.
//!
//! Elementwise arithmetic and sums are float32. Matmuls and sums over rows are the backend's own and autotuned, except in
//! attention, whose matmuls may run in half precision or tf32 on tensor cores.

pub(crate) mod reduce;
pub(crate) mod tensors;
