//! What the GPU implementations share. Kernels are written once for CUDA, Vulkan, Metal and WebGPU.
//!
//! Everything is float32. Matrix products and sums over rows are the backend's, which tunes them.

pub(crate) mod reduce;
pub(crate) mod tensors;
