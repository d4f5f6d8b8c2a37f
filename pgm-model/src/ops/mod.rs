//! Fused operations: one pass over memory with a hand-written gradient, where Burn's own operations take several
//! passes.
//!
//! Each operation is a folder: `mod.rs` has the public function and the same formula composed of Burn's own operations,
//! `autodiff.rs` the gradient, `flex.rs` the loops for the CPU, `cube.rs` the kernels for GPUs. The fused form runs for
//! float32 on Flex and on GPUs. The loss also takes a half-precision weight, matmul on Flex also half-precision and
//! quantised ones. Every other type and backend uses the composed form, which is also what the tests compare with.
//! Callers do not need to know which one runs.
//!
//! `extension` is the table of all operations as a Burn backend extension; `flex`, `cube` and `autodiff` hold what the
//! implementations share.

// Without training nobody asks for a gradient.
#![cfg_attr(not(feature = "autodiff"), allow(dead_code, unused_imports))]

// B batch, S positions, H hidden, N rows, V vocabulary, h heads, d head width

mod attention;
#[cfg(all(feature = "fused", feature = "autodiff"))]
mod autodiff;
mod constants;
mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
pub(crate) mod device;
mod exponentials;
#[cfg(feature = "fused")]
mod extension;
#[cfg(feature = "flex")]
mod flex;
mod gated_sum;
mod gelu;
mod matmul;
mod norm;
mod optimizer;
#[cfg(all(test, feature = "flex"))]
mod testing;

pub use attention::{attend, cross_attention, self_attention, split_heads};
pub use cross_entropy::{linear_cross_entropy, token_cross_entropy, weighted_loss};
pub use device::is_flex;
pub(crate) use device::is_half;
pub use exponentials::exponentials;
pub use gated_sum::{gated_sum, gated_sum_per_row};
pub use gelu::bias_gelu;
pub(crate) use matmul::BLOCK;
pub use matmul::{linear, matmul, recomputed_linear};
pub use norm::{affine_rms_norm, layer_norm, layer_norm_per_row, recomputed_norm, recomputed_norm_per_row, rms_norm};
pub use optimizer::{AdamWStep, adamw, lerp, scale, sum_of_squares};
